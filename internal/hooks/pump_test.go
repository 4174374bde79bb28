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
