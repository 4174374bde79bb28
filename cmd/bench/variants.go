package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime/pprof"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/eventstore"
	"upcall/internal/intake"
	"upcall/internal/loadgen"
	"upcall/internal/uploadtoken"
	"upcall/internal/verify"
)

// A variant is a way to take callbacks.
type variant struct {
	name     string
	records  bool // in the database
	recorder func(*pgxpool.Pool, *intake.Metrics) (recorder, error)
	// fetches gets the public key before each callback is looked at, as published
	// samples do.
	fetches bool
}

type recorder interface {
	Record(ctx context.Context, e *eventstore.Event) (duplicate bool, err error)
	Find(ctx context.Context, id uuid.UUID, upload uuid.NullUUID) (bool, error)
	Close()
}

// kept is what the handler asks for: a recorder without a spool.
type kept struct{ recorder }

func (k kept) Record(ctx context.Context, e *eventstore.Event) (intake.Outcome, error) {
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
	groupCommitName = "Upcall"
	oneInsertName   = "one INSERT a request"
	noDatabaseName  = "no database"
)

func newOneInsert(pool *pgxpool.Pool, _ *intake.Metrics) (recorder, error) {
	return oneInsert{pool}, nil
}

var variants = []variant{
	{groupCommitName, true, func(pool *pgxpool.Pool, m *intake.Metrics) (recorder, error) {
		return eventstore.NewRecorder(eventstore.Config{Pool: pool, OnBatch: m.Batch})
	}, false},
	{oneInsertName, true, newOneInsert, false},
	{"key fetched each time", true, newOneInsert, true},
	{noDatabaseName, false, func(*pgxpool.Pool, *intake.Metrics) (recorder, error) { return noDatabase{}, nil }, false},
}

func variantNamed(name string) variant {
	return variants[slices.IndexFunc(variants, func(v variant) bool { return v.name == name })]
}

// noDatabase is the ceiling: it forgets.
type noDatabase struct{}

func (noDatabase) Record(context.Context, *eventstore.Event) (bool, error)      { return false, nil }
func (noDatabase) Find(context.Context, uuid.UUID, uuid.NullUUID) (bool, error) { return false, nil }
func (noDatabase) Close()                                                       {}

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

func (o oneInsert) Record(ctx context.Context, e *eventstore.Event) (bool, error) {
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
func (o oneInsert) Close()                                                       {}

type serveCmd struct {
	Variant string `required:""`
	KeyURL  string `name:"key-url" required:""`
	Profile string // file for a CPU profile; "" takes none
}

// Run is the receiver of one variant.
func (cmd *serveCmd) Run(ctx context.Context, out io.Writer) error {
	if cmd.Profile != "" {
		file, err := os.Create(cmd.Profile)
		if err != nil {
			return fmt.Errorf("take profile: %w", err)
		}
		defer file.Close()
		if err := pprof.StartCPUProfile(file); err != nil {
			return fmt.Errorf("take profile: %w", err)
		}
		defer pprof.StopCPUProfile()
	}
	pool, err := eventstore.Open(ctx, os.Getenv("BENCH_DATABASE_URL"))
	if err != nil {
		return err
	}
	defer pool.Close()
	metrics := intake.NewMetrics()
	keys, err := uploadtoken.ParseKeys(loadgen.TokenKeys)
	if err != nil {
		return err
	}
	verifier, err := verify.New(verify.Config{TrustKeyURLs: []string{cmd.KeyURL}})
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(variants, func(v variant) bool { return v.name == cmd.Variant }) {
		return fmt.Errorf("there is no variant %q", cmd.Variant)
	}
	v := variantNamed(cmd.Variant)
	recorder, err := v.recorder(pool, metrics)
	if err != nil {
		return err
	}
	defer recorder.Close()
	server, err := intake.New(intake.Config{
		Tokens: keys, Verifier: verifier, Recorder: kept{recorder}, Metrics: metrics, Ready: pool.Ping,
		Logger: slog.New(slog.NewJSONHandler(io.Discard, nil)),
	})
	if err != nil {
		return err
	}
	handler := server.Public()
	if v.fetches {
		handler = fetching(handler, cmd.KeyURL)
	}
	public, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	admin, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	go http.Serve(public, handler)
	go http.Serve(admin, server.Admin())
	fmt.Fprintln(out, public.Addr(), admin.Addr())
	io.Copy(io.Discard, os.Stdin)
	return nil
}

// fetching gets the public key for each request before next sees it.
func fetching(next http.Handler, keyURL string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		response, err := http.Get(keyURL)
		if err == nil {
			_, err = io.Copy(io.Discard, response.Body)
			response.Body.Close()
		}
		if err != nil {
			http.Error(w, "the key cannot be fetched", http.StatusServiceUnavailable)
			return
		}
		next.ServeHTTP(w, r)
	})
}
