package hooks

import (
	"net/http"
	"testing"
	"time"

	"upcall/internal/testing/wait"
)

// TestRedeliverDuringAttempt has an event sent again while an attempt to deliver it is in flight:
// whatever becomes of that attempt, another one follows.
func TestRedeliverDuringAttempt(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		answers  int // of the attempt during which it is sent again
		schedule Schedule
		first    bool // it is a first try, else a redelivery
	}{
		{"a first try succeeds", 204, nil, true},
		{"a first try fails", 500, nil, true},
		{"a first try is the last", 500, Schedule{}, true},
		{"a redelivery succeeds", 204, nil, false},
		{"a redelivery fails", 500, nil, false},
		{"a redelivery is the last", 500, Schedule{}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w, a := newWorld(t), newApp(t, nil)
			w.receiver(t, func(c *PumpConfig) { c.Schedule = tt.schedule })
			w.add(t, "app", a)
			again := 1 // the number of the attempt
			if !tt.first {
				again = 2
			}
			a.answers(func(n int, r *http.Request) int {
				if n != again {
					return 204
				}
				if sent, err := w.Redeliver(t.Context(), Redelivery{Since: time.Now().Add(-time.Hour)}); err != nil || sent != 1 {
					t.Errorf("%d, %v", sent, err)
				}
				return tt.answers
			})
			ids := w.upload(t, "k", 1)
			a.waitFor(t, ids)
			if !tt.first {
				wait.Until(t, "the first try is committed", func() bool { return w.sum(t, delivered) == 1 })
				if _, err := w.Redeliver(t.Context(), Redelivery{Event: ids[0]}); err != nil {
					t.Fatal(err)
				}
			}
			wait.Until(t, "it is sent again", func() bool { return a.requests() > again })
			wait.Until(t, "no row is left", func() bool { return w.count(t, "hook_retries") == 0 })
			if a.requests() != again+1 {
				t.Errorf("%d requests", a.requests())
			}
		})
	}
}

// TestRedeliverDuringCommit: the commit of a lane waits for the row that an operator is just
// changing, and then leaves it alone.
func TestRedeliverDuringCommit(t *testing.T) {
	t.Parallel()
	w, a := newWorld(t), newApp(t, nil)
	w.receiver(t)
	w.add(t, "app", a)
	ids := w.upload(t, "k", 1)
	a.waitFor(t, ids)
	wait.Until(t, "the first try is committed", func() bool { return w.sum(t, delivered) == 1 })
	tx, err := w.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(t.Context())
	a.answers(func(n int, _ *http.Request) int {
		if n == 2 { // as Redeliver does it
			if _, err := tx.Exec(t.Context(), "UPDATE upcall.hook_retries SET reason = 'redelivery', attempts = 0, due_at = now()"); err != nil {
				t.Error(err)
			}
		}
		return 204
	})
	if _, err := w.Redeliver(t.Context(), Redelivery{Event: ids[0]}); err != nil {
		t.Fatal(err)
	}
	wait.Until(t, "the lane's commit waits", func() bool {
		var waiting bool
		w.query(t, &waiting, `SELECT EXISTS (SELECT FROM pg_stat_activity
			WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%hook_retries%')`)
		return waiting
	})
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	wait.Until(t, "it is sent again", func() bool { return a.requests() == 3 })
	wait.Until(t, "no row is left", func() bool { return w.count(t, "hook_retries") == 0 })
}

// TestResumeDuringCommit: an endpoint is resumed while its lane is about to say that it is failing.
func TestResumeDuringCommit(t *testing.T) {
	t.Parallel()
	w, a := newWorld(t), newApp(t, nil)
	w.clock.set(time.Now())
	w.receiver(t)
	w.add(t, "app", a)
	a.waitFor(t, w.upload(t, "before", 1))
	wait.Until(t, "it is committed", func() bool { return w.sum(t, delivered) == 1 })
	tx, err := w.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(t.Context())
	a.answers(func(n int, _ *http.Request) int {
		if n == openInRow { // the ninth failure; from now on readers of the log are held up
			if _, err := tx.Exec(t.Context(), "SELECT FROM upcall.hook_endpoints FOR UPDATE"); err != nil {
				t.Error(err)
			}
		}
		return 500
	})
	ids := w.upload(t, "k", openInRow)
	wait.Until(t, "the lane's commit waits", func() bool {
		var waiting bool
		w.query(t, &waiting, `SELECT EXISTS (SELECT FROM pg_stat_activity
			WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%failing_since%')`)
		return waiting
	})
	a.answers(nil)
	_, err = tx.Exec(t.Context(), `WITH changed AS (UPDATE upcall.hook_changes SET version = version + 1 RETURNING version)
		UPDATE upcall.hook_endpoints SET version = changed.version, failing_since = NULL FROM changed`) // as Resume does it
	if err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.clock.set(time.Now().Add(10 * time.Second)) // the retries are due, a probe is not
	a.waitFor(t, ids)
	e, err := w.Get(t.Context(), "app")
	if err != nil || e.State != Active {
		t.Errorf("%v, %+v", err, e)
	}
	wait.Until(t, "no row is left", func() bool { return w.count(t, "hook_retries") == 0 })
}
