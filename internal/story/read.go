package story

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype/zeronull"

	"upcall/internal/event"
	"upcall/internal/eventstore"
	"upcall/internal/hooks"
	"upcall/internal/webhook"
)

// tell reads all that is known of what was found, and returns a story for each upload, the latest first.
func (s *Stories) tell(ctx context.Context, there found) ([]Story, error) {
	events, err := s.events(ctx, there)
	if err != nil {
		return nil, err
	}
	uploads := there.uploads
	for _, e := range events {
		if e.Event.UploadID.Valid {
			uploads = append(uploads, e.Event.UploadID.UUID)
		}
	}
	refusals, err := s.refusals(ctx, there.search, uploads)
	if err != nil {
		return nil, err
	}
	for _, r := range refusals {
		if r.UploadID != nil {
			uploads = append(uploads, *r.UploadID)
		}
	}
	issued, places, err := s.issued(ctx, uploads)
	if err != nil {
		return nil, err
	}
	if err := s.outcomes(ctx, events); err != nil {
		return nil, err
	}
	all := assemble(events, refusals, issued, places)
	all = all[:min(len(all), there.limit)]
	return all, s.deliveries(ctx, all)
}

// events reads events by their keys, and those of issued uploads.
func (s *Stories) events(ctx context.Context, there found) ([]*Entry, error) {
	var times []time.Time
	var ids []uuid.UUID
	for _, k := range there.keys {
		times, ids = append(times, k.at), append(ids, k.id)
	}
	// Keys first, then what else was recorded of the same uploads. OFFSET 0, so that each is looked up by its index.
	const keyed = ` FROM unnest($1::timestamptz[], $2::uuid[]) AS wanted (at, wanted_id) CROSS JOIN LATERAL (
		SELECT * FROM upcall.upload_events WHERE received_at = wanted.at AND id = wanted.wanted_id OFFSET 0) AS upload_events`
	const used = ` FROM unnest($1::uuid[]) AS wanted CROSS JOIN LATERAL (
		SELECT * FROM upcall.upload_events WHERE upload_id = wanted LIMIT $2) AS upload_events`
	byKey := make(map[key]*Entry)
	uploads := make(map[uuid.UUID]bool)
	read := func(from string, args ...any) error {
		_, err := eventstore.Exec(ctx, s.config.Pool, "",
			"SELECT coalesce(recorded_xid, '0')::text::bigint, "+eventstore.EventColumns()+from, func(rows pgx.Rows) error {
				for rows.Next() {
					e := &Entry{Event: Event{new(event.Event)}, Counts: true, Findings: []Finding{}, Deliveries: []hooks.Delivery{}}
					if err := rows.Scan(append([]any{&e.xid}, eventstore.EventFields(e.Event.Event)...)...); err != nil {
						return err
					}
					byKey[keyOf(e.Event.Event)] = e
					if e.Event.UploadID.Valid {
						uploads[e.Event.UploadID.UUID] = true
					}
				}
				return rows.Err()
			}, args...)
		if err != nil {
			return fmt.Errorf("read events: %w", eventstore.Unavailable(err))
		}
		return nil
	}
	if err := read(keyed, times, ids); err != nil {
		return nil, err
	}
	for _, id := range there.uploads {
		uploads[id] = true
	}
	var wanted []uuid.UUID
	for id := range uploads {
		wanted = append(wanted, id)
	}
	if err := read(used, wanted, mostEvents); err != nil {
		return nil, err
	}
	var all []*Entry
	for _, e := range byKey {
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b *Entry) int { return compareKeys(keyOf(a.Event.Event), keyOf(b.Event.Event)) })
	return all, nil
}

// outcomes adds what consumers of the log say of events.
func (s *Stories) outcomes(ctx context.Context, events []*Entry) error {
	byKey := make(map[key]*Entry)
	for _, e := range events {
		byKey[keyOf(e.Event.Event)] = e
	}
	times, ids := eventKeys(events)
	const wanted = " FROM unnest($1::timestamptz[], $2::uuid[]) AS wanted (at, id) "
	var at time.Time
	var id uuid.UUID
	each := func(sql string, fields []any, visit func(*Entry)) error {
		_, err := eventstore.Exec(ctx, s.config.Pool, "", sql, func(rows pgx.Rows) error {
			_, err := pgx.ForEachRow(rows, append([]any{&at, &id}, fields...), func() error { visit(byKey[key{at.UTC(), id}]); return nil })
			return err
		}, times, ids)
		if err != nil {
			return fmt.Errorf("read what became of events: %w", eventstore.Unavailable(err))
		}
		return nil
	}
	err := each("SELECT wanted.at, wanted.id"+wanted+`JOIN upcall.rollup_superseded s
		ON s.generation = `+current+` AND s.received_at = wanted.at AND s.event_id = wanted.id`, nil, func(e *Entry) { e.Counts = false })
	if err != nil {
		return err
	}
	var c Confirmation
	var looked, problem string
	fields := []any{&c.Outcome, (*zeronull.Text)(&looked), (*zeronull.Text)(&problem), &c.At}
	confirmation := func(e *Entry) {
		c := c
		c.LookedAt, c.Problem, c.At = orNil(looked), orNil(problem), c.At.UTC()
		e.Confirmation = &c
	}
	err = each(`SELECT wanted.at, wanted.id, CASE WHEN r.due_at IS NULL THEN 'failed' ELSE 'waiting' END, NULL, r.problem, r.failed_at`+wanted+
		`JOIN upcall.confirm_retries r ON r.event_received_at = wanted.at AND r.event_id = wanted.id`, fields, confirmation)
	if err != nil {
		return err
	}
	err = each("SELECT wanted.at, wanted.id, c.outcome, c.looked_at, NULL, c.at"+wanted+
		`JOIN upcall.confirmations c ON c.event_received_at = wanted.at AND c.event_id = wanted.id`, fields, confirmation)
	if err != nil {
		return err
	}
	var f Finding
	fields = []any{&f.ID, (*string)(&f.Kind), (*[]byte)(&f.Found), &f.FoundAt, &f.xid}
	return each("SELECT wanted.at, wanted.id, f.id, f.kind, f.found, f.found_at, f.recorded_xid::text::bigint"+wanted+
		`JOIN upcall.findings f ON f.event_received_at = wanted.at AND f.event_id = wanted.id ORDER BY f.recorded_xid, f.id`, fields,
		func(e *Entry) {
			f := f
			f.Found, f.FoundAt = slices.Clone(f.Found), f.FoundAt.UTC()
			e.Findings = append(e.Findings, f)
		})
}

