package main

import (
	"context"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/google/uuid"

	"upcall/internal/cli"
	"upcall/internal/fault"
	"upcall/internal/hooks"
	"upcall/internal/webhook"
)

// hookFilter says which events an endpoint is told of.
type hookFilter struct {
	On        []string `sep:"none" placeholder:"EVENT" help:"${hook_on}"`
	Bucket    []string `sep:"none" placeholder:"NAME" help:"Only of objects in this bucket. Repeat it for several."`
	KeyPrefix []string `sep:"none" placeholder:"PREFIX" help:"Only of keys that begin with this. Repeat it for several."`
	KeyGlob   []string `sep:"none" placeholder:"GLOB" help:"${hook_glob}"`
	MimeType  []string `sep:"none" placeholder:"TYPE" help:"Only of this type, such as image/png or image/*. Repeat it for several."`
	Var       []string `sep:"none" placeholder:"NAME=VALUE" help:"${hook_var}"`
}

func (f *hookFilter) kinds() (kinds []webhook.Kind) {
	for _, on := range f.On {
		kinds = append(kinds, webhook.Kind(on))
	}
	return kinds
}

type hooksAddCommand struct {
	hookFlags
	URL  string `name:"url" required:"" placeholder:"URL" help:"Where to send deliveries. https, unless UPCALL_HOOKS_ALLOW_HTTP is set."`
	Name string `placeholder:"NAME" help:"Name of the endpoint. By default hook- and a part of its id."`
	hookFilter
	From        string   `default:"now" placeholder:"PLACE" help:"${hook_from}"`
	MaxInFlight int      `default:"8" placeholder:"N" help:"${hook_in_flight}"`
	SecretFile  string   `placeholder:"FILE" help:"File with a secret of your own: whsec_ and Base64 of 24 to 64 bytes."`
	Header      []string `sep:"none" placeholder:"NAME=VALUE" help:"${hook_header}"`
}

// Help is shown below the summary of the command.
func (*hooksAddCommand) Help() string {
	return `Prints the endpoint's id, name, URL and secret as JSON. The secret is shown only here; a secret that you
gave is not. An upload whose callback is answered after this command has ended is delivered. While callbacks come
in, the command takes up to 4.5 s, because it waits until those that are already committed have been answered.`
}

func (cmd *hooksAddCommand) Run(ctx context.Context, env cli.Env, std cli.Stdio) error {
	secret, secretErr := readHookSecret(cmd.SecretFile)
	vars, varsErr := pairs("--var", cmd.Var)
	headers, headersErr := pairs("--header", cmd.Header)
	from, fromErr := hooks.ParseStart(cmd.From)
	settings := hooks.Settings{
		Name: cmd.Name, URL: cmd.URL, MaxInFlight: cmd.MaxInFlight, Headers: headers,
		Filter: hooks.Filter{
			On: cmd.kinds(), Buckets: cmd.Bucket, KeyPrefixes: cmd.KeyPrefix, KeyGlobs: cmd.KeyGlob, MimeTypes: cmd.MimeType, Vars: vars},
	}
	if settings.MaxInFlight == 0 {
		settings.MaxInFlight = -1 // a mistake, not the default
	}
	rules, _ := cmd.rules() // with reports it
	mistakes := mistaken(settings.Check(rules))
	if err := fault.Join(secretErr, varsErr, headersErr, fault.In("--from", fromErr), mistakes); err != nil {
		return cli.Usage(err)
	}
	return cmd.with(ctx, env, std, func(endpoints *hooks.Endpoints) error {
		e, made, err := endpoints.Add(ctx, settings, secret, from)
		if err != nil {
			return err
		}
		return printSecret(std, e, made, cmd.SecretFile == "")
	})
}

// printSecret prints what an application needs: its secret, if we made it.
func printSecret(std cli.Stdio, e hooks.Endpoint, secret webhook.Secret, made bool) error {
	shown := ""
	if made {
		shown = secret.Reveal()
	}
	return printJSON(std.Out, struct {
		ID     uuid.UUID `json:"id"`
		Name   string    `json:"name"`
		URL    string    `json:"url"`
		Secret string    `json:"secret,omitempty"`
	}{e.ID, e.Name, e.URL, shown})
}

