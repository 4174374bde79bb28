package spool

import (
	"testing"

	"github.com/google/uuid"

	"upcall/internal/event"
	"upcall/internal/kept"
	"upcall/internal/testing/fallbacktest"
)

// A subject is a spool under test.
type subject struct {
	*Spool
	config Config
}

// TestFallback runs the tests of all fallbacks with the spool.
func TestFallback(t *testing.T) {
	t.Parallel()
	fallbacktest.Run(t, fallbacktest.Kind{MaxBytes: 4 << 20, NoDeadLetter: ErrNoDeadLetter, Full: event.ErrSpoolFull,
		Open: func(t testing.TB, maxBytes int64) fallbacktest.Subject {
			c, _ := config(t.TempDir())
			c.MaxBytes = maxBytes
			return subject{open(t, c), c}
		}})
}

func (s subject) Next(t testing.TB) fallbacktest.Subject {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return subject{open(t, s.config), s.config}
}

func (s subject) Held(testing.TB) (waiting, dead int) { return s.Stats().Queued, s.Stats().DeadLetters }

func (s subject) Letters(t testing.TB) []kept.Entry {
	t.Helper()
	letters, err := s.DeadLetters(1000)
	if err != nil {
		t.Fatal(err)
	}
	return letters
}

func (s subject) Again(_ testing.TB, ids ...uuid.UUID) error { return s.Retry(ids) }

func (s subject) Drop(_ testing.TB, ids ...uuid.UUID) error { return s.Discard(ids) }
