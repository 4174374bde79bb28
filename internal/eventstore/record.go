package eventstore

import (
	"context"
	"encoding/json"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/callbackspec"
	"upcall/internal/event"
)

// noUpload stands for a null upload_id in callback_ids. Callbacks that were recorded while
// tokens were ignored have it, too.
const noUpload = "'00000000-0000-0000-0000-000000000000'::uuid"

// insertEvents returns 'n' for each new event, 'r' for each that is refused because its
// upload was revoked, 'o' for each whose upload has the {most} events already, and 'w' for
// each whose upload has more than its {room}, which takes those into account that are being
// recorded, too. Only events of callbacks count: what was recovered may be the same upload.
//
// It does not refuse events that are already recorded, so that a repeat gets the same answer
// as the first time, or events that were acknowledged before the upload was revoked: {until}
// is the time before which a revocation counts. The limit on refusals keeps one upload, which
// OSS accepts until it expires, from filling the table.
//
// If another transaction is about to commit an id, ON CONFLICT waits for that transaction, so
// events that are not returned are committed. The SELECT of fresh reads ids in the order of
// the array: all writers sort them, so that no two wait for each other. Events are joined to
// what fresh returned, not to the table, because a statement does not see its own rows.
//
// The receiver's clock may be far behind, and a month that is long over is dropped with what
// is in it. So what was received just now by that clock, which is {clock}, gets PostgreSQL's
// time if that is over a day ahead.
//
// It is planned once for each connection, from statistics that may be wrong: after a time
// with tokens they say that upload_id is unique, and so that noUpload has one row. So it
// leaves the planner no choice that they could spoil: every look at a table is by the first
// column of an index alone, or by all of its columns (OFFSET 0 keeps it so).
//
// An event that was received before someone asked to erase it, and was in a spool then, is recorded
// without what was to be erased: see [Eraser].
//
// A verdict is 'k' for what was recorded while tokens were ignored, which ON CONFLICT does not
// find for an event with an upload. Few batches have rows that need one, so that most skip them
// all, after one look at each index.
const insertEvents = `
WITH verdicts AS MATERIALIZED (
	SELECT id, verdict FROM (
		SELECT id, upload_id, CASE
			WHEN upload_id IS NOT NULL AND (SELECT EXISTS (SELECT FROM upcall.callback_ids WHERE upload_id = ` + noUpload + `))
				AND EXISTS (SELECT FROM upcall.callback_ids there WHERE there.upload_id = ` + noUpload + ` AND there.id = given.id OFFSET 0)
				THEN 'k'
			WHEN upload_id = ANY (ARRAY(SELECT upload_id FROM upcall.revoked_uploads WHERE upload_id = ANY ({upload_id})))
				AND EXISTS (
					SELECT FROM upcall.revoked_uploads there WHERE there.upload_id = given.upload_id AND there.revoked_at < until OFFSET 0
				) THEN 'r'
			WHEN room = 0 OR room > 0
				AND upload_id = ANY (ARRAY(SELECT upload_id FROM upcall.callback_ids WHERE upload_id = ANY ({upload_id}))) THEN (
				SELECT CASE WHEN count(*) >= ({most})[1] THEN 'o' WHEN count(*) >= room THEN 'w' END FROM (
					SELECT FROM upcall.callback_ids there
					WHERE there.upload_id = given.upload_id AND there.id >= '` + event.FirstCallbackID + `' LIMIT ({most})[1]
				) AS events)
		END::"char" AS verdict
		FROM unnest({id}, {upload_id}, {until}, {room}) AS given (id, upload_id, until, room)
		WHERE (SELECT 0 = ANY ({room})
			OR EXISTS (SELECT FROM upcall.callback_ids WHERE upload_id = ` + noUpload + `)
			OR EXISTS (SELECT FROM upcall.revoked_uploads WHERE upload_id = ANY ({upload_id}))
			OR EXISTS (SELECT FROM upcall.callback_ids WHERE upload_id = ANY ({upload_id})))
		OFFSET 0
	) AS given
	WHERE verdict IS NOT NULL AND (verdict = 'k' OR NOT EXISTS (
		SELECT FROM upcall.callback_ids there WHERE there.upload_id = given.upload_id AND there.id = given.id OFFSET 0
	))
), refused AS (
	INSERT INTO upcall.refused_callbacks (digest, reason, refused_at, source_addr, bucket, object_key, upload_id)
	SELECT id, 'token_revoked', received_at, source_addr::inet, left(bucket, 1024), left(object_key, 1024), upload_id
	FROM unnest({id}, {received_at}, {bucket}, {object_key}, {upload_id}, {source_addr})
		AS given (id, received_at, bucket, object_key, upload_id, source_addr)
	WHERE (SELECT EXISTS (SELECT FROM verdicts WHERE verdict = 'r')) AND id = ANY (ARRAY(SELECT id FROM verdicts WHERE verdict = 'r'))
		AND (SELECT count(*) FROM (
			SELECT FROM upcall.refused_callbacks there WHERE there.upload_id = given.upload_id LIMIT 100
		) AS kept) < 100
	ON CONFLICT DO NOTHING
), fresh AS (
	INSERT INTO upcall.callback_ids (upload_id, id, received_at)
	SELECT coalesce(upload_id, ` + noUpload + `), id,
		CASE WHEN (SELECT now() - ({clock})[1] > interval '1 day')
			AND received_at BETWEEN ({clock})[1] - interval '1 minute' AND ({clock})[1] + interval '1 minute'
			THEN received_at + (now() - ({clock})[1]) ELSE received_at END
	FROM (SELECT unnest({id}) AS id, unnest({received_at}) AS received_at, unnest({upload_id}) AS upload_id) AS given
	WHERE (id = ANY (ARRAY(SELECT id FROM verdicts))) IS NOT TRUE
	ON CONFLICT DO NOTHING
	RETURNING id, received_at AS at
), recorded AS (
	INSERT INTO upcall.upload_events ({columns})
	SELECT {values} FROM {given} JOIN fresh USING (id)
	RETURNING id
)
SELECT id, 'n'::"char" FROM recorded UNION ALL SELECT id, verdict FROM verdicts WHERE verdict <> 'k'
UNION ALL SELECT NULL, NULL WHERE ` + barrier

