package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/event"
	"upcall/internal/intake"
	"upcall/internal/recorder"
)

// A variant is a way to take callbacks.
type variant struct {
	name    string
	records bool // in the database
	// recorder is what stands behind Upcall's handler in place of all that the receiver
	// has there; nil is the receiver itself, whole.
	recorder func(pool *pgxpool.Pool, keyURL string) intake.Recorder
}

const (
	upcallName     = "Upcall"
	oneInsertName  = "one INSERT a request"
	noDatabaseName = "no database"
)

// variants are in the order of their turns: Upcall beside those that it is compared with.
var variants = []variant{
	{noDatabaseName, false, func(*pgxpool.Pool, string) intake.Recorder { return noDatabase{} }},
	{upcallName, true, nil},
	{oneInsertName, true, func(pool *pgxpool.Pool, _ string) intake.Recorder { return oneInsert{pool: pool} }},
	{"key fetched each time", true, func(pool *pgxpool.Pool, keyURL string) intake.Recorder {
		return fetching{oneInsert{pool: pool}, keyURL}
	}},
}

func variantNamed(name string) variant {
	return variants[slices.IndexFunc(variants, func(v variant) bool { return v.name == name })]
}

// noDatabase is the ceiling: it forgets.
type noDatabase struct{ findsNothing }

func (noDatabase) Record(context.Context, *event.Event) (recorder.Outcome, error) {
	return recorder.Outcome{Durable: recorder.InPostgres}, nil
}

// findsNothing serves loads in which no token has expired.
type findsNothing struct{}

func (findsNothing) Find(context.Context, uuid.UUID, uuid.NullUUID) (recorder.Durable, error) {
	return "", nil
}

// oneInsert records each callback by a statement and a commit of its own, on a
// connection of the pool, as a receiver does that nobody has tuned. It keeps the same
// promises: the row once, and durable before the answer.
type oneInsert struct {
	findsNothing
	pool *pgxpool.Pool
}

const insertOne = `
WITH fresh AS (
	INSERT INTO upcall.callback_ids (upload_id, id, received_at) VALUES ($17, $1, $2) ON CONFLICT DO NOTHING RETURNING id
)
INSERT INTO upcall.upload_events (id, received_at, bucket, object_key, etag, size, mime_type, image_width, image_height,
	image_format, crc64, content_md5, vpc_id, client_ip, request_id, operation, upload_id, vars, source)
SELECT id, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11::text::numeric, $12, NULLIF($13, ''), $14, $15, $16, $17, $18, $19 FROM fresh`

func (o oneInsert) Record(ctx context.Context, e *event.Event) (recorder.Outcome, error) {
	c := &e.Callback
	var crc *string
	if c.CRC64 != nil {
		crc = new(fmt.Sprint(*c.CRC64))
	}
	tag, err := o.pool.Exec(ctx, insertOne, e.ID, e.ReceivedAt, c.Bucket, c.Object, c.ETag, c.Size, c.MimeType,
		c.ImageWidth, c.ImageHeight, c.ImageFormat, crc, c.ContentMD5, c.VPCID, c.ClientIP, c.RequestID, c.Operation,
		e.UploadID, c.Vars, e.Source)
	return recorder.Outcome{Durable: recorder.InPostgres, Duplicate: err == nil && tag.RowsAffected() == 0}, err
}

// fetching gets the public key for each callback, as published samples do.
type fetching struct {
	intake.Recorder
	keyURL string
}

func (f fetching) Record(ctx context.Context, e *event.Event) (recorder.Outcome, error) {
	response, err := http.Get(f.keyURL)
	if err != nil {
		return recorder.Outcome{}, err
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return recorder.Outcome{}, err
	}
	return f.Recorder.Record(ctx, e)
}
