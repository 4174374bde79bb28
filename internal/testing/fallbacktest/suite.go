package fallbacktest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"upcall/internal/event"
	"upcall/internal/testing/wait"
)

// SameEvent compares events.
var SameEvent = cmp.Options{cmpopts.EquateComparable(netip.Addr{})}

// Run runs all tests with a kind of fallback.
func Run(t *testing.T, k Kind) {
	for name, test := range map[string]func(*testing.T, Kind){
		"moves what was put":            movesWhatWasPut,
		"keeps what is not taken":       keepsWhatIsNotTaken,
		"dead after three":              deadAfterThree,
		"a stop kills nothing":          aStopKillsNothing,
		"refuses the unstorable":        refusesTheUnstorable,
		"full":                          full,
		"retry and discard":             retryAndDiscard,
		"a dead letter arrives again":   deadLetterArrivesAgain,
		"erases dead letters":           erasesDeadLetters,
		"puts and moves at once":        putsAndMovesAtOnce,
		"a move that was cut off":       cutOff,
		"repeats of what waits or died": repeats,
	} {
		t.Run(name, func(t *testing.T) { t.Parallel(); test(t, k) })
	}
}

// moveAll moves events until none wait.
func moveAll(t testing.TB, s Subject, m *Memory, most int) {
	t.Helper()
	wait.Until(t, "all are moved", func() bool {
		if _, err := s.Move(Context(t), m.Record, most); err != nil {
			t.Log(err)
		}
		waiting, _ := s.Held(t)
		return waiting == 0
	})
}

// wantHeld checks what a fallback holds.
func wantHeld(t testing.TB, s Subject, waiting, dead int) {
	t.Helper()
	if w, d := s.Held(t); w != waiting || d != dead {
		t.Errorf("%d wait, %d are dead; want %d and %d", w, d, waiting, dead)
	}
}

// never fails all events with an error that makes them dead letters.
func never() *Memory { return &Memory{Fail: func(*event.Event) error { return event.ErrUnstorable }} }

// movesWhatWasPut: the next process moves what one has put, whole, and each once.
func movesWhatWasPut(t *testing.T, k Kind) {
	const all = 60
	s := k.Open(t, 0)
	Fill(t, s, 0, all)
	wantHeld(t, s, all, 0)
	s = s.Next(t)
	wait.Until(t, "the next process knows how many wait", func() bool { return s.Depth() == all })
	m := new(Memory)
	moveAll(t, s, m, 7)
	for n := range all {
		want := *Numbered(n)
		want.Acknowledged = true
		if diff := cmp.Diff(want, m.Events[want.ID], SameEvent); diff != "" {
			t.Fatalf("event %d (-put +moved):\n%s", n, diff)
		}
	}
	if m.Repeat != 0 {
		t.Errorf("%d were moved twice", m.Repeat)
	}
	wait.Until(t, "it is known to be empty", func() bool { return s.Depth() == 0 })
	wantHeld(t, s.Next(t), 0, 0)
}

// keepsWhatIsNotTaken: what PostgreSQL does not take now waits, what it never takes is a dead letter, and neither
// stops the others.
func keepsWhatIsNotTaken(t *testing.T, k Kind) {
	s := k.Open(t, 0)
	Fill(t, s, 0, 10)
	away := fmt.Errorf("%w: gone", event.ErrUnavailable)
	m := &Memory{Fail: func(e *event.Event) error {
		switch e.ID {
		case Numbered(2).ID, Numbered(9).ID:
			return away
		case Numbered(4).ID:
			return event.ErrUnstorable
		case Numbered(5).ID:
			return event.ErrRevoked
		}
		return nil
	}}
	moved, saidAway := 0, false
	wait.Until(t, "six are moved, two wait and two are dead", func() bool {
		n, err := s.Move(Context(t), m.Record, 20)
		moved, saidAway = moved+n, saidAway || errors.Is(err, event.ErrUnavailable)
		waiting, dead := s.Held(t)
		return moved == 6 && saidAway && waiting == 2 && dead == 2
	})
	if !s.HasDeadLetter(Numbered(4).ID) || s.HasDeadLetter(Numbered(2).ID) {
		t.Error("4 is no dead letter, or 2 is one")
	}
	away = nil
	moveAll(t, s, m, 8)
	if len(m.Events) != 8 {
		t.Errorf("%d moved", len(m.Events))
	}
	s = s.Next(t)
	wantHeld(t, s, 0, 2)
	reasons := make(map[string]string)
	for _, e := range s.Letters(t) {
		reasons[e.Object] = e.Reason
	}
	want := map[string]string{"photos/<4>.jpg": event.ErrUnstorable.Error(), "photos/<5>.jpg": event.ErrRevoked.Error()}
	if diff := cmp.Diff(want, reasons); diff != "" {
		t.Errorf("reasons (-want +got):\n%s", diff)
	}
}