// unlessErased returns the SQL for a column that is erased with the events of its upload, or with those
// that have some value of a variable. Most events are younger than the last erasure, and are
// compared with its time alone.
func unlessErased(column, erased string) string {
	return `CASE WHEN given.received_at < (SELECT max(asked_at) FROM upcall.erasures) AND EXISTS (
		SELECT FROM upcall.erasures e WHERE e.asked_at > given.received_at
			AND (e.upload_id = given.upload_id OR e.digest = sha256(e.salt || convert_to(given.vars->>e.variable, 'UTF8')))
	) THEN ` + erased + " ELSE given." + column + " END"
}

// eventFields are the columns of events and the other parameters of insertEvents.
var eventFields = func() []field[eventRow] {
	var fields []field[eventRow]
	for _, c := range event.Columns {
		pointer := func(e *eventRow) any { return c.Field(&e.Event) }
		if _, vars := c.Field(new(event.Event)).(*map[string]json.RawMessage); vars {
			pointer = func(e *eventRow) any { return &e.vars }
		}
		f := field[eventRow]{name: c.Name, pointer: pointer}
		switch c.Name {
		case "received_at":
			f.value = "fresh.at"
		case "client_ip":
			f.value = unlessErased(c.Name, "NULL")
		case "vars":
			f.value = unlessErased(c.Name, "'{}'")
		}
		fields = append(fields, f)
	}
	return append(fields,
		field[eventRow]{name: "source_addr", pointer: func(e *eventRow) any { return &e.SourceAddr }, aside: true},
		field[eventRow]{name: "until", pointer: func(e *eventRow) any { return &e.until }, aside: true},
		field[eventRow]{name: "room", pointer: func(e *eventRow) any { return &e.room }, aside: true},
		field[eventRow]{name: "most", pointer: func(e *eventRow) any { return &e.most }, aside: true, once: true},
		field[eventRow]{name: "clock", pointer: func(e *eventRow) any { return &e.clock }, aside: true, once: true})
}()

// eventKind is how events are written.
var eventKind = kind[eventRow]{
	fields: eventFields,
	insert: newStatement("upcall_record", insertEvents, eventFields),
	join: func(kept, repeat *eventRow) {
		if repeat.Acknowledged {
			kept.Acknowledged, kept.until, kept.room = true, repeat.until, repeat.room // which has none, unless it is limited
		}
	},
	// Some of the rows have no partition.
	fix: func(ctx context.Context, pool *pgxpool.Pool, rows []*request[eventRow]) error {
		times := make([]time.Time, len(rows), len(rows)+1)
		for i, q := range rows {
			times[i] = q.row.ReceivedAt
		}
		var now time.Time // by PostgreSQL's clock, if ours is behind
		if err := pool.QueryRow(ctx, "SELECT now()").Scan(&now); err != nil {
			return err
		}
		if now.Sub(rows[0].row.clock) > 24*time.Hour {
			times = append(times, now)
		}
		return ensureMonths(ctx, pool, times)
	},
	bad:     event.ErrDeadLetter,
	samples: sampleEvents,
}

// sampleEvents returns the newest event, as if it came again now, or made-up ones if there is
// none: with little in it, and with much.
func sampleEvents(ctx context.Context, pool *pgxpool.Pool, bad *request[eventRow]) ([]*request[eventRow], error) {
	rows, err := pool.Query(ctx, "SELECT "+ownColumns+" FROM upcall.upload_events ORDER BY received_at DESC, id DESC LIMIT 1")
	if err != nil {
		return nil, err
	}
	events, err := pgx.CollectRows(rows, scanEvent)
	if err != nil {
		return nil, err
	}
	if len(events) == 0 {
		size, at := int64(1), bad.row.ReceivedAt
		events = []*event.Event{{ReceivedAt: at}, {ReceivedAt: at, UploadID: bad.row.UploadID, Callback: callbackspec.Callback{
			Bucket: bad.row.Callback.Bucket, Object: "sample", ETag: "sample", Size: &size, MimeType: "text/plain",
			RequestID: "sample", Operation: "PutObject",
		}}}
	}
	var samples []*request[eventRow]
	for _, e := range events {
		e.ID = uuid.New()
		if now := bad.row.clock; now.Before(always) { // this month's partition may be missing
			e.ReceivedAt = now
		}
		row, err := newEventRow(e)
		if err != nil {
			return nil, err
		}
		row.until = time.Time{} // whether its upload was revoked does not matter
		samples = append(samples, &request[eventRow]{id: e.ID, row: row})
	}
	return samples, nil
}
