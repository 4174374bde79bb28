package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"upcall/internal/cli"
	"upcall/internal/eventstore"
	"upcall/internal/fault"
	"upcall/migrations"
)

type analystCommand struct {
	Add    analystAddCommand    `cmd:"" help:"Create a database role that reads the views, and print its password, once."`
	List   analystListCommand   `cmd:"" help:"List the roles of analysts."`
	Remove analystRemoveCommand `cmd:"" help:"Drop a role that add created, and end its sessions."`
}

// withAnalysts runs work on the roles of analysts.
func (d *database) withAnalysts(ctx context.Context, env cli.Env, std cli.Stdio, work func(*eventstore.Analysts) error) error {
	return d.with(ctx, env, std, func(url string) error {
		if _, err := migrations.Status(ctx, url); err != nil { // has the clearest error for an unreachable database
			return err
		}
		pool, err := eventstore.Open(ctx, url)
		if err != nil {
			return err
		}
		defer pool.Close()
		if err := migrations.Check(ctx, pool); err != nil {
			return err
		}
		return work(eventstore.NewAnalysts(pool))
	})
}

type analystAddCommand struct {
	database
	Name string `arg:"" help:"${analyst_name}"`
}

// Help is shown below the summary of the command.
func (*analystAddCommand) Help() string {
	return `Only the password goes to standard output. PostgreSQL stores a hash, so it cannot be shown again.

The role reads the views of the schema upcall and nothing else. Its sessions begin read-only, with a limit of
60 seconds for each statement. Roles belong to the cluster: the same one may read other databases of Upcall.
Run this with a superuser, or with a role that may create roles and made upcall_analyst. See docs/analysts.md.`
}

func (cmd *analystAddCommand) Run(ctx context.Context, env cli.Env, std cli.Stdio) error {
	_, urlErr := cmd.required(env)
	if err := fault.Join(fault.In("NAME", eventstore.CheckAnalystName(cmd.Name)), urlErr); err != nil {
		return cli.Usage(err)
	}
	return cmd.withAnalysts(ctx, env, std, func(analysts *eventstore.Analysts) error {
		password, err := analysts.Add(ctx, cmd.Name)
		if errors.Is(err, eventstore.ErrExists) {
			return cli.Usage(fault.New(eventstore.ErrExists, "NAME", "choose another", "there is a database role %q already", cmd.Name))
		}
		if err != nil {
			return fault.OneLine(err)
		}
		fmt.Fprintf(std.Err, "receiver: created the database role %s; its password is shown only once\n", cmd.Name)
		if _, err := io.WriteString(std.Out, password+"\n"); err != nil {
			return fmt.Errorf("write password: %w", err)
		}
		return nil
	})
}

type analystListCommand struct {
	database
	Format string `enum:"text,json" default:"text" help:"text or json."`
}

func (cmd *analystListCommand) Run(ctx context.Context, env cli.Env, std cli.Stdio) error {
	return cmd.withAnalysts(ctx, env, std, func(analysts *eventstore.Analysts) error {
		all, err := analysts.List(ctx)
		if err != nil {
			return fault.OneLine(err)
		}
		if cmd.Format == "json" {
			if all == nil {
				all = []eventstore.Analyst{}
			}
			return printJSON(std.Out, all)
		}
		table := tabwriter.NewWriter(std.Out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "NAME\tLOGIN\tMADE BY ADD\tSESSIONS\tSETTINGS")
		yes := map[bool]string{true: "yes", false: "no"}
		for _, a := range all {
			fmt.Fprintf(table, "%s\t%s\t%s\t%d\t%s\n", fault.Readable(a.Name), yes[a.Login], yes[a.Made], a.Sessions,
				fault.Readable(strings.Join(a.Settings, "; ")))
		}
		if err := table.Flush(); err != nil {
			return fmt.Errorf("write analysts: %w", err)
		}
		return nil
	})
}

type analystRemoveCommand struct {
	database
	Name string `arg:"" help:"Name of the role."`
}

func (cmd *analystRemoveCommand) Run(ctx context.Context, env cli.Env, std cli.Stdio) error {
	if _, err := cmd.required(env); err != nil {
		return cli.Usage(err)
	}
	return cmd.withAnalysts(ctx, env, std, func(analysts *eventstore.Analysts) error {
		sessions, err := analysts.Remove(ctx, cmd.Name)
		switch {
		case errors.Is(err, eventstore.ErrNotFound):
			return cli.Usage(fault.New(eventstore.ErrNotFound, "NAME", "see receiver analyst list", "there is no analyst %q", cmd.Name))
		case errors.Is(err, eventstore.ErrNotOurs):
			return cli.Usage(fault.New(eventstore.ErrNotOurs, "NAME", "run REVOKE "+migrations.AnalystRole+" FROM the role, or drop it",
				"%s: %q", eventstore.ErrNotOurs, cmd.Name))
		case errors.Is(err, eventstore.ErrInUse):
			return fault.New(eventstore.ErrInUse, "", "give that to another role, or drop it, and run this again",
				"%q cannot log in any more, but is not dropped: %s", cmd.Name, fault.Line(err.Error()))
		case err != nil:
			return fault.OneLine(err)
		}
		fmt.Fprintf(std.Err, "receiver: dropped the database role %s\n", cmd.Name)
		if sessions > 0 {
			fmt.Fprintf(std.Err, "receiver: warning: %d of its sessions could not be ended; they can read nothing more: "+
				"grant pg_signal_backend to this database role\n", sessions)
		}
		return nil
	})
}
