package hooks

import (
	"testing"

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