// readHookSecret returns the secret in a file, the zero value for none.
func readHookSecret(path string) (webhook.Secret, error) {
	if path == "" {
		return webhook.Secret{}, nil
	}
	text, err := cli.ReadSecret(path)
	if err != nil {
		return webhook.Secret{}, fault.In("--secret-file", err)
	}
	secret, err := webhook.ParseSecret(text)
	return secret, fault.In("--secret-file", err)
}

type hooksUpdateCommand struct {
	hookFlags
	Endpoint string  `arg:"" name:"ID|NAME" help:"Id or name of the endpoint."`
	URL      *string `name:"url" placeholder:"URL" help:"Where to send deliveries."`
	Name     *string `placeholder:"NAME" help:"New name of the endpoint."`
	hookFilter
	MaxInFlight *int     `placeholder:"N" help:"${hook_in_flight}"`
	Header      []string `sep:"none" placeholder:"NAME=VALUE" help:"${hook_header}"`
	Clear       []string `placeholder:"PART" help:"${hook_clear}"`
}

// Help is shown below the summary of the command.
func (*hooksUpdateCommand) Help() string {
	return `What is not given stays as it is. A part of the filter that is given, such as all --key-prefix, replaces what
there was of that part. When the command ends, no delivery with the former settings begins any more.`
}

func (cmd *hooksUpdateCommand) Run(ctx context.Context, env cli.Env, std cli.Stdio) error {
	change := hooks.Change{URL: cmd.URL, Name: cmd.Name, MaxInFlight: cmd.MaxInFlight}
	vars, varsErr := pairs("--var", cmd.Var)
	headers, headersErr := pairs("--header", cmd.Header)
	kinds := cmd.kinds()
	var faults fault.List
	faults.Add(varsErr, headersErr)
	if cmd.MaxInFlight != nil && *cmd.MaxInFlight == 0 {
		faults.AddAt("--max-in-flight", "0 is not between 1 and 64")
	}
	clears := make(map[string]bool)
	for _, part := range cmd.Clear {
		clears[part] = true
	}
	replace(&change.On, kinds, clears, "on")
	replace(&change.Buckets, cmd.Bucket, clears, "bucket")
	replace(&change.KeyPrefixes, cmd.KeyPrefix, clears, "key-prefix")
	replace(&change.KeyGlobs, cmd.KeyGlob, clears, "key-glob")
	replace(&change.MimeTypes, cmd.MimeType, clears, "mime-type")
	for part, to := range map[string]struct {
		change **map[string]string
		given  map[string]string
	}{"var": {&change.Vars, vars}, "header": {&change.Headers, headers}} {
		if len(to.given) > 0 || clears[part] {
			*to.change = &to.given
		}
		delete(clears, part)
	}
	for part := range clears {
		faults.AddNew(nil, "--clear", "write on, bucket, key-prefix, key-glob, mime-type, var or header", "there is no %s", fault.Quote(part))
	}
	if change == (hooks.Change{}) && len(faults) == 0 {
		faults.AddAt("", "nothing to change; see receiver hooks update --help")
	}
	if err := faults.Err(); err != nil {
		return cli.Usage(err)
	}
	return cmd.with(ctx, env, std, func(endpoints *hooks.Endpoints) error {
		e, err := endpoints.Update(ctx, cmd.Endpoint, change)
		return cmd.done(std, e, "is changed", err)
	})
}

// replace sets a part of the filter if it is given or to be cleared.
func replace[T any](part **[]T, given []T, clears map[string]bool, name string) {
	if len(given) > 0 || clears[name] {
		*part = &given
	}
	delete(clears, name)
}

type hooksRotateCommand struct {
	hookFlags
	Endpoint   string        `arg:"" name:"ID|NAME" help:"Id or name of the endpoint."`
	SecretFile string        `placeholder:"FILE" help:"File with the new secret: whsec_ and Base64 of 24 to 64 bytes. By default one is made."`
	Keep       time.Duration `default:"24h" placeholder:"TIME" help:"${hook_keep}"`
}

