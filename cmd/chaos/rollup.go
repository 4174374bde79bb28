package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"upcall/internal/event"
	"upcall/internal/rollup"
	"upcall/internal/spool"
)

// oldest is how long ago callbacks that come late were received.
const oldest = 30 * time.Hour

// leave puts events into the spool of a receiver that was killed, as if they had waited there since hours ago:
// callbacks, and notifications of uploads whose callbacks are sent. What tells of half of the callbacks beside them, and
// of as many that never come, is recorded: half of it now, and the rest while the receiver starts.
func (l *load) leave(ctx context.Context, victim *receiver, n int, random *rand.Rand) error {
	if n == 0 {
		return nil
	}
	queue, err := spool.Open(ctx, spool.Config{Dir: filepath.Join(victim.disk, "spool"), MinFreeBytes: -1,
		Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return fmt.Errorf("leave late callbacks: %w", err)
	}
	var puts errgroup.Group
	var found [2][]*event.Event
	now, begun := time.Now().Truncate(time.Microsecond), max(l.Begun(), 1)
	for i := range n {
		at := now.Add(-time.Duration(random.Int64N(int64(oldest)))).Truncate(time.Microsecond)
		number, source := random.IntN(begun), event.SourceNotification
		if i%4 != 2 {
			number, source = l.reserve()
		}
		if i%2 == 1 {
			told, err := l.tell(number, i/4, at)
			if err != nil {
				return err
			}
			half := &found[i/24%2]
			*half = append(*half, told...)
		}
		if i%4 == 3 { // its callback is lost
			continue
		}
		e, err := l.make.Event(number)
		if err != nil {
			return err
		}
		e.ID, e.Source, e.Acknowledged, e.ReceivedAt = uuid.New(), source, true, at
		puts.Go(func() error {
			if _, err := queue.Put(ctx, e); err != nil {
				return err
			}
			l.left(number, e)
			return nil
		})
	}
	if err := puts.Wait(); err != nil {
		return fmt.Errorf("leave late callbacks: %w", err)
	}
	if err := l.find(ctx, found[0]); err != nil {
		return err
	}
	l.finding.Go(func() error { return l.find(ctx, found[1]) })
	return queue.Close()
}

// reserve returns the number of a callback that is not sent.
func (l *load) reserve() (int, event.Source) {
	return l.Begin(), event.SourceCallback
}

// left notes that an event is in a spool.
func (l *load) left(i int, e *event.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.Source == event.SourceCallback {
		l.Kept(i, e.ID)
		l.late++
	} else {
		l.again++
	}
}

// counts returns the process that counts.
func (w *world) counts(ctx context.Context) (pid int, err error) {
	conn, err := w.connect(ctx)
	if err != nil {
		return 0, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	err = conn.QueryRow(ctx, `SELECT split_part(lease_holder, '/', 2)::int FROM upcall.feed_consumers
		WHERE name = $1 AND lease_until > clock_timestamp()`, rollup.Consumer).Scan(&pid)
	return pid, err
}

// A rolledVerdict compares the roll-ups with plain queries over the log, and with what is known of each upload.
type rolledVerdict struct {
	compared   int // lines
	differing  []string
	superseded int // events that others took the place of
	found      int // events that were recorded of no callback
	misplaced  int // of those, behind a better one in the log
}

// good reports whether all was counted rightly. If there were events that may be superseded, some must have been.
func (v rolledVerdict) good() bool {
	return v.compared > 0 && len(v.differing) == 0 && v.misplaced == 0 && (v.found == 0 || v.superseded > 0)
}

func (w *world) judgeRollups(ctx context.Context, uploads account) (v rolledVerdict, err error) {
	conn, err := w.connect(ctx)
	if err != nil {
		return v, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if v.differing, v.compared, err = rollup.Differences(ctx, conn, 100); err != nil {
		return v, err
	}
	want, superseded, wrong := uploads.best()
	v.superseded, v.differing = superseded, append(v.differing, wrong...)
	for _, view := range []string{
		"SELECT source, sum(uploads) FROM upcall.upload_hourly", "SELECT source, count(*) FROM upcall.upload_log",
	} {
		rows, err := conn.Query(ctx, view+" GROUP BY source")
		if err != nil {
			return v, err
		}
		got := make(map[event.Source]int)
		var source event.Source
		var n int
		if _, err := pgx.ForEachRow(rows, []any{&source, &n}, func() error { got[source] = n; return nil }); err != nil {
			return v, err
		}
		if !maps.Equal(got, want) {
			v.differing = append(v.differing, fmt.Sprintf("%s: %v, want %v", view, got, want))
		}
	}
	return v, conn.QueryRow(ctx, `
		SELECT count(*), count(*) FILTER (WHERE callback.recorded_xid < found.recorded_xid)
		FROM upcall.upload_events found LEFT JOIN upcall.upload_events callback
			ON callback.etag = found.etag AND callback.source = 'callback'
		WHERE found.source <> 'callback'`).Scan(&v.found, &v.misplaced)
}

func (v rolledVerdict) print(out io.Writer, l *load) {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "callbacks that waited in spools since up to %v before\t%d\n", oldest, l.late)
	fmt.Fprintf(table, "uploads that a notification in a spool told of, too\t%d\n", l.again)
	fmt.Fprintf(table, "events that were found, not told by callbacks\t%d\n", v.found)
	fmt.Fprintf(table, "events that others took the place of\t%d\n", v.superseded)
	fmt.Fprintf(table, "events that were found behind better ones in the log\t%d\n", v.misplaced)
	fmt.Fprintf(table, "hours, objects and versions in the plain query\t%d\n", v.compared)
	fmt.Fprintf(table, "of those, other in the roll-ups\t%d\n", len(v.differing))
	table.Flush()
	for _, line := range v.differing[:min(len(v.differing), 10)] {
		fmt.Fprintln(out, "counted wrongly: "+line)
	}
}
