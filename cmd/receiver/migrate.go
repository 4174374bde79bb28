package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"upcall/internal/cli"
	"upcall/migrations"
)

type migrateCommand struct {
	Up     migrateUpCommand     `cmd:"" help:"Bring the schema up to date. Safe to run from several places at once."`
	Down   migrateDownCommand   `cmd:"" help:"Roll back migrations. This deletes their data."`
	Status migrateStatusCommand `cmd:"" help:"Show the version of the schema."`
}

type migrateUpCommand struct{ database }

type migrateDownCommand struct {
	database
	Steps int `required:"" help:"How many migrations to roll back."`
}

type migrateStatusCommand struct{ database }

func (cmd *migrateUpCommand) Run(ctx context.Context, env cli.Env, std cli.Stdio) error {
	return cmd.with(ctx, env, std, func(url string) error {
		if err := migrations.Up(ctx, url); err != nil {
			return err
		}
		return printStatus(ctx, std.Out, url)
	})
}

func (cmd *migrateDownCommand) Run(ctx context.Context, env cli.Env, std cli.Stdio) error {
	return cmd.with(ctx, env, std, func(url string) error {
		if err := migrations.Down(ctx, url, cmd.Steps); err != nil {
			return err
		}
		return printStatus(ctx, std.Out, url)
	})
}

func (cmd *migrateStatusCommand) Run(ctx context.Context, env cli.Env, std cli.Stdio) error {
	return cmd.with(ctx, env, std, func(url string) error { return printStatus(ctx, std.Out, url) })
}

// with runs work on the database.
func (d *database) with(ctx context.Context, env cli.Env, std cli.Stdio, work func(url string) error) error {
	url, err := d.required(env)
	if err != nil {
		return cli.Usage(err)
	}
	url, stop, err := d.open(ctx, url, slog.New(slog.NewTextHandler(std.Err, nil)))
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
