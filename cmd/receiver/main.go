// Receiver takes OSS upload callbacks in and records them in PostgreSQL.
//
//	receiver serve        take callbacks
//	receiver migrate up   bring the database's schema up to date
//	receiver doctor       say why a captured callback is refused
//	receiver spool        list, export, drain, retry or discard what the spool holds
//	receiver healthcheck  ask a running receiver whether it lives
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"

	"upcall/internal/setting"
)

const description = `Takes OSS upload callbacks in and records them in PostgreSQL.

Secrets come from UPCALL_DATABASE_URL (or DATABASE_URL) and UPCALL_TOKEN_KEYS, or from the files that
these names with _FILE at their end name. The variable behind a flag is shown with it; the flag wins.`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr)
	stop()
	if err != nil {
		for line := range strings.SplitSeq(err.Error(), "\n") {
			fmt.Fprintln(os.Stderr, "receiver: "+line)
		}
		if errors.As(err, new(*usageError)) {
			os.Exit(2)
		}
		os.Exit(1)
	}
}

// A usageError is a mistake in flags or environment.
type usageError struct{ error }

func (e *usageError) Unwrap() error { return e.error }

type program struct {
	env            func(string) string
	stdout, stderr io.Writer
}

type cli struct {
	Serve       serveCmd       `cmd:"" help:"Take callbacks in until SIGTERM."`
	Migrate     migrateCmd     `cmd:"" help:"Change the database's schema, or show how far it is."`
	Spool       spoolCmd       `cmd:"" help:"Look at the callbacks that wait for PostgreSQL, or move them there."`
	Doctor      doctorCmd      `cmd:"" help:"Say why a captured callback is refused, and what to fix."`
	Healthcheck healthcheckCmd `cmd:"" help:"Ask a running receiver whether it lives; for container health checks."`
}

// run is the program: everything but signals and the exit code.
func run(ctx context.Context, args []string, env func(string) string, stdout, stderr io.Writer) error {
	var c cli
	exited := false
	parser, err := kong.New(&c, append(setting.Flags(env),
		kong.Name("receiver"),
		kong.Description(description),
		kong.Writers(stdout, stderr),
		kong.Exit(func(int) { exited = true }), // after --help
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(&program{env, stdout, stderr}),
	)...)
	if err != nil {
		return fmt.Errorf("read own flags: %w", err)
	}
	command, err := parser.Parse(args)
	if exited {
		return nil
	}
	if err != nil {
		return &usageError{err}
	}
	return command.Run()
}
