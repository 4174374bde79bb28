package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"

	"upcall/internal/event"
	"upcall/internal/kept"
	"upcall/internal/testing/wait"
)

func ids(numbers ...int) []uuid.UUID {
	var ids []uuid.UUID
	for _, n := range numbers {
		ids = append(ids, numbered(n).ID)
	}
	return ids
}

func ignore(kept.Entry) error { return nil }

// entries returns what commands list.
func entries(t testing.TB, s *Stream) (waiting, dead []kept.Entry) {
	t.Helper()
	err := s.Read(putting(t), func(e kept.Entry) error {
		if e.Reason == "" {
			waiting = append(waiting, e)
		} else {
			dead = append(dead, e)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return waiting, dead
}

// TestMoveKeepsWhatIsNotTaken is the spool's, too.
func TestMoveKeepsWhatIsNotTaken(t *testing.T) {
	t.Parallel()
	c, l := config(t, cluster(t))
	s := open(t, c)
	fill(t, s, 0, 10)
	away := fmt.Errorf("%w: gone", event.ErrUnavailable)
	m := &memory{fail: func(e *event.Event) error {
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
	moved, saidAway := 0, false
	wait.Until(t, "six are moved, two wait and two are dead", func() bool { // the consumer may be behind the stream
		n, err := s.Move(putting(t), m.Record, 20)
		moved, saidAway = moved+n, saidAway || errors.Is(err, event.ErrUnavailable)
		waiting, dead := held(t, s)
		return moved == 6 && saidAway && waiting == 2 && dead == 2
	})
	if got := strings.Count(l.String(), "is a dead letter"); got != 2 || !strings.Contains(l.String(), numbered(4).ID.String()) {
		t.Errorf("log: %s", l)
	}
	wait.Until(t, "the dead letters are counted", func() bool { return s.Stats().DeadLetters == 2 && s.Depth() == 2 })
	if !s.HasDeadLetter(numbered(4).ID) || s.HasDeadLetter(numbered(2).ID) {
		t.Error("4 is no dead letter, or 2 is one")
	}
	away = nil
	moveAll(t, s, m, 8)
	s.Close()
	s = open(t, c)
	wait.Until(t, "the dead letters are counted", func() bool { st := s.Stats(); return st.DeadLetters == 2 && st.Queued == 0 })
	if len(m.events) != 8 {
		t.Errorf("%d moved", len(m.events))
	}
	_, dead := entries(t, s)
	reasons := make(map[string]string)
	for _, e := range dead {
		reasons[e.Object] = e.Reason
	}
	want := map[string]string{"photos/<4>.jpg": event.ErrUnstorable.Error(), "photos/<5>.jpg": event.ErrRevoked.Error()}
	if !maps.Equal(reasons, want) {
		t.Errorf("listed %v", reasons)
	}
}

// TestDeadAfterThree: what PostgreSQL fails while it accepts others is tried three times.
func TestDeadAfterThree(t *testing.T) {
	t.Parallel()
	c, _ := config(t, cluster(t))
	s := open(t, c)
	fill(t, s, 0, 3)
	tried := 0
	m := &memory{}
	m.fail = func(e *event.Event) error {
		if e.ID == numbered(1).ID {
			tried++
			return event.ErrDeadLetter
		}
		return nil
	}
	moveAll(t, s, m, 8)
	if _, dead := held(t, s); dead != 1 || tried != 3 || len(m.events) != 2 {
		t.Errorf("%d dead after %d tries, %d moved", dead, tried, len(m.events))
	}
}

// TestMoveStopped: when the receiver stops, nothing becomes a dead letter, and another one is handed out the events at
// once, not only after ackWait.
func TestMoveStopped(t *testing.T) {
	t.Parallel()
	c, _ := config(t, cluster(t))
	s := open(t, c)
	fill(t, s, 0, 3)
	ctx, cancel := context.WithCancel(putting(t))
	m := &memory{fail: func(*event.Event) error { cancel(); return ctx.Err() }}
	var err error
	wait.Until(t, "the receiver stops while it moves", func() bool {
		var moved int
		if moved, err = s.Move(ctx, m.Record, 3); moved != 0 {
			t.Errorf("moved %d", moved)
		}
		return ctx.Err() != nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	began := time.Now()
	other := new(memory)
	moveAll(t, open(t, c), other, 3)
	if took := time.Since(began); len(other.events) != 3 || took > ackWait {
		t.Errorf("%d moved after %s", len(other.events), took)
	}
	if _, dead := held(t, s); dead != 0 {
		t.Errorf("%d are dead", dead)
	}
}

// TestPoison: what is no record becomes a dead letter and stops nothing. It is listed with its bytes, and can be
// discarded.
func TestPoison(t *testing.T) {
	t.Parallel()
	good, err := kept.Encode(&kept.Record{Event: *numbered(0)})
	if err != nil {
		t.Fatal(err)
	}
	damaged := slices.Clone(good)
	damaged[len(damaged)-3] ^= 1
	for name, message := range map[string][]byte{"empty": nil, "a stranger's": []byte("hello"), "damaged": damaged, "cut off": good[:40],
		"two at once": slices.Concat(good, good)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, _ := config(t, cluster(t))
			s := open(t, c)
			if _, err := s.js.PublishMsg(putting(t), &nats.Msg{Subject: s.config.waiting(), Data: message}); err != nil {
				t.Fatal(err)
			}
			fill(t, s, 1, 4)
			m := new(memory)
			moveAll(t, s, m, 1)
			_, dead := entries(t, s)
			if len(m.events) != 3 || len(dead) != 1 {
				t.Fatalf("%d moved, %+v are dead", len(m.events), dead)
			}
			var line struct {
				Record   []byte
				Rejected struct{ Reason string }
			}
			if err := json.Unmarshal(dead[0].JSON, &line); err != nil || string(line.Record) != string(message) ||
				!strings.Contains(line.Rejected.Reason, "a record has the wrong") {
				t.Errorf("it is exported as %s: %v", dead[0].JSON, err)
			}
			if err := s.Retry(putting(t), []uuid.UUID{dead[0].ID}, ignore); err != nil {
				t.Fatal(err)
			}
			moveAll(t, s, m, 1)
			if err := s.Discard(putting(t), []uuid.UUID{dead[0].ID}, ignore); err != nil {
				t.Fatal(err)
			}
			if waiting, dead := held(t, s); waiting+dead != 0 {
				t.Errorf("%d wait, %d are dead", waiting, dead)
			}
		})
	}
}

// TestRetryAndDiscard takes dead letters away, and those only.
func TestRetryAndDiscard(t *testing.T) {
	t.Parallel()
	c, _ := config(t, cluster(t))
	s := open(t, c)
	fill(t, s, 0, 4)
	m := &memory{fail: func(*event.Event) error { return event.ErrUnstorable }}
	moveAll(t, s, m, 10)
	fill(t, s, 4, 6)
	for name, bad := range map[string][]uuid.UUID{"waits": ids(0, 4), "unknown": ids(1, 99), "repeated": ids(0, 1, 0)} {
		for _, err := range []error{s.Retry(putting(t), bad, ignore), s.Discard(putting(t), bad, ignore)} {
			if !errors.Is(err, ErrNoDeadLetter) {
				t.Errorf("%s: got %v", name, err)
			}
		}
		if waiting, dead := held(t, s); waiting != 2 || dead != 4 {
			t.Errorf("%s: %d wait, %d are dead", name, waiting, dead)
		}
	}
	var retried []uuid.UUID
	if err := s.Retry(putting(t), ids(1, 3), func(e kept.Entry) error { retried = append(retried, e.ID); return nil }); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(retried, ids(1, 3)) {
		t.Errorf("retried %v", retried)
	}
	if err := s.Discard(putting(t), ids(0), ignore); err != nil {
		t.Fatal(err)
	}
	if waiting, dead := held(t, s); waiting != 4 || dead != 1 || !s.HasDeadLetter(numbered(2).ID) || s.HasDeadLetter(numbered(1).ID) {
		t.Errorf("%d wait, %d are dead", waiting, dead)
	}
	// They die again, within the time in which the servers remember IDs, and nothing is lost.
	moveAll(t, s, m, 10)
	if _, dead := held(t, s); dead != 5 {
		t.Errorf("%d are dead", dead)
	}
	all, err := s.DeadLetters(putting(t))
	if err != nil {
		t.Fatal(err)
	}
	m.fail = nil
	if err := s.Retry(putting(t), all, ignore); err != nil {
		t.Fatal(err)
	}
	moveAll(t, s, m, 10)
	for n := 1; n < 6; n++ {
		if !m.has(n) {
			t.Errorf("%d is lost", n)
		}
	}
}

// TestKnownIsNotBelieved: that the servers know an ID does not make a callback safe. It comes again after it was
// discarded, within the two minutes for which they remember it, and is in the stream again.
func TestKnownIsNotBelieved(t *testing.T) {
	t.Parallel()
	c, _ := config(t, cluster(t))
	s := open(t, c)
	fill(t, s, 0, 2)
	if err := s.handle().Purge(putting(t)); err != nil { // an operator's mistake
		t.Fatal(err)
	}
	for n := range 2 {
		if duplicate, err := s.Put(putting(t), numbered(n)); err != nil || duplicate {
			t.Errorf("put %d: %v, duplicate %v", n, err, duplicate)
		}
	}
	if waiting, _ := held(t, s); waiting != 2 {
		t.Errorf("%d wait: acknowledged callbacks are lost", waiting)
	}
}

// TestErase erases dead letters, also those that become one later.
func TestErase(t *testing.T) {
	t.Parallel()
	const name = "erin-71b0c2"
	theirs := func(n int) *event.Event {
		e := numbered(n)
		e.Callback.ClientIP = netip.MustParseAddr("203.0.113.177")
		e.Callback.Vars = map[string]json.RawMessage{"uid": json.RawMessage(`"` + name + `"`)}
		return e
	}
	c, _ := config(t, cluster(t))
	s := open(t, c)
	for _, e := range []*event.Event{theirs(1), numbered(2)} {
		if _, err := s.Put(putting(t), e); err != nil {
			t.Fatal(err)
		}
	}
	m := &memory{fail: func(*event.Event) error { return event.ErrUnstorable }}
	moveAll(t, s, m, 10)
	salt := []byte("salt")
	asked := []event.Erasure{{Before: epoch.Add(time.Hour), Variable: "uid", Salt: salt, Digest: event.ErasureDigest(salt, name)}}
	for _, want := range []int{1, 0} {
		if n, err := s.Erase(putting(t), asked); err != nil || n != want {
			t.Errorf("erased %d: %v, want %d", n, err, want)
		}
	}
	if _, err := s.Put(putting(t), theirs(3)); err != nil { // on its way meanwhile
		t.Fatal(err)
	}
	moveAll(t, s, m, 10)
	_, dead := entries(t, s)
	if len(dead) != 3 {
		t.Errorf("%d are dead", len(dead))
	}
	for _, e := range dead {
		if strings.Contains(string(e.JSON), name) || strings.Contains(string(e.JSON), "203.0.113.177") {
			t.Errorf("it holds %s", e.JSON)
		}
		if e.ID == numbered(2).ID && !strings.Contains(string(e.JSON), "12345678901234567890") {
			t.Errorf("another one was erased: %s", e.JSON)
		}
	}
}
