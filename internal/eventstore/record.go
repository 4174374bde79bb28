package eventstore

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/event"
)

// noUpload is what callback_ids has for an upload_id that is null. It is there with ids of
// callbacks whose token was not looked at, too, and those were recorded all the same.
const noUpload = "'00000000-0000-0000-0000-000000000000'::uuid"

// insertEvents returns 'n' for what is new, and 'r' for what is refused because its upload
// was revoked. In it {name} stands for the parameter that is the array of that column, and
// {columns}, {values} and {given} for all columns: their names, with casts, and parameters.
//
// What is recorded already is not refused any more: a repeat gets the answer of the first
// time. Nor is what was acknowledged: {judged} holds the upload ids of all others. The
// bound on refusals keeps one upload, which OSS takes until it expires, from filling the
// table.
//
// An id that another transaction is about to commit makes ON CONFLICT wait for that
// transaction, so what is not returned is committed. The SELECT of fresh reads ids in the
// order of the array: all writers sort them, so that no two wait for each other.
// Events are joined to what fresh returned, and not to what the table holds, because a
// statement does not see rows of its own.
const insertEvents = `
WITH suspect AS MATERIALIZED (
	SELECT upload_id, id FROM unnest({id}, {judged}) AS given (id, upload_id)
	JOIN upcall.revoked_uploads USING (upload_id)
), revoked AS MATERIALIZED (
	SELECT id FROM suspect
	WHERE NOT EXISTS (
		SELECT FROM upcall.callback_ids there
		WHERE there.upload_id IN (suspect.upload_id, ` + noUpload + `) AND there.id = suspect.id
	)
), refused AS (
	INSERT INTO upcall.refused_callbacks (digest, reason, refused_at, source_addr, bucket, object_key, upload_id)
	SELECT id, 'token_revoked', received_at, source_addr::inet, left(bucket, 1024), left(object_key, 1024), upload_id
	FROM unnest({id}, {received_at}, {bucket}, {object_key}, {upload_id}, {source_addr})
		AS given (id, received_at, bucket, object_key, upload_id, source_addr)
	WHERE id = ANY (ARRAY(SELECT id FROM revoked))
		AND (SELECT count(*) FROM upcall.refused_callbacks there WHERE there.upload_id = given.upload_id) < 100
	ON CONFLICT DO NOTHING
), fresh AS (
	INSERT INTO upcall.callback_ids (upload_id, id, received_at)
	SELECT coalesce(upload_id, ` + noUpload + `), id, received_at
	FROM unnest({id}, {received_at}, {upload_id}) AS given (id, received_at, upload_id)
	WHERE (id = ANY (ARRAY(
		SELECT id FROM revoked UNION ALL SELECT id FROM upcall.callback_ids WHERE upload_id = ` + noUpload + ` AND id = ANY ({id})
	))) IS NOT TRUE
	ON CONFLICT DO NOTHING
	RETURNING id
), recorded AS (
	INSERT INTO upcall.upload_events ({columns})
	SELECT {values} FROM unnest({given}) AS given ({columns}) JOIN fresh USING (id)
	RETURNING id
)
SELECT id, 'n'::"char" FROM recorded UNION ALL SELECT id, 'r'::"char" FROM revoked`

// recordEvents is the statement for insertEvents. Its parameters are the columns of events
// and, behind them, source_addr and judged.
func recordEvents() statement {
	s := statement{name: "upcall_record"}
	var names, values, given, replace []string
	parameter := func(name, array string, element uint32) string {
		s.elements = append(s.elements, element)
		p := fmt.Sprintf("$%d::%s", len(s.elements), array)
		replace = append(replace, "{"+name+"}", p)
		return p
	}
	for _, c := range event.Columns {
		how := columnTypeOf(c)
		names, values = append(names, c.Name), append(values, c.Name+how.cast)
		given = append(given, parameter(c.Name, how.array, how.element))
	}
	parameter("source_addr", "text[]", pgtype.TextOID)
	parameter("judged", "uuid[]", pgtype.UUIDOID)
	list := func(parts []string) string { return strings.Join(parts, ", ") }
	replace = append(replace, "{columns}", list(names), "{values}", list(values), "{given}", list(given))
	s.sql = strings.NewReplacer(replace...).Replace(insertEvents)
	return s
}

// eventKind is how events are written.
var eventKind = kind[eventRow]{
	insert: recordEvents(),
	encode: func(columns *columns, e *eventRow) {
		for i, c := range event.Columns {
			switch field := c.Field(&e.Event).(type) {
			case *map[string]json.RawMessage:
				columns.all[i].json(e.vars)
			default:
				columns.all[i].field(field)
			}
		}
		behind := columns.all[len(event.Columns):]
		behind[0].addr(e.SourceAddr)
		behind[1].nullUUID(uuid.NullUUID{UUID: e.UploadID.UUID, Valid: e.UploadID.Valid && !e.Acknowledged})
	},
	join: func(kept, folded *eventRow) { kept.Acknowledged = kept.Acknowledged || folded.Acknowledged },
	// There is no partition for some of them.
	fix: func(ctx context.Context, pool *pgxpool.Pool, rows []*request[eventRow]) error {
		times := make([]time.Time, len(rows))
		for i, q := range rows {
			times[i] = q.row.ReceivedAt
		}
		return ensureMonths(ctx, pool, times)
	},
}
