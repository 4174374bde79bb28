package fallbacktest

import (
	"encoding/json"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"upcall/internal/event"
)

// deadAfterThree: what PostgreSQL fails while it accepts others is tried three times.
func deadAfterThree(t *testing.T, k Kind) {
	s := k.Open(t, 0)
	Fill(t, s, 0, 3)
	tried := 0
	m := new(Memory)
	m.Fail = func(e *event.Event) error {
		if e.ID != Numbered(1).ID {
			return nil
		}
		tried++
		return event.ErrDeadLetter
	}
	moveAll(t, s, m, 8)
	if wantHeld(t, s, 0, 1); tried != 3 || len(m.Events) != 2 {
		t.Errorf("tried %d times, %d moved", tried, len(m.Events))
	}
}

// retryAndDiscard takes dead letters away, and those only.
func retryAndDiscard(t *testing.T, k Kind) {
	s := k.Open(t, 0)
	Fill(t, s, 0, 4)
	moveAll(t, s, never(), 10)
	Fill(t, s, 4, 6)
	for name, bad := range map[string][]uuid.UUID{
		"waits": IDs(0, 4), "unknown": IDs(1, 99), "nil": {Numbered(0).ID, uuid.Nil}, "repeated": IDs(0, 1, 0),
	} {
		for _, err := range []error{s.Again(t, bad...), s.Drop(t, bad...)} {
			if !errors.Is(err, k.NoDeadLetter) {
				t.Errorf("%s: got %v", name, err)
			}
		}
		wantHeld(t, s, 2, 4)
	}
	if err := s.Again(t, IDs(1, 3)...); err != nil {
		t.Fatal(err)
	}
	if err := s.Drop(t, IDs(0)...); err != nil {
		t.Fatal(err)
	}
	wantHeld(t, s, 4, 1)
	for n, want := range []bool{false, false, true, false} {
		if got := s.HasDeadLetter(Numbered(n).ID); got != want {
			t.Errorf("%d is a dead letter: %v", n, got)
		}
	}
	s = s.Next(t)
	wantHeld(t, s, 4, 1)
	moveAll(t, s, never(), 10) // they die again, at once
	wantHeld(t, s, 0, 5)
	if err := s.Again(t, IDs(1, 2, 3, 4, 5)...); err != nil {
		t.Fatal(err)
	}
	m := new(Memory)
	moveAll(t, s, m, 10)
	for n := range 6 {
		if m.Has(n) != (n > 0) {
			t.Errorf("%d is recorded: %v", n, m.Has(n))
		}
	}
	wantHeld(t, s, 0, 0)
}

// deadLetterArrivesAgain: a dead letter that arrived again and is retried ends as one row.
func deadLetterArrivesAgain(t *testing.T, k Kind) {
	s := k.Open(t, 0)
	Fill(t, s, 0, 1)
	moveAll(t, s, never(), 10)
	if _, err := s.Put(Context(t), Numbered(0)); err != nil {
		t.Fatal(err)
	}
	if err := s.Again(t, IDs(0)...); err != nil {
		t.Fatal(err)
	}
	m := new(Memory)
	moveAll(t, s, m, 10)
	if wantHeld(t, s, 0, 0); len(m.Events) != 1 {
		t.Errorf("%d rows", len(m.Events))
	}
}

// erasesDeadLetters: those of a user lose what identifies them, others keep it.
func erasesDeadLetters(t *testing.T, k Kind) {
	const name = "erin-71b0c2"
	theirs := func(n int) *event.Event {
		e := Numbered(n)
		e.Callback.ClientIP = netip.MustParseAddr("203.0.113.177")
		e.Callback.Vars = map[string]json.RawMessage{"uid": json.RawMessage(`"` + name + `"`)}
		return e
	}
	s := k.Open(t, 0)
	for _, e := range []*event.Event{theirs(1), Numbered(2)} {
		if _, err := s.Put(Context(t), e); err != nil {
			t.Fatal(err)
		}
	}
	moveAll(t, s, never(), 10)
	salt := []byte("salt")
	asked := []event.Erasure{{Before: Epoch.Add(time.Hour), Variable: "uid", Salt: salt, Digest: event.ErasureDigest(salt, name)}}
	for _, want := range []int{1, 0} {
		if n, err := s.Erase(Context(t), asked); err != nil || n != want {
			t.Errorf("erased %d: %v, want %d", n, err, want)
		}
	}
	if _, err := s.Put(Context(t), theirs(3)); err != nil { // on its way meanwhile
		t.Fatal(err)
	}
	moveAll(t, s, never(), 10)
	letters := s.Letters(t)
	if len(letters) != 3 {
		t.Errorf("%d are dead", len(letters))
	}
	for _, e := range letters {
		if strings.Contains(string(e.JSON), name) || strings.Contains(string(e.JSON), "203.0.113.177") {
			t.Errorf("it holds %s", e.JSON)
		}
		if e.ID == Numbered(2).ID && !strings.Contains(string(e.JSON), "12345678901234567890") {
			t.Errorf("another one was erased: %s", e.JSON)
		}
	}
}

// repeats: what waits is there once, and a dead letter is known to be one.
func repeats(t *testing.T, k Kind) {
	s := k.Open(t, 0)
	Fill(t, s, 0, 5)
	for range 2 {
		for n := range 5 {
			if duplicate, err := s.Put(Context(t), Numbered(n)); err != nil || !duplicate {
				t.Errorf("a repeat of %d: %v, duplicate %v", n, err, duplicate)
			}
		}
		s = s.Next(t)
	}
	wantHeld(t, s, 5, 0)
	moveAll(t, s, never(), 10)
	for _, id := range IDs(0, 1, 2, 3, 4) {
		if !s.HasDeadLetter(id) {
			t.Errorf("%s is no dead letter", id)
		}
	}
	var letters []uuid.UUID
	for _, e := range s.Letters(t) {
		letters = append(letters, e.ID)
	}
	slices.SortFunc(letters, func(a, b uuid.UUID) int { return strings.Compare(a.String(), b.String()) })
	want := IDs(0, 1, 2, 3, 4)
	slices.SortFunc(want, func(a, b uuid.UUID) int { return strings.Compare(a.String(), b.String()) })
	if !slices.Equal(letters, want) {
		t.Errorf("dead letters %v, want %v", letters, want)
	}
}
