package main

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"upcall/internal/cli"
	"upcall/internal/eventstore"
	"upcall/internal/issue"
	"upcall/internal/oss"
	"upcall/migrations"
)

// A ledger is where a command writes down what it issues, before it shows it to anyone.
type ledger struct {
	enter func(context.Context, eventstore.IssuedUpload) error
	close func()
}

// openLedger returns the ledger in the database of UPCALL_DATABASE_URL, and one that
// does nothing where that is not set. DATABASE_URL does not count: these commands work
// without a database, and it may well be another program's. No connection is made yet.
func openLedger(ctx context.Context, env cli.Env) (ledger, error) {
	none := ledger{func(context.Context, eventstore.IssuedUpload) error { return nil }, func() {}}
	url, err := cli.Secret("", env, "UPCALL_DATABASE_URL")
	if err != nil || url == "" {
		return none, err
	}
	if err := standsAlone(url); err != nil {
		return none, err
	}
	pool, err := eventstore.Open(ctx, url)
	if err != nil {
		return none, fmt.Errorf("UPCALL_DATABASE_URL: %w", err)
	}
	rows, err := eventstore.NewLedger(eventstore.Config{Pool: pool, Writers: 1})
	if err != nil {
		pool.Close()
		return none, err
	}
	enter := func(ctx context.Context, upload eventstore.IssuedUpload) error {
		err := migrations.Check(ctx, pool)
		if err == nil {
			err = rows.Issue(ctx, upload)
		}
		if err != nil {
			return lineError{fmt.Errorf("write the ledger: %w; nothing was handed out; unset UPCALL_DATABASE_URL to do without it", err)}
		}
		return nil
	}
	return ledger{enter, func() { rows.Close(); pool.Close() }}, nil
}

// issued is the ledger's row of an upload that was issued just now. size is nil where it
// is left open, ossUploadID "" where there is one PUT.
func issued(id uuid.UUID, object oss.Object, size *int64, callback *issue.Callback, expires time.Time, ossUploadID string) eventstore.IssuedUpload {
	row := eventstore.IssuedUpload{
		ID: id, IssuedAt: time.Now(), ExpiresAt: expires, Bucket: object.Bucket, Object: object.Key,
		ContentType: object.ContentType, Size: size, OSSUploadID: ossUploadID,
	}
	if callback != nil {
		row.Vars = callback.Vars
	}
	return row
}
