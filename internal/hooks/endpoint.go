package hooks

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"

	"upcall/internal/feed"
	"upcall/internal/webhook"
)

var (
	// ErrNotFound says that there is no such endpoint, event or attempt.
	ErrNotFound = errors.New("not found")
	// ErrExists says that there is an endpoint with that name already.
	ErrExists = errors.New("exists already")
	// ErrUnconfirmed says that a change is made, but a receiver did not confirm in time that it
	// knows of it.
	ErrUnconfirmed = errors.New("not confirmed by the receiver yet")
)

// A State says whether an endpoint gets deliveries.
type State string

const (
	Active   State = "active"
	Failing  State = "failing"  // active, but only probes are sent until one succeeds
	Paused   State = "paused"   // by an operator
	Disabled State = "disabled" // it failed for 120 hours, or answered 410
	removing State = "removing"
)

// An Endpoint is where deliveries go.
type Endpoint struct {
	ID uuid.UUID
	Settings
	State        State
	Reason       string    // why it is failing or disabled
	FailingSince time.Time // zero unless it is failing or disabled
	ProbeAt      time.Time // when the next probe is due; zero unless it is failing
	RotatedUntil time.Time // how long the previous secret still signs; zero if there is none
	CreatedAt    time.Time
	ChangedAt    time.Time // by an operator
	Waiting      int       // deliveries that failed and will be tried again, as Get and List know
	DeadLetters  int       // deliveries that will not
	Delivered    int       // attempts that succeeded in the last 24 hours, and the part of an hour before
	Failed       int       // attempts that failed in that time

	version  int64          // of the settings and the state
	secret   webhook.Secret // signs
	previous webhook.Secret // signs as well until RotatedUntil
	pause    time.Duration  // before the next probe
	received time.Time      // it is not told of events that were received before
	retryAt  time.Time      // when the first of its retries is due, as a lane is told; zero if none is
	resumed  bool           // it begins anew, as if it had not failed
	begins   feed.Cursor    // where it began; the zero value if that is not known
}

// consumer is the endpoint's name among the consumers of the log.
func (e *Endpoint) consumer() string { return "hook/" + e.ID.String() }

// secrets returns what signs a delivery, the newest first.
func (e *Endpoint) secrets(now time.Time) []webhook.Secret {
	if !e.previous.IsZero() && now.Before(e.RotatedUntil) {
		return []webhook.Secret{e.secret, e.previous}
	}
	return []webhook.Secret{e.secret}
}

// MarshalJSON shows the endpoint without its secrets: of headers, the names only.
func (e Endpoint) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		ID           uuid.UUID         `json:"id"`
		Name         string            `json:"name"`
		URL          string            `json:"url"`
		State        State             `json:"state"`
		Reason       *string           `json:"reason"`
		FailingSince *time.Time        `json:"failing_since"`
		ProbeAt      *time.Time        `json:"probe_at"`
		Waiting      int               `json:"waiting"`
		DeadLetters  int               `json:"dead_letters"`
		Delivered    int               `json:"delivered_24h"`
		Failed       int               `json:"failed_24h"`
		On           []webhook.Kind    `json:"on"`
		Buckets      []string          `json:"buckets"`
		KeyPrefixes  []string          `json:"key_prefixes"`
		KeyGlobs     []string          `json:"key_globs"`
		MimeTypes    []string          `json:"mime_types"`
		Vars         map[string]string `json:"vars"`
		MaxInFlight  int               `json:"max_in_flight"`
		Headers      []string          `json:"headers"`
		RotatedUntil *time.Time        `json:"rotated_until"`
		CreatedAt    time.Time         `json:"created_at"`
		ChangedAt    time.Time         `json:"changed_at"`
	}{
		e.ID, e.Name, e.URL, e.State, text(e.Reason), moment(e.FailingSince), moment(e.ProbeAt), e.Waiting, e.DeadLetters,
		e.Delivered, e.Failed,
		e.On, e.Buckets, e.KeyPrefixes, e.KeyGlobs, e.MimeTypes, e.Vars, e.MaxInFlight,
		append([]string{}, slices.Sorted(maps.Keys(e.Headers))...),
		moment(e.RotatedUntil), e.CreatedAt.UTC(), e.ChangedAt.UTC(),
	})
}

// text and moment return nil for the zero value, which is null in JSON and in PostgreSQL.
func text(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// An Attempt is a row of upcall.hook_attempts.
type Attempt struct {
	EndpointID uuid.UUID    `json:"endpoint_id"`
	EventID    uuid.UUID    `json:"event_id"` // of a finding, the finding's id, as webhook-id
	Kind       webhook.Kind `json:"kind"`
	ReceivedAt *time.Time   `json:"received_at"` // of the event; null for a test
	Reason     Reason       `json:"reason"`
	Number     int          `json:"attempt"` // of this message, from 1; 0 for probes and tests
	At         time.Time    `json:"at"`
	Delivered  bool         `json:"delivered"`
	Status     *int         `json:"status"`  // null if there was no answer
	Problem    *string      `json:"problem"` // null if it was delivered
	Answer     string       `json:"answer"`  // its first KB
	TookMS     float64      `json:"took_ms"`
}

// A Reason says why an attempt was made.
type Reason string

const (
	ForFirst      Reason = "first"
	ForRetry      Reason = "retry"
	ForProbe      Reason = "probe"      // while the endpoint was failing
	ForRedelivery Reason = "redelivery" // an operator asked for it
	ForTest       Reason = "test"
)

// A Waiting is a row of upcall.hook_retries: a delivery that failed, and is tried again or is a
// dead letter.
type Waiting struct {
	EndpointID uuid.UUID    `json:"endpoint_id"`
	Endpoint   string       `json:"endpoint"` // its name
	EventID    uuid.UUID    `json:"event_id"` // of a finding, the finding's id, as webhook-id
	Kind       webhook.Kind `json:"kind"`
	ReceivedAt time.Time    `json:"received_at"` // of the event
	Dead       bool         `json:"dead"`
	Attempts   int          `json:"attempts"`  // that failed
	DueAt      *time.Time   `json:"due_at"`    // null if it is dead
	Status     *int         `json:"status"`    // of the last attempt; null if there was no answer
	Problem    string       `json:"problem"`   // of the last attempt
	FailedAt   *time.Time   `json:"failed_at"` // null if it is a redelivery that was not tried yet
}
