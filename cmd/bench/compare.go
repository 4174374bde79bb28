package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"text/tabwriter"

	"upcall/internal/cli"
)

type compareCommand struct {
	Clients  []int `default:"1,16,128,512" help:"Numbers of clients."`
	Requests int   `default:"30000" help:"Callbacks in each run, after a warm-up of a tenth as many. One client sends a twentieth."`
	Rounds   int   `default:"5" help:"Runs of each variant. The table has the median run, and the median of the rounds' ratios."`

	ProfileDir string `help:"Write a CPU profile of each variant's receiver to this directory."`
}

// Run prints one table for each kind of connection and number of clients.
func (cmd *compareCommand) Run(ctx context.Context, std cli.Stdio) error {
	if len(cmd.Clients) == 0 {
		return cli.Usage(errors.New("give a number of clients"))
	}
	for _, n := range cmd.Clients {
		if n < 1 || cmd.Requests < 1 || cmd.Requests < 20*n && n > 1 || cmd.Rounds < 1 {
			return cli.Usage(errors.New("give at least one client, one round, and twenty requests for each client"))
		}
	}
	if cmd.ProfileDir != "" {
		if err := os.MkdirAll(cmd.ProfileDir, 0o755); err != nil {
			return fmt.Errorf("--profile-dir: %w", err)
		}
	}
	l, err := newLab(ctx)
	if err != nil {
		return err
	}
	defer l.close()
	fmt.Fprintf(std.Out, "PostgreSQL %s, fsync=on, synchronous_commit=on; receiver, PostgreSQL and clients share one machine\n",
		l.postgres.Version())
	fmt.Fprintf(std.Out, "signed callbacks, %d a run after a warm-up, %d runs each in turn; "+
		"the median by rate, and of the ratios in each turn\n", cmd.Requests, cmd.Rounds)
	for _, closing := range []bool{false, true} {
		most := load{slices.Max(cmd.Clients), closing}
		requests, err := l.requests(most.warmUp(cmd.Requests)+cmd.Requests, closing)
		if err != nil {
			return err
		}
		for _, clients := range cmd.Clients {
			if err := cmd.compare(ctx, std.Out, l, requests, load{clients, closing}); err != nil {
				return err
			}
		}
	}
	return nil
}

func (cmd *compareCommand) compare(ctx context.Context, out io.Writer, l *lab, requests [][]byte, how load) error {
	n := cmd.Requests
	if how.clients == 1 {
		n = max(n/20, 1)
	}
	warm := how.warmUp(n)
	warmUp, requests := requests[:warm], requests[warm:warm+n]
	results := make(map[string][]result)
	for range cmd.Rounds {
		for _, v := range variants {
			if err := l.empty(ctx, ""); err != nil {
				return err
			}
			got, err := l.measure(ctx, v, warmUp, requests, how, 0, cmd.ProfileDir)
			if err != nil {
				return err
			}
			results[v.name] = append(results[v.name], got)
		}
	}
	fmt.Fprintf(out, "\n%d clients, %s\n", how.clients, how)
	return printTable(out, results)
}

// printTable prints the results of the rounds, which are in order.
func printTable(out io.Writer, results map[string][]result) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "variant\tcallbacks/s\tof one INSERT\tof the ceiling\tp50\tp99\tp99.9\treceiver CPU\tPostgreSQL CPU\t")
	for _, v := range variants {
		r := median(results[v.name])
		fmt.Fprintf(table, "%s\t%.0f\t%.2f\t%.2f\t%s\t%s\t%s\t\n", v.name, r.rate(),
			ratio(results[v.name], results[oneInsertName]), ratio(results[v.name], results[noDatabaseName]),
			r.percentiles(), r.each(r.receiverCPU), r.each(r.postgresCPU))
	}
	return table.Flush()
}

// ratio returns the median of the rounds' ratios of rates. It compares what ran side by
// side, because a shared machine is faster in one minute than in the next.
func ratio(of, to []result) float64 {
	ratios := make([]float64, len(of))
	for i := range of {
		ratios[i] = of[i].rate() / to[i].rate()
	}
	return middleOf(ratios)
}
