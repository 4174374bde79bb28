// Bench measures what a receiver does with its database, in one run on one machine: one
// INSERT a request, Upcall's group commit, and the same handler without a database.
//
// Each variant is a receiver in a process of its own; the requests are signed callbacks,
// all different, sent over keep-alive connections. The variants take turns, and each
// starts with empty tables. At the end the rows are counted.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/alecthomas/kong"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/embeddedpg"
	"upcall/internal/eventstore"
	"upcall/internal/loadgen"
	"upcall/migrations"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		for line := range strings.SplitSeq(err.Error(), "\n") {
			fmt.Fprintln(os.Stderr, "bench: "+line)
		}
		os.Exit(1)
	}
}

type cli struct {
	Compare compareCmd `cmd:"" default:"withargs" help:"Measure all variants and print the table."`
	Serve   serveCmd   `cmd:"" hidden:"" help:"Be the receiver of one variant until standard input ends."`
}

type compareCmd struct {
	Clients  int `default:"128" help:"Keep-alive connections."`
	Requests int `default:"40000" help:"Callbacks in each run."`
	Rounds   int `default:"3" help:"Runs of each variant; the median counts."`

	ProfileDir string `help:"Take a CPU profile of each variant's receiver into this directory."`
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var c cli
	exited := false
	parser, err := kong.New(&c, kong.Name("bench"), kong.Description("Measures the receiver on this machine."),
		kong.Writers(stdout, stderr), kong.Exit(func(int) { exited = true }),
		kong.BindTo(ctx, (*context.Context)(nil)), kong.BindTo(stdout, (*io.Writer)(nil)))
	if err != nil {
		return fmt.Errorf("read own flags: %w", err)
	}
	command, err := parser.Parse(args)
	if err != nil || exited {
		return err
	}
	return command.Run()
}

func (cmd *compareCmd) Run(ctx context.Context, out io.Writer) error {
	if cmd.Clients < 1 || cmd.Requests < cmd.Clients || cmd.Rounds < 1 {
		return errors.New("give at least one client, one round, and a request for each client")
	}
	postgres, err := embeddedpg.Start(ctx, embeddedpg.Config{MaxConnections: 200})
	if err != nil {
		return err
	}
	defer postgres.Stop()
	if err := migrations.Up(ctx, postgres.URL()); err != nil {
		return err
	}
	pool, err := eventstore.Open(ctx, postgres.URL())
	if err != nil {
		return err
	}
	defer pool.Close()
	if err := eventstore.EnsurePartitions(ctx, pool, time.Now()); err != nil {
		return err
	}
	keys := loadgen.NewKeyServer()
	defer keys.Close()
	fmt.Fprintf(out, "PostgreSQL %s, synchronous_commit=on, fsync=on; %d keep-alive clients, %d signed callbacks a run, %d runs each, medians\n",
		postgres.Version(), cmd.Clients, cmd.Requests, cmd.Rounds)
	requests, err := generate(cmd.Requests, keys.KeyURL)
	if err != nil {
		return err
	}

	results := make(map[string][]result)
	for range cmd.Rounds {
		for _, v := range variants {
			got, err := cmd.measure(ctx, v, postgres.URL(), keys.KeyURL, pool, requests)
			if err != nil {
				return fmt.Errorf("%s: %w", v.name, err)
			}
			results[v.name] = append(results[v.name], got)
		}
	}
	return printTable(out, results)
}

func generate(n int, keyURL string) ([][]byte, error) {
	generator, err := loadgen.New(keyURL)
	if err != nil {
		return nil, err
	}
	return generator.Wire(n)
}

// measure runs one variant once, and checks that every callback that was answered is a
// row.
func (cmd *compareCmd) measure(ctx context.Context, v variant, databaseURL, keyURL string, pool *pgxpool.Pool, requests [][]byte) (result, error) {
	if _, err := pool.Exec(ctx, "TRUNCATE upcall.upload_events, upcall.callback_ids"); err != nil {
		return result{}, fmt.Errorf("empty tables: %w", err)
	}
	if _, err := pool.Exec(ctx, "CHECKPOINT"); err != nil {
		return result{}, fmt.Errorf("checkpoint: %w", err)
	}
	child, err := startChild(ctx, v, databaseURL, keyURL, cmd.ProfileDir)
	if err != nil {
		return result{}, err
	}
	got, err := fire(child.addr, requests, cmd.Clients)
	cpu, stopErr := child.stop()
	if err := errors.Join(err, stopErr); err != nil {
		return result{}, err
	}
	got.cpu = cpu
	want := 0
	if v.records {
		want = len(requests)
	}
	var rows int
	if err := pool.QueryRow(ctx, "SELECT count(*) FROM upcall.upload_events").Scan(&rows); err != nil {
		return result{}, fmt.Errorf("count rows: %w", err)
	}
	if rows != want {
		return result{}, fmt.Errorf("%d rows for %d answered callbacks", rows, want)
	}
	return got, nil
}

func printTable(out io.Writer, results map[string][]result) error {
	baseline := median(results[variants[0].name]).rate()
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "variant\tcallbacks/s\tratio\tp50\tp99\treceiver CPU a callback\t")
	for _, v := range variants {
		r := median(results[v.name])
		fmt.Fprintf(table, "%s\t%.0f\t%.2f\t%s\t%s\t%s\t\n", v.name, r.rate(), r.rate()/baseline,
			r.quantile(.5).Round(10*time.Microsecond), r.quantile(.99).Round(10*time.Microsecond),
			(r.cpu / time.Duration(r.sent)).Round(100*time.Nanosecond))
	}
	return table.Flush()
}

// median returns the result with the median rate.
func median(results []result) result {
	sorted := slices.SortedFunc(slices.Values(results), func(a, b result) int { return int(a.rate() - b.rate()) })
	return sorted[len(sorted)/2]
}
