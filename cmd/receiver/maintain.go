package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"upcall/internal/cli"
	"upcall/internal/eventstore"
	"upcall/internal/export"
	"upcall/internal/fault"
	"upcall/internal/receiver"
)

type maintainCommand struct {
	database
	retentionFlags

	cli.OSSFlags `group:"oss"`
}

// retentionFlags say what is dropped, for serve and maintain.
type retentionFlags struct {
	Retention       string `setting:"UPCALL_RETENTION" placeholder:"DAYSd" help:"${retention}"`
	RetentionExport string `setting:"UPCALL_RETENTION_EXPORT" placeholder:"DIR|oss://…" help:"${retention_export}"`
	MaxRefusals     int    `setting:"UPCALL_MAX_REFUSALS" default:"100000" placeholder:"ROWS" help:"${max_refusals}"`
}

// retention returns for how many days events are kept, and what takes them then. With rest, that leaves time to others.
func (f *retentionFlags) retention(access *cli.OSSFlags, env cli.Env, rest bool) (days int, keeper eventstore.Keeper, err error) {
	const name = "UPCALL_RETENTION_EXPORT"
	days, err = receiver.ParseRetention(f.Retention)
	err = fault.In("UPCALL_RETENTION", err)
	if f.RetentionExport == "" {
		return days, nil, err
	}
	if days == 0 && err == nil {
		err = fault.At(name, "events never expire, so none are handed over; set UPCALL_RETENTION")
	}
	target, targetErr := targetAt(name, f.RetentionExport, access, env)
	if targetErr != nil {
		return days, nil, fault.Join(err, targetErr)
	}
	handOver, targetErr := export.NewHandOver(target, rest)
	if targetErr != nil {
		return days, nil, fault.Join(err, fault.In(name, targetErr))
	}
	return days, handOver, err
}

// Help is shown below the summary of the command.
func (*maintainCommand) Help() string {
	return `A receiver does this by itself, once an hour, if its database role owns the tables. For receivers
whose role does not, run this with the owner's role every day, for example from cron. It makes the
partitions of the next two months and, with --retention, drops the oldest month that has expired, or with
--retention-export writes it to files first. See docs/operations.md.`
}

func (cmd *maintainCommand) Run(ctx context.Context, env cli.Env, std cli.Stdio) error {
	days, keeper, retentionErr := cmd.retention(&cmd.OSSFlags, env, false)
	url, urlErr := cmd.required(env)
	if err := fault.Join(urlErr, retentionErr, checkCounts(maxRefusals(cmd.MaxRefusals)).Err()); err != nil {
		return cli.Usage(err)
	}
	if keeper != nil {
		limitMemory()
	}
	logger := slog.New(slog.NewTextHandler(std.Err, nil))
	return cmd.at(ctx, url, logger, func(url string) error {
		ahead, err := receiver.Maintain(ctx, receiver.Config{
			DatabaseURL: url, RetentionDays: days, Keeper: keeper, MaxRefusals: zeroIsNone(cmd.MaxRefusals), Logger: logger, Now: time.Now,
		})
		if err != nil {
			return fault.OneLine(err)
		}
		_, err = fmt.Fprintf(std.Out, "partitions: %d months ahead\n", ahead)
		return err
	})
}
