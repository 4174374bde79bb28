// Package intake is the receiver's HTTP side: it takes a callback in, makes sure that
// it is from OSS and for an upload that we issued, has it recorded, and answers.
//
// The path of a callback is one straight line, in [Server.take]: the raw body is read
// once, package verify checks those bytes, callbackspec.Parse reads the same bytes,
// uploadtoken ties them to an issued upload, and the recorder returns when the row is
// committed, or safe in the spool. Only then is the answer 200, which OSS hands to the
// uploader.
//
// There are two listeners. The public one knows the callback path and nothing else.
// The admin one has health, readiness and metrics, and belongs on a private address.
//
// This is the only package of the receiver that knows Gin.
package intake

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"

	"upcall/internal/callbackspec"
	"upcall/internal/event"
	"upcall/internal/fault"
	"upcall/internal/recorder"
	"upcall/internal/uploadtoken"
	"upcall/internal/verify"
)

// Deadline is the time in which a callback is answered, whatever happens. OSS gives a
// receiver five seconds; the rest is for the network.
const Deadline = 4 * time.Second

// A TokenPolicy says what becomes of a callback without an upload token.
type TokenPolicy string

const (
	TokenRequired TokenPolicy = "required" // it is refused
	TokenOptional TokenPolicy = "optional" // it is recorded without an upload id; a bad token is still refused
	TokenOff      TokenPolicy = "off"      // tokens are not looked at
)

// A Recorder keeps callbacks. The interface is here, and not the type that implements
// it, so that a benchmark can measure this package without a database.
type Recorder interface {
	// Record returns when the event is durable.
	Record(ctx context.Context, e *event.Event) (recorder.Outcome, error)
	// Find tells where an event was recorded before; "" if it was not.
	Find(ctx context.Context, id uuid.UUID, upload uuid.NullUUID) (recorder.Durable, error)
}

// Config is what a Server needs.
type Config struct {
	// CallbackPath is the path that OSS calls. Default /oss/callback.
	CallbackPath string
	// PublicURL is the callback URL as OSS sees it, where a proxy changes the path:
	// the signature covers the path that OSS asked for. Default: the request's own.
	PublicURL string
	// Buckets that callbacks may name. Default: any.
	Buckets []string
	// Fields says how bodies name things. Default: as OSS does.
	Fields callbackspec.Fields
	// TokenPolicy defaults to TokenRequired.
	TokenPolicy TokenPolicy
	// Tokens checks upload tokens. Required unless TokenPolicy is TokenOff.
	Tokens *uploadtoken.Keyring
	// Verifier checks OSS signatures. Required.
	Verifier *verify.Verifier
	// Recorder keeps what was accepted. Required.
	Recorder Recorder
	// Ready tells why this receiver should get no callbacks now, if so. Required.
	Ready func(context.Context) error
	// Refusals keeps some of what is refused. Default none.
	Refusals RefusalStore
	// Metrics counts. Required.
	Metrics *Metrics
	// Logger gets one event for each request. Required.
	Logger *slog.Logger
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

// A Server takes callbacks in.
type Server struct {
	cfg        Config
	publicPath string // escaped path of PublicURL, or ""
	refusals   *refusals
	recent     *recent
}

// WithDefaults returns cfg with the defaults where a field is empty.
func (cfg Config) WithDefaults() Config {
	cfg.CallbackPath = cmp.Or(cfg.CallbackPath, "/oss/callback")
	cfg.TokenPolicy = cmp.Or(cfg.TokenPolicy, TokenRequired)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return cfg
}

// Check returns all mistakes in what people set, joined.
func (cfg Config) Check() error {
	cfg = cfg.WithDefaults()
	_, publicURL := publicPath(cfg.PublicURL)
	return fault.Join(checkCallbackPath(cfg.CallbackPath), publicURL, checkTokenPolicy(cfg))
}

// New checks the configuration and returns a Server. The error joins all mistakes.
func New(cfg Config) (*Server, error) {
	cfg = cfg.WithDefaults()
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	if cfg.Verifier == nil || cfg.Recorder == nil || cfg.Ready == nil || cfg.Metrics == nil || cfg.Logger == nil {
		return nil, errors.New("intake: Verifier, Recorder, Ready, Metrics and Logger are required")
	}
	path, err := publicPath(cfg.PublicURL)
	if err != nil {
		return nil, err
	}
	return &Server{cfg: cfg, publicPath: path, refusals: newRefusals(cfg), recent: newRecent()}, nil
}

// publicPath returns the escaped path of the callback URL as OSS sees it, or "".
func publicPath(raw string) (string, error) {
	if raw == "" {
		return "", nil
	}
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		return "", fmt.Errorf("public URL %q is not of the form https://host/path: give the callback URL as OSS sees it, without its query", raw)
	}
	return cmp.Or(u.EscapedPath(), "/"), nil
}

