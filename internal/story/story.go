// Package story tells what became of uploads: from the ledger to the last delivery.
//
// Uploads are looked up by indexes and by what consumers of the log keep, never by a scan of the
// log, so that it takes as long with a billion rows as with a thousand.
package story

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/event"
	"upcall/internal/hooks"
	"upcall/internal/webhook"
)

// Config configures [Stories].
type Config struct {
	// Pool is from eventstore.Open. Required.
	Pool *pgxpool.Pool
	// Endpoints are those of hooks. Required.
	Endpoints *hooks.Endpoints
}

// Stories tells what became of uploads. Errors wrap event.ErrUnavailable, or are a fault.List.
type Stories struct{ config Config }

// New returns the stories in a database.
func New(config Config) (*Stories, error) {
	if config.Pool == nil || config.Endpoints == nil {
		return nil, errors.New("story config: Pool and Endpoints are required")
	}
	return &Stories{config}, nil
}

// A Story is an issued upload and all that is known of it; or events of one object that belong to no
// issued upload.
type Story struct {
	UploadID  *uuid.UUID `json:"upload_id"` // null if it was not issued
	Bucket    *string    `json:"bucket"`
	ObjectKey *string    `json:"object_key"`
	Issued    *Issued    `json:"issued"`   // null if it is not in the ledger
	Events    []Entry    `json:"events"`   // in the order of their receipt
	Refusals  []Refusal  `json:"refusals"` // the latest first
}

// Issued is the row of the ledger.
type Issued struct {
	IssuedAt    time.Time         `json:"issued_at"`
	ExpiresAt   time.Time         `json:"expires_at"`
	Status      string            `json:"status"` // issued, uploaded, expired or revoked
	RevokedAt   *time.Time        `json:"revoked_at"`
	ContentType *string           `json:"content_type"` // null if the issuer left it open
	Size        *int64            `json:"size"`         // null if the issuer was not told
	Vars        map[string]string `json:"vars"`
	APIKeyID    *string           `json:"api_key_id"`
	OSSUploadID *string           `json:"oss_upload_id"` // of a multipart upload
}

// An Entry is an event and what was made of it.
type Entry struct {
	Event        Event            `json:"event"`
	Counts       bool             `json:"counts"` // false if another event tells of the same upload
	Confirmation *Confirmation    `json:"confirmation"`
	Findings     []Finding        `json:"findings"`
	Deliveries   []hooks.Delivery `json:"deliveries"`

	xid uint64
}

// Event is an event with its own JSON.
type Event struct{ *event.Event }

// MarshalJSON shows an event as everywhere.
func (e Event) MarshalJSON() ([]byte, error) { return e.AppendJSON(nil) }

// A Confirmation says whether the object was what the event says.
type Confirmation struct {
	Outcome  string    `json:"outcome"`   // confirmed, disputed, gone, overwritten, waiting, or failed
	LookedAt *string   `json:"looked_at"` // null while there is no outcome
	Problem  *string   `json:"problem"`   // why there is none yet
	At       time.Time `json:"at"`
}

// A Finding is what was found about an upload later.
type Finding struct {
	ID      uuid.UUID       `json:"id"`
	Kind    webhook.Kind    `json:"kind"`
	Found   json.RawMessage `json:"found"`
	FoundAt time.Time       `json:"found_at"`

	xid uint64
}

// A Refusal is a callback that made no event.
type Refusal struct {
	Reason     string      `json:"reason"`
	RefusedAt  time.Time   `json:"refused_at"`
	SourceAddr *netip.Addr `json:"source_addr"`
	Bucket     *string     `json:"bucket"` // as the callback claims, and so the next two
	ObjectKey  *string     `json:"object_key"`
	RequestID  *string     `json:"request_id"`
	UploadID   *uuid.UUID  `json:"upload_id"` // from a genuine token
}

// Limits of one answer. An upload has rarely more than one event.
const (
	// MostStories is the most stories that one call tells.
	MostStories = 100

	mostEvents   = 200
	mostRefusals = 100
	mostIssues   = 1000 // of one object key
)

// Get tells the story of an issued upload; nil if nothing is known of it.
func (s *Stories) Get(ctx context.Context, upload uuid.UUID) (*Story, error) {
	all, err := s.tell(ctx, found{uploads: []uuid.UUID{upload}, limit: 1})
	if err != nil || len(all) == 0 {
		return nil, err
	}
	return &all[0], nil
}

// Find tells the stories that a search finds, the latest first.
func (s *Stories) Find(ctx context.Context, search Search) ([]Story, error) {
	if err := search.check(); err != nil {
		return nil, err
	}
	there, err := s.look(ctx, search)
	if err != nil {
		return nil, err
	}
	return s.tell(ctx, there)
}
