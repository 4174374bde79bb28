package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/cli"
	"upcall/internal/webhook"
)

type rivalCommand struct {
	Clients   int    `default:"128" help:"Number of clients."`
	Requests  int    `default:"20000" help:"Callbacks that each receiver gets in a round."`
	Rounds    int    `default:"9" help:"Rounds; in each, the receivers take turns, and another one is first."`
	Endpoints int    `default:"100" help:"Endpoints of one of the receivers, whose filters match nothing."`
	Before    string `help:"Git commit whose handler without a database is the ceiling, and whose receiver is compared, too. Default: none."`

	ProfileDir string `help:"Write a CPU profile of each receiver to this directory."`
}

// Run compares the receiver with the sample of OSS's documentation as a good engineer would tune it.
func (cmd *rivalCommand) Run(ctx context.Context, std cli.Stdio) error {
	if cmd.Clients < 1 || cmd.Rounds < 1 || cmd.Endpoints < 1 || cmd.Requests < 10*cmd.Clients {
		return cli.Usage(errors.New("give a client, a round, an endpoint, and ten requests for each client"))
	}
	l, err := newLab(ctx)
	if err != nil {
		return err
	}
	defer l.close()
	ceiling := l
	if cmd.Before != "" {
		dir, err := os.MkdirTemp("", "upcall-rival-")
		if err != nil {
			return fmt.Errorf("make directory: %w", err)
		}
		defer os.RemoveAll(dir)
		if ceiling, err = l.earlier(ctx, cmd.Before, dir); err != nil {
			return err
		}
		defer ceiling.closePool()
		if err := withoutRollups(ctx, ceiling); err != nil {
			return err
		}
	}
	fmt.Fprintf(std.Out, "PostgreSQL %s, fsync=on, synchronous_commit=on; receivers, PostgreSQL and clients share one machine\n"+
		"%d callbacks a turn, %d rounds; medians of the rounds, and of their ratios\n", l.postgres.Version(), cmd.Requests, cmd.Rounds)
	for _, closing := range []bool{false, true} {
		if err := cmd.compare(ctx, std.Out, l, ceiling, load{cmd.Clients, closing}); err != nil {
			return err
		}
	}
	return nil
}

// A contender is a side of this comparison.
type contender struct {
	*side
	name    string
	results []result
	// rest waits until what a receiver does after its answers is done; it is in no figure. It may be nil.
	rest func(context.Context) error
	also string // tables to empty, too, as in ", a, b"
}

func (cmd *rivalCommand) compare(ctx context.Context, out io.Writer, l, ceiling *lab, how load) error {
	requests, err := l.requests(cmd.Requests, how.closing)
	if err != nil {
		return err
	}
	all, stop, err := cmd.start(ctx, l, ceiling, how)
	defer stop()
	if err != nil {
		return err
	}
	for _, c := range all {
		for _, some := range [][][]byte{requests[:1], requests[1 : len(requests)/2]} { // the public key is fetched for the first
			if _, err := c.clients.send(some, 0); err != nil {
				return fmt.Errorf("warm up %s: %w", c.name, err)
			}
		}
	}
	for round := range cmd.Rounds {
		for i := range all {
			c := all[(i+round)%len(all)]
			if err := c.take(ctx, requests); err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
		}
	}
	fmt.Fprintf(out, "\n%d clients, %s\n", how.clients, how)
	return printContenders(out, all)
}

// take is a turn.
func (c *contender) take(ctx context.Context, requests [][]byte) error {
	if c.rest != nil { // of what was sent to warm up
		if err := c.rest(ctx); err != nil {
			return err
		}
	}
	if c.pool != nil {
		if err := c.empty(ctx, c.also); err != nil {
			return err
		}
	}
	got, err := c.turn(ctx, requests, 0, nil)
	if err != nil {
		return err
	}
	c.results = append(c.results, got)
	if c.rest != nil {
		err = c.rest(ctx)
	}
	if err == nil && c.pool != nil {
		err = c.expect(ctx, len(requests))
	}
	return err
}

