package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"upcall/internal/cli"
	"upcall/internal/fault"
	"upcall/internal/receiver"
)

type maintainCommand struct {
	database
	retentionFlags
}

// retentionFlags say what is dropped, for serve and maintain.
type retentionFlags struct {
	Retention   string `setting:"UPCALL_RETENTION" placeholder:"DAYSd" help:"${retention}"`
	MaxRefusals int    `setting:"UPCALL_MAX_REFUSALS" default:"100000" placeholder:"ROWS" help:"${max_refusals}"`
}

// Help is shown below the summary of the command.
func (*maintainCommand) Help() string {
	return `A receiver does this by itself, once an hour, if its database role owns the tables. For receivers
whose role does not, run this with the owner's role every day, for example from cron. It makes the
partitions of the next two months and, with --retention, drops the oldest month that has expired.`
}

func (cmd *maintainCommand) Run(ctx context.Context, env cli.Env, std cli.Stdio) error {
	days, retentionErr := receiver.ParseRetention(cmd.Retention)
	url, urlErr := cmd.required(env)
	if err := fault.Join(urlErr, fault.In("UPCALL_RETENTION", retentionErr), checkCounts(maxRefusals(cmd.MaxRefusals)).Err()); err != nil {
		return cli.Usage(err)
	}
	logger := slog.New(slog.NewTextHandler(std.Err, nil))
	return cmd.at(ctx, url, logger, func(url string) error {
		ahead, err := receiver.Maintain(ctx, receiver.Config{
			DatabaseURL: url, RetentionDays: days, MaxRefusals: zeroIsNone(cmd.MaxRefusals), Logger: logger, Now: time.Now,
		})
		if err != nil {
			return fault.OneLine(err)
		}
		_, err = fmt.Fprintf(std.Out, "partitions: %d months ahead\n", ahead)
		return err
	})
}
