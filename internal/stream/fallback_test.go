package stream

import (
	"testing"

	"github.com/google/uuid"

	"upcall/internal/event"
	"upcall/internal/kept"
	"upcall/internal/testing/fallbacktest"
)

// A subject is a stream under test.
type subject struct {
	*Stream
	config Config
}

// TestFallback runs the tests of all fallbacks with the stream.
func TestFallback(t *testing.T) {
	t.Parallel()
	fallbacktest.Run(t, fallbacktest.Kind{MaxBytes: minMaxBytes, NoDeadLetter: ErrNoDeadLetter, Full: event.ErrStreamFull,
		Open: func(t testing.TB, maxBytes int64) fallbacktest.Subject {
			c, _ := config(t, cluster(t))
			if maxBytes > 0 {
				c.MaxBytes = maxBytes
			}
			return subject{open(t, c), c}
		}})
}

func (s subject) Next(t testing.TB) fallbacktest.Subject {
	s.Close()
	next := open(t, s.config)
	next.measure(fallbacktest.Context(t)) // at the start, the servers may have been too busy to answer
	return subject{next, s.config}
}

func (s subject) Held(t testing.TB) (waiting, dead int) { return held(t, s.Stream) }

func (s subject) Letters(t testing.TB) (letters []kept.Entry) {
	t.Helper()
	if err := s.ReadDead(fallbacktest.Context(t), func(e kept.Entry) error { letters = append(letters, e); return nil }); err != nil {
		t.Fatal(err)
	}
	return letters
}

func (s subject) Again(t testing.TB, ids ...uuid.UUID) error {
	return s.Retry(fallbacktest.Context(t), ids, ignore)
}

func (s subject) Drop(t testing.TB, ids ...uuid.UUID) error {
	return s.Discard(fallbacktest.Context(t), ids, ignore)
}
