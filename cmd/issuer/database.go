package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"upcall/internal/eventstore"
	"upcall/internal/setting"
	"upcall/migrations"
)

// databaseFlags say where PostgreSQL is.
type databaseFlags struct {
	DatabaseURL string `group:"database" name:"database-url" placeholder:"URL" help:"PostgreSQL, as the receiver has it. Better in UPCALL_DATABASE_URL, DATABASE_URL or a file that UPCALL_DATABASE_URL_FILE names."`
}

// url returns the database's URL from flag, environment or file, or "".
func (f *databaseFlags) url(env environment) (string, error) {
	if f.DatabaseURL != "" {
		return f.DatabaseURL, nil
	}
	for _, name := range []string{"UPCALL_DATABASE_URL", "DATABASE_URL"} {
		if url, err := setting.Secret(env, name); err != nil || url != "" {
			return url, err
		}
	}
	return "", nil
}

// required is url for commands that cannot do without.
func (f *databaseFlags) required(env environment) (string, error) {
	url, err := f.url(env)
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
		return errors.New("UPCALL_DATABASE_URL: embedded is a PostgreSQL within the receiver; give both programs the URL of one that stands alone")
	}
	return nil
}

// withKeys runs work on the stored API keys.
func (f *databaseFlags) withKeys(ctx context.Context, env environment, work func(*eventstore.APIKeys) error) error {
	url, err := f.required(env)
	if err != nil {
		return usageError{err}
	}
	pool, err := eventstore.Open(ctx, url)
	if errors.Is(err, migrations.ErrURL) {
		return usageError{fmt.Errorf("UPCALL_DATABASE_URL: %w", err)}
	}
	if err != nil {
		return err
	}
	defer pool.Close()
	if err := migrations.Check(ctx, pool); err != nil {
		return lineError{err}
	}
	if err := work(eventstore.NewAPIKeys(pool)); err != nil {
		return lineError{err}
	}
	return nil
}

// A lineError is one line, where pgx says of each address why it cannot be reached.
type lineError struct{ error }

func (e lineError) Error() string { return strings.Join(strings.Fields(e.error.Error()), " ") }
func (e lineError) Unwrap() error { return e.error }
