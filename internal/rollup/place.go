package rollup

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// recoveredPlace is the object of the recovered upload that an event of some upload, ETag and request id
// supersedes, see the same in package eventstore.
const recoveredPlace = `
	SELECT r.bucket, r.object_key FROM upcall.recovered_uploads r
	WHERE r.upload_id = e.upload_id AND r.etag = upper(btrim(e.etag, '"') COLLATE "C")
	UNION ALL
	SELECT r.bucket, r.object_key FROM upcall.recovered_uploads r WHERE r.request_id = e.request_id
	LIMIT 1`

// placeLost gives callbacks that name no object, as a template of the operator's own may have it, the one of
// what was recovered in their place. So they take its place there, and the upload counts once.
func placeLost(ctx context.Context, tx pgx.Tx, events []told) error {
	var c columns
	for i, e := range events {
		if !e.place.fits() && rank(e.source) == 0 && (e.requestID != "" || e.uploadID.Valid) {
			c.add(int64(i), e.uploadID, e.etag, e.requestID)
		}
	}
	if c == nil {
		return nil
	}
	rows, err := query(ctx, tx, "upcall_rollup_places", `
		SELECT e.n, r.bucket, r.object_key
		FROM unnest($1::bigint[], $2::uuid[], $3::text[], $4::text[]) AS e (n, upload_id, etag, request_id)
		CROSS JOIN LATERAL (`+recoveredPlace+`) AS r
		WHERE (SELECT EXISTS (SELECT FROM upcall.recovered_uploads))`, c...)
	if err != nil {
		return err
	}
	var i int64
	var at place
	_, err = pgx.ForEachRow(rows, []any{&i, &at.bucket, &at.key}, func() error {
		if at.fits() {
			events[i].place = at
		}
		return nil
	})
	return err
}
