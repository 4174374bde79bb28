package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"upcall/internal/cli"
	"upcall/internal/eventstore"
	"upcall/internal/fault"
	"upcall/internal/feed"
	"upcall/internal/hooks"
	"upcall/internal/receiver"
	"upcall/migrations"
)

type hooksCommand struct {
	Add       hooksAddCommand       `cmd:"" help:"Have an application told of uploads, and print its secret, once."`
	List      hooksListCommand      `cmd:"" help:"List all endpoints."`
	Show      hooksShowCommand      `cmd:"" help:"Show an endpoint, and its latest attempts."`
	Update    hooksUpdateCommand    `cmd:"" help:"Change the settings of an endpoint."`
	Test      hooksTestCommand      `cmd:"" help:"Send a sample and show the answer."`
	Pause     hooksPauseCommand     `cmd:"" help:"Stop deliveries until the endpoint is resumed."`
	Resume    hooksResumeCommand    `cmd:"" help:"Go on with all that has waited, also after the endpoint was disabled."`
	Rotate    hooksRotateCommand    `cmd:"" help:"Replace the secret and print the new one, once."`
	Remove    hooksRemoveCommand    `cmd:"" help:"Remove an endpoint with all that has waited for it."`
	Failed    hooksFailedCommand    `cmd:"" help:"List dead letters."`
	Redeliver hooksRedeliverCommand `cmd:"" help:"Send messages again: by default all dead letters."`
	Listen    hooksListenCommand    `cmd:"" help:"Receive deliveries, verify them, and print a line for each."`
}

// hookRules are the flags that say where deliveries may go, for serve and for what checks or
// calls a URL.
type hookRules struct {
	HooksAllowHTTP  bool     `name:"hooks-allow-http" setting:"UPCALL_HOOKS_ALLOW_HTTP" help:"${hooks_allow_http}"`
	HooksAllowCIDRs []string `name:"hooks-allow-cidrs" setting:"UPCALL_HOOKS_ALLOW_CIDRS" placeholder:"NETWORK" help:"${hooks_allow_cidrs}"`
}

func (f *hookRules) rules() (hooks.Rules, error) {
	networks, err := hooks.ParseCIDRs(f.HooksAllowCIDRs)
	return hooks.Rules{AllowHTTP: f.HooksAllowHTTP, AllowedCIDRs: networks}, fault.In("UPCALL_HOOKS_ALLOW_CIDRS", err)
}

// hookServeFlags are those of serve.
type hookServeFlags struct {
	hookRules
	HooksFile     string `name:"hooks-file" setting:"UPCALL_HOOKS_FILE" placeholder:"FILE" help:"${hooks_file}"`
	HooksSchedule string `name:"hooks-schedule" setting:"UPCALL_HOOKS_SCHEDULE" placeholder:"PAUSES" help:"${hooks_schedule}"`
}

func (f *hookServeFlags) config() (cfg receiver.HooksConfig, err error) {
	rules, rulesErr := f.rules()
	schedule, err := hooks.ParseSchedule(f.HooksSchedule)
	var fileErr error
	if f.HooksFile != "" && rulesErr == nil {
		var data []byte
		if data, fileErr = os.ReadFile(f.HooksFile); fileErr == nil {
			cfg.Declared, fileErr = hooks.ParseFile(data, rules, cli.ReadSecret)
		}
	}
	cfg.Rules, cfg.Schedule = rules, schedule
	return cfg, fault.Join(rulesErr, fault.In("UPCALL_HOOKS_SCHEDULE", err), fault.In("UPCALL_HOOKS_FILE", fileErr))
}

// reload reads the hooks file again. A file with a mistake changes nothing.
func (f *hookServeFlags) reload(ctx context.Context, logger *slog.Logger, redeclare chan<- []hooks.Declared) {
	cfg, err := f.config()
	switch {
	case f.HooksFile == "":
		logger.InfoContext(ctx, "nothing to reload: there is no hooks file")
	case err != nil:
		logger.WarnContext(ctx, "hooks file was not reloaded", slog.String("error", fault.Line(err.Error())))
	default:
		select {
		case redeclare <- cfg.Declared:
		case <-ctx.Done():
		}
	}
}

// hookFlags are those of every command about endpoints.
type hookFlags struct {
	database
	hookRules
	Format string `enum:"text,json" default:"text" help:"text or json."`
}

