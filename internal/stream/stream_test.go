package stream

import (
	"testing"

	"upcall/internal/testing/fallbacktest"
	"upcall/internal/testing/wait"
)

// TestStats: what a receiver knows of the stream is what others have put there, too.
func TestStats(t *testing.T) {
	t.Parallel()
	c, _ := config(t, cluster(t))
	s, other := open(t, c), open(t, c)
	fallbacktest.Fill(t, other, 0, 20)
	wait.Until(t, "the depth is known", func() bool { return s.Depth() == 20 })
	if stats := s.Stats(); stats.Oldest.IsZero() || stats.Bytes < 20*400 ||
		stats.DeadLetters != 0 || stats.MaxBytes != c.MaxBytes || stats.Replicas != replicas {
		t.Errorf("stats %+v", stats)
	}
	moveAll(t, s, new(fallbacktest.Memory), 7)
	for _, s := range []*Stream{s, other} {
		wait.Until(t, "it is empty", func() bool { st := s.Stats(); return st.Queued == 0 && st.Oldest.IsZero() })
	}
}
