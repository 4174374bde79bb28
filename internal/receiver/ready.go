package receiver

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"upcall/internal/eventstore"
	"upcall/internal/fault"
	"upcall/internal/recorder"
	"upcall/migrations"
)

// ready returns an error if neither PostgreSQL nor the fallback can take callbacks, or PostgreSQL
// will not from the next month on.
func ready(ctx context.Context, store *recorder.Failover, months *eventstore.Janitor, queue fallback,
	name recorder.Durable) (string, error) {
	err := migrations.Check(ctx, months.Pool)
	if isSchemaError(err) {
		return "", err
	}
	if err == nil {
		err = store.Check(ctx)
	}
	var ahead int
	if err == nil {
		ahead, err = months.MonthsAhead(ctx)
	}
	if err == nil && ahead < 1 { // the janitor does it once an hour
		if err = months.MakePartitions(ctx); err == nil {
			ahead, err = months.MonthsAhead(ctx)
		}
	}
	switch {
	case err == nil:
		return fmt.Sprintf("partitions: %d months ahead", ahead), nil
	case queue == nil:
		return "", err
	}
	if full := queue.Ready(); full != nil {
		return "", fmt.Errorf("%w; %w", err, full)
	}
	return string(name) + " only: " + fault.Line(err.Error()), nil
}

// checkDatabase returns what keeps this database from working with this role, as a mistake
// if waiting does not help. It makes the partitions before the first callback comes, which
// would have to wait for its own.
func checkDatabase(ctx context.Context, janitor *eventstore.Janitor) error {
	ctx, cancel := context.WithTimeout(ctx, schemaTimeout)
	defer cancel()
	err := eventstore.ReceiverRights().Check(ctx, janitor.Pool)
	if err == nil {
		err = migrations.Check(ctx, janitor.Pool)
	}
	if err == nil {
		err = janitor.MakePartitions(ctx)
		if ahead, unknown := janitor.MonthsAhead(ctx); errors.Is(err, eventstore.ErrMistake) && unknown == nil && ahead >= 0 {
			return nil // the janitor tries the other months again, and says why it could not
		}
	}
	return cmp.Or(eventstore.Mistake(err), err)
}

func isMistake(err error) bool { return isSchemaError(err) || errors.Is(err, eventstore.ErrMistake) }

func isSchemaError(err error) bool {
	return errors.Is(err, migrations.ErrTooOld) || errors.Is(err, migrations.ErrDirty)
}
