// Chaos tests that what a receiver acknowledges is recorded once, whatever fails. It runs
// two receivers on one PostgreSQL and sends them signed callbacks as OSS would. Meanwhile it
// kills receivers, stops PostgreSQL, cuts, stalls and slows its connections, fills the disk
// of a spool, and fails over to a synchronous standby that was stalled. At the end it compares
// what was answered 200 with what is recorded, and prints a table. It fails if anything was
// lost or recorded twice, or if a fault did not come.
package main

import (
	"context"
	"errors"
	"io"
	"time"

	"upcall/internal/cli"
)

func main() { cli.Main("chaos", run) }

// command is the command line.
type command struct {
	Callbacks int           `default:"1000000" help:"Callbacks to send, each of another upload. More are sent until all faults have come."`
	Clients   int           `default:"32" help:"Senders, each with a new connection for each request, as OSS has."`
	Kills     int           `default:"50" help:"Receivers to end with SIGKILL."`
	Outages   int           `default:"20" help:"Times that PostgreSQL is stopped at once."`
	Cuts      int           `default:"10" help:"Times that all connections to PostgreSQL are cut."`
	Stalls    int           `default:"5" help:"Times that connections to PostgreSQL accept data and send none."`
	Delays    int           `default:"5" help:"Times that PostgreSQL answers late."`
	Fills     int           `default:"5" help:"Times that a spool's disk fills up while PostgreSQL is down. 0 without the right to mount."`
	Restarts  int           `default:"10" help:"Receivers to stop with SIGTERM and start again."`
	Failovers int           `default:"10" help:"Times that a synchronous standby stalls, the primary is killed and the standby promoted."`
	Slowest   time.Duration `default:"5s" help:"How long an answer may take. OSS waits five seconds."`
	Seed      uint64        `default:"1" help:"Seed for the order of the faults and the receivers they hit."`
	Receiver  string        `help:"The receiver's program. By default it is built."`
	Verbose   bool          `short:"v" help:"Print each fault as it comes."`
}

var errFailed = errors.New("a promise was broken or a fault did not come; see the table")

// run is everything but signals and the exit code.
func run(ctx context.Context, args []string, env cli.Env, std cli.Stdio) error {
	program := cli.Program{Name: "chaos", Description: "Proves that nothing acknowledged is lost or doubled, whatever fails."}
	return program.Run(ctx, &command{}, args, env, std)
}

// Run runs the test. kong calls it.
func (c command) Run(ctx context.Context, std cli.Stdio) error {
	if c.Callbacks < 1 || c.Clients < 1 {
		return cli.Usage(errors.New("give at least one callback and one client"))
	}
	progress := io.Discard
	if c.Verbose {
		progress = std.Err
	}
	w, err := newWorld(ctx, c, progress)
	if err != nil {
		return err
	}
	defer w.close()
	load := newLoad(w, c)
	faults := newFaults(w, load, c)
	faulted := make(chan error, 1)
	go func() {
		defer load.faulted.Store(true)
		faulted <- faults.inject(ctx)
	}()
	if err := errors.Join(load.run(ctx), <-faulted); err != nil {
		return err
	}
	verdict, err := w.judge(ctx, load)
	if err != nil {
		return err
	}
	verdict.missed = faults.missed()
	verdict.print(std.Out, faults)
	if !verdict.good(c.Slowest) {
		return errFailed
	}
	return nil
}
