package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"upcall/internal/cli"
	"upcall/internal/eventstore"
	"upcall/internal/sample"
)

type sizeCommand struct {
	Callbacks int   `default:"300000" help:"Callbacks, and uploads of the ledger, that are recorded to measure what each takes."`
	PerDay    []int `default:"10000,100000,1000000,10000000" help:"Callbacks a day that the table is for."`
	Months    int   `default:"12" help:"Months that events and ledger are kept."`
}

// A size is what a callback takes in PostgreSQL, in bytes.
type size struct {
	events, eventIndexes   float64 // its row in upload_events
	ids, idIndexes         float64 // the one in callback_ids
	rollups, rollupIndexes float64 // of its object, which is new
	ledger, ledgerIndexes  float64 // if its upload was issued with the ledger on
	log                    float64 // of the write-ahead log, with the roll-ups
}

// Run measures what a callback takes, and computes what so many a day need.
func (cmd *sizeCommand) Run(ctx context.Context, std cli.Stdio) error {
	if cmd.Callbacks < 1000 || cmd.Months < 1 || len(cmd.PerDay) == 0 {
		return cli.Usage(errors.New("give 1000 callbacks, a month, and a number of callbacks a day"))
	}
	for _, n := range cmd.PerDay {
		if n < 1 {
			return cli.Usage(errors.New("--per-day must be positive"))
		}
	}
	l, err := newLab(ctx)
	if err != nil {
		return err
	}
	defer l.close()
	each, memory, err := cmd.record(ctx, l)
	if err == nil {
		err = cmd.issue(ctx, l, each)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(std.Out, "PostgreSQL %s; %d callbacks, each of an object of its own, by 128 clients with roll-ups\n\n",
		l.postgres.Version(), cmd.Callbacks)
	if err := each.print(std.Out); err != nil {
		return err
	}
	fmt.Fprintf(std.Out, "%-28s %6.0f bytes\n%-28s %6.0f MiB\n\n", "write-ahead log", each.log, "receiver, peak", memory/(1<<20))
	return each.printDays(std.Out, cmd.PerDay, cmd.Months, memory)
}

// record has a receiver record callbacks, and returns what each takes, and the receiver's peak memory in bytes.
func (cmd *sizeCommand) record(ctx context.Context, l *lab) (*size, float64, error) {
	requests, err := l.requests(cmd.Callbacks, false)
	if err != nil {
		return nil, 0, err
	}
	s, err := l.newRollupSide(ctx, "size", load{128, false}, "", nil)
	if err != nil {
		return nil, 0, err
	}
	defer s.close()
	var before, after string
	const position = "SELECT pg_current_wal_lsn()::text"
	if err := s.pool.QueryRow(ctx, position).Scan(&before); err != nil {
		return nil, 0, fmt.Errorf("read position of the log: %w", err)
	}
	for _, some := range [][][]byte{requests[:1], requests[1:]} { // the public key is fetched for the first
		if _, err := s.clients.send(some, 0); err != nil {
			return nil, 0, err
		}
	}
	if err := errors.Join(s.expect(ctx, cmd.Callbacks), s.allCounted(ctx)); err != nil {
		return nil, 0, err
	}
	if err := s.pool.QueryRow(ctx, position).Scan(&after); err != nil {
		return nil, 0, fmt.Errorf("read position of the log: %w", err)
	}
	memory, err := peakMemory(s.child.cmd.Process.Pid)
	if err != nil {
		return nil, 0, err
	}
	each := new(size)
	err = s.pool.QueryRow(ctx, "SELECT pg_wal_lsn_diff($2::pg_lsn, $1::pg_lsn)::float8 / $3::int",
		before, after, cmd.Callbacks).Scan(&each.log)
	if err != nil {
		return nil, 0, fmt.Errorf("subtract positions of the log: %w", err)
	}
	return each, memory, errors.Join(
		s.sizes(ctx, "upload_events", cmd.Callbacks, &each.events, &each.eventIndexes),
		s.sizes(ctx, "callback_ids", cmd.Callbacks, &each.ids, &each.idIndexes),
		s.sizes(ctx, "rollup", cmd.Callbacks, &each.rollups, &each.rollupIndexes))
}

// issue fills a ledger, and measures what each of its rows takes.
func (cmd *sizeCommand) issue(ctx context.Context, l *lab, each *size) error {
	database, err := l.createDatabase(ctx, "issued")
	if err != nil {
		return err
	}
	own := l.again()
	own.databaseURL = database
	if err := own.prepare(ctx); err != nil {
		return err
	}
	defer own.closePool()
	feed, err := eventstore.OpenFeed(ctx, database)
	if err != nil {
		return err
	}
	defer feed.Close()
	if err := sample.Fill(ctx, sample.Config{Pool: own.pool, Feed: feed, Events: cmd.Callbacks, Seed: 1,
		Until: time.Now(), PerTransaction: 5000, Report: func(int) {}}); err != nil {
		return err
	}
	var uploads int
	if err := own.pool.QueryRow(ctx, "SELECT count(*) FROM upcall.issued_uploads").Scan(&uploads); err != nil {
		return fmt.Errorf("count uploads: %w", err)
	}
	return own.sizes(ctx, "issued_uploads", uploads, &each.ledger, &each.ledgerIndexes)
}

// sizes returns what each of n rows takes in all tables whose name begins so, and in their indexes.
func (l *lab) sizes(ctx context.Context, begins string, n int, table, indexes *float64) error {
	err := l.pool.QueryRow(ctx, `SELECT sum(pg_table_size(oid))::float8 / $2::int, sum(pg_indexes_size(oid))::float8 / $2::int
		FROM pg_class WHERE relnamespace = 'upcall'::regnamespace AND relkind = 'r'
		AND starts_with(relname, $1)`, begins, n).Scan(table, indexes)
	if err != nil {
		return fmt.Errorf("read sizes of %s: %w", begins, err)
	}
	return nil
}

func (s *size) print(out io.Writer) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "bytes a callback\trow\tindexes\t")
	for _, part := range []struct {
		name         string
		row, indexes float64
	}{
		{"event", s.events, s.eventIndexes},
		{"id", s.ids, s.idIndexes},
		{"ledger, if it is on", s.ledger, s.ledgerIndexes},
		{"roll-ups, each object new", s.rollups, s.rollupIndexes},
	} {
		fmt.Fprintf(table, "%s\t%.0f\t%.0f\t\n", part.name, part.row, part.indexes)
	}
	return table.Flush()
}

