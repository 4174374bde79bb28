package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"time"

	"upcall/internal/cli"
	"upcall/internal/fault"
	"upcall/internal/httpserver"
	"upcall/internal/webhook/listen"
)

// listenDrain is how long deliveries that are being answered may take at the end.
const listenDrain = time.Second

type hooksListenCommand struct {
	Listen     string `default:"127.0.0.1:8090" placeholder:"ADDR" help:"Where deliveries arrive, at any path."`
	SecretFile string `placeholder:"FILE" help:"File with the endpoint's secret, whsec_ and Base64. Required."`
	Format     string `enum:"text,json" default:"text" help:"text, or json to print the events as they are sent."`
}

// Help is shown below the summary of the command.
func (*hooksListenCommand) Help() string {
	return `Stands in for your application while you develop, and needs no database. To receive deliveries here, set
UPCALL_HOOKS_ALLOW_HTTP=true and UPCALL_HOOKS_ALLOW_CIDRS=127.0.0.0/8 for the receiver and for these commands:

  echo "whsec_$(openssl rand -base64 32)" > printer.secret
  receiver hooks add --url http://127.0.0.1:8090/ --name printer --secret-file printer.secret
  receiver hooks listen --secret-file printer.secret

An event that arrives again is not printed as new; the latest 10,000 are remembered.`
}

func (cmd *hooksListenCommand) Run(ctx context.Context, std cli.Stdio) error {
	secret, err := readHookSecret(cmd.SecretFile)
	if cmd.SecretFile == "" {
		err = fault.New(nil, "--secret-file", "name a file with the secret that receiver hooks add was given or has printed", "it is missing")
	}
	if err != nil {
		return cli.Usage(err)
	}
	cfg := listen.Config{Secret: secret, Out: std.Out}
	if cmd.Format == "json" {
		cfg.JSON, cfg.Notes = true, std.Err
	}
	listener, err := listen.New(cfg)
	if err != nil {
		return err
	}
	at, err := net.Listen("tcp", cmd.Listen)
	if err != nil {
		return fmt.Errorf("listen for deliveries: %w", err)
	}
	fmt.Fprintf(std.Err, "waiting for deliveries at http://%s/\n", at.Addr())
	logger := slog.New(slog.DiscardHandler)
	return httpserver.Serve(ctx, logger, listenDrain, httpserver.Site{Server: httpserver.New(listener, logger), Listener: at})
}
