package stream

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"

	"upcall/internal/event"
	"upcall/internal/kept"
	"upcall/internal/testing/fallbacktest"
	"upcall/internal/testing/wait"
)

func ignore(kept.Entry) error { return nil }

// TestMoveStopped: when the receiver stops, nothing becomes a dead letter, and another one is handed out the events at
// once, not only after ackWait.
func TestMoveStopped(t *testing.T) {
	t.Parallel()
	c, _ := config(t, cluster(t))
	s := open(t, c)
	fill(t, s, 0, 3)
	ctx, cancel := context.WithCancel(putting(t))
	m := &fallbacktest.Memory{Fail: func(*event.Event) error { cancel(); return ctx.Err() }}
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
	other := new(fallbacktest.Memory)
	moveAll(t, open(t, c), other, 3)
	if took := time.Since(began); len(other.Events) != 3 || took > ackWait {
		t.Errorf("%d moved after %s", len(other.Events), took)
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
			m := new(fallbacktest.Memory)
			moveAll(t, s, m, 1)
			var dead []kept.Entry
			if err := s.ReadDead(putting(t), func(e kept.Entry) error { dead = append(dead, e); return nil }); err != nil {
				t.Fatal(err)
			}
			if len(m.Events) != 3 || len(dead) != 1 {
				t.Fatalf("%d moved, %+v are dead", len(m.Events), dead)
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
