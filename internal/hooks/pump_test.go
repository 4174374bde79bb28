package hooks

import (
	"context"
	"fmt"
	"testing"

	"github.com/google/uuid"

	"upcall/internal/feed"
	"upcall/internal/testing/wait"
)

func TestDelivers(t *testing.T) {
	t.Parallel()
	w, photos, none := newWorld(t), newApp(t, nil), newApp(t, nil)
	before := w.upload(t, "early", 1)
	w.receiver(t)
	w.add(t, "photos", photos, func(s *Settings) { s.KeyPrefixes = []string{"a/"} })
	w.add(t, "none", none, func(s *Settings) { s.Buckets = []string{"other"} })
	want := w.upload(t, "a/", 300)
	w.upload(t, "b/", 5)
	photos.waitFor(t, want)
	wait.Until(t, "the places in the log are committed", func() bool {
		return w.count(t, "hook_counts WHERE outcome = 'delivered'") > 0 && w.sum(t, "delivered") == 300
	})
	if photos.requests() != 300 || none.requests() != 0 {
		t.Errorf("%d and %d requests; %v came before", photos.requests(), none.requests(), before)
	}
	if n := w.count(t, "hook_retries"); n != 0 {
		t.Errorf("%d rows of retries", n)
	}
}

// sum returns how many attempts were counted.
func (w *world) sum(t *testing.T, outcome string) (n int) {
	t.Helper()
	w.query(t, &n, "SELECT coalesce(sum(attempts), 0)::integer FROM upcall.hook_counts WHERE outcome = $1", outcome)
	return n
}

// TestBehind names what has deliveries to come, until there are none.
func TestBehind(t *testing.T) {
	t.Parallel()
	w, a, b := newWorld(t), newApp(t, nil), newApp(t, nil)
	w.add(t, "app", a)
	w.add(t, "other", b, func(s *Settings) { s.Buckets = []string{"other"} })
	w.add(t, "paused", b)
	if _, err := w.Pause(t.Context(), "paused"); err != nil {
		t.Fatal(err)
	}
	w.upload(t, "k", 3)
	behind, err := w.Behind(t.Context())
	if err != nil || len(behind) != 2 || behind[0] != "endpoint app: 3 events, 0 retries" {
		t.Errorf("%v, %q", err, behind)
	}
	w.receiver(t)
	wait.Until(t, "nothing is to come", func() bool {
		behind, err = w.Behind(t.Context())
		return err == nil && len(behind) == 0
	})
	if a.requests() != 3 {
		t.Errorf("%d requests", a.requests())
	}
}

// TestBehindSeesEachFailure: a first try that fails while Behind looks is still to come, whether Behind
// finds it before its cursor or among the retries.
func TestBehindSeesEachFailure(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	e := w.add(t, "app", newApp(t, nil))
	ids := w.upload(t, "k", 1)
	log := w.feed(t)
	lane, err := w.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lane.Rollback(context.Background()) }() // it was committed
	if _, err := lane.Exec(t.Context(), "LOCK TABLE upcall.feed_consumers"); err != nil {
		t.Fatal(err)
	}
	looked := make(chan []string, 1)
	go func() {
		behind, err := w.Behind(context.Background())
		looked <- append(behind, fmt.Sprint(err))
	}()
	wait.Until(t, "Behind reads cursors", func() (waits bool) {
		w.query(t, &waits, `SELECT EXISTS (SELECT FROM pg_stat_activity
			WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%feed_consumers ORDER BY%')`)
		return waits
	})
	to, err := log.Now(t.Context())
	if err == nil {
		err = feed.MoveConsumer(t.Context(), lane, e.consumer(), to)
	}
	if err == nil {
		_, err = lane.Exec(t.Context(), `INSERT INTO upcall.hook_retries (endpoint_id, event_id, received_at, kind, reason, attempts, due_at)
			VALUES ($1, $2, now(), 'recorded', 'retry', 1, now())`, e.ID, ids[0])
	}
	if err == nil {
		err = lane.Commit(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	if got := <-looked; len(got) != 2 || got[0] != "endpoint app: 0 events, 1 retries" {
		t.Errorf("%q", got)
	}
}

// TestIdleMovesOn: a lane that has nothing to do is left alone for most of the time, but its place in
// the log moves on with what it does not ask for.
func TestIdleMovesOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	e := w.add(t, "other", newApp(t, nil), func(s *Settings) { s.Buckets = []string{"other"} })
	p, _ := w.receiver(t)
	wait.Until(t, "its lane has nothing to do", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		l := p.lanes[e.ID]
		return l != nil && l.idle.Load()
	})
	w.upload(t, "k", 3)
	wait.Until(t, "it has passed them", func() bool {
		behind, err := w.Behind(t.Context())
		return err == nil && len(behind) == 0
	})
}

// TestToldOfCopies: what a lane makes of its endpoint is not what other lanes are started with.
func TestToldOfCopies(t *testing.T) {
	t.Parallel()
	all := []Endpoint{{ID: uuid.New(), State: Active}}
	l := &lane{changed: make(chan *Endpoint, 1)}
	p := &Pump{lanes: map[uuid.UUID]*lane{all[0].ID: l}}
	p.tellAll(all)
	if told := <-l.changed; told == &all[0] || told.ID != all[0].ID {
		t.Errorf("it was told of %p, the endpoint of all is %p", told, &all[0])
	}
}
