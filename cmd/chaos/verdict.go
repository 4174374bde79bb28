package main

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"syscall"
	"text/tabwriter"
	"time"

	"upcall/internal/event"
	"upcall/internal/eventstore"
	"upcall/internal/loadgen"
)

// settle is how long the spools may take to drain after the last fault.
const settle = 2 * time.Minute

// A verdict compares what was answered with what is recorded.
type verdict struct {
	load     *load
	seen     loadgen.Tally
	recorded loadgen.Comparison
	missed   int // faults that should have come but did not
	told     *toldVerdict
	rolled   rolledVerdict
}

// good reports whether every promise was kept and every answer came in time. A run without
// acknowledged callbacks, or without its faults, proves nothing.
func (v verdict) good(slowest time.Duration) bool {
	return v.missed == 0 && v.seen.Acknowledged > 0 && v.recorded.Lost == 0 && v.recorded.Doubled == 0 && len(v.seen.Wrong) == 0 &&
		v.seen.Slowest <= slowest && v.told.good() && v.rolled.good()
}

// judge waits until the spools are drained, stops the receivers and reads the table.
func (w *world) judge(ctx context.Context, l *load) (verdict, error) {
	if err := l.finding.Wait(); err != nil {
		return verdict{}, err
	}
	if err := w.drain(ctx); err != nil {
		return verdict{}, err
	}
	if err := w.telling.settle(ctx); err != nil {
		return verdict{}, err
	}
	w.telling.reader.stop()
	for _, r := range w.receivers {
		if err := r.end(syscall.SIGTERM); err != nil {
			return verdict{}, err
		}
	}
	pool, err := eventstore.OpenReader(ctx, w.postgres.URL())
	if err != nil {
		return verdict{}, err
	}
	defer pool.Close()
	v := verdict{load: l}
	if v.told, err = w.telling.judge(ctx); err != nil {
		return verdict{}, err
	}
	uploads := make(account, l.Begun())
	v.recorded, err = l.Compare(func(record func(*event.Event)) error {
		return eventstore.Each(ctx, pool, func(e *event.Event) {
			uploads.add(e)
			record(e)
		})
	})
	if err != nil {
		return verdict{}, err
	}
	v.rolled, err = w.judgeRollups(ctx, uploads)
	return v, err
}

// drain waits until no callback is left in any spool.
func (w *world) drain(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, settle)
	defer cancel()
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		waiting := 0.0
		for _, r := range w.receivers {
			depth, err := loadgen.Metrics(ctx, r.admin, "upcall_spool_depth")
			if err != nil {
				return err
			}
			waiting += depth[0]
		}
		if waiting == 0 {
			return nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("%.0f callbacks still wait in the spools: %w", waiting, ctx.Err())
		}
	}
}

func (v verdict) print(out io.Writer, f *faults) {
	l := v.load
	fmt.Fprintf(out, "%s, %d CPUs, two receivers, one PostgreSQL; ", time.Now().UTC().Format(time.DateOnly), runtime.NumCPU())
	fmt.Fprintf(out, "%d SIGKILLs, %d SIGTERMs, %d stops of PostgreSQL, %d cuts, %d stalls, %d delays, %d full spool disks, ",
		f.done["kill"], f.done["restart"], f.done["outage"], f.done["cut"], f.done["stall"], f.done["delay"], f.done["fill"])
	fmt.Fprintf(out, "%d failovers, %d transactions held open for %v, %d pauses\n",
		f.done["failover"], f.done["hold"], f.HoldFor, f.done["pause"])
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	if n := f.wanted["fill"]; n > 0 && f.excused("fill") {
		fmt.Fprintf(table, "disks not filled, as this run may not mount any\t%d (%v)\n", n, f.world.mountErr)
	}
	for _, row := range []struct {
		what string
		n    any
	}{
		{"faults that did not come", v.missed},
		{"callbacks", v.seen.Callbacks},
		{"requests sent, repeats and next URLs included", v.seen.Sent},
		{"requests answered 200", v.seen.Accepted},
		{"of those, kept in a spool", v.seen.Durable["spool"]},
		{"callbacks acknowledged", v.seen.Acknowledged},
		{"callbacks that no receiver acknowledged", v.seen.Unheard},
		{"callbacks recorded", v.recorded.Recorded},
		{"acknowledged and lost", v.recorded.Lost},
		{"recorded twice", v.recorded.Doubled},
		{"refused wrongly", len(v.seen.Wrong)},
		{"times that the machine stood still", f.world.stillness.Count()},
		{"slowest answer otherwise", v.seen.Slowest.Round(time.Millisecond)},
	} {
		fmt.Fprintf(table, "%s\t%v\n", row.what, row.n)
	}
	table.Flush()
	fmt.Fprintln(out)
	v.told.print(out)
	fmt.Fprintln(out)
	v.rolled.print(out, l)
	for i, answer := range v.seen.Wrong {
		if i == 5 {
			fmt.Fprintf(out, "and %d more\n", len(v.seen.Wrong)-i)
			break
		}
		fmt.Fprintln(out, "wrong answer: "+answer)
	}
}
