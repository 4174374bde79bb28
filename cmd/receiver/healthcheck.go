package main

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"upcall/internal/cli"
)

type healthcheckCommand struct {
	AdminListen string `setting:"UPCALL_ADMIN_LISTEN" default:"127.0.0.1:8081" placeholder:"ADDR" help:"The receiver's private listener."`
	Path        string `enum:"/livez,/readyz" default:"/livez" placeholder:"PATH" help:"What to ask for: /livez or /readyz."`
}

func (cmd *healthcheckCommand) Run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+cmd.AdminListen+cmd.Path, nil)
	if err != nil {
		return cli.Usage(fmt.Errorf("admin listener %q is not host:port", cmd.AdminListen))
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("ask %s: %w", cmd.AdminListen, err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("ask %s: %s answered %s", cmd.AdminListen, cmd.Path, answer.Status)
	}
	return nil
}