// with runs work on the endpoints.
func (f *hookFlags) with(ctx context.Context, env cli.Env, std cli.Stdio, work func(*hooks.Endpoints) error) error {
	rules, rulesErr := f.rules()
	_, urlErr := f.required(env)
	if err := fault.Join(rulesErr, urlErr); err != nil {
		return cli.Usage(err)
	}
	return f.database.with(ctx, env, std, func(url string) error {
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
		reader, err := eventstore.OpenFeed(ctx, url)
		if err != nil {
			return err
		}
		defer reader.Close()
		logger := slog.New(slog.NewTextHandler(std.Err, &slog.HandlerOptions{Level: slog.LevelWarn}))
		log, err := feed.New(feed.Config{Pool: reader, Logger: logger})
		if err != nil {
			return err
		}
		endpoints, err := hooks.NewEndpoints(hooks.Config{Pool: pool, Log: log, Rules: rules, Logger: logger})
		if err != nil {
			return err
		}
		return mistaken(work(endpoints))
	})
}

// flagOf are the flags of the members that mistakes name.
var flagOf = map[string]string{
	"name": "--name", "url": "--url", "on": "--on", "buckets": "--bucket", "key_prefixes": "--key-prefix", "key_globs": "--key-glob",
	"mime_types": "--mime-type", "vars": "--var", "max_in_flight": "--max-in-flight", "headers": "--header", "from": "--from",
	"secret": "--secret-file", "endpoint": "ID", "event": "--event", "since": "--since", "until": "--until", "keep": "--keep",
	"limit": "--limit",
}

// mistaken makes what a user can fix a usage error that names flags.
func mistaken(err error) error {
	var mistakes fault.List
	for _, m := range fault.Of(err) {
		if flag := flagOf[m.Field]; flag != "" {
			m.Field = flag
			mistakes = append(mistakes, m)
		}
	}
	if len(mistakes) == 0 || errors.Is(err, hooks.ErrUnconfirmed) {
		if err != nil {
			return fault.OneLine(err)
		}
		return nil
	}
	return cli.Usage(mistakes.Err())
}

type hooksListCommand struct{ hookFlags }

func (cmd *hooksListCommand) Run(ctx context.Context, env cli.Env, std cli.Stdio) error {
	return cmd.with(ctx, env, std, func(endpoints *hooks.Endpoints) error {
		all, err := endpoints.List(ctx)
		if err != nil {
			return err
		}
		if cmd.Format == "json" {
			return printJSON(std.Out, all)
		}
		table := tabwriter.NewWriter(std.Out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "NAME\tSTATE\tWAITING\tDEAD\tID\tURL")
		for _, e := range all {
			fmt.Fprintf(table, "%s\t%s\t%d\t%d\t%s\t%s\n", e.Name, e.State, e.Waiting, e.DeadLetters, e.ID, e.URL)
		}
		return table.Flush()
	})
}

type hooksShowCommand struct {
	hookFlags
	Endpoint string `arg:"" name:"ID|NAME" help:"Id or name of the endpoint."`
	Limit    int    `default:"20" placeholder:"N" help:"Show at most this many attempts."`
}

func (cmd *hooksShowCommand) Run(ctx context.Context, env cli.Env, std cli.Stdio) error {
	return cmd.with(ctx, env, std, func(endpoints *hooks.Endpoints) error {
		e, err := endpoints.Get(ctx, cmd.Endpoint)
		if err != nil {
			return err
		}
		attempts, err := endpoints.Attempts(ctx, e.ID.String(), time.Time{}, cmd.Limit)
		if err != nil {
			return err
		}
		if cmd.Format == "json" {
			return printJSON(std.Out, struct {
				Endpoint hooks.Endpoint  `json:"endpoint"`
				Attempts []hooks.Attempt `json:"attempts"`
			}{e, attempts})
		}
		if err := printEndpoint(std.Out, e); err != nil {
			return err
		}
		return printAttempts(std.Out, attempts)
	})
}

// printEndpoint prints its JSON, a member a line.
func printEndpoint(out io.Writer, e hooks.Endpoint) error {
	text, err := json.MarshalIndent(e, "", "  ")
	if err != nil {
		return fmt.Errorf("print: %w", err)
	}
	_, err = fmt.Fprintf(out, "%s\n", text)
	return err
}

