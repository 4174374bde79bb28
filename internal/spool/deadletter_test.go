package spool

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/uuid"

	"upcall/internal/event"
	"upcall/internal/kept"
	"upcall/internal/testing/fallbacktest"
)

// deadLetters returns a spool in which the first events are dead letters and as many others
// wait.
func deadLetters(t *testing.T, c Config, dead int) *Spool {
	t.Helper()
	s := open(t, c)
	fill(t, s, 0, dead)
	moveAll(t, s, &fallbacktest.Memory{Fail: func(*event.Event) error { return event.ErrUnstorable }}, 100)
	fill(t, s, dead, 2*dead)
	return s
}

func ids(numbers ...int) []uuid.UUID {
	var ids []uuid.UUID
	for _, n := range numbers {
		ids = append(ids, numbered(n).ID)
	}
	return ids
}

// contents returns the IDs in a spool's file.
func contents(t *testing.T, dir string) (waiting, dead []uuid.UUID) {
	t.Helper()
	err := readFile(filepath.Join(dir, fileName), func(h kept.Head, _ []byte) error {
		if h.Dead {
			dead = append(dead, h.ID)
		} else {
			waiting = append(waiting, h.ID)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return waiting, dead
}

func wantStats(t *testing.T, s *Spool, queued, dead int) {
	t.Helper()
	if got := s.Stats(); got.Queued != queued || got.DeadLetters != dead || got.Oldest.IsZero() != (queued == 0) {
		t.Errorf("stats %+v, want %d waiting and %d dead letters", got, queued, dead)
	}
}

func TestRetry(t *testing.T) {
	t.Parallel()
	c, _ := config(t.TempDir())
	s := deadLetters(t, c, 4)
	if err := s.Retry(ids(2, 0)); err != nil {
		t.Fatal(err)
	}
	wantStats(t, s, 6, 2)
	if duplicate, err := s.Put(t.Context(), numbered(2)); err != nil || !duplicate {
		t.Errorf("a repeat of a retried event: duplicate %v, %v", duplicate, err)
	}
	s.Close()
	s = open(t, c) // the file and the memory agree
	wantStats(t, s, 6, 2)
	m := new(fallbacktest.Memory)
	moveAll(t, s, m, 1)
	if want := ids(4, 5, 6, 7, 2, 0); !slices.Equal(m.Order, want) {
		t.Errorf("moved %v, want %v", m.Order, want)
	}
	if e := m.Events[numbered(2).ID]; e.Callback.Object != numbered(2).Callback.Object || !e.Acknowledged ||
		!e.ReceivedAt.Equal(numbered(2).ReceivedAt) {
		t.Errorf("it was moved as %+v", e)
	}
	// In an empty queue, the retried event is the oldest.
	if err := s.Retry(ids(3)); err != nil || !s.Stats().Oldest.Equal(numbered(3).ReceivedAt) {
		t.Errorf("oldest %s, %v", s.Stats().Oldest, err)
	}
	// It can become a dead letter again.
	moveAll(t, s, &fallbacktest.Memory{Fail: func(*event.Event) error { return event.ErrUnstorable }}, 1)
	wantStats(t, s, 0, 2)
}

// TestRetryOfWaitingEvent: a dead letter that arrived again waits only once.
func TestRetryOfWaitingEvent(t *testing.T) {
	t.Parallel()
	c, _ := config(t.TempDir())
	s := deadLetters(t, c, 1)
	fill(t, s, 0, 1)
	if err := s.Retry(ids(0)); err != nil {
		t.Fatal(err)
	}
	wantStats(t, s, 2, 0)
	s.Close()
	if waiting, dead := contents(t, c.Dir); !slices.Equal(waiting, ids(1, 0)) || len(dead) != 0 {
		t.Errorf("%v wait, %v are dead letters", waiting, dead)
	}
}

func TestDiscard(t *testing.T) {
	t.Parallel()
	c, _ := config(t.TempDir())
	s := deadLetters(t, c, 3)
	if err := s.Discard(ids(1)); err != nil {
		t.Fatal(err)
	}
	wantStats(t, s, 3, 2)
	for n, want := range []bool{true, false, true, false} { // 1 was discarded, 3 waits
		if got := s.HasDeadLetter(numbered(n).ID); got != want {
			t.Errorf("%d is a dead letter: %v, want %v", n, got, want)
		}
	}
	if err := s.Discard(ids(2, 0)); err != nil {
		t.Fatal(err)
	}
	wantStats(t, s, 3, 0)
	if s.HasDeadLetter(numbered(0).ID) {
		t.Error("a discarded event is a dead letter")
	}
	s.Close()
	if waiting, dead := contents(t, c.Dir); !slices.Equal(waiting, ids(3, 4, 5)) || len(dead) != 0 {
		t.Errorf("%v wait, %v are dead letters", waiting, dead)
	}
	wantStats(t, open(t, c), 3, 0)
}

// TestDeadLettersOnly: if one ID is not that of a dead letter, nothing changes, not even for
// the other IDs.
func TestDeadLettersOnly(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		ids    []uuid.UUID
		change func(*Spool)
		want   error
	}{
		"waits":           {ids(0, 2), nil, ErrNoDeadLetter},
		"unknown":         {ids(0, 99), nil, ErrNoDeadLetter},
		"nil":             {[]uuid.UUID{numbered(0).ID, uuid.Nil}, nil, ErrNoDeadLetter},
		"repeated":        {ids(0, 1, 0), nil, ErrNoDeadLetter},
		"disk has failed": {ids(0), func(s *Spool) { s.fail(os.ErrInvalid) }, event.ErrSpoolUnwritable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, _ := config(t.TempDir())
			s := deadLetters(t, c, 2)
			if tt.change != nil {
				tt.change(s)
			}
			for _, err := range []error{s.Retry(tt.ids), s.Discard(tt.ids)} {
				if !errors.Is(err, tt.want) {
					t.Errorf("got %v, want %v", err, tt.want)
				}
			}
			wantStats(t, s, 2, 2)
			if s.Has(numbered(0).ID) {
				t.Error("it waits")
			}
			s.Close()
			waiting, dead := contents(t, c.Dir)
			if len(dead) != 2 || !slices.Equal(waiting, ids(2, 3)) {
				t.Errorf("%v wait, %v are dead letters", waiting, dead)
			}
		})
	}
}

// TestRetryInFullSpool: a dead letter can be retried in a full spool, which already holds it.
func TestRetryInFullSpool(t *testing.T) {
	t.Parallel()
	c, _ := config(t.TempDir())
	deadLetters(t, c, 2).Close()
	c.MinFreeBytes = math.MaxInt64 / 2
	s := open(t, c)
	if err := s.Retry(ids(0)); err != nil {
		t.Error(err)
	}
	wantStats(t, s, 3, 1)
}