// aStopKillsNothing: when the receiver stops, nothing becomes a dead letter, and the next one moves all.
func aStopKillsNothing(t *testing.T, k Kind) {
	s := k.Open(t, 0)
	Fill(t, s, 0, 3)
	ctx, stop := context.WithCancel(Context(t))
	defer stop()
	m := &Memory{Fail: func(*event.Event) error { stop(); return ctx.Err() }}
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
	wantHeld(t, s, 3, 0)
	m = new(Memory)
	moveAll(t, s.Next(t), m, 3)
	if len(m.Events) != 3 {
		t.Errorf("%d moved", len(m.Events))
	}
}

// refusesTheUnstorable: what PostgreSQL could never hold is not acknowledged.
func refusesTheUnstorable(t *testing.T, k Kind) {
	s := k.Open(t, 0)
	for name, change := range map[string]func(*event.Event){
		"not UTF-8":          func(e *event.Event) { e.Callback.Object = "\xff" },
		"NUL":                func(e *event.Event) { e.Callback.RequestID = "a\x00" },
		"variable not JSON":  func(e *event.Event) { e.Callback.Vars["x"] = []byte("{") },
		"variable not UTF-8": func(e *event.Event) { e.Callback.Vars["x"] = []byte("\"\xff\"") },
		"too long":           func(e *event.Event) { e.Callback.Vars["x"] = []byte(`"` + strings.Repeat("x", 4<<20) + `"`) },
	} {
		e := Numbered(1)
		change(e)
		if _, err := s.Put(Context(t), e); !errors.Is(err, event.ErrUnstorable) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	wantHeld(t, s, 0, 0)
}

// padded returns the nth event with so many bytes more.
func padded(n, size int) *event.Event {
	e := Numbered(n)
	e.Callback.Vars["pad"] = json.RawMessage(`"` + strings.Repeat("x", size) + `"`)
	return e
}

// full: a full fallback refuses new events, keeps those that it has, and takes others when there is room.
func full(t *testing.T, k Kind) {
	s := k.Open(t, k.MaxBytes)
	if err := s.Ready(); err != nil {
		t.Errorf("an empty one: %v", err)
	}
	n := 0
	for _, size := range []int{400 << 10, 20 << 10, 0} { // until not even a small one fits
		for ; ; n++ {
			if _, err := s.Put(Context(t), padded(n, size)); errors.Is(err, k.Full) {
				break
			} else if err != nil || n > 200 {
				t.Fatalf("put %d: %v", n, err)
			}
		}
	}
	if err := s.Ready(); !errors.Is(err, k.Full) {
		t.Errorf("a full one: %v", err)
	}
	if duplicate, err := s.Put(Context(t), padded(0, 400<<10)); err != nil || !duplicate {
		t.Errorf("a repeat: %v, duplicate %v", err, duplicate)
	}
	m := new(Memory)
	moveAll(t, s, m, 16)
	for i := range n {
		if !m.Has(i) {
			t.Errorf("%d is lost", i)
		}
	}
	if err := s.Ready(); err != nil || m.Has(n) {
		t.Errorf("when it is empty: %v, has what it refused %v", err, m.Has(n))
	}
	if _, err := s.Put(Context(t), padded(n, 0)); err != nil {
		t.Errorf("when it is empty: %v", err)
	}
}

// putsAndMovesAtOnce: many clients put events, with repeats, while another moves them. No event is lost.
func putsAndMovesAtOnce(t *testing.T, k Kind) {
	const clients, each = 16, 25
	s, m := k.Open(t, 0), new(Memory)
	var putters, mover sync.WaitGroup
	done := make(chan struct{})
	mover.Go(func() {
		for {
			if _, err := s.Move(Context(t), m.Record, 10); err != nil {
				t.Error(err)
				return
			}
			select {
			case <-done:
				return
			default:
			}
		}
	})
	for client := range clients {
		putters.Go(func() {
			for i := range each { // two clients put the same events
				if _, err := s.Put(Context(t), Numbered(client/2*each+i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	putters.Wait()
	close(done)
	mover.Wait()
	moveAll(t, s, m, 100)
	if len(m.Events) != clients/2*each {
		t.Errorf("%d events, want %d", len(m.Events), clients/2*each)
	}
}

// cutOff: the process ends when PostgreSQL has committed, and nobody was told. The next one moves the events again, which
// PostgreSQL knows.
func cutOff(t *testing.T, k Kind) {
	s, m := k.Open(t, 0), new(Memory)
	Fill(t, s, 0, 10)
	ctx, cut := context.WithCancel(Context(t))
	defer cut()
	wait.Until(t, "some are recorded", func() bool {
		_, _ = s.Move(ctx, func(ctx context.Context, e *event.Event) (bool, error) {
			if _, err := m.Record(ctx, e); err != nil {
				t.Error(err)
			}
			cut()
			return false, fmt.Errorf("%w: cut off", event.ErrUnavailable)
		}, 10)
		return ctx.Err() != nil
	})
	wantHeld(t, s, 10, 0)
	s = s.Next(t)
	moveAll(t, s, m, 10)
	if len(m.Events) != 10 || m.Repeat == 0 {
		t.Errorf("%d events, %d repeats", len(m.Events), m.Repeat)
	}
}