func checkTokenPolicy(cfg Config) error {
	switch cfg.TokenPolicy {
	case TokenOff:
		return nil
	case TokenRequired, TokenOptional:
		if cfg.Tokens == nil {
			return fmt.Errorf("upload tokens are %s but there are no keys to check them with: set UPCALL_TOKEN_KEYS to kid:secret, "+
				"or UPCALL_TOKEN=off to record callbacks of uploads that nobody issued", cfg.TokenPolicy)
		}
		return nil
	}
	return fmt.Errorf("token policy %q is unknown: use required, optional or off", cfg.TokenPolicy)
}

func checkCallbackPath(path string) error {
	if !strings.HasPrefix(path, "/") || strings.ContainsAny(path, ":*?#% ") {
		return fmt.Errorf("callback path %q is not a plain path: start it with / and use no %%, :, *, ? or #, "+
			"which proxies and OSS spell differently", path)
	}
	return nil
}

// Public returns the handler for the listener that OSS reaches.
func (s *Server) Public() http.Handler {
	engine := newEngine()
	engine.HandleMethodNotAllowed = true
	engine.Use(s.observe)
	engine.POST(s.cfg.CallbackPath, s.callback) // OSS, after an upload
	engine.NoMethod(func(c *gin.Context) {
		c.Header("Allow", http.MethodPost)
		s.refuse(c, &refusal{codeMethodNotAllowed, "callbacks are sent with POST", "method", nil})
	})
	engine.NoRoute(func(c *gin.Context) {
		s.refuse(c, &refusal{codeNotFound, "there is nothing here", "path", nil})
	})
	return engine
}

// Admin returns the handler for the private listener.
func (s *Server) Admin() http.Handler {
	engine := newEngine()
	engine.GET("/livez", func(c *gin.Context) { c.String(http.StatusOK, "ok\n") }) // the orchestrator: restart if not 200
	engine.GET("/readyz", s.readyz)                                                // the load balancer: send no callbacks if not 200
	engine.GET("/metrics", gin.WrapH(s.cfg.Metrics.handler()))                     // Prometheus
	return engine
}

// release keeps Gin from printing its routes.
var release = sync.OnceFunc(func() { gin.SetMode(gin.ReleaseMode) })

func newEngine() *gin.Engine {
	release()
	engine := gin.New()
	// A redirect answer is a failed callback to OSS, and X-Forwarded-For is whatever
	// the sender wrote.
	engine.RedirectTrailingSlash = false
	engine.ForwardedByClientIP = false
	return engine
}

func (s *Server) readyz(c *gin.Context) {
	ctx, cancel := context.WithTimeout(c.Request.Context(), time.Second)
	defer cancel()
	if err := s.cfg.Ready(ctx); err != nil {
		c.String(http.StatusServiceUnavailable, "not ready: %s\n", err)
		return
	}
	c.String(http.StatusOK, "ok\n")
}

// callback answers one callback.
func (s *Server) callback(c *gin.Context) {
	started := s.cfg.Now()
	ctx, cancel := context.WithTimeout(c.Request.Context(), Deadline)
	defer cancel()
	// A sender that stalls must not hold the request past its deadline.
	_ = http.NewResponseController(c.Writer).SetReadDeadline(time.Now().Add(Deadline))

	event := eventOf(c)
	accepted, err := s.take(ctx, c.Request, started, event)
	if err != nil {
		s.refuse(c, asRefusal(err))
		return
	}
	if s.recent.conflicts(event.requestID, event.id) {
		event.conflict = conflictRequestID
		s.cfg.Metrics.conflicts.WithLabelValues(conflictRequestID).Inc()
	}
	switch {
	case accepted.Duplicate:
		event.outcome = outcomeDuplicate
	case accepted.Durable == recorder.InSpool:
		event.outcome = outcomeSpooled
	default:
		event.outcome = outcomeRecorded
	}
	answerJSON(c, http.StatusOK, accepted)
}

