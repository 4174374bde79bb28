package rollup

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"upcall/internal/event"
)

// columns are the parameters of a statement for many rows: an array for each column.
type columns []any

// add adds a row.
func (c *columns) add(row ...any) {
	if *c == nil {
		*c = make(columns, len(row))
	}
	for i, value := range row {
		switch v := value.(type) {
		case string:
			(*c)[i] = grow((*c)[i], v)
		case int64:
			(*c)[i] = grow((*c)[i], v)
		case time.Time:
			(*c)[i] = grow((*c)[i], v)
		case int16:
			(*c)[i] = grow((*c)[i], v)
		case uuid.UUID:
			(*c)[i] = grow((*c)[i], v)
		case uuid.NullUUID:
			(*c)[i] = grow((*c)[i], v)
		case pgtype.Int8:
			(*c)[i] = grow((*c)[i], v)
		default:
			panic(fmt.Sprintf("rollup: there is no column for a %T", v))
		}
	}
}

func grow[T any](array any, value T) []T {
	typed, _ := array.([]T)
	return append(typed, value)
}

// after returns the parameters with one before them.
func (c columns) after(first any) []any { return append([]any{first}, c...) }

// uploadColumns are those of rollup_versions that [upload.fields] are for.
const uploadColumns = "received_at, event_id, mime_type, source, size, coalesce(request_id, ''), upload_id, coalesce(etag, '')"

func (u *upload) fields() []any {
	return []any{&u.at, &u.id, &u.mime, &u.source, &u.size, &u.requestID, &u.uploadID, &u.etag}
}

func (u upload) values() []any {
	return []any{u.at, u.id, u.mime, u.source, u.size, u.requestID, u.uploadID, u.etag}
}

