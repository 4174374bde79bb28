package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/google/uuid"
)

// A reader reads the event API by long polls, from one receiver after the other, with the
// cursor that it was given last. It goes on whatever fails.
type reader struct {
	world  *world
	key    string
	client http.Client
	stop   func() // returns when it reads no more

	mu     sync.Mutex
	events []uuid.UUID // as they came
	pages  int
	failed int // calls without an answer
	bad    []string
}

const (
	// readWait is how long a call waits for events, readAgain the pause after one that failed.
	readWait, readAgain = "10s", 50 * time.Millisecond
)

// start makes it read until stop is called.
func (r *reader) start(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	var reading sync.WaitGroup
	reading.Go(func() { r.run(ctx) })
	r.stop = func() {
		cancel()
		reading.Wait()
	}
}

// run reads until ctx ends.
func (r *reader) run(ctx context.Context) {
	cursor := ""
	for n := 0; ctx.Err() == nil; n++ {
		next, err := r.read(ctx, r.world.receivers[n%len(r.world.receivers)], cursor)
		if err == nil {
			cursor = next
			continue
		}
		select {
		case <-time.After(readAgain):
		case <-ctx.Done():
		}
	}
}

// read reads a page and returns the cursor after it.
func (r *reader) read(ctx context.Context, from *receiver, cursor string) (string, error) {
	query := url.Values{"limit": {"1000"}, "wait": {readWait}}
	if cursor != "" {
		query.Set("after", cursor)
	}
	status, body, err := r.ask(ctx, from, "/v1/events?"+query.Encode())
	var page struct {
		Events []struct {
			EventID uuid.UUID `json:"event_id"`
		}
		Next string
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case err != nil, status == http.StatusServiceUnavailable:
		r.failed++
		return "", errors.Join(err, errUnanswered)
	case status != http.StatusOK || json.Unmarshal(body, &page) != nil || page.Next == "":
		r.bad = append(r.bad, fmt.Sprintf("GET /v1/events: %d %.200s", status, body))
		return "", errUnanswered
	}
	r.pages++
	for _, e := range page.Events {
		r.events = append(r.events, e.EventID)
	}
	return page.Next, nil
}

// errUnanswered says that a call is to be made again.
var errUnanswered = errors.New("there was no answer")

// ask makes a call and returns the answer.
func (r *reader) ask(ctx context.Context, from *receiver, path string) (status int, body []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	asked, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+from.admin+path, nil)
	if err != nil {
		return 0, nil, fmt.Errorf("ask receiver: %w", err)
	}
	asked.Header.Set("Authorization", "Bearer "+r.key)
	answer, err := r.client.Do(asked)
	if err != nil {
		return 0, nil, fmt.Errorf("ask receiver: %w", err)
	}
	defer answer.Body.Close()
	if body, err = io.ReadAll(answer.Body); err != nil {
		return 0, nil, fmt.Errorf("ask receiver: %w", err)
	}
	return answer.StatusCode, body, nil
}

// seen returns the events that came after the first n.
func (r *reader) seen(n int) []uuid.UUID {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.events[n:len(r.events):len(r.events)]
}
