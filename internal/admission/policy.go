// Package admission decides which callbacks are acceptable: it turns a request into an
// event, or says why it is refused.
//
// [Policy.Admit] is all of it: one small function for each rule, in the order in which
// they are asked. The receiver's intake answers with what it says, and the doctor reports
// the same, so that the two cannot differ. It knows bytes and header values, and nothing
// of HTTP servers or databases. What only a recorder can tell (that an upload was
// revoked, that an expired callback was recorded before) is for the intake to ask.
package admission

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"upcall/internal/callbackspec"
	"upcall/internal/event"
	"upcall/internal/fault"
	"upcall/internal/uploadtoken"
	"upcall/internal/verify"
)

// Limits on a request. A template has at most 5 KB and an object key 1023 bytes, so that,
// even percent-encoded, no callback of OSS comes near them.
const (
	MaxBody    = 64 << 10 // bytes
	MaxHeaders = 64 << 10 // bytes, names and values
)

// A TokenPolicy says what becomes of a callback without an upload token.
type TokenPolicy string

const (
	TokenRequired TokenPolicy = "required" // it is refused
	TokenOptional TokenPolicy = "optional" // it is recorded without an upload id; a bad token is still refused
	TokenOff      TokenPolicy = "off"      // tokens are not looked at
)

// Config is what people set.
type Config struct {
	// CallbackPath is the path that OSS calls. Default any.
	CallbackPath string
	// PublicURL is the callback URL as OSS sees it, where a proxy changes the path:
	// the signature covers the path that OSS asked for. Default: the request's own.
	PublicURL string
	// Buckets that callbacks may name. Default any.
	Buckets []string
	// Fields says how bodies name things. Default as OSS does.
	Fields callbackspec.Fields
	// TokenPolicy defaults to TokenRequired.
	TokenPolicy TokenPolicy
	// Tokens checks upload tokens. Required unless TokenPolicy is TokenOff.
	Tokens *uploadtoken.Keyring
}

// Check returns all mistakes.
func (cfg Config) Check() error {
	_, publicURL := publicPath(cfg.PublicURL)
	return fault.Join(checkCallbackPath(cfg.CallbackPath), publicURL, checkTokenPolicy(cfg))
}

func checkCallbackPath(path string) error {
	if path != "" && (path[0] != '/' || strings.ContainsAny(path, ":*?#% ")) {
		return fmt.Errorf("callback path %q is not a plain path: start it with / and use no %%, :, *, ? or #, "+
			"which proxies and OSS spell differently", path)
	}
	return nil
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
				"or UPCALL_TOKEN=off to record callbacks of uploads that nobody issued", cmp.Or(cfg.TokenPolicy, TokenRequired))
		}
		return nil
	}
	return fmt.Errorf("token policy %q is unknown: use required, optional or off", cfg.TokenPolicy)
}

// A Policy admits callbacks. It may be used by many goroutines at once.
type Policy struct {
	cfg        Config
	publicPath string // escaped path of PublicURL, or ""
	verifier   *verify.Verifier
}

// New returns a policy that checks signatures with verifier. The error has all mistakes.
func New(cfg Config, verifier *verify.Verifier) (*Policy, error) {
	cfg.TokenPolicy = cmp.Or(cfg.TokenPolicy, TokenRequired)
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	if verifier == nil {
		return nil, errors.New("admission: a verifier is required")
	}
	path, _ := publicPath(cfg.PublicURL) // which Check has read, too
	return &Policy{cfg: cfg, publicPath: path, verifier: verifier}, nil
}

// A Request is a callback as it came, byte by byte. Header values are "" where the header
// is absent; of several the first counts.
type Request struct {
	Method string
	Path   string // the target's, decoded: by it a server chooses a handler
	Target string // from the request line, e.g. "/oss/callback?id=1"
	Length int64  // of the body, as far as it is known before it is read; else -1
	Body   []byte
	Source netip.Addr // of the connection

	HeaderBytes      int // names and values of all headers
	Authorization    string
	ContentEncoding  string
	ContentType      string
	Bucket           string // x-oss-bucket
	PubKeyURL        string // x-oss-pub-key-url
	RequestID        string // x-oss-request-id
	SignatureVersion string // x-oss-signature-version
}

// SetHeader takes from the header, which has canonical names, what the rules are about.
func (r *Request) SetHeader(header map[string][]string) {
	for name, values := range header {
		for _, value := range values {
			r.HeaderBytes += len(name) + len(value)
		}
	}
	get := func(name string) string {
		if values := header[name]; len(values) > 0 {
			return values[0]
		}
		return ""
	}
	r.Authorization = get("Authorization")
	r.ContentEncoding = get("Content-Encoding")
	r.ContentType = get("Content-Type")
	r.Bucket = get("X-Oss-Bucket")
	r.PubKeyURL = get("X-Oss-Pub-Key-Url")
	r.RequestID = get("X-Oss-Request-Id")
	r.SignatureVersion = get("X-Oss-Signature-Version")
}

// CheckHead says whether the body is worth reading. The request need not have it yet.
func (p *Policy) CheckHead(r *Request) *Refusal {
	return cmp.Or(p.checkPath(r), checkMethod(r), checkHeaderBytes(r), checkContentEncoding(r), checkLength(r))
}

// Admit turns a request that came at the time now into the event to record. With a
// refusal, the event holds what was learned before it, for the log: what the sender
// claims, and the upload id if the token is genuine. With ReasonTokenExpired it is whole.
func (p *Policy) Admit(ctx context.Context, r *Request, now time.Time) (*event.Event, *Refusal) {
	e := &event.Event{ReceivedAt: now, Source: event.SourceCallback, SourceAddr: r.Source}
	if refusal := p.CheckHead(r); refusal != nil {
		return e, refusal
	}
	signed := p.Signed(r)
	if err := p.verifier.Verify(ctx, signed); err != nil {
		return e, notVerified(err)
	}
	var err error
	if e.Callback, err = callbackspec.Parse(r.ContentType, r.Body, p.cfg.Fields); err != nil {
		return e, notParsed(err)
	}
	bucket, refusal := p.checkBucket(e.Callback.Bucket, r.Bucket)
	if refusal != nil {
		return e, refusal
	}
	e.Callback.Bucket = bucket
	if e.ID, err = Identify(signed, &e.Callback, r.RequestID); err != nil {
		return e, notVerified(err)
	}
	e.UploadID, refusal = p.checkToken(&e.Callback, now)
	return e, refusal
}
