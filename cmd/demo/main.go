// Demo runs the whole loop in one process: a private PostgreSQL, the OSS emulator, the
// receiver and the issuer. It uploads two files as any HTTP client would, shows what the
// uploader got back and the rows that were recorded, has forged callbacks refused, and
// leaves nothing running.
//
//	demo          run once
//	demo --stay   keep everything up until Ctrl-C, and print commands to try
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
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
			fmt.Fprintln(os.Stderr, "demo: "+line)
		}
		os.Exit(1)
	}
}

type cli struct {
	Stay        bool   `help:"Keep everything up until Ctrl-C, and print commands to try."`
	DataDir     string `default:".upcall" help:"Where --stay keeps PostgreSQL's data and the objects."`
	Listen      string `default:"127.0.0.1:8080" help:"Receiver's public listener with --stay."`
	AdminListen string `default:"127.0.0.1:8081" help:"Receiver's private listener with --stay."`
	OSSListen   string `name:"oss-listen" default:"127.0.0.1:9000" help:"Emulator's listener with --stay."`
	Verbose     bool   `short:"v" help:"Show the programs' own logs."`
}

// run is the program: everything but signals and the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var c cli
	exited := false
	parser, err := kong.New(&c, kong.Name("demo"), kong.Description("Runs the whole loop on this machine, offline."),
		kong.Writers(stdout, stderr), kong.Exit(func(int) { exited = true }))
	if err != nil {
		return fmt.Errorf("read own flags: %w", err)
	}
	if _, err = parser.Parse(args); err != nil || exited {
		return err
	}
	logger := slog.New(slog.DiscardHandler)
	if c.Verbose {
		logger = slog.New(slog.NewTextHandler(stderr, nil))
	}
	at := places{data: c.DataDir, public: c.Listen, admin: c.AdminListen, oss: c.OSSListen}
	if !c.Stay {
		at = places{public: anyPort, admin: anyPort, oss: anyPort}
	}
	loop, err := start(ctx, at, logger)
	if err != nil {
		return err
	}
	if c.Stay {
		loop.printCommands(stdout)
		select {
		case <-ctx.Done():
		case <-loop.broken:
		}
		return loop.stop()
	}
	return errors.Join(loop.show(ctx, stdout), loop.stop())
}
