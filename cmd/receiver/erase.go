package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/google/uuid"

	"upcall/internal/cli"
	"upcall/internal/eventstore"
	"upcall/internal/fault"
	"upcall/migrations"
)

type eraseCommand struct {
	database
	Var    string `placeholder:"NAME=VALUE" help:"${erase_var}"`
	Upload string `placeholder:"ID" help:"What belongs to this upload."`
	Format string `enum:"text,json" default:"text" help:"text or json."`
}

// Help is shown below the summary of the command.
func (*eraseCommand) Help() string {
	return `Erases all variables and the uploader's address of the uploads that are meant, and what applications answered
to their hooks, while receivers serve. The uploads themselves stay, and count as before. Nothing is delivered again.
What waits in the spool of a running receiver is erased there within a minute; in the spool of a stopped one, when it starts.

It cannot be undone. If it is interrupted, run it again: it goes on. It does not reach backups, exports, subscribers of
a publication, logs, OSS itself, or what was delivered. See docs/analysts.md.`
}

// request returns what is to be erased.
func (cmd *eraseCommand) request() (eventstore.EraseRequest, error) {
	var request eventstore.EraseRequest
	if (cmd.Var == "") == (cmd.Upload == "") {
		return request, fault.At("--var, --upload", "give one of them, and not both")
	}
	if cmd.Upload != "" {
		id, err := uuid.Parse(cmd.Upload)
		if err != nil {
			return request, fault.At("--upload", "%q is not the ID of an upload", cmd.Upload)
		}
		request.Upload = uuid.NullUUID{UUID: id, Valid: true}
		return request, nil
	}
	name, value, ok := strings.Cut(cmd.Var, "=")
	if !ok || name == "" || value == "" {
		return request, fault.At("--var", "write NAME=VALUE")
	}
	if strings.HasPrefix(name, "x:") {
		return request, fault.At("--var", "name the variable without x:")
	}
	request.Variable, request.Value = name, value
	return request, nil
}

func (cmd *eraseCommand) Run(ctx context.Context, env cli.Env, std cli.Stdio) error {
	request, err := cmd.request()
	_, urlErr := cmd.required(env)
	if err := fault.Join(err, urlErr); err != nil {
		return cli.Usage(err)
	}
	return cmd.with(ctx, env, std, func(url string) error {
		if _, err := migrations.Status(ctx, url); err != nil { // has the clearest error for an unreachable database
			return err
		}
		pool, err := eventstore.Open(ctx, url)
		if err != nil {
			return err
		}
		defer pool.Close()
		reader, err := eventstore.OpenReader(ctx, url)
		if err != nil {
			return err
		}
		defer reader.Close()
		if err := migrations.Check(ctx, pool); err != nil {
			return err
		}
		eraser := eventstore.NewEraser(pool, reader, func(line string) { fmt.Fprintln(std.Err, "receiver: "+line) })
		erased, err := eraser.Erase(ctx, request)
		switch {
		case errors.Is(err, eventstore.ErrMistake):
			return err
		case err != nil:
			return fmt.Errorf("%w; run the same command again to go on", fault.OneLine(err))
		}
		for _, endpoint := range eraser.Filters {
			fmt.Fprintf(std.Err, "receiver: warning: the filter of the endpoint %s has this value; change it, or remove the endpoint\n",
				fault.Readable(endpoint))
		}
		if cmd.Format == "json" {
			return printJSON(std.Out, erased)
		}
		_, err = fmt.Fprintf(std.Out, "erased: %d events, %d objects, %d issued uploads, %d answers to hooks, "+
			"%d addresses of refused callbacks\n", erased.Events, erased.Objects, erased.Issued, erased.Attempts, erased.Refusals)
		return err
	})
}
