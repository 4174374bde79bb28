package spool

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"upcall/internal/event"
	"upcall/internal/testing/fallbacktest"
)

func TestMoveKeepsWhatIsNotTaken(t *testing.T) {
	t.Parallel()
	c, l := config(t.TempDir())
	s := open(t, c)
	fill(t, s, 0, 10)
	away := fmt.Errorf("%w: gone", event.ErrUnavailable)
	m := &fallbacktest.Memory{Fail: func(e *event.Event) error {
		switch e.ID {
		case numbered(2).ID, numbered(9).ID:
			return away
		case numbered(4).ID:
			return event.ErrUnstorable
		case numbered(5).ID:
			return event.ErrRevoked
		}
		return nil
	}}
	moved, err := s.Move(t.Context(), m.Record, 8)
	if moved != 5 || !errors.Is(err, event.ErrUnavailable) {
		t.Errorf("moved %d: %v", moved, err)
	}
	if stats := s.Stats(); stats.Queued != 3 || stats.DeadLetters != 2 || !stats.Oldest.Equal(numbered(2).ReceivedAt) {
		t.Errorf("stats %+v", stats)
	}
	if got := strings.Count(l.String(), "is a dead letter"); got != 2 || !strings.Contains(l.String(), numbered(4).ID.String()) {
		t.Errorf("log: %s", l)
	}
	// A repeat does not add a dead letter, and dead letters survive a restart.
	fill(t, s, 4, 5)
	away = nil
	moveAll(t, s, m, 8)
	s.Close()
	s = open(t, c)
	if stats := s.Stats(); stats.Queued != 0 || stats.DeadLetters != 2 {
		t.Errorf("stats after a restart %+v", stats)
	}
	if s.Has(numbered(4).ID) {
		t.Error("a dead letter counts as waiting")
	}
	if len(m.Order) != 8 {
		t.Errorf("%d moved", len(m.Order))
	}
}

// TestInterruptedMove: the process ends between the store's commit and the spool's. The next
// process moves the same events again, and the store recognizes them.
func TestInterruptedMove(t *testing.T) {
	t.Parallel()
	c, _ := config(t.TempDir())
	s := open(t, c)
	fill(t, s, 0, 20)
	m := new(fallbacktest.Memory)
	before := t.TempDir()
	var once sync.Once
	m.Fail = func(*event.Event) error {
		once.Do(func() { copyFile(t, filepath.Join(c.Dir, fileName), filepath.Join(before, fileName)) })
		return nil
	}
	if _, err := s.Move(t.Context(), m.Record, 10); err != nil {
		t.Fatal(err)
	}
	c, _ = config(before)
	again := open(t, c)
	if got := again.Stats().Queued; got != 20 {
		t.Fatalf("%d queued in the copy", got)
	}
	moveAll(t, again, m, 7)
	if len(m.Order) != 20 {
		t.Errorf("%d events for 20", len(m.Order))
	}
}

func copyFile(t testing.TB, from, to string) {
	t.Helper()
	content, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, content, 0o600)
	}
	if err != nil {
		t.Error(err)
	}
}