// take is the path of one callback.
func (s *Server) take(ctx context.Context, r *http.Request, now time.Time, entry *logEvent) (*acceptance, error) {
	body, err := readBody(r)
	if err != nil {
		return nil, err
	}
	entry.body = body

	signed := verify.Request{
		Target:           s.signedTarget(r.RequestURI),
		Body:             body,
		Authorization:    r.Header.Get("Authorization"),
		PubKeyURL:        r.Header.Get("X-Oss-Pub-Key-Url"),
		SignatureVersion: r.Header.Get("X-Oss-Signature-Version"),
	}
	if err := s.cfg.Verifier.Verify(ctx, signed); err != nil {
		return nil, err
	}
	callback, err := callbackspec.Parse(r.Header.Get("Content-Type"), body, s.cfg.Fields)
	if err != nil {
		return nil, err
	}
	if callback.Bucket, err = s.checkBucket(callback.Bucket, r.Header.Get("X-Oss-Bucket")); err != nil {
		return nil, err
	}
	id, err := identify(signed, callback, r.Header.Get("X-Oss-Request-Id"))
	if err != nil {
		return nil, err
	}
	entry.id, entry.callback = id, callback
	entry.requestID = cmp.Or(callback.RequestID, r.Header.Get("X-Oss-Request-Id"))

	uploadID, err := s.checkToken(callback, now)
	entry.uploadID = uploadID
	if errors.Is(err, uploadtoken.ErrExpired) {
		return s.repeatOrExpired(ctx, id, uploadID)
	}
	if err != nil {
		return nil, err
	}
	outcome, err := s.cfg.Recorder.Record(ctx, &event.Event{
		ID:         id,
		ReceivedAt: now,
		Callback:   callback,
		UploadID:   uploadID,
		Source:     event.SourceCallback,
		SourceAddr: sourceAddr(r),
	})
	if err != nil {
		return nil, err
	}
	return newAcceptance(id, uploadID, outcome), nil
}

// signedTarget is the request target that OSS signed: the raw one, with the path that
// OSS asked for where a proxy has changed it.
func (s *Server) signedTarget(requestURI string) string {
	if s.publicPath == "" {
		return requestURI
	}
	if i := strings.IndexByte(requestURI, '?'); i >= 0 {
		return s.publicPath + requestURI[i:]
	}
	return s.publicPath
}

// checkBucket returns the bucket of the callback: the one in the signed body, else the
// one in the header. The header is not signed, but OSS sets it to the bucket of the
// upload. So a body that names another bucket is another customer's, who had OSS sign
// our bucket's name for our URL.
func (s *Server) checkBucket(body, header string) (string, error) {
	bucket := body
	if bucket == "" && storable(header) {
		bucket = header
	}
	for _, name := range []string{body, header} {
		if name != "" && name != bucket {
			return "", &refusal{codeWrongBucket, "the body and the x-oss-bucket header name different buckets", reasonBuckets, nil}
		}
		if name != "" && len(s.cfg.Buckets) > 0 && !slices.Contains(s.cfg.Buckets, name) {
			return "", &refusal{codeWrongBucket, "this receiver takes no callbacks for that bucket", "bucket_not_allowed", nil}
		}
	}
	return bucket, nil
}

// checkToken returns the upload that the callback belongs to. The OSS signature alone
// proves no such thing, see package uploadtoken. With ErrExpired the id is valid.
func (s *Server) checkToken(callback callbackspec.Callback, now time.Time) (uuid.NullUUID, error) {
	switch {
	case s.cfg.TokenPolicy == TokenOff:
		return uuid.NullUUID{}, nil
	case callback.Token == "" && s.cfg.TokenPolicy == TokenOptional:
		return uuid.NullUUID{}, nil
	case callback.Token == "":
		return uuid.NullUUID{}, &refusal{codeBadToken, "the callback holds no upload token", "token_missing", nil}
	}
	claims, err := s.cfg.Tokens.Check(callback.Token, callback.Bucket, callback.Object, now)
	if err != nil && !errors.Is(err, uploadtoken.ErrExpired) {
		return uuid.NullUUID{}, err
	}
	return uuid.NullUUID{UUID: claims.UploadID, Valid: true}, err
}

// repeatOrExpired answers a callback whose token is over: as the first time, if it was
// recorded before, so that a late repeat is told the truth; else it is refused.
func (s *Server) repeatOrExpired(ctx context.Context, id uuid.UUID, uploadID uuid.NullUUID) (*acceptance, error) {
	where, err := s.cfg.Recorder.Find(ctx, id, uploadID)
	if err != nil {
		return nil, err
	}
	if where == "" {
		return nil, uploadtoken.ErrExpired
	}
	return newAcceptance(id, uploadID, recorder.Outcome{Durable: where, Duplicate: true}), nil
}
