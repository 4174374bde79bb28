// Ossemu is the OSS emulator as a program: see package ossemu.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"

	"upcall/internal/setting"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr)
	stop()
	if err != nil {
		for line := range strings.SplitSeq(err.Error(), "\n") {
			fmt.Fprintln(os.Stderr, "ossemu: "+line)
		}
		if errors.Is(err, errUsage) {
			os.Exit(2)
		}
		os.Exit(1)
	}
}

// errUsage marks errors in flags, environment or configuration: exit code 2.
var errUsage = errors.New("see ossemu --help")

type cli struct {
	Serve       serveCommand       `cmd:"" default:"withargs" help:"Serve OSS's dialect until SIGTERM (the default)."`
	Healthcheck healthcheckCommand `cmd:"" help:"Ask a running emulator whether it is well: exit code 0 or 1."`
}

// run is the program without its process: its flags, its environment, its output.
func run(ctx context.Context, args []string, env func(string) string, stdout, stderr io.Writer) error {
	var c cli
	helped := false
	parser, err := kong.New(&c, append(setting.Flags(env),
		kong.Name("ossemu"),
		kong.Description("An emulator of Alibaba Cloud OSS that calls back after uploads. The variable behind a flag is shown with it; the flag wins."),
		kong.Writers(stdout, stderr),
		kong.Exit(func(int) { helped = true }),
	)...)
	if err != nil {
		return fmt.Errorf("build command line: %w", err)
	}
	k, err := parser.Parse(args)
	if helped {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%w; %w", err, errUsage)
	}
	k.BindTo(ctx, (*context.Context)(nil))
	return k.Run(streams{stdout, stderr, env})
}

// streams are what a command may use of its surroundings.
type streams struct {
	out, err io.Writer
	env      func(string) string
}
