package rollup

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// placeOf is the object of an event of some upload, ETag and request id that names none: what its upload was issued
// for, else that of the recovered upload that it supersedes, see the same in package eventstore.
const placeOf = `
	SELECT i.bucket, i.object_key FROM upcall.issued_uploads i WHERE i.upload_id = e.upload_id AND NOT i.by_prefix
	UNION ALL
	SELECT r.bucket, r.object_key FROM upcall.recovered_uploads r
	WHERE r.upload_id = e.upload_id AND r.etag = upper(btrim(e.etag, '"') COLLATE "C")
	UNION ALL
	SELECT r.bucket, r.object_key FROM upcall.recovered_uploads r WHERE r.request_id = e.request_id
	LIMIT 1`

// placeNameless gives callbacks that name no object, as a template of the operator's own may have it, theirs. So
// whatever else tells of the upload tells of the same object, and the upload counts once.
func placeNameless(ctx context.Context, tx pgx.Tx, events []told) error {
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
		CROSS JOIN LATERAL (`+placeOf+`) AS r`, c...)
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