// kept is what retention drops with a callback's month; rolled stays for good.
func (s *size) kept() float64 {
	return s.events + s.eventIndexes + s.ids + s.idIndexes + s.ledger + s.ledgerIndexes
}

func (s *size) rolled() float64 { return s.rollups + s.rollupIndexes }

const daysAMonth = 365.0 / 12

// printDays prints what so many callbacks a day need. A month is dropped when all of it is older than the
// retention, so one more is there. What PostgreSQL should cache is what a day writes.
func (s *size) printDays(out io.Writer, perDay []int, months int, receiver float64) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(table, "callbacks a day\ta second\tdisk, %d months kept\troll-ups, each year\twrite-ahead log a day\tmemory\t\n", months)
	for _, n := range perDay {
		day := float64(n)
		fmt.Fprintf(table, "%d\t%.1f\t%s\t%s\t%s\t%s\t\n", n, day/(24*60*60), bytesOf(day*daysAMonth*float64(months+1)*s.kept()),
			bytesOf(day*365*s.rolled()), bytesOf(day*s.log), bytesOf(receiver+day*(s.kept()+s.rolled())))
	}
	return table.Flush()
}

// bytesOf writes a number of bytes for a plan: two digits are enough.
func bytesOf(n float64) string {
	unit := 0
	for units := len(planUnits) - 1; n >= 1000 && unit < units; unit++ {
		n /= 1000
	}
	digits := 0
	if n < 9.95 {
		digits = 1
	}
	return fmt.Sprintf("%.*f %s", digits, n, planUnits[unit])
}

var planUnits = []string{"B", "kB", "MB", "GB", "TB"}
