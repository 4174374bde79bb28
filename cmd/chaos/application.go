package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/google/uuid"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// An application is told of uploads by a hook. It verifies each request and notes what it
// answered.
type application struct {
	name   string
	server *httptest.Server
	fails  func(id uuid.UUID, attempt int) bool // nil never does

	mu       sync.Mutex
	webhook  *standardwebhooks.Webhook
	requests []request
	attempts map[uuid.UUID]int
	told     map[uuid.UUID][]time.Time // when it answered 2xx
	bad      []string                  // requests that are not as they should be
	pauses   []pause
	next     chan struct{} // closed at the next delivery
}

// A request is one that arrived.
type request struct {
	event     uuid.UUID
	at        time.Time
	began     int64 // as it says itself, in seconds since 1970
	delivered bool
}

// A pause is from when the command to pause returned to when that to resume began.
type pause struct{ from, to time.Time }

// failsHalf fails half of the attempts, always the same.
func failsHalf(id uuid.UUID, attempt int) bool {
	sum := sha256.Sum256(append(id[:], byte(attempt)))
	return sum[0]&1 == 1
}

func newApplication(name string, fails func(uuid.UUID, int) bool) *application {
	a := &application{name: name, fails: fails, attempts: make(map[uuid.UUID]int), told: make(map[uuid.UUID][]time.Time),
		next: make(chan struct{})}
	a.server = httptest.NewServer(http.HandlerFunc(a.answer))
	return a
}

func (a *application) answer(w http.ResponseWriter, r *http.Request) {
	at := time.Now()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the receiver was killed while it sent
	}
	a.mu.Lock()
	id, err := a.verify(r.Header, body)
	if err != nil {
		a.bad = append(a.bad, fmt.Sprintf("%s: %v: %s", a.name, err, body))
		a.mu.Unlock()
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	began, _ := strconv.ParseInt(r.Header.Get(standardwebhooks.HeaderWebhookTimestamp), 10, 64) // it was verified
	a.attempts[id]++
	good := a.fails == nil || !a.fails(id, a.attempts[id])
	a.requests = append(a.requests, request{id, at, began, good})
	if good {
		a.told[id] = append(a.told[id], at)
		close(a.next)
		a.next = make(chan struct{})
	}
	a.mu.Unlock()
	if !good {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// verify returns the event that a request tells of.
func (a *application) verify(h http.Header, body []byte) (uuid.UUID, error) {
	if err := a.webhook.Verify(body, h); err != nil {
		return uuid.Nil, err
	}
	var event struct {
		ID   uuid.UUID
		Data struct {
			EventID uuid.UUID `json:"event_id"`
		}
	}
	if err := json.Unmarshal(body, &event); err != nil {
		return uuid.Nil, err
	}
	if event.ID == uuid.Nil || event.ID != event.Data.EventID || event.ID.String() != h.Get(standardwebhooks.HeaderWebhookID) {
		return uuid.Nil, fmt.Errorf("the ids differ")
	}
	return event.ID, nil
}

// delivery returns a channel that is closed at the next delivery.
func (a *application) delivery() <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.next
}

// events returns those that it has been told of.
func (a *application) events() []uuid.UUID {
	a.mu.Lock()
	defer a.mu.Unlock()
	ids := make([]uuid.UUID, 0, len(a.told))
	for id := range a.told {
		ids = append(ids, id)
	}
	return ids
}

// lacks reports whether there is one of these events that it has not been told of.
func (a *application) lacks(events []uuid.UUID) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.ContainsFunc(events, func(id uuid.UUID) bool { return len(a.told[id]) == 0 })
}

// paused notes that the command to pause has returned, and resuming that the command to resume
// is about to begin.
func (a *application) paused() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.pauses = append(a.pauses, pause{from: time.Now()})
}

func (a *application) resuming() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.pauses[len(a.pauses)-1].to = time.Now()
}

// arrival is how long a request that was written may take to reach an application whose machine
// is busy.
const arrival = time.Second

// disturbed returns how many requests began while it was paused.
func (a *application) disturbed() (n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, p := range a.pauses {
		for _, r := range a.requests {
			if r.at.Before(p.from) || !p.to.IsZero() && !r.at.Before(p.to) {
				continue
			}
			// What it says of itself is in seconds.
			if r.began > p.from.Unix() || r.at.Sub(p.from) > arrival {
				n++
			}
		}
	}
	return n
}

// close ends the application, and the connections to it.
func (a *application) close() {
	a.server.CloseClientConnections()
	a.server.Close()
}
