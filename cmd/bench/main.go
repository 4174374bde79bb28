// Bench measures what a receiver does with its database, in one run on one machine,
// against what a user would run instead: one INSERT a request, the same with the public
// key fetched for each request as published samples do, and the same handler without a
// database, which is the ceiling.
//
// Each variant is a receiver in a process of its own, and Upcall's is the whole receiver,
// with its spool. The requests are signed callbacks, all different. The variants take
// turns, so that a ratio compares what ran side by side on a machine that others slow down
// at times; each starts with empty tables and is warmed up before it is measured, and the
// rows are counted after each run.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		for line := range strings.SplitSeq(err.Error(), "\n") {
			fmt.Fprintln(os.Stderr, "bench: "+line)
		}
		os.Exit(1)
	}
}

type cli struct {
	Compare compareCmd `cmd:"" default:"withargs" help:"Measure all variants and print the table (the default)."`
	Versus  versusCmd  `cmd:"" help:"Measure the receiver beside that of an earlier commit: CPU time a callback."`
	Growth  growthCmd  `cmd:"" help:"Measure the receiver with rows already there."`
	Soak    soakCmd    `cmd:"" help:"Keep the receiver at full load and watch its memory and goroutines."`
	Serve   serveCmd   `cmd:"" hidden:"" help:"Be the receiver of one variant until standard input ends."`
}

// run is the program: everything but signals and the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var c cli
	exited := false
	parser, err := kong.New(&c, kong.Name("bench"), kong.Description("Measures the receiver on this machine."),
		kong.Writers(stdout, stderr), kong.Exit(func(int) { exited = true }),
		kong.BindTo(ctx, (*context.Context)(nil)), kong.BindTo(stdout, (*io.Writer)(nil)))
	if err != nil {
		return fmt.Errorf("read own flags: %w", err)
	}
	command, err := parser.Parse(args)
	if err != nil || exited {
		return err
	}
	return command.Run()
}
