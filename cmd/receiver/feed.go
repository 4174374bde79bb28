package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"text/tabwriter"
	"time"

	"upcall/internal/cli"
	"upcall/internal/eventstore"
	"upcall/internal/fault"
	"upcall/internal/feed"
)

type feedCommand struct {
	Status feedStatusCommand `cmd:"" help:"Show how far the log can be read, what holds it back, and how far its consumers are."`
	Repair feedRepairCommand `cmd:"" help:"Let the log be read again after events were restored into another cluster."`
}

type feedStatusCommand struct {
	database
	Format string `enum:"text,json" default:"text" help:"text or json."`
}

type feedRepairCommand struct{ database }

// Help is shown below the summary of the command.
func (*feedRepairCommand) Help() string {
	return `A dump that is restored into a new cluster has events with higher transaction numbers than that cluster
has assigned. A receiver then records callbacks, but reads nothing of the log. This clears the numbers, with
the role that owns the tables, in small steps beside running receivers; if it is interrupted, run it again.
Every consumer and client continues where it was: some events are told twice, and none is left out.`
}

func (cmd *feedStatusCommand) Run(ctx context.Context, env cli.Env, std cli.Stdio) error {
	return cmd.with(ctx, env, std, func(url string) error {
		pool, err := eventstore.OpenFeed(ctx, url)
		if err != nil {
			return err
		}
		defer pool.Close()
		log, err := feed.New(feed.Config{Pool: pool, Logger: slog.New(slog.NewTextHandler(std.Err, nil))})
		if err != nil {
			return err
		}
		status, err := log.Status(ctx)
		if err != nil {
			return fault.OneLine(err)
		}
		if cmd.Format == "json" {
			return json.NewEncoder(std.Out).Encode(status)
		}
		return printStatus(std.Out, status)
	})
}

func printStatus(out io.Writer, s feed.Status) error {
	if s.Unreadable != "" {
		fmt.Fprintln(out, "the log cannot be read: "+s.Unreadable)
	}
	fmt.Fprintf(out, "complete below transaction %d, the next is %d\n", s.CompleteBelow, s.Next)
	fmt.Fprintf(out, "held back: %d events, the first for %s\n", s.HeldEvents, seconds(s.HeldSeconds))
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	if len(s.HeldBy) > 0 {
		fmt.Fprintln(table, "\nXID\tSINCE\tPROCESS\tDATABASE\tUSER\tPROGRAM\tSTATE\tQUERY")
	}
	for _, h := range s.HeldBy {
		process := fmt.Sprint(h.PID)
		if h.PID == 0 {
			process = h.Prepared
		}
		query, _, _ := strings.Cut(strings.TrimSpace(h.Query), "\n")
		fmt.Fprintf(table, "%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", h.XID, h.Since.UTC().Format(time.RFC3339), fault.Readable(process),
			fault.Readable(h.Database), fault.Readable(h.User), fault.Readable(h.Program), h.State, fault.Readable(query))
	}
	if len(s.Consumers) > 0 {
		fmt.Fprintln(table, "\nCONSUMER\tEVENTS BEHIND\tTIME BEHIND\tHOLDER")
	}
	for _, c := range s.Consumers {
		behind := fmt.Sprint(c.LagEvents)
		if c.LagEvents == feed.MostLag {
			behind += " or more"
		}
		if c.Problem != "" {
			behind = "unknown: " + c.Problem
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", fault.Readable(c.Name), behind, seconds(c.LagSeconds), fault.Readable(c.Holder))
	}
	return table.Flush()
}

func seconds(n float64) time.Duration {
	return time.Duration(n * float64(time.Second)).Round(time.Millisecond)
}

func (cmd *feedRepairCommand) Run(ctx context.Context, env cli.Env, std cli.Stdio) error {
	return cmd.with(ctx, env, std, func(url string) error {
		pool, err := eventstore.OpenFeed(ctx, url)
		if err != nil {
			return err
		}
		defer pool.Close()
		reported := time.Now()
		cleared, err := feed.Repair(ctx, pool, func(seen int) {
			if time.Since(reported) > 5*time.Second {
				reported = time.Now()
				fmt.Fprintf(std.Err, "%d events so far\n", seen)
			}
		})
		if err != nil {
			return fault.OneLine(cmp.Or(eventstore.Mistake(err), err))
		}
		if cleared == 0 {
			fmt.Fprintln(std.Out, "nothing to repair")
			return nil
		}
		_, err = fmt.Fprintf(std.Out, "cleared the transaction numbers of %d events: the log can be read\n", cleared)
		return err
	})
}
