package main

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/google/uuid"

	"upcall/internal/event"
	"upcall/internal/eventstore"
	"upcall/internal/loadgen"
)

// settle is how long the spools may take to drain after the last fault.
const settle = 2 * time.Minute

// A verdict compares what was answered with what is recorded.
type verdict struct {
	load     *load
	recorded int
	lost     int // acknowledged and not recorded
	doubled  int // recorded more than once
	missed   int // faults that should have come but did not
	told     *toldVerdict
	rolled   rolledVerdict
}

// good reports whether every promise was kept and every answer came in time. A run without
// acknowledged callbacks, or without its faults, proves nothing.
func (v verdict) good(slowest time.Duration) bool {
	return v.missed == 0 && v.acknowledged() > 0 && v.lost == 0 && v.doubled == 0 && len(v.load.wrong) == 0 &&
		v.load.slowest <= slowest && v.told.good() && v.rolled.good()
}

func (v verdict) acknowledged() int {
	n := 0
	for _, id := range v.load.events {
		if id != uuid.Nil {
			n++
		}
	}
	return n
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
	uploads := make(account, len(l.events))
	found := make(map[uuid.UUID]bool, len(l.events))
	requests := make(map[string]bool, len(l.events))
	err = eventstore.Each(ctx, pool, func(e *event.Event) {
		// The request id is in the signed body and differs for each upload: two rows with one
		// request id are one callback recorded twice, even if their event ids differ.
		if found[e.ID] {
			v.doubled++
		}
		uploads.add(e)
		if found[e.ID] = true; e.Source != event.SourceCallback {
			return
		}
		if v.recorded++; requests[e.Callback.RequestID] {
			v.doubled++
		}
		requests[e.Callback.RequestID] = true
	})
	if err != nil {
		return verdict{}, err
	}
	for _, id := range l.events {
		if id != uuid.Nil && !found[id] {
			v.lost++
		}
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
		{"callbacks", len(l.events)},
		{"requests sent, repeats and next URLs included", l.sent},
		{"requests answered 200", l.accepted},
		{"of those, kept in a spool", l.spooled},
		{"callbacks acknowledged", v.acknowledged()},
		{"callbacks that no receiver acknowledged", l.unheard},
		{"callbacks recorded", v.recorded},
		{"acknowledged and lost", v.lost},
		{"recorded twice", v.doubled},
		{"refused wrongly", len(l.wrong)},
		{"times that the machine stood still", f.world.stillness.count()},
		{"slowest answer otherwise", l.slowest.Round(time.Millisecond)},
	} {
		fmt.Fprintf(table, "%s\t%v\n", row.what, row.n)
	}
	table.Flush()
	fmt.Fprintln(out)
	v.told.print(out)
	fmt.Fprintln(out)
	v.rolled.print(out, l)
	for i, answer := range l.wrong {
		if i == 5 {
			fmt.Fprintf(out, "and %d more\n", len(l.wrong)-i)
			break
		}
		fmt.Fprintln(out, "wrong answer: "+answer)
	}
}
