package story

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"upcall/internal/event"
	"upcall/internal/eventstore"
	"upcall/internal/fault"
	"upcall/migrations"
)

// ErrSearch says that a search is not one.
var ErrSearch = errors.New("wrong search")

// A Search says which uploads are looked for: by one of Key, RequestID, EventID and Variable.
type Search struct {
	Bucket     string // with Key; "" is any
	Key        string // the whole object key
	RequestID  string // of the upload in OSS
	EventID    uuid.UUID
	ReceivedAt time.Time // of the event, which has no index on its id alone; required with EventID
	Variable   string    // without x:; there must be an index on it
	Value      string
	Limit      int // 1 to MostStories
}

// check returns what is wrong. Fields are parameters of the API.
func (s *Search) check() error {
	var faults fault.List
	kinds := 0
	for _, given := range []bool{s.Key != "", s.RequestID != "", s.EventID != uuid.Nil, s.Variable != ""} {
		if given {
			kinds++
		}
	}
	if kinds != 1 {
		faults.AddNew(ErrSearch, "query", "give one of key, request_id, event_id and var.NAME", "it says in %d ways what is looked for", kinds)
	}
	if s.Bucket != "" && s.Key == "" {
		faults.AddNew(ErrSearch, "bucket", "give key as well", "a bucket alone is no search")
	}
	if (s.EventID == uuid.Nil) != s.ReceivedAt.IsZero() {
		faults.AddNew(ErrSearch, "received_at", "give event_id and received_at together", "an event is found by both")
	}
	if s.Limit < 1 || s.Limit > MostStories {
		faults.AddNew(ErrSearch, "limit", "", "%d is not a number from 1 to %d", s.Limit, MostStories)
	}
	return faults.Err()
}

// A key is that of an event.
type key struct {
	at time.Time
	id uuid.UUID
}

// found is what a search found: events, issued uploads, and what refusals are looked for by.
type found struct {
	keys    []key
	uploads []uuid.UUID
	search  Search
	limit   int
}

// look looks in the tables that have an index for it.
func (s *Stories) look(ctx context.Context, search Search) (found, error) {
	there := found{search: search, limit: search.Limit}
	var err error
	switch {
	case search.Key != "":
		if err = s.keysOf(ctx, &there, objectSQL, search.Key, search.Bucket, search.Limit); err == nil {
			err = s.issuedFor(ctx, &there)
		}
	case search.RequestID != "":
		err = s.keysOf(ctx, &there, requestSQL, search.RequestID, search.Limit)
	case search.Variable != "":
		err = s.byVariable(ctx, &there)
	default:
		err = s.keysOf(ctx, &there, eventSQL, search.EventID, search.ReceivedAt)
	}
	return there, err
}

// current is the generation of the roll-ups that is complete.
const current = "(SELECT generation FROM upcall.rollup_generations WHERE stage = 'current')"

const (
	// objectSQL returns the first and the latest event of an object, and the latest in between.
	objectSQL = `
		WITH object AS MATERIALIZED (
			SELECT * FROM upcall.rollup_objects WHERE generation = ` + current + `
				AND object_key = $1 COLLATE "C" AND (bucket = $2 COLLATE "C" OR $2 = '') LIMIT $3
		)
		SELECT received_at, event_id FROM object
		UNION SELECT first_at, first_id FROM object
		UNION SELECT v.received_at, v.event_id FROM object o CROSS JOIN LATERAL (
			SELECT received_at, event_id FROM upcall.rollup_versions WHERE generation = o.generation AND number = o.number
			ORDER BY received_at DESC, event_id DESC LIMIT $3) v`
	// requestSQL finds the latest upload of an object, the first and those in between. They have indexes of
	// their own.
	requestSQL = `
		(SELECT received_at, event_id FROM upcall.rollup_objects WHERE request_id = $1 AND generation = ` + current + ` LIMIT $2)
		UNION (SELECT first_at, first_id FROM upcall.rollup_objects
			WHERE first_request_id = $1 AND uploads > 1 AND generation = ` + current + ` LIMIT $2)
		UNION (SELECT received_at, event_id FROM upcall.rollup_versions WHERE request_id = $1 AND generation = ` + current + ` LIMIT $2)
		UNION (SELECT received_at, event_id FROM upcall.recovered_uploads WHERE request_id = $1 LIMIT $2)`
	// eventSQL finds an event, or that of a finding.
	eventSQL = `
		SELECT received_at, id FROM upcall.upload_events WHERE received_at = $2 AND id = $1
		UNION SELECT event_received_at, event_id FROM upcall.findings WHERE id = $1`
)

