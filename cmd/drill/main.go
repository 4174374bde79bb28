// Drill tests on one machine what happens past one machine. It makes three database nodes, each a
// network namespace with etcd, Patroni and PostgreSQL, and two receivers behind two callback URLs,
// sends signed callbacks from outside, and lets one after the other fail. It compares what was
// answered 200 with what is on the primary at the end, and prints what a client saw of each fault.
//
// With a safeguard taken out it must find loss, or it would prove nothing.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/alecthomas/kong"

	"upcall/internal/cli"
)

func main() {
	if os.Args[0] == initName {
		reap()
	}
	cli.Main("drill", run)
}

// commands is the command line.
type commands struct {
	Run   config       `cmd:"" default:"withargs" help:"Run the drill (the default)."`
	Delay delayCommand `cmd:"" hidden:"" help:"Pass on what a TCP server sends, later."`
	NATS  natsCommand  `cmd:"" name:"nats" hidden:"" help:"Run a NATS server."`
}

const (
	engineSpool    = "spool"
	engineFallback = "fallback" // of three NATS servers
	engineFront    = "front"    // the same in front of PostgreSQL
	engineNone     = "none"
)

// streams reports whether there is a replicated log.
func (c config) streams() bool { return c.Engine == engineFallback || c.Engine == engineFront }

// settle is how long the machines may take to recover from a fault.
const settle = 5 * time.Minute

// config says what to do.
type config struct {
	Engine  string        `default:"spool" enum:"spool,fallback,front,none" help:"${engine}"`
	Seed    uint64        `default:"1" help:"Seed for the order of the faults and the machines they hit."`
	Faults  int           `default:"10" help:"How many faults there are."`
	Only    []string      `placeholder:"NAME" help:"Only these faults."`
	Hold    float64       `default:"1" help:"How long faults last, as a multiple of the usual time."`
	Rate    float64       `default:"80" help:"Callbacks a second."`
	Clients int           `default:"128" help:"Senders, each with a new connection for each request, as OSS has."`
	OneURL  bool          `name:"one-url" help:"Give each callback one URL only, not both."`
	Without string        `default:"nothing" enum:"nothing,barrier,synchronous,strict" help:"Which safeguard to take out: ${enum}. The drill then ends once callbacks are lost."`
	Slowest time.Duration `default:"5s" help:"How long an answer may take. OSS waits five seconds."`
	Keep    string        `placeholder:"DIR" help:"Keep the machines' directories there, with all logs."`
	Verbose bool          `short:"v" help:"Print each fault as it comes."`

	arguments []string // of the command line
}

var (
	errFailed = errors.New("a promise was broken or a fault did not come; see the table")
	errInside = errors.New("the drill failed, see above")
	errSafe   = errors.New("nothing was lost without the safeguard, so the drill proves nothing of it")
)

// Run runs the drill. kong calls it.
func (c config) Run(ctx context.Context, env cli.Env, std cli.Stdio) error {
	if c.Faults < 1 || c.Rate <= 0 || c.Clients < 1 || c.Hold <= 0 {
		return cli.Usage(errors.New("give at least one fault, one client, and a rate"))
	}
	if dir := env[dirVariable]; dir != "" {
		ctx, cancel := leashed(ctx, std.In)
		defer cancel()
		return c.drill(ctx, dir, std)
	}
	dir, err := os.MkdirTemp("", "upcall-drill-")
	if err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // PostgreSQL does not run as root, and must get in
		return fmt.Errorf("make directory: %w", err)
	}
	if err := c.build(ctx, dir); err != nil {
		return err
	}
	return enter(ctx, dir, c.arguments, std)
}

// build builds the receiver, for which a namespace without a network is no place.
func (c config) build(ctx context.Context, dir string) error {
	args := []string{"build", "-o", filepath.Join(dir, "receiver")}
	if c.Without == "barrier" {
		args = append(args, "-tags", "upcall_without_barrier")
	}
	if out, err := exec.CommandContext(ctx, "go", append(args, "upcall/cmd/receiver")...).CombinedOutput(); err != nil {
		return fmt.Errorf("build receiver: %w: %s", err, out)
	}
	return nil
}

// run is everything but signals and the exit code.
func run(ctx context.Context, args []string, env cli.Env, std cli.Stdio) error {
	program := cli.Program{Name: "drill", Description: "Proves that nothing acknowledged is lost or doubled past one machine.",
		Vars: kong.Vars{"engine": "What receivers have besides PostgreSQL: a spool each, " +
			"a replicated log for both as the fallback or in front, or nothing."}}
	all := &commands{Run: config{arguments: args}}
	return program.Run(ctx, all, args, env, std)
}

func (c config) drill(ctx context.Context, dir string, std cli.Stdio) error {
	progress := io.Discard
	if c.Verbose {
		progress = std.Err
	}
	w, err := newWorld(ctx, c, dir, progress)
	if err != nil {
		return err
	}
	report, err := w.run(ctx)
	if err != nil {
		return err
	}
	report.print(std.Out)
	if c.Without != "nothing" {
		if report.lost() == 0 {
			return errSafe
		}
		return nil
	}
	if !report.good() {
		return errFailed
	}
	return nil
}
