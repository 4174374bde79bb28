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

// A ledger is where a command writes down what it issues, in a database that may not have
// the schema.
type ledger struct {
	database migrations.Querier
	rows     *eventstore.Ledger
}

// openLedger returns the ledger in the database of UPCALL_DATABASE_URL, and nil where that
// is not set. DATABASE_URL does not count here, as it does for serve and keys: the commands
// that issue one upload work without a database, and a variable of that name may well be
// another program's. No connection is made yet. The function closes the ledger.
func openLedger(ctx context.Context, env cli.Env) (issue.Ledger, func(), error) {
	url, err := cli.Secret("", env, "UPCALL_DATABASE_URL")
	if err != nil || url == "" {
		return nil, func() {}, err
	}
	if err := standsAlone(url); err != nil {
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
		return fault.OneLine(fmt.Errorf("%w; nothing was handed out; unset UPCALL_DATABASE_URL to do without it", err))
	}
	return nil
}
