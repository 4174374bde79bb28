package hooks

import (
	"testing"
	"time"
)

var start = time.Date(2026, 11, 27, 8, 0, 0, 0, time.UTC)

func TestBreakerOpens(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		outcomes string // . is a success, x a failure
		opensAt  int    // the number of the outcome; 0 is never
	}{
		{"nine in a row", "xxxxxxxxx.xxxxxxxxx", 0},
		{"ten in a row", "xxxxxxxxxx", 10},
		{"ten after a success", ".xxxxxxxxxx", 11},
		{"half of the last fifty", repeat("x.", 25), 0}, // the last is a success, which opens nothing
		{"half of the last fifty, then a failure", repeat("x.", 25) + "x", 51},
		{"fewer than fifty", repeat("x.", 24) + "x", 0},
		{"less than half", repeat("x..", 50), 0},
		{"long ago", repeat("xxxxx.....", 4) + repeat(".", 50) + repeat("xx.....", 20), 0},
	} {
		b, opensAt := newBreaker(DefaultSchedule()), 0
		for i, outcome := range tt.outcomes {
			if outcome == '.' {
				b.success()
			} else if b.failure(start, false, 0) == opened {
				opensAt = i + 1
				break
			}
		}
		if opensAt != tt.opensAt || b.open != (tt.opensAt > 0) {
			t.Errorf("%s: opens at %d, open %v", tt.name, opensAt, b.open)
		}
	}
}

func repeat(s string, n int) string {
	all := ""
	for range n {
		all += s
	}
	return all
}

func openBreaker(t *testing.T, s Schedule) breaker {
	t.Helper()
	b := newBreaker(s)
	for range openInRow {
		b.failure(start, false, 0)
	}
	if !b.open {
		t.Fatal("closed")
	}
	return b
}

// TestBreakerProbes follows one that never works: pauses of 30 s that double up to 15 min, and
// the end after exactly 120 hours.
func TestBreakerProbes(t *testing.T) {
	t.Parallel()
	b, now, probes := openBreaker(t, DefaultSchedule()), start, 0
	want := 30 * time.Second
	for {
		if b.mayProbe(b.probeAt.Add(-time.Nanosecond)) || !b.mayProbe(b.probeAt) {
			t.Fatal("a probe at another time")
		}
		if pause := b.probeAt.Sub(now); pause != want && b.probeAt != start.Add(disableAfter) {
			t.Fatalf("probe %d after %v, want %v", probes, pause, want)
		}
		now, want, probes = b.probeAt, min(2*want, 15*time.Minute), probes+1
		if b.failure(now, false, 0) != unchanged || b.probeAt != now {
			t.Fatal("an attempt that began earlier changes an open breaker")
		}
		if v := b.failure(now, true, 0); v == disabled {
			break
		} else if v != unchanged {
			t.Fatalf("verdict %v", v)
		}
	}
	if now != start.Add(disableAfter) || probes < 480 || probes > 490 {
		t.Errorf("disabled after %v and %d probes", now.Sub(start), probes)
	}
}

func TestBreakerCloses(t *testing.T) {
	t.Parallel()
	b := openBreaker(t, DefaultSchedule())
	if b.success() != closed || b.open || !b.since.IsZero() || b.mayProbe(start.Add(time.Hour)) {
		t.Errorf("%+v", b)
	}
	for range openInRow - 1 { // as if it had never been open
		if b.failure(start, false, 0) != unchanged {
			t.Fatal("opens early")
		}
	}
	if b.failure(start, false, 0) != opened {
		t.Error("does not open again")
	}
}

func TestBreakerRetryAfter(t *testing.T) {
	t.Parallel()
	b := openBreaker(t, DefaultSchedule())
	b.failure(start, true, 10*time.Minute)
	if pause := b.probeAt.Sub(start); pause != 10*time.Minute {
		t.Errorf("%v", pause)
	}
	b.failure(start, true, 10*time.Hour)
	if pause := b.probeAt.Sub(start); pause != slowestProbe {
		t.Errorf("%v", pause)
	}
}

// TestBreakerOfShortSchedule probes as often as the schedule's longest step.
func TestBreakerOfShortSchedule(t *testing.T) {
	t.Parallel()
	b := openBreaker(t, Schedule{100 * time.Millisecond, time.Second})
	for range 5 {
		if pause := b.probeAt.Sub(start); pause != time.Second {
			t.Errorf("%v", pause)
		}
		b.failure(start, true, 0)
	}
}
