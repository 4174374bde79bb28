package main

import (
	"context"
	"errors"

	"upcall/internal/cli"
	"upcall/internal/eventstore"
	"upcall/internal/fault"
	"upcall/migrations"
)

// databaseFlags say where PostgreSQL is, for the commands that need it.
type databaseFlags struct {
	cli.DatabaseFlags `group:"database"`
}

// required returns the database's URL, or an error that says how to set it.
func (f *databaseFlags) required(env cli.Env) (string, error) {
	url, err := f.URL(env)
	switch {
	case err != nil:
		return "", err
	case url == "":
		return "", errors.New("no database: set UPCALL_DATABASE_URL to postgres://user:password@host/database")
	}
	return url, notEmbedded(url)
}

func notEmbedded(url string) error {
	if url == "embedded" {
		return fault.At("UPCALL_DATABASE_URL",
			"embedded is a PostgreSQL within the receiver; give both programs the URL of a separate server")
	}
	return nil
}

// withKeys runs work on the API keys in a database.
func withKeys(ctx context.Context, url string, work func(*eventstore.APIKeys) error) error {
	pool, err := eventstore.Open(ctx, url)
	if errors.Is(err, migrations.ErrURL) {
		return cli.Usage(fault.In("UPCALL_DATABASE_URL", err))
	}
	if err != nil {
		return err
	}
	defer pool.Close()
	if err := migrations.Check(ctx, pool); err != nil {
		return fault.OneLine(err)
	}
	if err := work(eventstore.NewAPIKeys(pool)); err != nil {
		return fault.OneLine(err)
	}
	return nil
}
