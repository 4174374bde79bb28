// Demo runs everything in one process: a private PostgreSQL, the OSS emulator, the receiver,
// the issuer and an application. It requests two uploads from the issuer, as an application
// does, uploads the files as any HTTP client would, and shows the answers, the recorded rows,
// that forged callbacks are refused, and what the application is told. It leaves nothing
// running.
//
//	demo          run once
//	demo --stay   keep everything up until Ctrl-C, and print commands to try
package main

import (
	"context"
	"errors"
	"log/slog"

	"upcall/internal/cli"
)

func main() { cli.Main("demo", run) }

// command is the command line.
type command struct {
	Stay        bool   `help:"Keep everything up until Ctrl-C, and print commands to try."`
	DataDir     string `default:".upcall" help:"Directory for PostgreSQL's data and the objects with --stay."`
	Listen      string `default:"127.0.0.1:8080" help:"Receiver's public listener with --stay."`
	AdminListen string `default:"127.0.0.1:8081" help:"Receiver's private listener with --stay."`
	OSSListen   string `name:"oss-listen" default:"127.0.0.1:9000" help:"Emulator's listener with --stay."`
	APIListen   string `name:"api-listen" default:"127.0.0.1:8082" help:"Issuer's listener for applications with --stay."`
	AppListen   string `name:"app-listen" default:"127.0.0.1:8090" help:"Application's listener for hooks with --stay."`
	Verbose     bool   `short:"v" help:"Show the programs' own logs."`
}

// run is everything but signals and the exit code.
func run(ctx context.Context, args []string, env cli.Env, std cli.Stdio) error {
	program := cli.Program{Name: "demo", Description: "Runs the whole loop on this machine, offline."}
	return program.Run(ctx, &command{}, args, env, std)
}

// Run runs the loop. kong calls it.
func (c *command) Run(ctx context.Context, std cli.Stdio) error {
	logger := slog.New(slog.DiscardHandler)
	if c.Verbose {
		logger = slog.New(slog.NewTextHandler(std.Err, nil))
	}
	if !c.Stay {
		*c = command{Listen: anyPort, AdminListen: anyPort, OSSListen: anyPort, APIListen: anyPort, AppListen: anyPort}
	}
	loop, err := start(ctx, c, logger)
	if err != nil {
		return err
	}
	if c.Stay {
		loop.printCommands(std.Out)
		loop.printDeliveries(ctx, std.Out)
		return loop.stop()
	}
	return errors.Join(loop.show(ctx, std.Out), loop.stop())
}
