package issue

import (
	"context"
	"fmt"

	"upcall/internal/eventstore"
)

// A Ledger holds every upload that is handed out. eventstore.Ledger implements it; with an
// interface, a command can check the schema first, and a benchmark can do without a
// database.
type Ledger interface {
	// Issue returns when the row is committed. If it cannot tell whether that failed, it
	// returns an error: a row that was written nevertheless expires unused.
	Issue(ctx context.Context, upload eventstore.IssuedUpload) error
}

// enter writes an upload's row into the ledger, if there is one. An upload whose row is not
// committed must not be handed out.
func (i *Issuer) enter(ctx context.Context, row eventstore.IssuedUpload) error {
	if i.cfg.Ledger == nil {
		return nil
	}
	if err := i.cfg.Ledger.Issue(ctx, row); err != nil {
		return fmt.Errorf("write ledger: %w", err)
	}
	return nil
}
