package stream

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"upcall/internal/testing/wait"
)

var sameEvent = cmp.Options{cmpopts.EquateComparable(numbered(0).SourceAddr)}

// TestMovesWhatWasPut: another receiver moves what one has put, whole.
func TestMovesWhatWasPut(t *testing.T) {
	t.Parallel()
	c, _ := config(t, cluster(t))
	s := open(t, c)
	fill(t, s, 0, 100)
	if duplicate, err := s.Put(putting(t), numbered(5)); err != nil || !duplicate {
		t.Errorf("a repeat: %v, duplicate %v", err, duplicate)
	}
	s.Close()
	s = open(t, c)
	if duplicate, err := s.Put(putting(t), numbered(99)); err != nil || !duplicate {
		t.Errorf("a repeat: %v, duplicate %v", err, duplicate)
	}
	wait.Until(t, "the depth is known", func() bool { return s.Depth() == 100 })
	if stats := s.Stats(); stats.Oldest.IsZero() || stats.Bytes < 100*400 || stats.DeadLetters != 0 {
		t.Errorf("stats %+v", stats)
	}
	m := new(memory)
	moveAll(t, s, m, 7)
	for n := range 100 {
		want := *numbered(n)
		want.Acknowledged = true
		if diff := cmp.Diff(want, m.events[want.ID], sameEvent); diff != "" {
			t.Fatalf("event %d (-put +moved):\n%s", n, diff)
		}
	}
	if m.repeat != 0 {
		t.Errorf("%d were moved twice", m.repeat)
	}
	wait.Until(t, "it is empty", func() bool { st := s.Stats(); return st.Queued == 0 && st.Oldest.IsZero() })
}
