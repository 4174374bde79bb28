package confirm

import (
	"context"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype/zeronull"

	"upcall/internal/event"
	"upcall/internal/eventstore"
	"upcall/internal/feed"
)

// places are the keys of events, as arrays.
func places(subjects []*subject) (times []time.Time, ids []uuid.UUID) {
	for _, s := range subjects {
		times, ids = append(times, s.event.ReceivedAt), append(ids, s.event.ID)
	}
	return times, ids
}

// byKey looks up each event w by its key, whatever the statistics say.
var byKey = ` CROSS JOIN LATERAL (SELECT ` + eventstore.EventColumns() + ` FROM upcall.upload_events
	WHERE received_at = w.at AND id = w.id OFFSET 0) AS e`

// loadAll is load if all can be read.
func (w *Worker) loadAll(ctx context.Context, entries []feed.Entry) (subjects []*subject, err error) {
	var times []time.Time
	var ids []uuid.UUID
	for _, e := range entries {
		times, ids = append(times, e.Event.ReceivedAt), append(ids, e.Event.ID)
	}
	_, err = eventstore.Exec(ctx, w.config.Pool, "upcall_confirm_load", `
		SELECT e.* FROM unnest($1::timestamptz[], $2::uuid[]) AS w (at, id)`+byKey+`
		WHERE NOT EXISTS (SELECT FROM upcall.confirmations WHERE event_received_at = w.at AND event_id = w.id)
			AND NOT EXISTS (SELECT FROM upcall.confirm_retries WHERE event_received_at = w.at AND event_id = w.id)
			AND e.bucket IS NOT NULL AND e.object_key IS NOT NULL`,
		func(rows pgx.Rows) error {
			for rows.Next() {
				s := &subject{event: new(event.Event)}
				if err := rows.Scan(eventstore.EventFields(s.event)...); err != nil {
					return err
				}
				subjects = append(subjects, s)
			}
			return rows.Err()
		}, times, ids)
	return subjects, err
}

// notified is what a notification says of an upload.
type notified struct {
	size  *int64
	etag  string
	crc64 *uint64
}

// notifications returns those of the uploads of events, by the events' ids. They are kept for longer than
// it takes to confirm.
func (w *Worker) notifications(ctx context.Context, subjects []*subject) (map[uuid.UUID]*notified, error) {
	by := make(map[uuid.UUID]uuid.UUID)
	var ids []uuid.UUID
	for _, s := range subjects {
		if c := &s.event.Callback; c.RequestID != "" {
			id := event.RecoveredID(event.SourceNotification, c.Bucket, c.Object, c.RequestID, "", time.Time{})
			by[id], ids = s.event.ID, append(ids, id)
		}
	}
	found := make(map[uuid.UUID]*notified)
	if len(ids) == 0 {
		return found, nil
	}
	_, err := eventstore.Exec(ctx, w.config.Pool, "upcall_confirm_notified",
		"SELECT id, size, etag, crc64 FROM upcall.notifications WHERE id = ANY ($1::uuid[])", func(rows pgx.Rows) error {
			for rows.Next() {
				e := new(event.Event)
				var id uuid.UUID
				if err := rows.Scan(&id, &e.Callback.Size, (*zeronull.Text)(&e.Callback.ETag), &e.Callback.CRC64); err != nil {
					return err
				}
				found[by[id]] = &notified{e.Callback.Size, e.Callback.ETag, e.Callback.CRC64}
			}
			return rows.Err()
		}, ids)
	return found, err
}

// laterSQL returns which events were overwritten, as far as roll-ups know: by an upload that was received
// later, and is not the same upload told twice; or by one that was received at about the same time and
// whose content the object has.
const laterSQL = `
	SELECT w.id FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::uuid[], $5::text[], $6::uuid[], $7::text[], $8::text[])
		AS w (bucket, object_key, at, id, request_id, upload_id, etag, seen)
	JOIN upcall.rollup_objects o ON o.generation = (SELECT generation FROM upcall.rollup_generations WHERE stage = 'current')
		AND o.bucket = w.bucket AND o.object_key = w.object_key
	WHERE (o.received_at, o.event_id) > (w.at, w.id) AND o.request_id IS DISTINCT FROM w.request_id
			AND NOT coalesce(o.upload_id = w.upload_id AND upper(btrim(o.etag, '"') COLLATE "C") = w.etag, false)
		OR o.first_id <> w.id AND o.first_at > w.at - $9::interval AND o.first_etag = w.seen
		OR EXISTS (SELECT FROM upcall.rollup_versions v WHERE v.generation = o.generation AND v.number = o.number
			AND v.event_id <> w.id AND v.received_at > w.at - $9::interval AND v.etag = w.seen)`