// deliveries adds what became of each event, and of what was found about it, at the endpoints.
func (s *Stories) deliveries(ctx context.Context, all []Story) error {
	var messages []hooks.Message
	of := make(map[uuid.UUID]*Entry)
	for i := range all {
		for j := range all[i].Events {
			e := &all[i].Events[j]
			of[e.Event.ID] = e
			messages = append(messages, hooks.Message{
				ID: e.Event.ID, Kind: webhook.Recorded, XID: e.xid, At: e.Event.ReceivedAt, Event: e.Event.Event})
			for _, f := range e.Findings {
				of[f.ID] = e
				messages = append(messages, hooks.Message{ID: f.ID, Kind: f.Kind, XID: f.xid, At: f.FoundAt, Event: e.Event.Event})
			}
		}
	}
	deliveries, err := s.config.Endpoints.Deliveries(ctx, messages)
	for _, d := range deliveries {
		e := of[d.MessageID]
		e.Deliveries = append(e.Deliveries, d)
	}
	return err
}

// refusals reads the latest refusals of uploads, and those that the search finds. There are few: the table is
// bounded.
func (s *Stories) refusals(ctx context.Context, search Search, uploads []uuid.UUID) (all []Refusal, err error) {
	_, err = eventstore.Exec(ctx, s.config.Pool, "", `
		SELECT reason, refused_at, source_addr, bucket, object_key, request_id, upload_id FROM (
			SELECT * FROM (SELECT * FROM upcall.refused_callbacks WHERE upload_id = ANY ($1) LIMIT $5) AS by_upload
			UNION SELECT * FROM (SELECT * FROM upcall.refused_callbacks WHERE request_id = $2 LIMIT $5) AS by_request
			UNION SELECT * FROM (SELECT * FROM upcall.refused_callbacks WHERE object_key = $3 AND (bucket = $4 OR $4 IS NULL) LIMIT $5) AS by_key
		) AS found ORDER BY refused_at DESC, digest LIMIT $5`, func(rows pgx.Rows) error {
		all, err = pgx.CollectRows(rows, scanRefusal)
		return err
	}, uploads, orNil(search.RequestID), orNil(search.Key), orNil(search.Bucket), mostRefusals)
	if err != nil {
		return nil, fmt.Errorf("read refusals: %w", eventstore.Unavailable(err))
	}
	return all, nil
}

func scanRefusal(row pgx.CollectableRow) (r Refusal, err error) {
	var source *netip.Prefix
	if err = row.Scan(&r.Reason, &r.RefusedAt, &source, &r.Bucket, &r.ObjectKey, &r.RequestID, &r.UploadID); source != nil {
		r.SourceAddr = new(source.Addr())
	}
	r.RefusedAt = r.RefusedAt.UTC()
	return r, err
}

// A place is where an issued upload was to go.
type place struct{ bucket, key string }

// issued reads the rows of the ledger.
func (s *Stories) issued(ctx context.Context, uploads []uuid.UUID) (map[uuid.UUID]*Issued, map[uuid.UUID]place, error) {
	rows, places := make(map[uuid.UUID]*Issued), make(map[uuid.UUID]place)
	_, err := eventstore.Exec(ctx, s.config.Pool, "", `
		SELECT u.upload_id, u.bucket, u.object_key, u.issued_at, u.expires_at, r.revoked_at, u.expires_at <= now(),
			u.content_type, u.size, u.vars, u.api_key_id, u.oss_upload_id
		FROM upcall.issued_uploads u LEFT JOIN upcall.revoked_uploads r USING (upload_id) WHERE u.upload_id = ANY ($1)`,
		func(found pgx.Rows) error {
			var id uuid.UUID
			var at place
			var u Issued
			var expired bool
			_, err := pgx.ForEachRow(found, []any{&id, &at.bucket, &at.key, &u.IssuedAt, &u.ExpiresAt, &u.RevokedAt, &expired,
				&u.ContentType, &u.Size, &u.Vars, &u.APIKeyID, &u.OSSUploadID}, func() error {
				row := u
				row.IssuedAt, row.ExpiresAt, row.Status = u.IssuedAt.UTC(), u.ExpiresAt.UTC(), "issued"
				if expired {
					row.Status = "expired"
				}
				if u.RevokedAt != nil {
					row.RevokedAt, row.Status = new(u.RevokedAt.UTC()), "revoked"
				}
				rows[id], places[id], u.Vars = &row, at, nil
				return nil
			})
			return err
		}, uploads)
	if err != nil {
		return nil, nil, fmt.Errorf("read issued uploads: %w", eventstore.Unavailable(err))
	}
	return rows, places, nil
}

func orNil(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}
