package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"upcall/migrations"
)

type migrateCmd struct {
	Up     migrateUpCmd     `cmd:"" help:"Bring the schema up to date. Safe when many run it at once."`
	Down   migrateDownCmd   `cmd:"" help:"Take migrations back, with the data in them."`
	Status migrateStatusCmd `cmd:"" help:"Show how far the schema is."`
}

type migrateUpCmd struct{ database }

type migrateDownCmd struct {
	database
	Steps int `required:"" help:"How many migrations to take back."`
}

type migrateStatusCmd struct{ database }

func (cmd *migrateUpCmd) Run(ctx context.Context, p *program) error {
	return cmd.with(ctx, p, func(url string) error {
		if err := migrations.Up(ctx, url); err != nil {
			return err
		}
		return printStatus(ctx, p.stdout, url)
	})
}

func (cmd *migrateDownCmd) Run(ctx context.Context, p *program) error {
	return cmd.with(ctx, p, func(url string) error {
		if err := migrations.Down(ctx, url, cmd.Steps); err != nil {
			return err
		}
		return printStatus(ctx, p.stdout, url)
	})
}

func (cmd *migrateStatusCmd) Run(ctx context.Context, p *program) error {
	return cmd.with(ctx, p, func(url string) error { return printStatus(ctx, p.stdout, url) })
}

// with runs work on the database.
func (d *database) with(ctx context.Context, p *program, work func(url string) error) error {
	url, err := d.url(p.env)
	if err != nil {
		return &usageError{err}
	}
	url, stop, err := d.open(ctx, url, slog.New(slog.NewTextHandler(p.stderr, nil)))
	if err != nil {
		return err
	}
	return errors.Join(work(url), stop())
}

func printStatus(ctx context.Context, out io.Writer, url string) error {
	status, err := migrations.Status(ctx, url)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "schema is at version %d of %d\n", status.Version, status.Latest)
	if status.Dirty {
		fmt.Fprintln(out, "the last migration was cut short: run receiver migrate up to see what to do")
	}
	for _, name := range status.Pending {
		fmt.Fprintln(out, "pending: "+name)
	}
	return nil
}
