package hooks

import (
	"testing"

	"github.com/google/uuid"

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
