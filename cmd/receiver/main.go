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

	"github.com/alecthomas/kong"

	"upcall/internal/cli"
)

func main() { cli.Main("receiver", run) }

const description = `Takes OSS upload callbacks in and records them in PostgreSQL.

Secrets come from UPCALL_DATABASE_URL (or DATABASE_URL) and UPCALL_TOKEN_KEYS, or from the files that
these names with _FILE at their end name. The variable behind a flag is shown with it; the flag wins.`

// commands is the command line.
type commands struct {
	Serve       serveCommand       `cmd:"" help:"Take callbacks in until SIGTERM."`
	Migrate     migrateCommand     `cmd:"" help:"Change the database's schema, or show how far it is."`
	Spool       spoolCommand       `cmd:"" help:"Look at the callbacks that wait for PostgreSQL, or move them there."`
	Doctor      doctorCommand      `cmd:"" help:"Say why a captured callback is refused, and what to fix."`
	Healthcheck healthcheckCommand `cmd:"" help:"Ask a running receiver whether it lives; for container health checks."`
}

// run is everything but signals and the exit code.
func run(ctx context.Context, args []string, env cli.Env, std cli.Stdio) error {
	program := cli.Program{Name: "receiver", Description: description, Vars: helpTexts()}
	return program.Run(ctx, &commands{}, args, env, std)
}

// helpTexts are the longer help texts, by their names in the tags of flags.
func helpTexts() kong.Vars {
	return kong.Vars{
		"database_url_help": "PostgreSQL, or embedded for a private one in the data directory. " +
			"Better in UPCALL_DATABASE_URL, DATABASE_URL or a file that UPCALL_DATABASE_URL_FILE names.",
	}
}
