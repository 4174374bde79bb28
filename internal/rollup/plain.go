package rollup

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"upcall/internal/event"
)

// The plain queries, and what is kept, as lines of text.
const (
	// counted has each upload once. Of several sources that tell of the same request to the same
	// object, or of the same issued upload and ETag, the best counts. One of a listing does not if another tells of
	// the same object and ETag at about the time.
	counted = `
		WITH ranked AS (
			SELECT *, array_position(ARRAY['callback', 'notification', 'reconcile'], source) AS rank,
				bucket IS NOT NULL AND object_key IS NOT NULL AND octet_length(bucket) + octet_length(object_key) <= 2600 AS placed
			FROM (
				SELECT e.id, e.received_at, e.size, e.etag, e.crc64, e.mime_type, e.request_id, e.upload_id, e.vars, e.source,
					e.recorded_xid, coalesce(there.bucket, e.bucket) AS bucket, coalesce(there.object_key, e.object_key) AS object_key
				FROM upcall.upload_events e LEFT JOIN LATERAL (
					SELECT * FROM (` + placeOf + `) AS r WHERE e.source = 'callback' AND (e.bucket IS NULL OR e.object_key IS NULL
						OR octet_length(e.bucket) + octet_length(e.object_key) > 2600)
				) AS there ON true
			) AS e
		), best AS (
			SELECT *, min(rank) OVER (PARTITION BY bucket, object_key, request_id) AS by_request,
				min(rank) OVER (PARTITION BY bucket, object_key, upload_id, upper(trim(etag, '"'))) AS by_upload,
				min(rank) OVER (PARTITION BY bucket, object_key, upper(trim(etag, '"')) ORDER BY received_at
					RANGE BETWEEN ` + event.ListedApartSQL + ` PRECEDING AND ` + event.ListedApartSQL + ` FOLLOWING) AS by_object
			FROM ranked
		), counted AS (
			SELECT *, CASE WHEN lower(trim(split_part(mime_type, ';', 1)) COLLATE "C") IN ('image/jpg', 'image/pjpeg') THEN 'image/jpeg'
					ELSE lower(coalesce(trim(split_part(mime_type, ';', 1)), '') COLLATE "C") END AS type
			FROM best WHERE NOT coalesce(placed, false) OR (request_id IS NULL OR rank = by_request)
				AND (upload_id IS NULL OR etag IS NULL OR rank = by_upload) AND (source <> 'reconcile' OR etag IS NULL OR rank = by_object)
		), placed AS (
			SELECT *, CASE WHEN placed THEN row_number() OVER (PARTITION BY placed, bucket, object_key ORDER BY received_at, id) END AS nth,
				row_number() OVER (PARTITION BY placed, bucket, object_key ORDER BY received_at DESC, id DESC) AS last,
				count(*) OVER (PARTITION BY placed, bucket, object_key) AS uploads
			FROM counted
		)`
	plainHourly = counted + `
		SELECT concat_ws(' ', extract(epoch FROM date_trunc('hour', received_at AT TIME ZONE 'UTC'))::bigint, coalesce(bucket, '-'),
			type, source, count(*), coalesce(sum(size), 0), count(*) FILTER (WHERE nth = 1), count(*) FILTER (WHERE nth > 1)) AS line
		FROM placed GROUP BY date_trunc('hour', received_at AT TIME ZONE 'UTC'), bucket, type, source`
	keptHourly = `
		SELECT concat_ws(' ', extract(epoch FROM hour)::bigint, coalesce(nullif(bucket, ''), '-'), mime_type, source,
			uploads, bytes, new_objects, overwrites) AS line
		FROM upcall.rollup_hourly WHERE uploads <> 0 AND ` + isCurrent
	plainObjects = counted + `
		SELECT concat_ws(' ', bucket, object_key, uploads, id, received_at, size, etag, crc64, mime_type, vars) AS line
		FROM placed WHERE placed AND last = 1`
	keptObjects = `
		SELECT concat_ws(' ', bucket, object_key, uploads, event_id, received_at, size, etag, crc64, mime_type, vars) AS line
		FROM upcall.rollup_objects WHERE ` + isCurrent
	plainVersions = counted + `
		SELECT concat_ws(' ', id, received_at) AS line FROM placed WHERE placed AND nth <> 1 AND last <> 1`
	keptVersions = `
		SELECT concat_ws(' ', event_id, received_at) AS line FROM upcall.rollup_versions WHERE ` + isCurrent

	plainSuperseded = counted + `
		SELECT concat_ws(' ', id, received_at) AS line FROM upcall.upload_events EXCEPT SELECT concat_ws(' ', id, received_at) FROM counted`
	keptSuperseded = `
		SELECT concat_ws(' ', event_id, received_at) AS line FROM upcall.rollup_superseded WHERE ` + isCurrent

	isCurrent = "generation = (SELECT generation FROM upcall.rollup_generations WHERE stage = 'current')"
)

// Differences compares what is kept with plain queries over all events, and returns lines that only
// one of them has, up to limit, and how many lines were compared. It is for tests: it takes long, and
// knows neither what retention has dropped nor types that are counted as others.
func Differences(ctx context.Context, conn interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}, limit int) (lines []string, compared int, err error) {
	for _, q := range [][3]string{{"hours", plainHourly, keptHourly}, {"objects", plainObjects, keptObjects},
		{"versions", plainVersions, keptVersions}, {"superseded events", plainSuperseded, keptSuperseded}} {
		rows, err := conn.Query(ctx, `
			WITH plain AS MATERIALIZED (`+q[1]+`), kept AS MATERIALIZED (`+q[2]+`)
			(SELECT '', count(*)::int FROM plain)
			UNION ALL (SELECT * FROM (
				(SELECT 'plain: ' || line, 0 FROM (TABLE plain EXCEPT ALL TABLE kept) AS p)
				UNION ALL (SELECT 'kept:  ' || line, 0 FROM (TABLE kept EXCEPT ALL TABLE plain) AS k)
				ORDER BY 1) AS differing LIMIT $1)`, limit)
		if err != nil {
			return nil, 0, fmt.Errorf("compare %s: %w", q[0], err)
		}
		var line string
		var n int
		if _, err := pgx.ForEachRow(rows, []any{&line, &n}, func() error {
			if compared += n; line != "" {
				lines = append(lines, q[0]+", "+line)
			}
			return nil
		}); err != nil {
			return nil, 0, fmt.Errorf("compare %s: %w", q[0], err)
		}
	}
	return lines, compared, nil
}
