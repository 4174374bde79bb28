// Package issue makes one upload ready to be handed out: the callback documents, the
// upload token inside them, the presigned URL over both, and the upload's row in the
// ledger. It returns a URL only once that row is committed, so nobody ever has a URL
// that the ledger lacks.
//
// It signs through package oss and reads no configuration.
package issue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/google/uuid"

	"upcall/internal/callbackspec"
	"upcall/internal/eventstore"
	"upcall/internal/fault"
	"upcall/internal/manifest"
	"upcall/internal/oss"
	"upcall/internal/uploadtoken"
)

// TokenGrace is how much longer an upload token is valid than its URL. OSS checks the URL
// when the request arrives, but calls back when the last byte is stored: an upload that
// begins in the URL's last second may take hours on a slow line, and its callback is
// genuine.
const TokenGrace = 24 * time.Hour

// ErrReserved means a custom variable with the name of the upload token.
var ErrReserved = errors.New("reserved name of a custom variable")

// Config is what an Issuer works with.
type Config struct {
	// OSS signs, and begins uploads in parts. Required.
	OSS *oss.Client

	// Tokens mints the upload tokens. nil means none: then callbacks are not tied to the
	// uploads issued here, and a receiver that requires tokens refuses them.
	Tokens *uploadtoken.Keyring

	// Ledger holds what is issued. nil means none.
	Ledger Ledger

	// Now is the clock of the ledger's rows and of the tokens' expiry. Default time.Now.
	Now func() time.Time

	// NewID makes upload ids. Default uuid.NewV7, whose ids sort by time.
	NewID func() (uuid.UUID, error)
}

// An Issuer issues uploads. Several goroutines may use it.
type Issuer struct {
	cfg   Config
	hosts callbackspec.Hosts
}

// New returns an issuer. It fails only without OSS.
func New(cfg Config) (*Issuer, error) {
	if cfg.OSS == nil {
		return nil, errors.New("configure issuer: no OSS")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.NewID == nil {
		cfg.NewID = uuid.NewV7
	}
	return &Issuer{cfg: cfg, hosts: CallbackHosts(cfg.OSS.Host())}, nil
}

// CallbackHosts says which hosts a callback URL may name, given the host of OSS's endpoint.
// OSS itself calls only public addresses. A private endpoint belongs to an emulator on the
// same machine or network, which may call any address. An empty host is OSS's own endpoint.
func CallbackHosts(endpointHost string) callbackspec.Hosts {
	if endpointHost != "" && callbackspec.PrivateHost(endpointHost) {
		return callbackspec.AnyHost
	}
	return callbackspec.PublicHosts
}

// A Request says what is uploaded, and what OSS reports then.
type Request struct {
	Object        oss.Object
	Expires       time.Duration // of the URL; 1 s to 7 days
	ContentLength *int64        // exact size in bytes; nil leaves it open
	ContentMD5    string        // Base64; "" leaves it open
	Callback      *CallbackSpec // nil is a plain upload, which is not reported
	APIKeyID      string        // the key that requested it, for the ledger; "" is the command line
}

// Check returns all mistakes in r, joined, without signing. withToken says that a token
// will be added.
func (r Request) Check(hosts callbackspec.Hosts, withToken bool) error {
	return fault.Join(r.put(oss.CallbackHeaders{}).Check(), r.Callback.check(hosts, withToken))
}

func (r Request) put(callback oss.CallbackHeaders) oss.Put {
	return oss.Put{Object: r.Object, Expires: r.Expires, ContentLength: r.ContentLength, ContentMD5: r.ContentMD5, Callback: callback}
}

// Issue makes one upload, enters it in the ledger, and says why it expires when it does.
// The error joins all mistakes in r; each is a [fault.Fault]. If it is the ledger's, the
// upload has only its ID, for the log.
func (i *Issuer) Issue(ctx context.Context, r Request) (manifest.Upload, oss.ExpiryCause, error) {
	row, callback, err := i.prepare(r.Object, r.Expires, r.ContentLength, r.Callback, r.APIKeyID)
	if err != nil {
		return manifest.Upload{}, 0, cmp.Or(r.Check(i.hosts, i.cfg.Tokens != nil), err) // all mistakes, not only the first
	}
	signed, err := i.cfg.OSS.Put(ctx, r.put(callback))
	if err != nil {
		return manifest.Upload{}, 0, err
	}
	row.ExpiresAt = signed.ExpiresAt
	if err := i.enter(ctx, row); err != nil {
		return manifest.Upload{ID: row.ID}, 0, err
	}
	return manifest.Upload{
		ID: row.ID, Bucket: r.Object.Bucket, Key: r.Object.Key,
		Method: signed.Method, URL: signed.URL, ExpiresAt: signed.ExpiresAt, Headers: signed.Headers,
		Callback: callback.Callback.JSON(), CallbackVar: callback.CallbackVar.JSON(),
	}, signed.ExpiryCause, nil
}

// prepare returns an upload's row for the ledger, with a new id but without what only signing
// tells, and its callback documents with the upload token in them.
func (i *Issuer) prepare(o oss.Object, expires time.Duration, size *int64, spec *CallbackSpec, apiKeyID string) (
	eventstore.IssuedUpload, oss.CallbackHeaders, error) {
	id, err := i.cfg.NewID()
	if err != nil {
		return eventstore.IssuedUpload{}, oss.CallbackHeaders{}, fmt.Errorf("make upload id: %w", err)
	}
	return i.prepareAs(id, o, expires, size, spec, apiKeyID)
}

// prepareAs is prepare for an upload that has an id.
func (i *Issuer) prepareAs(
	id uuid.UUID, o oss.Object, expires time.Duration, size *int64, spec *CallbackSpec, apiKeyID string,
) (row eventstore.IssuedUpload, callback oss.CallbackHeaders, err error) {
	row = eventstore.IssuedUpload{
		ID: id, IssuedAt: i.cfg.Now(), Bucket: o.Bucket, Object: o.Key, ContentType: o.ContentType, Size: size, APIKeyID: apiKeyID,
	}
	if spec == nil {
		return row, oss.CallbackHeaders{}, nil
	}
	row.Vars = spec.Vars
	callback, _, err = i.documents(row, expires, spec)
	return row, callback, err
}

// mint returns the token of an upload with this callback.
func (i *Issuer) mint(row eventstore.IssuedUpload, expires time.Duration, draft draft) (string, error) {
	known := callbackspec.Values{"bucket": row.Bucket}
	if !row.ByPrefix {
		known["object"] = row.Object
	}
	if row.Size != nil {
		known["size"] = strconv.FormatInt(*row.Size, 10)
	}
	terms, err := draft.terms(known)
	if err != nil {
		return "", err
	}
	token, err := i.cfg.Tokens.Mint(uploadtoken.Claims{
		UploadID: row.ID, Expires: row.IssuedAt.Add(expires + TokenGrace),
		Bucket: row.Bucket, Object: row.Object, Prefix: row.ByPrefix, ContentType: row.ContentType, Size: row.Size,
		Terms: uploadtoken.Terms(terms),
	})
	if errors.Is(err, uploadtoken.ErrTooLong) {
		err = fault.New(callbackspec.ErrTemplate, "callbackBody",
			"give fewer fields names other than OSS's, or all callback URLs the same query",
			"needs an upload token of more than %d characters", uploadtoken.MaxLen)
	}
	return token, err
}
