// Demo runs everything in one process: a private PostgreSQL, the OSS emulator, the receiver,
// the issuer and an application. It requests two uploads from the issuer, as an application
// does, uploads the files as any HTTP client would, and shows the answers, the recorded rows,
// that forged callbacks are refused, and what the application is told. It leaves nothing
// running.
//
//	demo          run once
//	demo --stay   keep everything up until Ctrl-C, and print the URLs, keys and commands to try
package main

import (
	"context"
	"errors"
	"log/slog"

	"upcall/internal/cli"
)

func main() { cli.Main("demo", run) }

// command is the command line. A port that is not given is the usual one with --stay, or a free one
// if another program has that; without --stay all are free ones.
type command struct {
	Stay              bool   `help:"Keep everything up until Ctrl-C, and print the URLs and commands to try."`
	DataDir           string `default:".upcall" help:"Directory for PostgreSQL's data, the objects and the keys with --stay."`
	ReceiverPort      *int   `setting:"RECEIVER_PORT" placeholder:"PORT" help:"Port of the receiver; usually 8080, or else a free one."`
	ReceiverAdminPort *int   `setting:"RECEIVER_ADMIN_PORT" placeholder:"PORT" help:"Port of API and console; usually 8081."`
	IssuerPort        *int   `setting:"ISSUER_PORT" placeholder:"PORT" help:"Port of the issuer and its upload page; usually 8082."`
	AppPort           *int   `setting:"APP_PORT" placeholder:"PORT" help:"Port of the application that is told of uploads; usually 8090."`
	OSSPort           *int   `name:"ossemu-port" setting:"OSSEMU_PORT" placeholder:"PORT" help:"Port of the emulator; usually 9000."`
	Verbose           bool   `short:"v" help:"Show the programs' own logs."`
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
		free := new(int)
		*c = command{ReceiverPort: free, ReceiverAdminPort: free, IssuerPort: free, AppPort: free, OSSPort: free}
	}
	loop, err := start(ctx, c, logger)
	if err != nil {
		return err
	}
	if c.Stay {
		loop.printCommands(std.Out)
		loop.printLines(ctx, std.Out)
		return loop.stop()
	}
	return errors.Join(loop.show(ctx, std.Out), loop.stop())
}
