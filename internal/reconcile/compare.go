package reconcile

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/eventstore"
)

const (
	// Pages of the comparison grow while they are read quickly, and shrink while they are not.
	firstPage, leastPage, mostPage = 500, 100, 5000
	quickPage, slowPage            = 100 * time.Millisecond, 400 * time.Millisecond
)

// knownObject says of an object g, and the row r of the roll-up for its key, whether the log tells of
// the object's content. Without ETags to compare, what was received later than the object was stored
// tells of it; the clocks may be a minute apart.
const knownObject = `CASE
	WHEN r.etag IS NULL OR g.etag IS NULL THEN (g.size IS NULL OR r.size IS NULL OR g.size = r.size)
		AND (g.last_modified IS NULL OR r.received_at >= g.last_modified - interval '1 minute')
	WHEN upper(btrim(r.etag, '"') COLLATE "C") = g.etag THEN true
	WHEN r.uploads = 1 THEN false
	ELSE coalesce(r.first_etag = g.etag, false) OR EXISTS (SELECT FROM upcall.rollup_versions v
		WHERE v.generation = r.generation AND v.number = r.number AND v.etag = g.etag)
END`

// rollupOf looks up the row of each object by the primary key, one by one, whatever the statistics say.
const rollupOf = `LEFT JOIN LATERAL (SELECT ` + knownObject + ` AS known FROM upcall.rollup_objects r
	WHERE r.generation = (SELECT generation FROM upcall.rollup_generations WHERE stage = 'current')
		AND r.bucket = $1 AND r.object_key = g.object_key OFFSET 0) AS told ON true`

const compareSQL = `WITH page AS MATERIALIZED (
		SELECT object_key, etag, size, last_modified FROM upcall.reconcile_objects
		WHERE run_id = $2 AND object_key > $3 AND state IS NULL ORDER BY object_key LIMIT $4
	), judged AS MATERIALIZED (
		SELECT g.*, coalesce(told.known, false) AS known FROM page g ` + rollupOf + `
		WHERE $5::timestamptz IS NULL OR g.last_modified IS NULL OR g.last_modified >= $5
	)
	SELECT object_key, coalesce(etag, ''), size, last_modified, 0::bigint, 0::bigint FROM judged WHERE NOT known
	UNION ALL
	SELECT coalesce((SELECT max(object_key) FROM page), ''), '', NULL, NULL,
		(SELECT count(*) FROM page), (SELECT count(*) FROM judged WHERE known)`

// compare finds the objects that the log does not tell of.
func (r *run) compare(ctx context.Context) error {
	if err := r.waitForRollups(ctx); err != nil {
		return err
	}
	for limit := firstPage; ; {
		began := time.Now()
		unknown, last, all, known, err := r.comparePage(ctx, limit)
		if err != nil {
			return err
		}
		if all == 0 {
			return nil
		}
		next := r.record
		next.after = last
		next.counts.Known += known
		candidates, err := r.judge(ctx, unknown, &next.counts)
		if err != nil {
			return err
		}
		if err := r.commit(ctx, next, func(tx pgx.Tx) error { return r.mark(ctx, tx, candidates, "candidate") }); err != nil {
			return err
		}
		r.report()
		limit = paced(limit, time.Since(began))
	}
}

// paced returns the size of the next page, after one that took so long.
func paced(limit int, took time.Duration) int {
	switch {
	case took < quickPage:
		return min(2*limit, mostPage)
	case took > slowPage:
		return max(limit/2, leastPage)
	}
	return limit
}

// comparePage returns the objects of a page that the roll-ups do not tell of, the last key, and how many
// there are and are known.
func (r *run) comparePage(ctx context.Context, limit int) (unknown []object, last string, all, known int64, err error) {
	_, err = eventstore.Exec(ctx, r.Pool, "upcall_reconcile_compare", compareSQL, func(rows pgx.Rows) error {
		unknown = unknown[:0]
		for rows.Next() {
			o, n, k, err := scanObject(rows)
			if err != nil {
				return err
			}
			if n > 0 || o.key == "" {
				last, all, known = o.key, n, k
				continue
			}
			unknown = append(unknown, o)
		}
		return rows.Err()
	}, r.Bucket, r.id, r.after, limit, nullTime(r.Since))
	if err != nil {
		return nil, "", 0, 0, fmt.Errorf("read objects: %w", eventstore.Unavailable(err))
	}
	return unknown, last, all, known, nil
}

func scanObject(rows pgx.Rows) (o object, n, k int64, err error) {
	var modified *time.Time
	if err := rows.Scan(&o.key, &o.etag, &o.size, &modified, &n, &k); err != nil {
		return object{}, 0, 0, err
	}
	if modified != nil {
		o.modified = modified.UTC()
	}
	return o, n, k, nil
}

// judge counts objects that the roll-ups do not tell of, and returns those that OSS is to be asked for.
func (r *run) judge(ctx context.Context, unknown []object, c *Counts) (candidates []string, err error) {
	var recent []object
	for _, o := range unknown {
		switch {
		case !o.modified.IsZero() && r.young(o.modified): // it is not missed yet
		case !o.modified.IsZero() && o.modified.Before(r.kept):
			c.TooOld++
		default:
			recent = append(recent, o)
		}
	}
	judged, err := r.issued(ctx, recent)
	if err != nil {
		return nil, err
	}
	for _, j := range judged {
		switch {
		case j.told:
			c.Known++
		case j.upload.ID == uuid.Nil:
			c.Foreign++
		default:
			candidates = append(candidates, j.key)
		}
	}
	return candidates, nil
}

