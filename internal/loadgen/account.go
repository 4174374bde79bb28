package loadgen

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"upcall/internal/event"
)

const (
	// repeatChance is that an acknowledged callback goes to another receiver too, bothChance
	// that it goes to all at once.
	repeatChance = 0.05
	bothChance   = 0.02
	// connectTimeout is shorter than OSS's patience, so that a receiver that is cut off does not occupy all
	// senders, and long for a busy machine.
	connectTimeout = 3 * time.Second
)

// An Account sends callbacks as OSS does, and keeps how each was answered, so that it can be
// compared with what is recorded. Several goroutines may use it.
type Account struct {
	// Patience is how long a request waits for its answer. Required.
	Patience time.Duration

	mu       sync.Mutex
	events   []uuid.UUID // for each callback that was begun, the event id of its first 200
	tally    Tally
	spells   []spell // requests that took long, whether there was an answer or not
	answered time.Time
}

// A Tally counts what an Account saw.
type Tally struct {
	Callbacks    int            // that were begun
	Acknowledged int            // callbacks that some receiver answered 200
	Unheard      int            // callbacks that none of their URLs answered 200
	Sent         int            // requests
	Accepted     int            // requests answered 200
	Durable      map[string]int // of those, by what keeps the event
	Unavailable  int            // requests answered 503
	Unanswered   int            // requests without an answer
	Wrong        []string       // answers that a receiver must not give to a genuine callback
	Slowest      time.Duration  // of all requests, but see [Account.Take]
	Gap          time.Duration  // the longest time in which no request was answered 200
}

// Begin returns the number of the next callback.
func (a *Account) Begin() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.events = append(a.events, uuid.Nil)
	a.tally.Callbacks++
	return len(a.events) - 1
}

// Kept notes that callback i was acknowledged in another way than by an answer.
func (a *Account) Kept(i int, id uuid.UUID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.events[i] == uuid.Nil {
		a.tally.Acknowledged++
	}
	a.events[i] = id
}

// Begun returns how many callbacks were begun.
func (a *Account) Begun() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.events)
}

// Deliver sends callback i to the addresses in turn until one answers 200, as OSS does with the
// URLs of an upload. Now and then it repeats a callback that was acknowledged, or sends it to all
// addresses at once.
func (a *Account) Deliver(i int, message []byte, random *rand.Rand, addrs ...string) {
	if random.Float64() < bothChance && len(addrs) > 1 {
		var group sync.WaitGroup
		for _, addr := range addrs {
			group.Go(func() { a.Send(addr, i, message) })
		}
		group.Wait()
		return
	}
	for n, addr := range addrs {
		if !a.Send(addr, i, message) {
			continue
		}
		if random.Float64() < repeatChance {
			a.Send(addrs[(n+1)%len(addrs)], i, message)
		}
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.tally.Unheard++
}

// errGone is that of an answer that came when OSS, which counts from the beginning of its connection, had given up.
var errGone = errors.New("the answer came too late")

// Send sends callback i once and reports whether it was acknowledged.
func (a *Account) Send(addr string, i int, message []byte) bool {
	client := Client{Addr: addr, Closing: true, ConnectTimeout: min(connectTimeout, a.Patience), Timeout: a.Patience}
	began := time.Now()
	status, body, err := client.Send(message)
	ended := time.Now()
	if err == nil && ended.Sub(began) > a.Patience {
		err = errGone
	}
	var answer struct {
		EventID uuid.UUID `json:"event_id"`
		Durable string    `json:"durable"`
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.tally.Sent++
	if took := ended.Sub(began); took >= StandsStill {
		a.spells = append(a.spells, spell{began, ended, err == nil})
	} else if err == nil {
		a.tally.Slowest = max(a.tally.Slowest, took)
	}
	switch {
	case err != nil: // OSS then calls its next URL
		a.tally.Unanswered++
		return false
	case status == http.StatusServiceUnavailable:
		a.tally.Unavailable++
		return false
	case status != http.StatusOK || json.Unmarshal(body, &answer) != nil || answer.EventID == uuid.Nil:
		a.tally.Wrong = append(a.tally.Wrong, fmt.Sprintf("%d %s", status, body))
		return false
	case a.events[i] != uuid.Nil && a.events[i] != answer.EventID:
		a.tally.Wrong = append(a.tally.Wrong, fmt.Sprintf("a repeat got event %s, first was %s", answer.EventID, a.events[i]))
	case a.events[i] == uuid.Nil:
		a.tally.Acknowledged++
	}
	a.events[i] = answer.EventID
	a.tally.Accepted++
	if a.tally.Durable == nil {
		a.tally.Durable = make(map[string]int)
	}
	a.tally.Durable[answer.Durable]++
	if !a.answered.IsZero() {
		a.tally.Gap = max(a.tally.Gap, ended.Sub(a.answered))
	}
	a.answered = ended
	return true
}

// Pause says that no callbacks are sent for a while, so that this is no gap.
func (a *Account) Pause() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.answered = time.Time{}
}

// Take returns what was counted since it was called last. Slowest is that of the requests during
// which the machine did not stand still.
func (a *Account) Take(s *Stillness) Tally {
	a.mu.Lock()
	defer a.mu.Unlock()
	t := a.tally
	for _, long := range a.spells {
		if long.answered && !s.During(long.from, long.to) {
			t.Slowest = max(t.Slowest, long.to.Sub(long.from))
		}
	}
	a.tally, a.spells = Tally{}, nil
	return t
}

// Plus adds up two tallies of one account, of times that follow each other.
func (t Tally) Plus(u Tally) Tally {
	t.Callbacks += u.Callbacks
	t.Acknowledged += u.Acknowledged
	t.Unheard += u.Unheard
	t.Sent += u.Sent
	t.Accepted += u.Accepted
	t.Unavailable += u.Unavailable
	t.Unanswered += u.Unanswered
	t.Slowest, t.Gap = max(t.Slowest, u.Slowest), max(t.Gap, u.Gap)
	t.Wrong = slices.Concat(t.Wrong, u.Wrong)
	sum := maps.Clone(t.Durable)
	for name, n := range u.Durable {
		if sum == nil {
			sum = make(map[string]int)
		}
		sum[name] += n
	}
	t.Durable = sum
	return t
}

// A Comparison is of what was acknowledged with what is recorded.
type Comparison struct {
	Recorded int // callbacks
	Lost     int // acknowledged and not recorded
	Doubled  int // recorded more than once
}

// Compare reads all recorded events, which each calls its argument with.
func (a *Account) Compare(each func(record func(*event.Event)) error) (Comparison, error) {
	a.mu.Lock()
	events := slices.Clone(a.events)
	a.mu.Unlock()
	var c Comparison
	found := make(map[uuid.UUID]bool, len(events))
	requests := make(map[string]bool, len(events))
	err := each(func(e *event.Event) {
		// The request id is in the signed body and differs for each upload: two rows with one
		// request id are one callback recorded twice, even if their event ids differ.
		if found[e.ID] {
			c.Doubled++
		}
		if found[e.ID] = true; e.Source != event.SourceCallback {
			return
		}
		if c.Recorded++; requests[e.Callback.RequestID] {
			c.Doubled++
		}
		requests[e.Callback.RequestID] = true
	})
	for _, id := range events {
		if id != uuid.Nil && !found[id] {
			c.Lost++
		}
	}
	return c, err
}
