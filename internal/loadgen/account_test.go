package loadgen

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"upcall/internal/event"
)

// answering is a receiver that answers in the same way always.
func answering(t *testing.T, status int, body string) (addr string) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		io.WriteString(w, body)
	}))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

// TestAccount checks what is counted of each kind of answer, and that the next address is tried.
func TestAccount(t *testing.T) {
	t.Parallel()
	id := uuid.New()
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	nobody := strings.TrimPrefix(gone.URL, "http://")
	good := answering(t, 200, fmt.Sprintf(`{"event_id":%q,"durable":"spool"}`, id))
	other := answering(t, 200, fmt.Sprintf(`{"event_id":%q,"durable":"postgres"}`, uuid.New()))
	away := answering(t, 503, "{}")
	for name, tt := range map[string]struct {
		addrs []string
		want  Tally
	}{
		"acknowledged":         {[]string{good}, Tally{Acknowledged: 1, Sent: 1, Accepted: 1}},
		"by the second":        {[]string{away, good}, Tally{Acknowledged: 1, Sent: 2, Accepted: 1, Unavailable: 1}},
		"by the third":         {[]string{nobody, away, good}, Tally{Acknowledged: 1, Sent: 3, Accepted: 1, Unavailable: 1, Unanswered: 1}},
		"by none":              {[]string{away, nobody}, Tally{Unheard: 1, Sent: 2, Unavailable: 1, Unanswered: 1}},
		"refused":              {[]string{answering(t, 403, "forged")}, Tally{Unheard: 1, Sent: 1, Wrong: []string{"403 forged"}}},
		"no event":             {[]string{answering(t, 200, "{}")}, Tally{Unheard: 1, Sent: 1, Wrong: []string{"200 {}"}}},
		"two events, not said": {[]string{good, other}, Tally{Acknowledged: 1, Sent: 1, Accepted: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := &Account{Patience: time.Minute}
			// No random number is below 1 - 2^-53 but these, so nothing is repeated.
			a.Deliver(a.Begin(), []byte("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"), rand.New(never{}), tt.addrs...)
			got := a.Take(&Stillness{})
			tt.want.Callbacks = 1
			got.Slowest, got.Gap, got.Durable = 0, 0, nil
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(Tally{}, a.Take(&Stillness{})); diff != "" {
				t.Errorf("counted again: %s", diff)
			}
		})
	}
	a := &Account{Patience: time.Minute}
	i := a.Begin()
	for _, addr := range []string{good, other} {
		a.Send(addr, i, []byte("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"))
	}
	if got := a.Take(&Stillness{}); len(got.Wrong) != 1 || got.Acknowledged != 1 || got.Durable["spool"] != 1 {
		t.Errorf("two events for one callback: %+v", got)
	}
}

// never is a source of numbers for which no chance comes.
type never struct{}

func (never) Uint64() uint64 { return 1<<64 - 1 }

// TestPlus checks that nothing is left out of a sum.
func TestPlus(t *testing.T) {
	t.Parallel()
	one := Tally{1, 2, 3, 4, 5, map[string]int{"spool": 6}, 7, 8, []string{"a"}, 9, 10}
	two := Tally{2, 4, 6, 8, 10, map[string]int{"spool": 12}, 14, 16, []string{"a", "a"}, 9, 10}
	if diff := cmp.Diff(two, one.Plus(one)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(one, Tally{}.Plus(one)); diff != "" {
		t.Error(diff)
	}
}

// TestCompare checks that what was acknowledged and is not recorded, or twice, is found.
func TestCompare(t *testing.T) {
	t.Parallel()
	a := &Account{}
	ids := []uuid.UUID{uuid.New(), uuid.New(), uuid.New(), uuid.New()}
	for _, id := range ids[:3] {
		a.Kept(a.Begin(), id)
	}
	a.Begin() // was never acknowledged
	recorded := func(id uuid.UUID, request string, source event.Source) *event.Event {
		e := &event.Event{ID: id, Source: source}
		e.Callback.RequestID = request
		return e
	}
	for name, tt := range map[string]struct {
		events []*event.Event
		want   Comparison
	}{
		"nothing": {nil, Comparison{Lost: 3}},
		"all": {[]*event.Event{
			recorded(ids[0], "0", event.SourceCallback), recorded(ids[1], "1", event.SourceCallback),
			recorded(ids[2], "2", event.SourceCallback), recorded(ids[3], "3", event.SourceCallback),
		}, Comparison{Recorded: 4}},
		"one twice, under another id": {[]*event.Event{
			recorded(ids[0], "0", event.SourceCallback), recorded(ids[1], "1", event.SourceCallback), recorded(ids[3], "1", event.SourceCallback),
		}, Comparison{Recorded: 3, Doubled: 1, Lost: 1}},
		"told by a notification": {[]*event.Event{
			recorded(ids[0], "0", event.SourceCallback), recorded(ids[1], "0", event.SourceNotification), recorded(ids[2], "2", event.SourceCallback),
		}, Comparison{Recorded: 2}},
	} {
		got, err := a.Compare(func(record func(*event.Event)) error {
			for _, e := range tt.events {
				record(e)
			}
			return nil
		})
		if diff := cmp.Diff(tt.want, got); diff != "" || err != nil {
			t.Errorf("%s: %v %s", name, err, diff)
		}
	}
}

// TestStillness checks that a request is not measured if the machine stood still meanwhile.
func TestStillness(t *testing.T) {
	t.Parallel()
	at := func(seconds int) time.Time { return time.Unix(int64(seconds), 0) }
	var s Stillness
	s.note(at(100), at(150))
	for _, tt := range []struct {
		long spell
		want time.Duration
	}{
		{spell{at(10), at(14), true}, 4 * time.Second},
		{spell{at(90), at(151), true}, time.Second},
		{spell{at(140), at(160), true}, time.Second},
		{spell{at(150), at(157), true}, 7 * time.Second},
		{spell{at(150), at(157), false}, time.Second}, // without an answer there is none to measure
	} {
		a := &Account{tally: Tally{Slowest: time.Second}, spells: []spell{tt.long}}
		if got := a.Take(&s).Slowest; got != tt.want {
			t.Errorf("the slowest took %v, want %v", got, tt.want)
		}
	}
	if s.Count() != 1 {
		t.Errorf("the machine stood still %d times", s.Count())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s.Watch(ctx, func(time.Time, time.Time) { t.Error("the machine stood still") })
}
