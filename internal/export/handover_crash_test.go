package export

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"upcall/internal/dbtest"
	"upcall/internal/event"
	"upcall/internal/eventstore"
	"upcall/internal/testing/ossfake"
	"upcall/internal/testing/proc"
	"upcall/internal/testing/wait"
)

// TestTwoAtOnce: two receivers hand a month over, one after the other; and even if the lease of one were lost while it
// goes on, both together have each event in the end.
func TestTwoAtOnce(t *testing.T) {
	t.Parallel()
	for name, make := range targets {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newHandWorld(t, make(t), oldEvents(old())...)
			var kept atomic.Int64
			var all sync.WaitGroup
			for range 4 {
				keeper := w.keeper(t)
				all.Go(func() {
					got, err := eventstore.DropKept(t.Context(), w.pool, time.Now(), keptDays, keeper)
					kept.Add(got.Kept)
					if err != nil {
						t.Error(err)
					}
				})
			}
			all.Wait()
			if kept.Load() != 45 || len(w.inFiles(t)) != 45 || len(w.tables(t)) > 0 {
				t.Errorf("%d events were handed over, and tables %v are left", kept.Load(), w.tables(t))
			}

			w.add(t, oldEvents(old())...)
			got, err := eventstore.DropKept(t.Context(), w.pool, time.Now(), keptDays, twins{w.keeper(t), w.keeper(t)})
			if err != nil || got.Kept != 45 {
				t.Fatalf("dropped %+v, %v", got, err)
			}
			w.wantAll(t)
		})
	}
}

// Twins hand over the same month at the same time.
type twins struct{ one, other eventstore.Keeper }

func (w twins) Ready(ctx context.Context) error { return w.one.Ready(ctx) }

func (w twins) Keep(ctx context.Context, m eventstore.Month) (eventstore.Sums, error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = w.other.Keep(ctx, m) // it may find a file that the other one has just written
	}()
	sums, err := w.one.Keep(ctx, m)
	<-done
	if err != nil { // the other one was quicker
		sums, err = w.one.Keep(ctx, m)
	}
	return sums, err
}

// TestDatabaseLost: if PostgreSQL stops or breaks connections off while a month is handed over, nothing is dropped,
// and the next run finishes it.
func TestDatabaseLost(t *testing.T) {
	t.Parallel()
	w := handLocal(t, oldEvents(old())...)
	for _, after := range []int{1, 2} {
		_, err := w.dropWith(t, func(n int) {
			if n == after {
				dbtest.Execute(t, w.pool.Config().ConnString(), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
					WHERE datname = current_database() AND pid <> pg_backend_pid()`)
			}
		})
		if err == nil || !errors.Is(err, event.ErrUnavailable) {
			t.Errorf("got %v", err)
		}
		w.pool.Reset()
		if n := len(w.inTables(t)); n != 45 {
			t.Errorf("%d events are left", n)
		}
	}
	wait.Until(t, "it is dropped", func() bool { // the lock may be held for another moment
		return w.drop(t).Kept == 45
	})
	w.wantAll(t)
}

// handOverUntilKilled hands a month over, and stops before step n of what it does with files.
func handOverUntilKilled() {
	url, endpoint, to := os.Args[1], os.Args[2], os.Args[3]
	b := &broken{stop: true}
	_, err := fmt.Sscan(os.Args[4], &b.at)
	target := Local(to)
	if err == nil && endpoint != "" {
		target, err = bucketOf(endpoint, to)
	}
	if err != nil {
		panic(err)
	}
	h, err := NewHandOver(b.target(target), false)
	if err != nil {
		panic(err)
	}
	pool, err := eventstore.Open(context.Background(), url)
	if err == nil {
		_, err = eventstore.DropKept(context.Background(), pool, time.Now(), keptDays, h)
	}
	if err != nil {
		panic(err)
	}
}

// TestHandOverKilled kills a hand-over at many places. Each time, every event is in PostgreSQL or in a whole file.
func TestHandOverKilled(t *testing.T) {
	t.Parallel()
	endpoint := ossfake.Start(t)
	for _, at := range []string{"", endpoint} {
		kills := 0
		dir := t.TempDir()
		to := place{Local(dir), dir}
		if at != "" {
			dir = "history"
			target, err := bucketOf(at, dir)
			if err != nil {
				t.Fatal(err)
			}
			to = place{target, ""}
		}
		w := newHandWorld(t, to, oldEvents(old())...)
		for n := 1; ; n += 5 {
			child := proc.Start(t, "handover", w.pool.Config().ConnString(), at, dir, fmt.Sprint(n))
			if _, stopped := child.Line(); !stopped {
				if err := child.Wait(); err != nil {
					t.Fatalf("after %d kills: %v", kills, err)
				}
				break
			}
			child.Kill(t)
			kills++
			w.wantAll(t)
		}
		wait.Until(t, "it is dropped", func() bool { // the last one may have found the lock taken
			w.drop(t)
			return len(w.tables(t)) == 0
		})
		w.wantAll(t)
		if n := len(w.inFiles(t)); kills < 5 || n != 45 {
			t.Errorf("after %d kills, the files have %d events", kills, n)
		}
	}
}
