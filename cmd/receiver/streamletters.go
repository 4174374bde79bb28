package main

import (
	"bufio"
	"context"
	"errors"
	"log/slog"

	"github.com/google/uuid"

	"upcall/internal/cli"
	"upcall/internal/kept"
	"upcall/internal/stream"
)

type streamCommand struct {
	List   streamListCommand   `cmd:"" help:"List waiting callbacks and dead letters."`
	Export streamExportCommand `cmd:"" help:"Print each callback in the stream as a line of JSON."`

	Retry   streamRetryCommand   `cmd:"" help:"Retry dead letters, which PostgreSQL could not hold."`
	Discard streamDiscardCommand `cmd:"" help:"Delete dead letters permanently. To keep a copy, export them first."`
}

type streamListCommand struct{ streamFlags }

type streamExportCommand struct{ streamFlags }

type streamRetryCommand struct {
	streamFlags
	chosenLetters
}

type streamDiscardCommand struct {
	streamFlags
	chosenLetters
}

// with calls work with the stream. A command neither makes a stream nor changes its settings.
func (f *streamFlags) with(ctx context.Context, env cli.Env, std cli.Stdio, work func(*stream.Group) error) error {
	config, err := f.config(env)
	if err != nil {
		return err
	}
	if config == nil {
		return cli.Usage(errors.New("no stream: set UPCALL_STREAM_URL to that of the receivers"))
	}
	config.Logger = slog.New(slog.NewTextHandler(std.Err, &slog.HandlerOptions{Level: slog.LevelError}))
	s, err := stream.InspectGroup(ctx, *config)
	if err != nil {
		return err
	}
	defer s.Close()
	return work(s)
}

func (cmd *streamListCommand) Run(ctx context.Context, env cli.Env, std cli.Stdio) error {
	return cmd.with(ctx, env, std, func(s *stream.Group) error { return listStream(ctx, std, s) })
}

func listStream(ctx context.Context, std cli.Stdio, s *stream.Group) error {
	table, waiting, dead := newEntryTable(std.Out), 0, 0
	err := s.Read(ctx, func(e kept.Entry) error {
		if e.Reason == "" {
			waiting++
		} else {
			dead++
		}
		return table.add(e)
	})
	if err != nil {
		return err
	}
	return table.end("%d waiting, %d dead\n", waiting, dead)
}

func (cmd *streamExportCommand) Run(ctx context.Context, env cli.Env, std cli.Stdio) error {
	return cmd.with(ctx, env, std, func(s *stream.Group) error {
		out := bufio.NewWriter(std.Out)
		err := s.Read(ctx, func(e kept.Entry) error {
			out.Write(e.JSON)
			return out.WriteByte('\n') // bufio keeps the first error
		})
		return errors.Join(err, out.Flush())
	})
}

func (cmd *streamRetryCommand) Run(ctx context.Context, env cli.Env, std cli.Stdio) error {
	return cmd.change(ctx, env, std, &cmd.chosenLetters, (*stream.Group).Retry, "to be retried")
}

func (cmd *streamDiscardCommand) Run(ctx context.Context, env cli.Env, std cli.Stdio) error {
	return cmd.change(ctx, env, std, &cmd.chosenLetters, (*stream.Group).Discard, "discarded")
}

// change applies an action to the chosen dead letters and prints them.
func (f *streamFlags) change(ctx context.Context, env cli.Env, std cli.Stdio, chosen *chosenLetters,
	action func(*stream.Group, context.Context, []uuid.UUID, func(kept.Entry) error) error, done string,
) error {
	ids, err := chosen.wanted("receiver stream list")
	if err != nil {
		return cli.Usage(err)
	}
	return f.with(ctx, env, std, func(s *stream.Group) error {
		if chosen.All {
			if ids, err = s.DeadLetters(ctx); err != nil {
				return err
			}
		}
		table, changed := newEntryTable(std.Out), 0
		err := action(s, ctx, ids, func(e kept.Entry) error {
			changed++
			return table.add(e)
		})
		if err != nil && changed == 0 {
			return err
		}
		return errors.Join(err, table.end("%d %s, %d dead\n", changed, done, s.Stats().DeadLetters))
	})
}
