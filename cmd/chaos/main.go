// Chaos tests that what a receiver acknowledges is recorded once, and that all who asked are told
// of it, whatever fails. It runs two receivers on one PostgreSQL and sends them signed callbacks
// as OSS would. Meanwhile it kills receivers, stops PostgreSQL, cuts, stalls and slows its
// connections, fills the disk of a spool, fails over to a synchronous standby that was stalled,
// and holds a transaction open. Applications are told by hooks: one fails half of the time, one
// is paused in the middle, one all the time; and a client reads the event API through both
// receivers.
//
// At the end it compares what was answered 200 with what is recorded, and what is recorded with
// what was told and what the roll-ups have counted, and prints a table. It fails if anything was
// lost, recorded twice, told twice without a reason or counted wrongly, or if a fault did not
// come.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"upcall/internal/cli"
	"upcall/internal/loadgen"
)

func main() { cli.Main("chaos", run) }

// commands is the command line.
type commands struct {
	Callbacks callbacksCommand `cmd:"" default:"withargs" help:"Send callbacks at full rate under every fault (the default)."`
	Loss      lossCommand      `cmd:"" help:"Kill receivers in the middle of deliveries."`
	Rollup    rollupCommand    `cmd:"" help:"Kill receivers that count, with late callbacks, overwrites and uploads told of twice."`
}

// Common are the flags of all.
type common struct {
	Clients  int           `default:"32" help:"Senders, each with a new connection for each request, as OSS has."`
	HoldFor  time.Duration `default:"1m" help:"How long a transaction is held open."`
	Settle   time.Duration `default:"10m" help:"How long it may take after the last fault until all are told of everything."`
	Slowest  time.Duration `default:"5s" help:"How long an answer may take. OSS waits five seconds."`
	Seed     uint64        `default:"1" help:"Seed for the order of the faults and the receivers they hit."`
	Receiver string        `help:"The receiver's program. By default it is built."`
	Verbose  bool          `short:"v" help:"Print each fault as it comes."`
}

// counts say how many there are of each fault.
type counts struct {
	Kills     int `default:"50" help:"Receivers to end with SIGKILL."`
	Outages   int `default:"20" help:"Times that PostgreSQL is stopped at once."`
	Cuts      int `default:"10" help:"Times that all connections to PostgreSQL are cut."`
	Stalls    int `default:"5" help:"Times that connections to PostgreSQL accept data and send none."`
	Delays    int `default:"5" help:"Times that PostgreSQL answers late."`
	Fills     int `default:"5" help:"Times that a spool's disk fills up while PostgreSQL is down. 0 without the right to mount."`
	Restarts  int `default:"10" help:"Receivers to stop with SIGTERM and start again."`
	Failovers int `default:"10" help:"Times that a synchronous standby stalls, the primary is killed and the standby promoted."`
	Holds     int `default:"1" help:"Times that a transaction is held open, so that nothing can be told."`
	Pauses    int `default:"1" help:"Times that a hook is paused in the middle."`
}

type callbacksCommand struct {
	common
	counts
	Callbacks int `default:"1000000" help:"Callbacks to send, each of another upload. More are sent until all faults have come."`
	Told      int `default:"10000" help:"How many of them, at least, hooks tell of."`
}

type lossCommand struct {
	common
	Events int           `default:"10000" help:"Uploads, of each of which hooks tell."`
	Kills  int           `default:"10" help:"Times that a receiver is ended with SIGKILL while it delivers."`
	Others int           `default:"0" help:"How many there are of each other fault."`
	Every  time.Duration `default:"20s" help:"Time from one fault to the next. A dead receiver's lease is 15 s."`
}

type rollupCommand struct {
	common
	Callbacks int           `default:"200000" help:"Callbacks to send, evenly over the run."`
	Objects   int           `default:"20000" help:"Objects that they are for."`
	Kills     int           `default:"20" help:"Times that a receiver, mostly that which counts, is ended with SIGKILL."`
	Outages   int           `default:"5" help:"Times that PostgreSQL is stopped at once."`
	Cuts      int           `default:"2" help:"Times that all connections to PostgreSQL are cut."`
	Failovers int           `default:"2" help:"Times that a synchronous standby is promoted."`
	Late      int           `default:"500" help:"Events that wait in the spool of each receiver that was killed, since hours ago."`
	Every     time.Duration `default:"18s" help:"Time from one fault to the next. A dead receiver's lease is 15 s."`
}