// start starts all contenders, and returns what stops them.
func (cmd *rivalCommand) start(ctx context.Context, l, ceiling *lab, how load) (all []*contender, stop func(), err error) {
	stop = func() {
		for _, c := range all {
			c.close()
		}
	}
	kind := strings.Fields(how.String())[0]
	profile := func(name string) string {
		if cmd.ProfileDir == "" {
			return ""
		}
		return filepath.Join(cmd.ProfileDir, fmt.Sprintf("%s-%s.pprof", name, kind))
	}
	database := func(name string) string { return fmt.Sprintf("%s_%t", name, how.closing) }

	add := func(c contender, start func() (*side, error)) {
		if err != nil {
			return
		}
		if c.side, err = start(); err == nil {
			all = append(all, &c)
		}
	}
	add(contender{name: strings.TrimSpace(noDatabaseName + " " + cmd.Before)}, func() (*side, error) {
		return ceiling.again().startSide(ctx, variantNamed(noDatabaseName), how, profile("ceiling"))
	})
	add(contender{name: tunedName}, func() (*side, error) { return l.newTunedSide(ctx, database("sample"), how, profile("sample")) })
	add(contender{name: upcallName}, func() (*side, error) {
		return l.newRollupSide(ctx, database("upcall"), how, profile("upcall"), func(own *lab) error {
			return withoutRollups(ctx, own.quiet())
		})
	})
	add(contender{name: "with a log line a callback"}, func() (*side, error) {
		return l.newRollupSide(ctx, database("logging"), how, profile("logging"), func(own *lab) error { return withoutRollups(ctx, own) })
	})
	if ceiling != l {
		add(contender{name: upcallName + " " + cmd.Before}, func() (*side, error) {
			own := ceiling.again()
			if own.pool, err = pgxpool.New(ctx, own.databaseURL); err != nil {
				return nil, fmt.Errorf("open database: %w", err)
			}
			return own.startSide(ctx, variantNamed(upcallName), how, profile("before"))
		})
	}
	with := contender{name: fmt.Sprintf("with roll-ups and %d endpoints", cmd.Endpoints), also: rollupTables}
	add(with, func() (*side, error) {
		return l.newRollupSide(ctx, database("readers"), how, profile("readers"), func(own *lab) error {
			own.quiet()
			return nil
		})
	})
	if err != nil {
		return all, stop, err
	}
	readers := all[len(all)-1]
	readers.rest = readers.allCounted
	return all, stop, cmd.addEndpoints(ctx, readers.side)
}

// again is a lab of the same database, without a connection to it.
func (l *lab) again() *lab {
	return &lab{postgres: l.postgres, keys: l.keys, program: l.program, databaseURL: l.databaseURL}
}

// quiet lets the lab's receivers log no callback that they accept, as the sample does not.
func (l *lab) quiet() *lab {
	l.args = append(l.args, "--log-level=warn")
	return l
}

// newTunedSide starts the sample with a database of its own.
func (l *lab) newTunedSide(ctx context.Context, name string, how load, profile string) (*side, error) {
	database, err := l.createDatabase(ctx, name)
	if err != nil {
		return nil, err
	}
	own := l.again()
	own.databaseURL, own.tables, own.count = database+tunedConns, "uploads", tunedCount
	if own.pool, err = pgxpool.New(ctx, database); err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	if err := own.exec(ctx, tunedTable); err != nil {
		own.closePool()
		return nil, err
	}
	return own.startSide(ctx, tunedVariant, how, profile)
}

func (cmd *rivalCommand) addEndpoints(ctx context.Context, s *side) error {
	o, err := newOperator(ctx, s.databaseURL)
	if err != nil {
		return err
	}
	defer o.close()
	return o.add(ctx, idleEndpoints(cmd.Endpoints), webhook.Secret{})
}

func printContenders(out io.Writer, all []*contender) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "receiver\tcallbacks/s\tof the sample\tof the ceiling\tp50\tp99\treceiver CPU\tPostgreSQL CPU\tboth\tpeak memory\t")
	ceiling, sample := all[0].results, all[1].results
	for _, c := range all {
		memory, err := peakMemory(c.child.cmd.Process.Pid)
		if err != nil {
			return err
		}
		each := func(of func(result) time.Duration) time.Duration {
			return middleDuration(c.results, func(r result) time.Duration { return r.each(of(r)) })
		}
		fmt.Fprintf(table, "%s\t%.0f\t%.2f\t%.2f\t%s\t%s\t%s\t%s\t%s\t%.0f MiB\t\n", c.name, median(c.results).rate(),
			ratio(c.results, sample), ratio(c.results, ceiling),
			middleDuration(c.results, func(r result) time.Duration { return quantile(r.latencies, .5) }).Round(10*time.Microsecond),
			middleDuration(c.results, func(r result) time.Duration { return quantile(r.latencies, .99) }).Round(10*time.Microsecond),
			each(func(r result) time.Duration { return r.receiverCPU }), each(func(r result) time.Duration { return r.postgresCPU }),
			each(result.cpu), memory/(1<<20))
	}
	return table.Flush()
}

// middleDuration returns the median of a figure of results.
func middleDuration(results []result, of func(result) time.Duration) time.Duration {
	sorted := slices.SortedFunc(slices.Values(results), func(a, b result) int { return cmp.Compare(of(a), of(b)) })
	return of(sorted[len(sorted)/2])
}
