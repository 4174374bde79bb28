// Receiver accepts OSS upload callbacks and records them in PostgreSQL.
//
//	receiver serve        run the callback receiver
//	receiver migrate up   bring the database schema up to date
//	receiver maintain     make the coming months' partitions and drop what has expired
//	receiver feed         show how far the log of events can be read, or repair it
//	receiver rebuild      count hourly roll-ups and objects again
//	receiver export       write events to CSV, JSON lines or Parquet, here or in OSS
//	receiver reconcile    compare a bucket with the log, and record what no callback told of
//	receiver publication  publish new events for logical replication
//	receiver hooks        have applications told of uploads over HTTP
//	receiver index        make queries by a variable quick
//	receiver analyst      create, list or remove database roles that read the views
//	receiver erase        erase variables and client addresses of uploads
//	receiver keys         create, list or revoke keys of the API
//	receiver doctor       explain why a captured callback was rejected
//	receiver spool        list, export, drain, retry or discard what the spool holds
//	receiver healthcheck  check that a receiver is running
//	receiver completion   print a script that completes commands in a shell
//	receiver man          print the manual page
package main

import (
	"context"

	"github.com/alecthomas/kong"

	"upcall/internal/cli"
)

func main() { cli.Main("receiver", run) }

const description = `Accepts OSS upload callbacks and records them in PostgreSQL.

Secrets come from UPCALL_DATABASE_URL (or DATABASE_URL) and UPCALL_TOKEN_KEYS, or from files that the
same variables with _FILE added name. Each flag shows its variable; the flag takes precedence.`

// commands is the command line.
type commands struct {
	Serve       serveCommand       `cmd:"" help:"Run the callback receiver."`
	Migrate     migrateCommand     `cmd:"" help:"Change the database schema, or show its version."`
	Maintain    maintainCommand    `cmd:"" help:"Make the partitions of the coming months and drop what has expired, once."`
	Spool       spoolCommand       `cmd:"" help:"Inspect the callbacks that wait for PostgreSQL, or move them there."`
	Stream      streamCommand      `cmd:"" help:"Inspect the callbacks in the replicated stream, and deal with its dead letters."`
	Feed        feedCommand        `cmd:"" help:"Show how far the log of events can be read, or repair it after a restore."`
	Rebuild     rebuildCommand     `cmd:"" help:"Count all events again for hourly counts and objects, while receivers serve."`
	Export      exportCommand      `cmd:"" help:"Write events to CSV, JSON lines or Parquet, here or in OSS."`
	Reconcile   reconcileCommand   `cmd:"" help:"Compare a bucket with the log, and record the uploads that no callback told of."`
	Publication publicationCommand `cmd:"" help:"Publish new events for logical replication, or end that."`
	Hooks       hooksCommand       `cmd:"" help:"Have applications told of uploads over HTTP."`
	Keys        keysCommand        `cmd:"" help:"Create, list or revoke keys of the API on the admin listener."`
	Index       indexCommand       `cmd:"" help:"Make queries by a variable quick, or end that."`
	Analyst     analystCommand     `cmd:"" help:"Create, list or remove database roles that read the views."`
	Erase       eraseCommand       `cmd:"" help:"Erase variables and client addresses of uploads, for example those of a user."`
	Doctor      doctorCommand      `cmd:"" help:"Explain why a captured callback was rejected and how to fix it."`
	Healthcheck healthcheckCommand `cmd:"" help:"Check that a receiver is running; for container health checks."`
	cli.ScriptCommands
}

// run is everything but signals and the exit code.
func run(ctx context.Context, args []string, env cli.Env, std cli.Stdio) error {
	program := cli.Program{Name: "receiver", Description: description, Vars: helpTexts().CloneWith(cli.OSSHelp()),
		Groups: []kong.Group{{Key: "oss", Title: "Access to OSS:"}}}
	return program.Run(ctx, &commands{}, args, env, std)
}
