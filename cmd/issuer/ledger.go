package main

import (
	"context"
	"fmt"

	"upcall/internal/cli"
	"upcall/internal/eventstore"
	"upcall/internal/fault"
	"upcall/internal/issue"
	"upcall/migrations"
)

// A ledger records what a command issues, in a database whose schema it checks first.
type ledger struct {
	database migrations.Querier
	rows     *eventstore.Ledger
}

// hasLedger reports whether there is a ledger, as far as the settings say.
func hasLedger(env cli.Env) bool {
	url, err := cli.Secret("", env, "UPCALL_DATABASE_URL")
	return url != "" || err != nil
}

// openLedger returns the ledger in the database of UPCALL_DATABASE_URL, or nil if that is
// not set. Unlike serve and keys, the commands that issue uploads work without a database,
// so they ignore DATABASE_URL, which may belong to another program. No connection is made
// yet. The function closes the ledger.
func openLedger(ctx context.Context, env cli.Env) (issue.Ledger, func(), error) {
	url, err := cli.Secret("", env, "UPCALL_DATABASE_URL")
	if err == nil {
		err = notEmbedded(url)
	}
	if err != nil || url == "" {
		return nil, func() {}, err
	}
	pool, err := eventstore.OpenRecorder(ctx, url)
	if err != nil {
		return nil, func() {}, fault.In("UPCALL_DATABASE_URL", err)
	}
	rows, err := eventstore.NewLedger(eventstore.Config{Pool: pool, Writers: 1})
	if err != nil {
		return nil, pool.Close, err
	}
	return ledger{pool, rows}, func() { rows.Close(); pool.Close() }, nil
}

// Issue writes one row.
func (l ledger) Issue(ctx context.Context, upload eventstore.IssuedUpload) error {
	err := migrations.Check(ctx, l.database)
	if err == nil {
		err = l.rows.Issue(ctx, upload)
	}
	if err != nil {
		return fault.OneLine(fmt.Errorf("%w; nothing was issued; unset UPCALL_DATABASE_URL to issue without a ledger", err))
	}
	return nil
}
