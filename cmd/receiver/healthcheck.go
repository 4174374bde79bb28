package main

import (
	"context"
	"time"

	"upcall/internal/cli"
)

type healthcheckCommand struct {
	AdminListen string `setting:"UPCALL_ADMIN_LISTEN" default:"127.0.0.1:8081" placeholder:"ADDR" help:"The receiver's private listener."`
	Path        string `enum:"/livez,/readyz" default:"/livez" placeholder:"PATH" help:"Path to request: /livez or /readyz."`
}

func (cmd *healthcheckCommand) Run(ctx context.Context) error {
	return cli.CheckHealth(ctx, cmd.AdminListen, cmd.Path, 2*time.Second)
}
