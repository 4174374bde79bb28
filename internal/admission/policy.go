// Package admission decides which callbacks are acceptable: it turns a request into an
// event, or says why it is refused.
//
// [Policy.Admit] applies one small function for each rule, in order. The receiver's intake
// answers with its result, and the doctor reports it, so the two cannot differ. The package
// works on bytes and header values, without HTTP servers or databases. The intake asks the
// recorder the rest: whether an upload was revoked, and whether an expired callback was
// recorded before.
package admission

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/textproto"
	"net/url"
	"time"

	"github.com/google/uuid"

	"upcall/internal/callbackspec"
	"upcall/internal/event"
	"upcall/internal/fault"
	"upcall/internal/uploadtoken"
	"upcall/internal/verify"
)

// Limits on a request. A template has at most 5 KB and an object key 1023 bytes, so even
// percent-encoded, no callback of OSS comes close.
const (
	MaxBody    = 64 << 10 // bytes
	MaxHeaders = 64 << 10 // bytes, names and values
)

// A TokenPolicy says what happens to a callback without an upload token.
type TokenPolicy string

const (
	TokenRequired TokenPolicy = "required" // it is refused
	TokenOptional TokenPolicy = "optional" // it is recorded without an upload ID; a bad token is still refused
	TokenOff      TokenPolicy = "off"      // tokens are ignored
)

// Config holds the settings.
type Config struct {
	// CallbackPaths are the paths that OSS calls. Default any. In one, :name is a parameter
	// that stands for one segment, and * at its end for any number of them. What they stand
	// for is not recorded: no token covers the path.
	CallbackPaths []string
	// PublicURL is the callback URL as OSS sees it, if a proxy changes the path: the
	// signature covers the path that OSS requested. Default: the request's own.
	PublicURL string
	// Buckets that callbacks may name. Default any.
	Buckets []string
	// Fields maps the names that bodies use. Default: the names of OSS.
	Fields callbackspec.Fields
	// MaxBody is the largest body, in bytes. Default MaxBody.
	MaxBody int
	// TokenPolicy defaults to TokenRequired.
	TokenPolicy TokenPolicy
	// Tokens checks upload tokens. Required unless TokenPolicy is TokenOff.
	Tokens *uploadtoken.Keyring
}

// Check returns all mistakes.
func (cfg Config) Check() error {
	_, publicURL := publicPath(cfg.PublicURL)
	return fault.Join(checkCallbackPaths(cfg), publicURL, checkTokenPolicy(cfg))
}

// publicPath returns the escaped path of the callback URL as OSS sees it, or "".
func publicPath(raw string) (string, error) {
	if raw == "" {
		return "", nil
	}
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		return "", fmt.Errorf("public URL %q is not of the form https://host/path: "+
			"give the callback URL as OSS sees it, without its query", raw)
	}
	return cmp.Or(u.EscapedPath(), "/"), nil
}

func checkTokenPolicy(cfg Config) error {
	switch cmp.Or(cfg.TokenPolicy, TokenRequired) {
	case TokenOff:
		return nil
	case TokenRequired, TokenOptional:
		if cfg.Tokens == nil {
			return fmt.Errorf("upload tokens are %s but there are no keys to check them with: set UPCALL_TOKEN_KEYS to kid:secret, "+
				"or UPCALL_TOKEN=off to record callbacks of uploads that were not issued here", cmp.Or(cfg.TokenPolicy, TokenRequired))
		}
		return nil
	}
	return fmt.Errorf("token policy %q is unknown: use required, optional or off", cfg.TokenPolicy)
}

// A Policy admits callbacks. Several goroutines may use it at once.
type Policy struct {
	cfg        Config
	publicPath string // escaped path of PublicURL, or ""
	verifier   *verify.Verifier
}

