package main

import (
	"context"
	"fmt"

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
	Steps int  `required:"" help:"How many migrations to roll back."`
	Yes   bool `help:"Do not ask."`
}

type migrateStatusCommand struct{ database }

func (cmd *migrateUpCommand) Run(ctx context.Context, env cli.Env, std cli.Stdio) error {
	return cmd.migrate(ctx, env, std, func(url string) error {
		return migrations.UpReporting(ctx, url, func(line string) { fmt.Fprintln(std.Err, line) })
	})
}

func (cmd *migrateDownCommand) Run(ctx context.Context, env cli.Env, std cli.Stdio) error {
	ask := func(question string) error { return cli.Confirm(std, question, "--yes") }
	if cmd.Yes {
		ask = func(string) error { return nil }
	}
	return cmd.migrate(ctx, env, std, func(url string) error {
		status, err := migrations.Status(ctx, url)
		if err != nil {
			return err
		}
		question := fmt.Sprintf("Roll back %d of the %d migrations of this database, and delete the data in them?", cmd.Steps, status.Version)
		if err := ask(question); err != nil {
			return err
		}
		return migrations.Down(ctx, url, cmd.Steps)
	})
}

func (cmd *migrateStatusCommand) Run(ctx context.Context, env cli.Env, std cli.Stdio) error {
	return cmd.migrate(ctx, env, std, func(string) error { return nil })
}

// migrate changes the schema and prints its status.
func (d *database) migrate(ctx context.Context, env cli.Env, std cli.Stdio, change func(url string) error) error {
	return d.with(ctx, env, std, func(url string) error {
		if err := change(url); err != nil {
			return err
		}
		status, err := migrations.Status(ctx, url)
		if err != nil {
			return err
		}
		fmt.Fprintf(std.Out, "schema is at version %d of %d\n", status.Version, status.Latest)
		if status.Dirty {
			fmt.Fprintln(std.Out, "the last migration was interrupted: run receiver migrate up to see what to do")
		}
		for _, name := range status.Pending {
			fmt.Fprintln(std.Out, "pending: "+name)
		}
		return nil
	})
}