// command is what to do.
type command struct {
	common
	counts
	Callbacks, Told int
	Rate            float64       // callbacks a second; 0 is as fast as they are answered
	Await           time.Duration // how long a kill waits for a delivery
	Objects         int           // 0 is one for each callback
	Late            int           // events in the spool of a receiver that was killed
}

// Run runs the test. kong calls it.
func (c callbacksCommand) Run(ctx context.Context, std cli.Stdio) error {
	if c.Callbacks < 1 || c.Clients < 1 {
		return cli.Usage(errors.New("give at least one callback and one client"))
	}
	return command{common: c.common, counts: c.counts, Callbacks: c.Callbacks, Told: c.Told}.run(ctx, std)
}

// Run runs the test. kong calls it.
func (c lossCommand) Run(ctx context.Context, std cli.Stdio) error {
	if c.Events < 1 || c.Clients < 1 || c.Kills < 1 || c.Others < 0 || c.Every <= 0 {
		return cli.Usage(errors.New("give at least one event, one client, one kill, and a time"))
	}
	n := c.Others
	faults := counts{Kills: c.Kills, Outages: n, Cuts: n, Stalls: n, Delays: n, Fills: n, Restarts: n, Failovers: n, Holds: n, Pauses: 1}
	duration := time.Duration(c.Kills+8*n+1) * c.Every
	return command{common: c.common, counts: faults, Callbacks: c.Events, Told: c.Events,
		Rate: float64(c.Events) / duration.Seconds(), Await: c.Every}.run(ctx, std)
}

// Run runs the test. kong calls it.
func (c rollupCommand) Run(ctx context.Context, std cli.Stdio) error {
	if c.Callbacks < 1 || c.Clients < 1 || c.Kills < 1 || c.Objects < 1 || c.Late < 0 || c.Every <= 0 {
		return cli.Usage(errors.New("give at least one callback, one object, one client, one kill, and a time"))
	}
	faults := counts{Kills: c.Kills, Outages: c.Outages, Cuts: c.Cuts, Failovers: c.Failovers, Pauses: 1}
	duration := time.Duration(c.Kills+c.Outages+c.Cuts+c.Failovers+1) * c.Every
	return command{common: c.common, counts: faults, Callbacks: c.Callbacks, Told: 200, Objects: c.Objects, Late: c.Late,
		Rate: float64(c.Callbacks) / duration.Seconds()}.run(ctx, std)
}

var errFailed = errors.New("a promise was broken or a fault did not come; see the table")

// run is everything but signals and the exit code.
func run(ctx context.Context, args []string, env cli.Env, std cli.Stdio) error {
	program := cli.Program{Name: "chaos", Description: "Proves that nothing acknowledged is lost or doubled, whatever fails."}
	return program.Run(ctx, &commands{}, args, env, std)
}

func (c command) run(ctx context.Context, std cli.Stdio) error {
	progress := io.Discard
	if c.Verbose {
		progress = std.Err
	}
	w, err := newWorld(ctx, c, progress)
	if err != nil {
		return err
	}
	defer w.close()
	w.telling.reader.start(ctx)
	defer w.telling.reader.stop()
	watched, stopWatching := context.WithCancel(ctx)
	defer stopWatching()
	go w.stillness.Watch(watched, func(from, to time.Time) {
		fmt.Fprintf(progress, "the machine stood still for %v\n", to.Sub(from))
		w.telling.interrupted(interruption{name: "stillness of the machine", begin: from, end: to})
	})
	generator, err := loadgen.New(w.keys.KeyURL)
	if err != nil {
		return err
	}
	generator.Objects = c.Objects
	load := newLoad(w, c, generator)
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
	verdict.seen = load.Take(&w.stillness)
	verdict.missed = faults.missed()
	verdict.print(std.Out, faults)
	w.messages.print(progress)
	if !verdict.good(c.Slowest) {
		return errFailed
	}
	return nil
}
