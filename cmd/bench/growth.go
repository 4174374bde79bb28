package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sync/errgroup"

	"upcall/internal/cli"
	"upcall/internal/event"
	"upcall/internal/loadgen"
)

type growthCommand struct {
	Rows     []int `default:"0,10000000" help:"Rows in the table before each measurement, ascending."`
	Clients  int   `default:"128" help:"Keep-alive clients."`
	Requests int   `default:"100000" help:"Callbacks in each run, after a tenth as many to warm up."`
	Rounds   int   `default:"3" help:"Runs at each size; the median counts."`

	TokensOff bool `help:"Ignore tokens, after 100,000 callbacks with tokens that PostgreSQL has analyzed."`
}

// tokensBefore is how many callbacks with tokens come first with --tokens-off.
const tokensBefore = 100_000

// Run measures the receiver on tables of growing size.
func (cmd *growthCommand) Run(ctx context.Context, std cli.Stdio) error {
	if len(cmd.Rows) == 0 || cmd.Rounds < 1 || cmd.Clients < 1 || cmd.Requests < cmd.Clients {
		return cli.Usage(errors.New("give at least one size, one round, one client, and a request for each client"))
	}
	l, err := newLab(ctx)
	if err != nil {
		return err
	}
	defer l.close()
	fmt.Fprintf(std.Out, "PostgreSQL %s, fsync=on, synchronous_commit=on; %d keep-alive clients, "+
		"%d callbacks a run after a warm-up, %d runs at each size, the median by rate\n",
		l.postgres.Version(), cmd.Clients, cmd.Requests, cmd.Rounds)
	table := tabwriter.NewWriter(std.Out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "rows before\tcallbacks/s\tratio\tp50\tp99\tp99.9\tPostgreSQL CPU\t")
	there, base, first := 0, 0, 0.0
	if cmd.TokensOff {
		if err := l.turnTokensOff(ctx); err != nil {
			return err
		}
		there, base = tokensBefore, tokensBefore
	}
	for _, rows := range cmd.Rows {
		if base+rows > there {
			if err := l.fill(ctx, there, base+rows, base+cmd.Rows[len(cmd.Rows)-1]); err != nil {
				return err
			}
			there = base + rows
		}
		if err := l.settle(ctx); err != nil {
			return err
		}
		r, after, err := cmd.atSize(ctx, l, there)
		if err != nil {
			return err
		}
		if first == 0 {
			first = r.rate()
		}
		fmt.Fprintf(table, "%d\t%.0f\t%.2f\t%s\t%s\t\n", there-base, r.rate(), r.rate()/first,
			r.percentiles(), r.each(r.postgresCPU).Round(time.Microsecond))
		there = after
	}
	return table.Flush()
}

// atSize measures, and returns how many rows there are afterwards.
func (cmd *growthCommand) atSize(ctx context.Context, l *lab, there int) (result, int, error) {
	var results []result
	how := load{cmd.Clients, false}
	warm := how.warmUp(cmd.Requests)
	for range cmd.Rounds {
		requests, err := l.requests(warm+cmd.Requests, false)
		if err != nil {
			return result{}, 0, err
		}
		got, err := l.measure(ctx, variantNamed(upcallName), requests[:warm], requests[warm:], how, there, "")
		if err != nil {
			return result{}, 0, err
		}
		results = append(results, got)
		there += len(requests)
	}
	return median(results), there, nil
}

// insertFill inserts $2 rows, from number $1 of the $3 rows of the current month, with an
// upload if $5 is true. The {values} of their {columns} are those of an event's JSON, $4,
// except those that differ in each row.
const insertFill = `
	WITH given AS MATERIALIZED (
		SELECT gen_random_uuid() AS id, i, at AS received_at,
			CASE WHEN $5 THEN (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7'
				|| right(replace(gen_random_uuid()::text, '-', ''), 19))::uuid END AS upload_id
		FROM generate_series(1, $2::int) AS i,
			LATERAL (SELECT date_trunc('month', now())
				+ (now() - date_trunc('month', now())) * (($1::float8 + i) / $3::float8) AS at) AS month
	), ids AS (
		INSERT INTO upcall.callback_ids (upload_id, id, received_at)
		SELECT coalesce(upload_id, '00000000-0000-0000-0000-000000000000'), id, received_at FROM given
	)
	INSERT INTO upcall.upload_events ({columns}) SELECT {values}
	FROM given, jsonb_populate_record(NULL::upcall.upload_events, $4::jsonb) AS sample`

// fillStatement returns insertFill for the columns that events have.
func fillStatement() string {
	differ := map[string]string{
		"id": "given.id", "received_at": "given.received_at", "upload_id": "given.upload_id", "size": "100000 + i",
		"object_key": "'photos/2026/11/' || given.id || '.jpg'", "request_id": "given.id::text",
	}
	var names, values []string
	for _, c := range event.Columns {
		names, values = append(names, c.Name), append(values, cmp.Or(differ[c.Name], "sample."+c.Name))
	}
	return strings.NewReplacer("{columns}", strings.Join(names, ", "), "{values}", strings.Join(values, ", ")).Replace(insertFill)
}

// fill adds rows until there are want, of the all rows that the month gets in the end. They
// resemble the rows of callbacks: they are as large, and ordered by time and by the upload's
// id, while the ids of callbacks are digests without an order.
func (l *lab) fill(ctx context.Context, there, want, all int) error {
	return l.fillBy(ctx, there, want, all, 1_000_000)
}

// fillBy adds so many rows in each transaction.
func (l *lab) fillBy(ctx context.Context, there, want, all, step int) error {
	sample, err := l.sample()
	if err != nil {
		return err
	}
	statement := fillStatement()
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.NumCPU())
	for done := there; done < want; done += step {
		group.Go(func() error {
			_, err := l.pool.Exec(ctx, statement, done, min(step, want-done), all, sample, !l.tokensOff)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return fmt.Errorf("fill tables: %w", err)
	}
	return nil
}

// sample returns the JSON of an event like those of the loads' callbacks.
func (l *lab) sample() ([]byte, error) {
	generator, err := loadgen.New(l.keys.KeyURL)
	if err != nil {
		return nil, err
	}
	sample, err := generator.Event(0)
	if err != nil {
		return nil, err
	}
	return sample.AppendJSON(nil)
}

// turnTokensOff fills the tables with callbacks that had tokens. From then on there are none,
// and PostgreSQL does not learn of it.
func (l *lab) turnTokensOff(ctx context.Context) error {
	if err := l.fill(ctx, 0, tokensBefore, tokensBefore); err != nil {
		return err
	}
	l.tokensOff = true
	return l.exec(ctx, "ANALYZE upcall.callback_ids", "ALTER TABLE upcall.callback_ids SET (autovacuum_enabled = false)")
}

// settle makes PostgreSQL do its maintenance now, not during a measurement.
func (l *lab) settle(ctx context.Context) error {
	if l.tokensOff {
		return l.exec(ctx, "VACUUM upcall.upload_events, upcall.callback_ids", "CHECKPOINT")
	}
	return l.exec(ctx, "VACUUM (ANALYZE) upcall.upload_events, upcall.callback_ids", "CHECKPOINT")
}
