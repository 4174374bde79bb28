package main

import (
	"context"
	"crypto"
	"crypto/md5"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"

	"github.com/jackc/pgx/v5/pgxpool"
)

// tuned is the sample of OSS's documentation, "Set up upload callbacks" (2025-09-19), as a good
// engineer would tune it: the public key is kept, not fetched for each callback, and pgx inserts
// the fields of the body into one table on one of 32 connections. A repeat is another row, there
// are no upload tokens, and nothing is logged or counted.
type tuned struct {
	key  *rsa.PublicKey
	pool *pgxpool.Pool
}

const (
	tunedName = "OSS's sample, tuned"
	// tunedEnv lets crypto/rsa check a key of 512 bits.
	tunedEnv   = "GODEBUG=rsa1024min=0"
	tunedConns = "&pool_max_conns=32"
	tunedTable = `CREATE TABLE uploads (
		id           bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
		received_at  timestamptz NOT NULL DEFAULT now(),
		bucket       text        NOT NULL,
		object       text        NOT NULL,
		etag         text        NOT NULL,
		size         bigint      NOT NULL,
		mime_type    text        NOT NULL,
		image_height integer,
		image_width  integer,
		image_format text,
		crc64        text,
		content_md5  text,
		client_ip    inet,
		request_id   text,
		operation    text,
		uid          text,
		album        text
	)`
	tunedInsert = `INSERT INTO uploads (bucket, object, etag, size, mime_type, image_height, image_width, image_format,
		crc64, content_md5, client_ip, request_id, operation, uid, album)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)`
	tunedCount = "SELECT count(*), count(*) FROM uploads"
)

// serveTuned serves callbacks until ctx ends.
func serveTuned(ctx context.Context, databaseURL, keyURL string, public net.Listener) error {
	key, err := fetchRSAKey(keyURL)
	if err != nil {
		return err
	}
	pool, err := pgxpool.New(ctx, databaseURL)
	if err != nil {
		return fmt.Errorf("open database: %w", err)
	}
	defer pool.Close()
	server := &http.Server{Handler: &tuned{key, pool}}
	defer context.AfterFunc(ctx, func() { server.Close() })()
	if err := server.Serve(public); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func fetchRSAKey(keyURL string) (*rsa.PublicKey, error) {
	answer, err := http.Get(keyURL)
	if err != nil {
		return nil, fmt.Errorf("fetch key: %w", err)
	}
	defer answer.Body.Close()
	file, err := io.ReadAll(answer.Body)
	if err != nil {
		return nil, fmt.Errorf("fetch key: %w", err)
	}
	block, _ := pem.Decode(file)
	if block == nil {
		return nil, errors.New("fetch key: it is not PEM")
	}
	parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	key, ok := parsed.(*rsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("read key: it is %T", parsed)
	}
	return key, nil
}

func (t *tuned) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if err := t.verify(r, body); err != nil {
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	if err := t.insert(r.Context(), string(body)); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	const answer = `{"Status":"OK"}`
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(answer)))
	io.WriteString(w, answer)
}

func (t *tuned) verify(r *http.Request, body []byte) error {
	signature, err := base64.StdEncoding.DecodeString(r.Header.Get("Authorization"))
	if err != nil {
		return err
	}
	signed := r.URL.Path
	if r.URL.RawQuery != "" {
		signed += "?" + r.URL.RawQuery
	}
	digest := md5.Sum(append([]byte(signed+"\n"), body...))
	return rsa.VerifyPKCS1v15(t.key, crypto.MD5, digest[:], signature)
}

func (t *tuned) insert(ctx context.Context, body string) error {
	form, err := url.ParseQuery(body)
	if err != nil {
		return err
	}
	size, sizeErr := strconv.ParseInt(form.Get("size"), 10, 64)
	height, heightErr := strconv.Atoi(form.Get("imageInfo.height"))
	width, widthErr := strconv.Atoi(form.Get("imageInfo.width"))
	addr, addrErr := netip.ParseAddr(form.Get("clientIp"))
	if err := errors.Join(sizeErr, heightErr, widthErr, addrErr); err != nil {
		return err
	}
	_, err = t.pool.Exec(ctx, tunedInsert, form.Get("bucket"), form.Get("object"), form.Get("etag"), size, form.Get("mimeType"),
		height, width, form.Get("imageInfo.format"), form.Get("crc64"), form.Get("contentMd5"), addr, form.Get("reqId"),
		form.Get("operation"), form.Get("uid"), form.Get("album"))
	return err
}
