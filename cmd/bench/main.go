// Bench compares the receiver, on one machine, with what a user might run instead: one
// INSERT a request; the same with the public key fetched for each request, as published
// samples do; and the same handler without a database, which is the ceiling.
//
// Each variant is a receiver in its own process. Upcall's is the whole receiver, with its
// spool. The requests are signed callbacks, all different. The variants take turns, so that
// a ratio compares what ran side by side even if the machine is slower at times. Each starts
// with empty tables and is warmed up before it is measured; the rows are counted after each
// run. Its rival is what a good engineer would make of the sample in OSS's documentation.
package main

import (
	"context"

	"upcall/internal/cli"
)

func main() { cli.Main("bench", run) }

// commands is the command line.
type commands struct {
	Compare compareCommand `cmd:"" default:"withargs" help:"Measure all variants and print the table (the default)."`
	Rival   rivalCommand   `cmd:"" help:"Measure the receiver beside the sample of OSS's documentation, tuned."`
	Versus  versusCommand  `cmd:"" help:"Measure the receiver beside that of an earlier commit: CPU time a callback."`
	Size    sizeCommand    `cmd:"" help:"Measure what a callback takes in PostgreSQL, and compute what so many a day need."`
	Growth  growthCommand  `cmd:"" help:"Measure the receiver with rows in the table already."`
	Soak    soakCommand    `cmd:"" help:"Keep the receiver at full load and watch its memory and goroutines."`
	Deliver deliverCommand `cmd:"" help:"Measure signed deliveries a second to one endpoint while callbacks come in."`
	Isolate isolateCommand `cmd:"" help:"Measure how long endpoints wait for deliveries while another one hangs."`
	Log     logCommand     `cmd:"" help:"Measure what the log and its readers cost the intake."`
	Rollup  rollupCommand  `cmd:"" help:"Measure what the roll-ups cost the intake, and how far they are behind."`

	Stream streamCommand `cmd:"" help:"Measure the replicated stream beside PostgreSQL, alone and with a synchronous standby."`

	Reconcile reconcileCommand `cmd:"" help:"Compare a bucket of ten million objects with the log, and kill the receiver meanwhile."`

	AnalystData analystDataCommand `cmd:"" help:"Fill a database with a year of plausible uploads, and count them."`

	Queries queriesCommand `cmd:"" help:"Measure how long the questions of docs/queries.md take."`

	Serve serveCommand `cmd:"" hidden:"" help:"Run the receiver of one variant until standard input ends."`

	Nats     natsCommand     `cmd:"" hidden:"" help:"Be a server of the stream until standard input ends."`
	Sink     sinkCommand     `cmd:"" hidden:"" help:"Be endpoints until standard input ends."`
	Requests requestsCommand `cmd:"" hidden:"" help:"Write callbacks as they are on the wire."`
}

// run is everything but signals and the exit code.
func run(ctx context.Context, args []string, env cli.Env, std cli.Stdio) error {
	program := cli.Program{Name: "bench", Description: "Measures the receiver on this machine."}
	return program.Run(ctx, &commands{}, args, env, std)
}