func (cmd *hooksRotateCommand) Run(ctx context.Context, env cli.Env, std cli.Stdio) error {
	secret, err := readHookSecret(cmd.SecretFile)
	if err != nil {
		return cli.Usage(err)
	}
	return cmd.with(ctx, env, std, func(endpoints *hooks.Endpoints) error {
		e, made, err := endpoints.Rotate(ctx, cmd.Endpoint, secret, cmd.Keep)
		if err != nil {
			return err
		}
		return printSecret(std, e, made, cmd.SecretFile == "")
	})
}

type hooksFailedCommand struct {
	hookFlags
	Endpoint string `arg:"" optional:"" name:"ID|NAME" help:"Id or name of an endpoint. By default all."`
	Waiting  bool   `help:"List deliveries that failed and will be tried again, instead."`
	Limit    int    `default:"100" placeholder:"N" help:"List at most this many."`
}

func (cmd *hooksFailedCommand) Run(ctx context.Context, env cli.Env, std cli.Stdio) error {
	return cmd.with(ctx, env, std, func(endpoints *hooks.Endpoints) error {
		all, err := endpoints.Failed(ctx, cmd.Endpoint, !cmd.Waiting, cmd.Limit)
		if err != nil {
			return err
		}
		if cmd.Format == "json" {
			return printJSON(std.Out, all)
		}
		table := tabwriter.NewWriter(std.Out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "ENDPOINT\tKIND\tEVENT\tRECEIVED\tATTEMPTS\tDUE\tPROBLEM")
		for _, w := range all {
			due := "-"
			if w.DueAt != nil {
				due = w.DueAt.UTC().Format(time.RFC3339)
			}
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%d\t%s\t%s\n",
				w.Endpoint, w.Kind, w.EventID, w.ReceivedAt.Format(time.RFC3339), w.Attempts, due, w.Problem)
		}
		return table.Flush()
	})
}

type hooksRedeliverCommand struct {
	hookFlags
	Endpoint string `placeholder:"ID|NAME" help:"Only to this endpoint. By default to all."`
	Event    string `placeholder:"ID" help:"Send this event, or this finding. --since and --until bound where to look for it."`
	Since    string `placeholder:"TIME" help:"Send all events that were received at this time or later, as 2026-11-27T08:00:00Z."`
	Until    string `placeholder:"TIME" help:"Send all events that were received before this time."`
}

// Help is shown below the summary of the command.
func (*hooksRedeliverCommand) Help() string {
	return `An event is sent to the endpoints whose filters it matches, and the attempts are counted from the beginning.
Endpoints that are paused or failing get it when they work again.`
}

func (cmd *hooksRedeliverCommand) Run(ctx context.Context, env cli.Env, std cli.Stdio) error {
	r := hooks.Redelivery{Endpoint: cmd.Endpoint}
	var faults fault.List
	var err error
	if cmd.Event != "" {
		if r.Event, err = uuid.Parse(cmd.Event); err != nil || r.Event == uuid.Nil {
			faults.AddAt("--event", "%s is not the id of an event", fault.Quote(cmd.Event))
		}
	}
	if cmd.Since != "" {
		r.Since, err = hooks.ParseTime(cmd.Since)
		faults.Add(fault.In("--since", err))
	}
	if cmd.Until != "" {
		r.Until, err = hooks.ParseTime(cmd.Until)
		faults.Add(fault.In("--until", err))
	}
	if err := faults.Err(); err != nil {
		return cli.Usage(err)
	}
	return cmd.with(ctx, env, std, func(endpoints *hooks.Endpoints) error {
		n, err := endpoints.Redeliver(ctx, r)
		if err != nil {
			return err
		}
		if cmd.Format == "json" {
			return printJSON(std.Out, struct {
				Redelivered int `json:"redelivered"`
			}{n})
		}
		_, err = fmt.Fprintf(std.Out, "%d messages are sent again\n", n)
		return err
	})
}