func (s *Stories) keysOf(ctx context.Context, there *found, sql string, args ...any) error {
	_, err := eventstore.Exec(ctx, s.config.Pool, "", sql, func(rows pgx.Rows) error {
		var k key
		_, err := pgx.ForEachRow(rows, []any{&k.at, &k.id}, func() error { there.keys = append(there.keys, k); return nil })
		return err
	}, args...)
	if err != nil {
		return fmt.Errorf("look for events: %w", eventstore.Unavailable(err))
	}
	return nil
}

// issuedFor adds the latest uploads that were issued for a key: they may have no event.
func (s *Stories) issuedFor(ctx context.Context, there *found) error {
	_, err := eventstore.Exec(ctx, s.config.Pool, "", `
		SELECT upload_id FROM (SELECT upload_id, issued_at FROM upcall.issued_uploads
			WHERE object_key = $1 AND (bucket = $2 OR $2 = '') LIMIT $3) AS issued
		ORDER BY issued_at DESC LIMIT $4`, func(rows pgx.Rows) error {
		var id uuid.UUID
		_, err := pgx.ForEachRow(rows, []any{&id}, func() error { there.uploads = append(there.uploads, id); return nil })
		return err
	}, there.search.Key, there.search.Bucket, mostIssues, there.limit)
	if err != nil {
		return fmt.Errorf("look for issued uploads: %w", eventstore.Unavailable(err))
	}
	return nil
}

// byVariable finds events by the index on a variable, in the newest month that has any and in those before. Within
// a month they are in no order, because the index has none.
func (s *Stories) byVariable(ctx context.Context, there *found) error {
	name, expression := migrations.IndexOf(there.search.Variable)
	err := eventstore.Transact(ctx, s.config.Pool, func(tx pgx.Tx) error {
		// Whatever the statistics say, the table is not to be read. Set for this transaction alone.
		if _, err := tx.Exec(ctx, "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL jit = off"); err != nil {
			return err
		}
		var valid bool
		err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_index WHERE indexrelid = to_regclass(format('upcall.%I', $1::text))
			AND indisvalid)`, name).Scan(&valid)
		if err != nil {
			return err
		}
		if !valid {
			return fault.New(ErrSearch, "var."+there.search.Variable, "make it with receiver index add "+there.search.Variable,
				"there is no index on this variable")
		}
		rows, err := tx.Query(ctx, `SELECT c.relname::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
			WHERE i.inhparent = 'upcall.upload_events'::regclass ORDER BY c.relname DESC`)
		if err != nil {
			return err
		}
		months, err := pgx.CollectRows(rows, pgx.RowTo[string])
		for _, month := range months {
			if len(there.keys) >= there.limit || err != nil {
				break
			}
			err = byMonth(ctx, tx, there, month, expression)
		}
		return err
	})
	if err == nil || errors.Is(err, ErrSearch) {
		return err
	}
	return fmt.Errorf("look for a variable: %w", eventstore.Unavailable(err))
}

// byMonth adds the events of a month that have the value.
func byMonth(ctx context.Context, tx pgx.Tx, there *found, month, expression string) error {
	rows, err := tx.Query(ctx, fmt.Sprintf("SELECT received_at, id FROM %s WHERE %s = $1 LIMIT $2",
		pgx.Identifier{"upcall", month}.Sanitize(), expression), there.search.Value, mostEvents)
	if err != nil {
		return err
	}
	of, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (k key, err error) { return k, row.Scan(&k.at, &k.id) })
	slices.SortFunc(of, func(a, b key) int { return b.at.Compare(a.at) })
	there.keys = append(there.keys, of[:min(len(of), there.limit-len(there.keys))]...)
	return err
}

// eventKeys are the parameters of statements about events.
func eventKeys(events []*Entry) (times []time.Time, ids []uuid.UUID) {
	for _, e := range events {
		times, ids = append(times, e.Event.ReceivedAt), append(ids, e.Event.ID)
	}
	return times, ids
}

func keyOf(e *event.Event) key { return key{e.ReceivedAt.UTC(), e.ID} }