// New returns a policy that checks signatures with verifier. The error has all mistakes.
func New(cfg Config, verifier *verify.Verifier) (*Policy, error) {
	cfg.TokenPolicy, cfg.MaxBody = cmp.Or(cfg.TokenPolicy, TokenRequired), cmp.Or(cfg.MaxBody, MaxBody)
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	if verifier == nil {
		return nil, errors.New("admission: a verifier is required")
	}
	path, _ := publicPath(cfg.PublicURL) // Check has read it already
	return &Policy{cfg: cfg, publicPath: path, verifier: verifier}, nil
}

// A Request is a callback as it arrived, byte by byte. A header value is "" if the header is
// missing; of several values the first counts.
type Request struct {
	Method string
	Path   string // of the target, decoded: servers choose a handler by it
	Target string // from the request line, e.g. "/oss/callback?id=1"
	Length int64  // of the body, if known before it is read; otherwise -1
	Body   []byte
	Source netip.Addr // the sender, as far as it is known

	HeaderBytes      int // names and values of all headers
	Authorization    string
	ContentEncoding  string
	ContentType      string
	Bucket           string // x-oss-bucket
	PubKeyURL        string // x-oss-pub-key-url
	RequestID        string // x-oss-request-id
	SignatureVersion string // x-oss-signature-version
}

// SetHeader sets the fields that depend on the header.
func (r *Request) SetHeader(header map[string][]string) {
	for name, values := range header {
		for _, value := range values {
			r.HeaderBytes += len(name) + len(value)
		}
	}
	get := textproto.MIMEHeader(header).Get
	r.Authorization = get("Authorization")
	r.ContentEncoding = get("Content-Encoding")
	r.ContentType = get("Content-Type")
	r.Bucket = get("X-Oss-Bucket")
	r.PubKeyURL = get("X-Oss-Pub-Key-Url")
	r.RequestID = get("X-Oss-Request-Id")
	r.SignatureVersion = get("X-Oss-Signature-Version")
}

// CheckHead returns the refusal of a request whose body need not be read.
func (p *Policy) CheckHead(r *Request) *Refusal {
	return cmp.Or(p.checkPath(r), checkMethod(r), checkHeaderBytes(r), checkContentEncoding(r), p.checkLength(r))
}

// Admit turns a request that arrived at the time now into the event to record. With a
// refusal, the event holds what was known before it, for the log: what the sender claims,
// and the upload ID if the token is genuine. With ReasonTokenExpired it is complete.
func (p *Policy) Admit(ctx context.Context, r *Request, now time.Time) (*event.Event, *Refusal) {
	e := &event.Event{ReceivedAt: now, Source: event.SourceCallback, SourceAddr: r.Source}
	if refusal := p.CheckHead(r); refusal != nil {
		return e, refusal
	}
	signed := p.Signed(r)
	if err := p.verifier.Verify(ctx, signed); err != nil {
		return e, NotVerified(err)
	}
	var content *callbackspec.Content
	var err error
	if e.Callback, content, err = callbackspec.Read(r.ContentType, r.Body, p.cfg.Fields); err != nil {
		return e, notParsed(err)
	}
	bucket, refusal := p.checkBucket(e.Callback.Bucket, r.Bucket)
	if refusal != nil {
		return e, refusal
	}
	e.Callback.Bucket = bucket
	if e.ID, err = Identify(signed, &e.Callback, r.RequestID); err != nil {
		return e, NotVerified(err)
	}
	e.Callback.RequestID = cmp.Or(e.Callback.RequestID, requestID(r.RequestID))
	claims, refusal := p.checkToken(&e.Callback, content, signed.Target, now)
	e.UploadID = uuid.NullUUID{UUID: claims.UploadID, Valid: claims.Version > 0}
	// With OSS's signature alone the query is as good as the body. An old token does not
	// cover it: then it is whatever the uploader had OSS sign.
	if refusal == nil && claims.Version != 1 {
		e.Callback.AddQuery(signed.Target)
	}
	return e, refusal
}