func printAttempts(out io.Writer, attempts []hooks.Attempt) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "AT\tEVENT\tREASON\tATTEMPT\tSTATUS\tMS\tPROBLEM")
	for _, a := range attempts {
		status, problem := "-", ""
		if a.Status != nil {
			status = fmt.Sprint(*a.Status)
		}
		if a.Problem != nil {
			problem = *a.Problem
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%d\t%s\t%.1f\t%s\n", a.At.Format(time.RFC3339), a.EventID, a.Reason, a.Number, status, a.TookMS, problem)
	}
	return table.Flush()
}

type hooksTestCommand struct {
	hookFlags
	Endpoint string `arg:"" name:"ID|NAME" help:"Id or name of the endpoint."`
}

// Help is shown below the summary of the command.
func (*hooksTestCommand) Help() string {
	return `The sample has the type upcall.test.v1, and what the filter asks for. It is sent by this command, from here,
also while the endpoint is paused. The command fails if the answer is no success.`
}

func (cmd *hooksTestCommand) Run(ctx context.Context, env cli.Env, std cli.Stdio) error {
	return cmd.with(ctx, env, std, func(endpoints *hooks.Endpoints) error {
		a, err := endpoints.Test(ctx, cmd.Endpoint)
		if err != nil {
			return err
		}
		if cmd.Format == "json" {
			err = printJSON(std.Out, a)
		} else if a.Status != nil {
			_, err = fmt.Fprintf(std.Out, "%d after %.1f ms: %s\n", *a.Status, a.TookMS, fault.Line(a.Answer))
		}
		if err == nil && !a.Delivered {
			err = fmt.Errorf("not delivered: %s", *a.Problem)
		}
		return err
	})
}

type hooksPauseCommand struct {
	hookFlags
	Endpoint string `arg:"" name:"ID|NAME" help:"Id or name of the endpoint."`
}

func (cmd *hooksPauseCommand) Run(ctx context.Context, env cli.Env, std cli.Stdio) error {
	return cmd.with(ctx, env, std, func(endpoints *hooks.Endpoints) error {
		e, err := endpoints.Pause(ctx, cmd.Endpoint)
		return cmd.done(std, e, "is "+string(e.State), err)
	})
}

type hooksResumeCommand struct {
	hookFlags
	Endpoint string `arg:"" name:"ID|NAME" help:"Id or name of the endpoint."`
}

func (cmd *hooksResumeCommand) Run(ctx context.Context, env cli.Env, std cli.Stdio) error {
	return cmd.with(ctx, env, std, func(endpoints *hooks.Endpoints) error {
		e, err := endpoints.Resume(ctx, cmd.Endpoint)
		return cmd.done(std, e, "is "+string(e.State), err)
	})
}

// done prints what was done to an endpoint.
func (f *hookFlags) done(std cli.Stdio, e hooks.Endpoint, what string, err error) error {
	switch {
	case err != nil:
		return err
	case f.Format == "json":
		return printJSON(std.Out, e)
	}
	_, err = fmt.Fprintf(std.Out, "%s %s\n", e.Name, what)
	return err
}

type hooksRemoveCommand struct {
	hookFlags
	Endpoint string `arg:"" name:"ID|NAME" help:"Id or name of the endpoint."`
}

func (cmd *hooksRemoveCommand) Run(ctx context.Context, env cli.Env, std cli.Stdio) error {
	return cmd.with(ctx, env, std, func(endpoints *hooks.Endpoints) error {
		e, err := endpoints.Get(ctx, cmd.Endpoint)
		if err == nil {
			err = endpoints.Remove(ctx, e.ID.String())
		}
		return cmd.done(std, e, "is removed", err)
	})
}

func printJSON(out io.Writer, v any) error {
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

// pairs reads NAME=VALUE.
func pairs(flag string, texts []string) (map[string]string, error) {
	var faults fault.List
	all := make(map[string]string)
	for _, text := range texts {
		name, value, ok := strings.Cut(text, "=")
		_, twice := all[name]
		switch {
		case !ok || name == "":
			faults.AddNew(nil, flag, "write NAME=VALUE", "%s has no name or no value", fault.Quote(name)) // the rest may be secret
		case twice:
			faults.AddNew(nil, flag, "leave one out", "%s is given twice", fault.Quote(name))
		}
		all[name] = value
	}
	return all, faults.Err()
}
