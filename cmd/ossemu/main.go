// Command ossemu is the OSS emulator as a program: see package ossemu.
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
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.LookupEnv, os.Stdout, os.Stderr)
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

// lookup finds an environment variable, as os.LookupEnv does.
type lookup func(name string) (string, bool)

// run is the program without its process: its flags, its environment, its output.
func run(ctx context.Context, args []string, env lookup, stdout, stderr io.Writer) error {
	var c cli
	helped := false
	parser, err := kong.New(&c,
		kong.Name("ossemu"),
		kong.Description("An emulator of Alibaba Cloud OSS that calls back after uploads. Each flag can be set by an environment variable, which is named in brackets; the flag wins."),
		kong.Writers(stdout, stderr),
		kong.Exit(func(int) { helped = true }),
		kong.Resolvers(environment(env)),
	)
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
	return k.Run(streams{stdout, stderr})
}

type streams struct{ out, err io.Writer }

// environment lets OSSEMU_… set each flag. Kong's own env tags read the process's
// environment, which a test cannot give.
func environment(env lookup) kong.Resolver {
	return kong.ResolverFunc(func(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
		name := "OSSEMU_" + strings.ToUpper(strings.ReplaceAll(flag.Name, "-", "_"))
		if value, ok := env(name); ok && value != "" && flag.Name != "help" {
			return value, nil
		}
		return nil, nil
	})
}
