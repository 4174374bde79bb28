package main

import (
	"context"
	"errors"

	"upcall/internal/cli"
	"upcall/internal/eventstore"
	"upcall/internal/fault"
	"upcall/migrations"
)

// databaseFlags say where PostgreSQL is, for the commands that cannot do without.
type databaseFlags struct {
	cli.DatabaseFlags `group:"database"`
}

// required returns the database's URL, or what to do where there is none.
func (f *databaseFlags) required(env cli.Env) (string, error) {
	url, err := f.URL(env)
	switch {
	case err != nil:
		return "", err
	case url == "":
		return "", errors.New("no database: set UPCALL_DATABASE_URL to postgres://user:password@host/database")
	}
	return url, standsAlone(url)
}

func standsAlone(url string) error {
	if url == "embedded" {
		return fault.At("UPCALL_DATABASE_URL",
			"embedded is a PostgreSQL within the receiver; give both programs the URL of one that stands alone")
	}
	return nil
}

// withKeys runs work on the stored API keys.
func (f *databaseFlags) withKeys(ctx context.Context, env cli.Env, work func(*eventstore.APIKeys) error) error {
	url, err := f.required(env)
	if err != nil {
		return cli.Usage(err)
	}
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
