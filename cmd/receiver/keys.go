package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"upcall/internal/api"
	"upcall/internal/apikey"
	"upcall/internal/cli"
	"upcall/internal/eventstore"
	"upcall/internal/fault"
	"upcall/migrations"
)

type keysCommand struct {
	Add    keysAddCommand    `cmd:"" help:"Create a key and print it, once."`
	List   keysListCommand   `cmd:"" help:"List all keys, without their secrets."`
	Revoke keysRevokeCommand `cmd:"" help:"Revoke a key permanently."`
}

// withKeys runs work on the keys of the API.
func (d *database) withKeys(ctx context.Context, env cli.Env, std cli.Stdio, work func(*eventstore.APIKeys) error) error {
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
		return work(eventstore.NewRoleKeys(pool))
	})
}

type keysAddCommand struct {
	database
	Role string `placeholder:"ROLE" help:"${key_role}"`
	ID   string `name:"id" placeholder:"NAME" help:"${key_id}"`
}

// Help is shown below the summary of the command.
func (*keysAddCommand) Help() string {
	return `Only the key goes to standard output. It is stored as a hash, so it cannot be shown again.

A running receiver accepts the key within a second. Issuers do not: their keys have a policy.`
}

func (cmd *keysAddCommand) Run(ctx context.Context, env cli.Env, std cli.Stdio) error {
	if cmd.ID == "" {
		cmd.ID = apikey.NewID()
	}
	text, hash, err := apikey.New(cmd.ID)
	_, roleErr := api.ParseRole(cmd.Role)
	_, urlErr := cmd.required(env)
	if err := fault.Join(fault.In("--role", roleErr), fault.In("--id", err), urlErr); err != nil {
		return cli.Usage(err)
	}
	return cmd.withKeys(ctx, env, std, func(keys *eventstore.APIKeys) error {
		err := keys.Add(ctx, eventstore.APIKey{ID: cmd.ID, Hash: hash[:], Role: cmd.Role, CreatedAt: time.Now()})
		if errors.Is(err, eventstore.ErrExists) {
			return cli.Usage(fault.At("--id", "there is a key %q already, and an id cannot be reused; choose another", cmd.ID))
		}
		if err != nil {
			return err
		}
		fmt.Fprintf(std.Err, "receiver: created the key %s with the role %s; it is shown only once\n", cmd.ID, cmd.Role)
		if _, err := io.WriteString(std.Out, text+"\n"); err != nil {
			return fmt.Errorf("write key: %w", err)
		}
		return nil
	})
}

type keysListCommand struct {
	database
	Format string `enum:"text,json" default:"text" help:"text or json."`
}

func (cmd *keysListCommand) Run(ctx context.Context, env cli.Env, std cli.Stdio) error {
	return cmd.withKeys(ctx, env, std, func(keys *eventstore.APIKeys) error {
		all, err := keys.List(ctx)
		if err != nil {
			return err
		}
		type shown struct {
			ID        string     `json:"id"`
			Role      string     `json:"role"`
			CreatedAt time.Time  `json:"created_at"`
			RevokedAt *time.Time `json:"revoked_at"`
		}
		list := make([]shown, 0, len(all))
		for _, key := range all {
			s := shown{ID: key.ID, Role: key.Role, CreatedAt: key.CreatedAt.UTC()}
			if !key.RevokedAt.IsZero() {
				s.RevokedAt = new(key.RevokedAt.UTC())
			}
			list = append(list, s)
		}
		if cmd.Format == "json" {
			return printJSON(std.Out, list)
		}
		table := tabwriter.NewWriter(std.Out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "ID\tROLE\tCREATED\tREVOKED")
		for _, s := range list {
			revoked := "-"
			if s.RevokedAt != nil {
				revoked = s.RevokedAt.Format(time.RFC3339)
			}
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", s.ID, s.Role, s.CreatedAt.Format(time.RFC3339), revoked)
		}
		if err := table.Flush(); err != nil {
			return fmt.Errorf("write keys: %w", err)
		}
		return nil
	})
}

type keysRevokeCommand struct {
	database
	ID string `arg:"" name:"id" help:"The key's id: the part between the underscores."`
}

// Help is shown below the summary of the command.
func (*keysRevokeCommand) Help() string {
	return `A running receiver refuses the key within five seconds, and ends streams that were opened with it within 20.`
}

func (cmd *keysRevokeCommand) Run(ctx context.Context, env cli.Env, std cli.Stdio) error {
	// A user who pastes the whole key must not find it in an error or in a log.
	idErr := apikey.CheckID(cmd.ID)
	if id, _, err := apikey.Parse(cmd.ID); err == nil {
		idErr = fmt.Errorf("that is a whole key; give only its id, %s", id)
	}
	_, urlErr := cmd.required(env)
	if err := fault.Join(fault.In("ID", idErr), urlErr); err != nil {
		return cli.Usage(err)
	}
	return cmd.withKeys(ctx, env, std, func(keys *eventstore.APIKeys) error {
		err := keys.Revoke(ctx, cmd.ID)
		if errors.Is(err, eventstore.ErrNotFound) {
			return cli.Usage(fault.At("ID", "there is no key %q with a role; see receiver keys list", cmd.ID))
		}
		if err != nil {
			return err
		}
		fmt.Fprintf(std.Err, "receiver: revoked the key %s; running receivers refuse it within five seconds\n", cmd.ID)
		return nil
	})
}
