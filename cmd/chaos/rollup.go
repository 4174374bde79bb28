package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"upcall/internal/event"
	"upcall/internal/rollup"
	"upcall/internal/spool"
)

// oldest is how long ago callbacks that come late were received.
const oldest = 30 * time.Hour

// leave puts events into the spool of a receiver that was killed, as if they had waited there
// since hours ago: callbacks, and notifications of uploads whose callbacks are sent.
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
	now, begun := time.Now().Truncate(time.Microsecond), max(l.begun(), 1)
	for i := range n {
		number, source := random.IntN(begun), event.SourceNotification
		if i%2 == 0 {
			number, source = l.reserve()
		}
		e, err := l.make.Event(number)
		if err != nil {
			return err
		}
		e.ID, e.Source, e.Acknowledged = uuid.New(), source, true
		e.ReceivedAt = now.Add(-time.Duration(random.Int64N(int64(oldest)))).Truncate(time.Microsecond)
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
	return queue.Close()
}

// reserve returns the number of a callback that is not sent.
func (l *load) reserve() (int, event.Source) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = append(l.events, uuid.Nil)
	return len(l.events) - 1, event.SourceCallback
}

// left notes that an event is in a spool.
func (l *load) left(i int, e *event.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.Source == event.SourceCallback {
		l.events[i] = e.ID
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

// A rolledVerdict compares the roll-ups with plain queries over the log.
type rolledVerdict struct {
	compared  int // lines
	differing []string
}

func (v rolledVerdict) good() bool { return v.compared > 0 && len(v.differing) == 0 }

func (w *world) judgeRollups(ctx context.Context) (v rolledVerdict, err error) {
	conn, err := w.connect(ctx)
	if err != nil {
		return v, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	v.differing, v.compared, err = rollup.Differences(ctx, conn, 100)
	return v, err
}

func (v rolledVerdict) print(out io.Writer, l *load) {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "callbacks that waited in spools since up to %v before\t%d\n", oldest, l.late)
	fmt.Fprintf(table, "uploads that a notification told of, too\t%d\n", l.again)
	fmt.Fprintf(table, "hours, objects and versions in the plain query\t%d\n", v.compared)
	fmt.Fprintf(table, "of those, other in the roll-ups\t%d\n", len(v.differing))
	table.Flush()
	for _, line := range v.differing[:min(len(v.differing), 10)] {
		fmt.Fprintln(out, "counted wrongly: "+line)
	}
}
