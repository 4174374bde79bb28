// Ossemu is the OSS emulator as a program: see package ossemu.
package main

import (
	"context"

	"upcall/internal/cli"
)

func main() { cli.Main("ossemu", run) }

const description = "An emulator of Alibaba Cloud OSS that calls back after uploads. " +
	"The variable behind a flag is shown with it; the flag wins."

// commands is the command line.
type commands struct {
	Serve       serveCommand       `cmd:"" default:"withargs" help:"Serve OSS's dialect until SIGTERM (the default)."`
	Healthcheck healthcheckCommand `cmd:"" help:"Ask a running emulator whether it is well: exit code 0 or 1."`
}

// run is everything but signals and the exit code.
func run(ctx context.Context, args []string, env cli.Env, std cli.Stdio) error {
	return cli.Program{Name: "ossemu", Description: description}.Run(ctx, &commands{}, args, env, std)
}