// load reads what is there of the batch's objects.
func (b *batch) load(ctx context.Context, tx pgx.Tx) error {
	if len(b.objects) == 0 {
		return nil
	}
	var c columns
	for _, o := range b.objects {
		c.add(o.bucket, o.key)
	}
	rows, err := tx.Query(ctx, `
		SELECT o.bucket, o.object_key, o.number, o.uploads, o.sources,
			o.first_at, o.first_id, o.first_mime_type, o.first_source, o.first_size, coalesce(o.first_request_id, ''),
			CASE WHEN o.uploads = 1 THEN o.upload_id ELSE o.first_upload_id END,
			coalesce(CASE WHEN o.uploads = 1 THEN upper(btrim(o.etag, '"') COLLATE "C") ELSE o.first_etag END, ''),
			o.received_at, o.event_id, o.hourly_mime_type, o.source, o.size, coalesce(o.request_id, ''),
			o.upload_id, coalesce(upper(btrim(o.etag, '"') COLLATE "C"), '')
		FROM unnest($2::text[], $3::text[]) AS u (bucket, object_key)
		JOIN upcall.rollup_objects o ON o.generation = $1 AND o.bucket = u.bucket AND o.object_key = u.object_key`,
		c.after(b.generation)...)
	if err != nil {
		return err
	}
	var at place
	var there object
	var first, latest upload
	fields := []any{&at.bucket, &at.key, &there.number, &there.uploads, &there.sources}
	fields = slices.Concat(fields, first.fields(), latest.fields())
	_, err = pgx.ForEachRow(rows, fields, func() error {
		i, _ := slices.BinarySearchFunc(b.objects, at, func(o *object, p place) int { return o.compare(p) })
		o := b.objects[i]
		o.number, o.uploads, o.sources = there.number, there.uploads, there.sources
		first.at, latest.at = first.at.UTC(), latest.at.UTC()
		o.known = append(o.known, first)
		if o.uploads > 1 {
			o.known = append(o.known, latest)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := b.loadLost(ctx, tx); err != nil {
		return err
	}
	return b.loadVersions(ctx, tx)
}

// loadLost reads the notifications that do not count but that may tell of the same as what a listing tells.
func (b *batch) loadLost(ctx context.Context, tx pgx.Tx) error {
	var listed columns
	for i, o := range b.objects {
		for _, u := range o.coming {
			if o.number != 0 && u.source == string(event.SourceReconcile) && u.etag != "" {
				listed.add(int64(i), o.bucket, o.key, u.etag, u.at)
			}
		}
	}
	if listed == nil {
		return nil
	}
	rows, err := query(ctx, tx, "upcall_rollup_lost", `
		SELECT u.n, e.received_at, e.id, e.source, u.etag
		FROM unnest($2::bigint[], $3::text[], $4::text[], $5::text[], $6::timestamptz[]) AS u (n, bucket, object_key, etag, at)
		JOIN upcall.rollup_superseded s ON s.generation = $1
			AND s.received_at BETWEEN u.at - `+event.ListedApartSQL+` AND u.at + `+event.ListedApartSQL+`
		JOIN upcall.upload_events e ON e.received_at = s.received_at AND e.id = s.event_id
		WHERE e.source = 'notification' AND e.bucket = u.bucket AND e.object_key = u.object_key
			AND upper(btrim(e.etag, '"') COLLATE "C") = u.etag`, listed.after(b.generation)...)
	if err != nil {
		return err
	}
	var i int64
	var u upload
	_, err = pgx.ForEachRow(rows, []any{&i, &u.at, &u.id, &u.source, &u.etag}, func() error {
		u.at = u.at.UTC()
		b.objects[i].lostBefore = append(b.objects[i].lostBefore, u)
		return nil
	})
	return err
}

// loadVersions reads the uploads in between that may be taken out, or take the place of the first or
// the latest. There are any only if different sources tell of the same upload.
func (b *batch) loadVersions(ctx context.Context, tx pgx.Tx) error {
	byNumber := make(map[int64]*object)
	var requests columns
	for _, o := range b.objects {
		if o.uploads < 3 || !o.mixed() {
			continue
		}
		byNumber[o.number] = o
		for _, u := range o.coming {
			if u.requestID != "" || u.uploadID.Valid || u.etag != "" {
				requests.add(o.number, u.requestID, u.uploadID, u.etag, u.source, u.at)
			}
		}
	}
	if requests == nil {
		return nil
	}
	found, err := readVersions(ctx, tx, `
		SELECT v.* FROM unnest($2::bigint[], $3::text[], $4::uuid[], $5::text[], $6::text[], $7::timestamptz[])
			AS u (number, request_id, upload_id, etag, source, at) CROSS JOIN LATERAL (
			(SELECT number, `+uploadColumns+` FROM upcall.rollup_versions
				WHERE generation = $1 AND number = u.number AND request_id = nullif(u.request_id, '') LIMIT 1000)
			UNION ALL
			(SELECT number, `+uploadColumns+` FROM upcall.rollup_versions
				WHERE generation = $1 AND number = u.number AND upload_id = u.upload_id LIMIT 1000)
			UNION ALL
			(SELECT number, `+uploadColumns+` FROM upcall.rollup_versions
				WHERE generation = $1 AND number = u.number AND etag = nullif(u.etag, '') AND 'reconcile' IN (source, u.source)
					AND received_at BETWEEN u.at - `+event.ListedApartSQL+` AND u.at + `+event.ListedApartSQL+` LIMIT 1000)) AS v`,
		requests.after(b.generation))
	if err != nil {
		return err
	}
	var ends columns
	for number, o := range byNumber {
		o.knowAlso(found[number])
		// As many as can be taken out, and one that stays.
		ends.add(number, int64(len(o.known)+1))
	}
	atEnds, err := readVersions(ctx, tx, `
		SELECT v.* FROM unnest($2::bigint[], $3::bigint[]) AS u (number, most) CROSS JOIN LATERAL (
			(SELECT number, `+uploadColumns+` FROM upcall.rollup_versions
				WHERE generation = $1 AND number = u.number ORDER BY received_at, event_id LIMIT u.most)
			UNION ALL
			(SELECT number, `+uploadColumns+` FROM upcall.rollup_versions
				WHERE generation = $1 AND number = u.number ORDER BY received_at DESC, event_id DESC LIMIT u.most)) AS v`,
		ends.after(b.generation))
	if err != nil {
		return err
	}
	for number, o := range byNumber {
		o.knowAlso(atEnds[number])
	}
	return nil
}

func readVersions(ctx context.Context, tx pgx.Tx, sql string, args []any) (map[int64][]upload, error) {
	rows, err := tx.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	found := make(map[int64][]upload)
	var number int64
	var u upload
	_, err = pgx.ForEachRow(rows, append([]any{&number}, u.fields()...), func() error {
		u.at, u.stored = u.at.UTC(), true
		found[number] = append(found[number], u)
		return nil
	})
	return found, err
}

// Objects as the parameters $2 and on of a statement, and as its table u, with the details of the
// latest upload from its event e. The log may have dropped that.
const (
	objectRows = `unnest($2::text[], $3::text[], $4::bigint[], $5::smallint[],
			$6::timestamptz[], $7::uuid[], $8::text[], $9::text[], $10::bigint[], $11::text[], $12::uuid[], $13::text[],
			$14::timestamptz[], $15::uuid[], $16::text[], $17::text[], $18::bigint[], $19::text[], $20::uuid[], $21::text[])
			AS u (bucket, object_key, uploads, sources, first_at, first_id, first_mime_type, first_source, first_size, first_request_id,
			first_upload_id, first_etag, received_at, event_id, hourly_mime_type, source, size, request_id, upload_id, etag)`
	objectEvents = ` LEFT JOIN upcall.upload_events e ON e.received_at = u.received_at AND e.id = u.event_id`

	firstColumns = "uploads, sources, first_at, first_id, first_mime_type, first_source, first_size, first_request_id, " +
		"first_upload_id, first_etag"
	firstValues = `u.uploads, u.sources, u.first_at, u.first_id, u.first_mime_type, u.first_source, u.first_size,
			nullif(u.first_request_id, ''), u.first_upload_id, nullif(u.first_etag, '')`
	latestColumns = `received_at, event_id, hourly_mime_type, source, size, request_id,
			etag, mime_type, crc64, operation, upload_id, client_ip, vars`
	latestValues = `u.received_at, u.event_id, u.hourly_mime_type, u.source, u.size, nullif(u.request_id, ''),
			coalesce(e.etag, nullif(u.etag, '')), coalesce(e.mime_type, nullif(u.hourly_mime_type, '')), e.crc64, e.operation,
			coalesce(e.upload_id, u.upload_id), e.client_ip, e.vars`
	thisObject = "o.generation = $1 AND o.bucket = u.bucket AND o.object_key = u.object_key"
)

// writeObjects inserts and updates objects.
func (b *batch) writeObjects(ctx context.Context, tx pgx.Tx) error {
	var added, firsts, latests columns
	for _, o := range b.objects {
		changed, latest := o.changed()
		into := &firsts
		switch {
		case !changed:
			continue
		case o.number == 0:
			into = &added
		case latest:
			into = &latests
		}
		row := []any{o.bucket, o.key, o.uploads, o.sources}
		into.add(slices.Concat(row, o.first().values(), o.latest().values())...)
	}
	for _, statement := range []struct {
		rows columns
		sql  string
	}{
		{added, "INSERT INTO upcall.rollup_objects (generation, bucket, object_key, " + firstColumns + ", " + latestColumns + ")\n" +
			"SELECT $1, u.bucket, u.object_key, " + firstValues + ", " + latestValues + "\nFROM " + objectRows + objectEvents},
		{firsts, "UPDATE upcall.rollup_objects o SET (" + firstColumns + ") = ROW(" + firstValues + ")\n" +
			"FROM " + objectRows + " WHERE " + thisObject},
		{latests, "UPDATE upcall.rollup_objects o SET (" + firstColumns + ", " + latestColumns + ") =\n" +
			"ROW(" + firstValues + ", " + latestValues + ")\nFROM " + objectRows + objectEvents + " WHERE " + thisObject},
	} {
		if statement.rows == nil {
			continue
		}
		if _, err := tx.Exec(ctx, statement.sql, statement.rows.after(b.generation)...); err != nil {
			return err
		}
	}
	return nil
}

// writeVersions inserts and deletes the uploads in between.
func (b *batch) writeVersions(ctx context.Context, tx pgx.Tx) error {
	var added, removed columns
	for _, o := range b.objects {
		in, out := o.versions()
		for _, u := range in {
			added.add(append([]any{o.bucket, o.key}, u.values()...)...)
		}
		for _, u := range out {
			removed.add(o.number, u.at, u.id)
		}
	}
	if removed != nil {
		_, err := tx.Exec(ctx, `DELETE FROM upcall.rollup_versions v
			USING unnest($2::bigint[], $3::timestamptz[], $4::uuid[]) AS u (number, received_at, event_id)
			WHERE v.generation = $1 AND v.number = u.number AND v.received_at = u.received_at AND v.event_id = u.event_id`,
			removed.after(b.generation)...)
		if err != nil {
			return err
		}
	}
	if added != nil {
		_, err := tx.Exec(ctx, `
			INSERT INTO upcall.rollup_versions
				(generation, number, received_at, event_id, mime_type, source, size, request_id, upload_id, etag)
			SELECT $1, o.number, u.received_at, u.event_id, u.mime_type, u.source, u.size,
				nullif(u.request_id, ''), u.upload_id, nullif(u.etag, '')
			FROM unnest($2::text[], $3::text[], $4::timestamptz[], $5::uuid[], $6::text[], $7::text[], $8::bigint[], $9::text[],
				$10::uuid[], $11::text[])
				AS u (bucket, object_key, received_at, event_id, mime_type, source, size, request_id, upload_id, etag)
			JOIN upcall.rollup_objects o ON `+thisObject, added.after(b.generation)...)
		if err != nil {
			return err
		}
	}
	return nil
}

// writeSuperseded notes the events that do not count.
func (b *batch) writeSuperseded(ctx context.Context, tx pgx.Tx) error {
	var lost columns
	for _, o := range b.objects {
		for _, u := range o.lost {
			lost.add(u.at, u.id)
		}
	}
	if lost == nil {
		return nil
	}
	rows, err := tx.Query(ctx, `INSERT INTO upcall.rollup_superseded (generation, received_at, event_id, upload_id)
		SELECT $1, u.received_at, u.event_id, e.upload_id FROM unnest($2::timestamptz[], $3::uuid[]) AS u (received_at, event_id)
		LEFT JOIN upcall.upload_events e ON e.received_at = u.received_at AND e.id = u.event_id
		ON CONFLICT DO NOTHING RETURNING upload_id, received_at`, lost.after(b.generation)...)
	if err != nil {
		return err
	}
	var id uuid.NullUUID
	var at time.Time
	_, err = pgx.ForEachRow(rows, []any{&id, &at}, func() error { b.lost.add(id, at); return nil })
	return err
}
