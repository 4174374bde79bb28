package spool

import (
	"log/slog"
	"testing"
	"time"

	"go.uber.org/goleak"

	"upcall/internal/event"
	"upcall/internal/testing/fallbacktest"
	"upcall/internal/testing/logtest"
	"upcall/internal/testing/proc"
)

func TestMain(m *testing.M) {
	proc.Main(map[string]func(){"putter": putter, "discarder": discarder})
	goleak.VerifyTestMain(m)
}

// epoch is when the first event arrives.
var epoch = fallbacktest.Epoch

// numbered returns the nth event of a test.
func numbered(n int) *event.Event { return fallbacktest.Numbered(n) }

// config has a long LockTimeout because a process that another test forks also holds the lock
// until it calls exec.
func config(dir string) (Config, *logtest.Buffer) {
	l := new(logtest.Buffer)
	return Config{Dir: dir, MinFreeBytes: -1, LockTimeout: time.Minute,
		Logger: slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelInfo})),
		Now:    func() time.Time { return epoch.Add(time.Hour) }}, l
}

// open opens a spool, and closes it when the test ends.
func open(t testing.TB, c Config) *Spool {
	t.Helper()
	s, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// fill puts events into a spool.
func fill(t testing.TB, s *Spool, from, to int) {
	t.Helper()
	for n := from; n < to; n++ {
		if duplicate, err := s.Put(t.Context(), numbered(n)); err != nil || duplicate {
			t.Fatalf("put %d: %v, duplicate %v", n, err, duplicate)
		}
	}
}

// moveAll moves events until none wait.
func moveAll(t testing.TB, s *Spool, m *fallbacktest.Memory, most int) {
	t.Helper()
	for s.Stats().Queued > 0 {
		if _, err := s.Move(t.Context(), m.Record, most); err != nil {
			t.Fatal(err)
		}
	}
}
