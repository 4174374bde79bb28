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
)

// A variant is a way to take callbacks.
type variant struct {
	name    string
	records bool // in the database
	// recorder is what stands behind Upcall's handler in place of all that the receiver
	// has there; nil is the receiver itself, whole.
	recorder func(pool *pgxpool.Pool, keyURL string) recorder
}

type recorder interface {
	Record(ctx context.Context, e *event.Event) (duplicate bool, err error)
	Find(ctx context.Context, id uuid.UUID, upload uuid.NullUUID) (bool, error)
}

// kept is what the handler asks for: a recorder without a spool.
type kept struct{ recorder }

func (k kept) Record(ctx context.Context, e *event.Event) (intake.Outcome, error) {
	duplicate, err := k.recorder.Record(ctx, e)
	return intake.Outcome{Durable: intake.InPostgres, Duplicate: duplicate}, err
}

func (k kept) Find(ctx context.Context, id uuid.UUID, upload uuid.NullUUID) (intake.Durable, error) {
	if found, err := k.recorder.Find(ctx, id, upload); err != nil || !found {
		return "", err
	}
	return intake.InPostgres, nil
}

const (
	upcallName     = "Upcall"
	oneInsertName  = "one INSERT a request"
	noDatabaseName = "no database"
)

// variants are in the order of their turns: Upcall beside those that it is compared with.
var variants = []variant{
	{noDatabaseName, false, func(*pgxpool.Pool, string) recorder { return noDatabase{} }},
	{upcallName, true, nil},
	{oneInsertName, true, func(pool *pgxpool.Pool, _ string) recorder { return oneInsert{pool} }},
	{"key fetched each time", true, func(pool *pgxpool.Pool, keyURL string) recorder { return fetching{oneInsert{pool}, keyURL} }},
}

func variantNamed(name string) variant {
	return variants[slices.IndexFunc(variants, func(v variant) bool { return v.name == name })]
}

// noDatabase is the ceiling: it forgets.
type noDatabase struct{}

func (noDatabase) Record(context.Context, *event.Event) (bool, error)           { return false, nil }
func (noDatabase) Find(context.Context, uuid.UUID, uuid.NullUUID) (bool, error) { return false, nil }

// oneInsert records each callback by a statement and a commit of its own, on a
// connection of the pool, as a receiver does that nobody has tuned. It keeps the same
// promises: the row once, and durable before the answer.
type oneInsert struct{ pool *pgxpool.Pool }

const insertOne = `
WITH fresh AS (
	INSERT INTO upcall.callback_ids (upload_id, id, received_at) VALUES ($17, $1, $2) ON CONFLICT DO NOTHING RETURNING id
)
INSERT INTO upcall.upload_events (id, received_at, bucket, object_key, etag, size, mime_type, image_width, image_height,
	image_format, crc64, content_md5, vpc_id, client_ip, request_id, operation, upload_id, vars, source)
SELECT id, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11::text::numeric, $12, NULLIF($13, ''), $14, $15, $16, $17, $18, $19 FROM fresh`

func (o oneInsert) Record(ctx context.Context, e *event.Event) (bool, error) {
	c := &e.Callback
	var crc *string
	if c.CRC64 != nil {
		crc = new(fmt.Sprint(*c.CRC64))
	}
	tag, err := o.pool.Exec(ctx, insertOne, e.ID, e.ReceivedAt, c.Bucket, c.Object, c.ETag, c.Size, c.MimeType,
		c.ImageWidth, c.ImageHeight, c.ImageFormat, crc, c.ContentMD5, c.VPCID, c.ClientIP, c.RequestID, c.Operation,
		e.UploadID, c.Vars, e.Source)
	return err == nil && tag.RowsAffected() == 0, err
}

func (o oneInsert) Find(context.Context, uuid.UUID, uuid.NullUUID) (bool, error) { return false, nil }

// fetching gets the public key for each callback, as published samples do.
type fetching struct {
	recorder
	keyURL string
}

func (f fetching) Record(ctx context.Context, e *event.Event) (bool, error) {
	response, err := http.Get(f.keyURL)
	if err != nil {
		return false, err
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return false, err
	}
	return f.recorder.Record(ctx, e)
}