// young reports whether a callback for an object that was stored then may still be on its way.
func (r *run) young(stored time.Time) bool { return stored.After(r.now.Add(-r.Grace)) }

// A judgement is an object with what the ledger says of it.
type judgement struct {
	object
	told   bool                    // an event of one of its issued uploads has its ETag
	upload eventstore.IssuedUpload // that it likely is of; the zero value if it was never issued
}

// issued looks up objects in the ledger, and in the log by their uploads: what the roll-ups have not read
// yet, or hold no ETag of.
func (r *run) issued(ctx context.Context, objects []object) ([]judgement, error) {
	if len(objects) == 0 {
		return nil, nil
	}
	places := make([]eventstore.StoredObject, len(objects))
	for i, o := range objects {
		places[i] = eventstore.StoredObject{Object: eventstore.Object{Bucket: r.Bucket, Key: o.key}, At: o.modified}
	}
	found, err := eventstore.FindIssued(ctx, r.Pool, places)
	if err != nil {
		return nil, err
	}
	byKey := make(map[string][]eventstore.FoundUpload)
	for _, u := range found {
		byKey[u.Object] = append(byKey[u.Object], u)
	}
	judged := make([]judgement, len(objects))
	var numbers []int32
	var ids []uuid.UUID
	var etags, keys []string
	for i, o := range objects {
		judged[i].object = o
		for _, u := range byKey[o.key] {
			if u.Used {
				numbers, ids, etags = append(numbers, int32(i)), append(ids, u.ID), append(etags, o.etag)
				keys = append(keys, o.key)
			}
		}
		chosen, _ := eventstore.ChooseIssued(byKey[o.key], places[i].Object, o.modified, o.size)
		judged[i].upload = chosen.IssuedUpload
	}
	if len(ids) == 0 {
		return judged, nil
	}
	_, err = eventstore.Exec(ctx, r.Pool, "upcall_reconcile_told", `
		SELECT DISTINCT g.number FROM unnest($1::int[], $2::uuid[], $3::text[], $4::text[])
			AS g (number, upload_id, etag, object_key)
		CROSS JOIN LATERAL (SELECT FROM upcall.upload_events e WHERE e.upload_id = g.upload_id
			AND coalesce(e.object_key = g.object_key, true)
			AND (g.etag = '' OR e.etag IS NULL OR upper(btrim(e.etag, '"') COLLATE "C") = g.etag) LIMIT 1) AS told`,
		func(rows pgx.Rows) error {
			var number int32
			_, err := pgx.ForEachRow(rows, []any{&number}, func() error { judged[number].told = true; return nil })
			return err
		}, numbers, ids, etags, keys)
	if err != nil {
		return nil, fmt.Errorf("look for events: %w", eventstore.Unavailable(err))
	}
	return judged, nil
}

// mark sets the state of objects; "" is none.
func (r *run) mark(ctx context.Context, tx pgx.Tx, keys []string, state string) error {
	if len(keys) == 0 {
		return nil
	}
	_, err := tx.Exec(ctx, `UPDATE upcall.reconcile_objects SET state = nullif($3, '') WHERE run_id = $1 AND object_key = ANY ($2)`,
		r.id, keys, state)
	if err != nil {
		return fmt.Errorf("mark objects: %w", err)
	}
	return nil
}

// keptSince returns before which events were dropped, or are about to be.
func keptSince(ctx context.Context, pool *pgxpool.Pool, now time.Time, days int) (time.Time, error) {
	kept := eventstore.KeptSince(now, days)
	var dropped *time.Time
	if err := one(ctx, pool, "SELECT dropped_before FROM upcall.feed_log", nil, &dropped); err != nil {
		return time.Time{}, fmt.Errorf("look up retention: %w", err)
	}
	if dropped != nil && dropped.After(kept) {
		kept = dropped.UTC()
	}
	return kept, nil
}

// estimate returns about how many objects there are, which only the progress bar needs: those of the last
// run, or of the roll-up by PostgreSQL's statistics.
func estimate(ctx context.Context, pool *pgxpool.Pool, bucket, prefix string) (n int64, err error) {
	err = one(ctx, pool, `SELECT coalesce((SELECT listed FROM upcall.reconcile_runs WHERE bucket = $1 AND prefix = $2 AND stage = 'done'
			ORDER BY run_id DESC LIMIT 1),
		(SELECT greatest(reltuples, 0)::bigint FROM pg_class WHERE oid = 'upcall.rollup_objects'::regclass))`, []any{bucket, prefix}, &n)
	if err != nil {
		return 0, fmt.Errorf("look up former runs: %w", err)
	}
	return n, nil
}

func anyEvent(ctx context.Context, pool *pgxpool.Pool) (there bool, err error) {
	err = one(ctx, pool, "SELECT EXISTS (SELECT FROM upcall.upload_events)", nil, &there)
	return there, err
}

// one reads one row.
func one(ctx context.Context, pool *pgxpool.Pool, sql string, args []any, fields ...any) error {
	_, err := eventstore.Exec(ctx, pool, "", sql, func(rows pgx.Rows) error {
		if !rows.Next() {
			return rows.Err()
		}
		return rows.Scan(fields...)
	}, args...)
	if err != nil {
		return eventstore.Unavailable(err)
	}
	return nil
}
