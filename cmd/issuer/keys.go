package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"upcall/internal/apikey"
	"upcall/internal/callbackspec"
	"upcall/internal/cli"
	"upcall/internal/eventstore"
	"upcall/internal/fault"
	"upcall/internal/policy"
)

type keysCommand struct {
	Add    keysAddCommand    `cmd:"" help:"Create an API key and print it, once."`
	List   keysListCommand   `cmd:"" help:"List all API keys, without their secrets."`
	Revoke keysRevokeCommand `cmd:"" help:"Revoke an API key permanently."`
}

type keysAddCommand struct {
	Policy   string `placeholder:"NAME" setting:"UPCALL_POLICY" help:"Policy that defines what the key may request. Required."`
	ID       string `name:"id" placeholder:"ID" setting:"UPCALL_ID" help:"${key_id}"`
	Policies string `placeholder:"FILE" setting:"UPCALL_POLICIES" help:"${key_policies}"`
	databaseFlags
}

// Help is shown below the summary of the command.
func (*keysAddCommand) Help() string {
	return `Only the key goes to standard output. It is stored as a hash, so it cannot be shown again.

A running issuer accepts the key within a second.`
}

func (c *keysAddCommand) Run(ctx context.Context, env cli.Env, std cli.Stdio) error {
	if c.ID == "" {
		c.ID = apikey.NewID()
	}
	text, hash, err := apikey.New(c.ID)
	url, databaseErr := c.required(env)
	if err := fault.Join(c.checkPolicy(), fault.In("--id", err), databaseErr); err != nil {
		return cli.Usage(err)
	}
	err = withKeys(ctx, url, func(keys *eventstore.APIKeys) error {
		return keys.Add(ctx, eventstore.APIKey{ID: c.ID, Hash: hash[:], Policy: c.Policy, CreatedAt: time.Now()})
	})
	if errors.Is(err, eventstore.ErrExists) {
		return cli.Usage(fault.At("--id", "there is a key %q already, and an id cannot be reused; choose another", c.ID))
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(std.Err, "issuer: created the key %s with the policy %s; it is shown only once\n", c.ID, c.Policy)
	return write(std.Out, text+"\n")
}

func (c *keysAddCommand) checkPolicy() error {
	if err := policy.CheckName(c.Policy); err != nil || c.Policies == "" {
		return fault.In("--policy", err)
	}
	// Which hosts a callback URL may name does not matter here.
	set, err := readPolicies(c.Policies, callbackspec.AnyHost)
	if err != nil {
		return err
	}
	if set.Policy(c.Policy) == nil {
		return fault.At("--policy", "%q is not in %s, which has %s", c.Policy, c.Policies, strings.Join(set.Names(), ", "))
	}
	return nil
}

type keysListCommand struct {
	Format string `default:"text" placeholder:"text" setting:"UPCALL_FORMAT" help:"text or json."`
	databaseFlags
}

func (c *keysListCommand) Run(ctx context.Context, env cli.Env, std cli.Stdio) error {
	url, err := c.required(env)
	if err := fault.Join(oneOf("--format", c.Format, "text", "json"), err); err != nil {
		return cli.Usage(err)
	}
	return withKeys(ctx, url, func(keys *eventstore.APIKeys) error {
		all, err := keys.List(ctx)
		if err != nil {
			return err
		}
		if c.Format == "json" {
			return printKeysJSON(std.Out, all)
		}
		return printKeys(std.Out, all)
	})
}

func printKeys(w io.Writer, keys []eventstore.APIKey) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "ID\tPOLICY\tCREATED\tREVOKED")
	for _, key := range keys {
		revoked := "-"
		if !key.RevokedAt.IsZero() {
			revoked = key.RevokedAt.UTC().Format(time.RFC3339)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", key.ID, key.Policy, key.CreatedAt.UTC().Format(time.RFC3339), revoked)
	}
	if err := table.Flush(); err != nil {
		return fmt.Errorf("write keys: %w", err)
	}
	return nil
}

func printKeysJSON(w io.Writer, keys []eventstore.APIKey) error {
	type shown struct {
		ID        string     `json:"id"`
		Policy    string     `json:"policy"`
		CreatedAt time.Time  `json:"created_at"`
		RevokedAt *time.Time `json:"revoked_at"`
	}
	all := make([]shown, 0, len(keys))
	for _, key := range keys {
		s := shown{ID: key.ID, Policy: key.Policy, CreatedAt: key.CreatedAt.UTC()}
		if !key.RevokedAt.IsZero() {
			s.RevokedAt = new(key.RevokedAt.UTC())
		}
		all = append(all, s)
	}
	return printJSON(w, all)
}

type keysRevokeCommand struct {
	ID string `arg:"" name:"id" help:"The key's ID: the part between the underscores."`
	databaseFlags
}

// Help is shown below the summary of the command.
func (*keysRevokeCommand) Help() string {
	return `A running issuer refuses the key within five seconds. Uploads that were issued with it stay valid.`
}

func (c *keysRevokeCommand) Run(ctx context.Context, env cli.Env, std cli.Stdio) error {
	// A user who pastes the whole key must not find it in an error or in a log.
	idErr := apikey.CheckID(c.ID)
	if id, _, err := apikey.Parse(c.ID); err == nil {
		idErr = fmt.Errorf("that is a whole key; give only its id, %s", id)
	}
	url, err := c.required(env)
	if err := fault.Join(fault.In("ID", idErr), err); err != nil {
		return cli.Usage(err)
	}
	err = withKeys(ctx, url, func(keys *eventstore.APIKeys) error { return keys.Revoke(ctx, c.ID) })
	if errors.Is(err, eventstore.ErrNotFound) {
		return cli.Usage(fault.At("ID", "there is no key %q; see issuer keys list", c.ID))
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(std.Err, "issuer: revoked the key %s; running issuers refuse it within five seconds\n", c.ID)
	return nil
}