// overwritten returns the events whose object is that of another upload.
func (w *Worker) overwritten(ctx context.Context, subjects []*subject) (map[uuid.UUID]bool, error) {
	var buckets, keys []string
	var requests, etags, seen []*string
	var uploads []uuid.NullUUID
	times, ids := places(subjects)
	text := func(s string) *string {
		if s == "" {
			return nil
		}
		return &s
	}
	for _, s := range subjects {
		c := &s.event.Callback
		buckets, keys = append(buckets, c.Bucket), append(keys, c.Object)
		requests, uploads = append(requests, text(c.RequestID)), append(uploads, s.event.UploadID)
		etags = append(etags, text(event.PlainETag(c.ETag)))
		var etag *string
		if s.head != nil {
			etag = text(event.PlainETag(s.head.ETag))
		}
		seen = append(seen, etag)
	}
	there := make(map[uuid.UUID]bool)
	_, err := eventstore.Exec(ctx, w.config.Pool, "upcall_confirm_later", laterSQL, func(rows pgx.Rows) error {
		var id uuid.UUID
		_, err := pgx.ForEachRow(rows, []any{&id}, func() error { there[id] = true; return nil })
		return err
	}, buckets, keys, times, ids, requests, uploads, etags, seen, w.config.Grace)
	return there, err
}

// due returns events that are to be looked at again.
func (w *Worker) due(ctx context.Context, now time.Time, limit int) (due []*subject, err error) {
	_, err = eventstore.Exec(ctx, w.config.Pool, "upcall_confirm_due", `
		SELECT w.attempts, w.differs, e.* FROM (
			SELECT event_received_at AS at, event_id AS id, attempts, differs FROM upcall.confirm_retries
			WHERE due_at <= $1 ORDER BY due_at
		) AS w`+byKey+" LIMIT $2", func(rows pgx.Rows) error {
		for rows.Next() {
			s := &subject{event: new(event.Event), again: true}
			if err := rows.Scan(append([]any{&s.attempts, &s.differed}, eventstore.EventFields(s.event)...)...); err != nil {
				return err
			}
			due = append(due, s)
		}
		return rows.Err()
	}, now, limit)
	return due, err
}

// write writes what became of events, with the cursor's transaction. An outcome that is there already
// stays, and its finding with it.
func write(ctx context.Context, tx pgx.Tx, subjects []*subject, now time.Time) error {
	var b pgx.Batch
	var removals []eventstore.Removal
	for _, s := range subjects {
		e := s.event
		if s.outcome == "" {
			var due *time.Time // of a dead letter
			if !s.dueAt.IsZero() {
				due = &s.dueAt
			}
			b.Queue(`INSERT INTO upcall.confirm_retries AS r
					(event_received_at, event_id, due_at, attempts, differs, problem, failed_at) VALUES ($1, $2, $3, $4, $5, $6, $7)
				ON CONFLICT (event_received_at, event_id) DO UPDATE SET (due_at, attempts, differs, problem, failed_at) =
					(excluded.due_at, excluded.attempts, excluded.differs, excluded.problem, excluded.failed_at)`,
				e.ReceivedAt, e.ID, due, s.attempts, s.differed, s.problem, now)
			continue
		}
		if s.again {
			b.Queue("DELETE FROM upcall.confirm_retries WHERE event_received_at = $1 AND event_id = $2", e.ReceivedAt, e.ID)
		}
		b.Queue(`WITH new AS (
				INSERT INTO upcall.confirmations (event_received_at, event_id, outcome, looked_at, at) VALUES ($1, $2, $3, $4, $5)
				ON CONFLICT DO NOTHING RETURNING 1
			)
			INSERT INTO upcall.findings (id, event_received_at, event_id, kind, found, found_at)
			SELECT $6::uuid, $1, $2, $3, $7::jsonb, $5 FROM new WHERE $6::uuid IS NOT NULL ON CONFLICT DO NOTHING`,
			e.ReceivedAt, e.ID, string(s.outcome), s.lookedAt, now, s.findingID(), []byte(s.found))
		if s.outcome == gone {
			removals = append(removals, eventstore.Removal{
				Bucket: e.Callback.Bucket, Object: e.Callback.Object, At: s.seenAt, Source: "confirm",
			})
		}
	}
	if b.Len() > 0 {
		if err := tx.SendBatch(ctx, &b).Close(); err != nil {
			return err
		}
	}
	return eventstore.NoteRemovalsIn(ctx, tx, removals)
}
