// Package issueapi is the issuer's HTTP API: applications request uploads from it, and look
// up their status.
//
// The path of a request for an upload is one straight line, in [Server.postUpload]: the API
// key says who asks, package policy says whether they may, and package issue signs and
// returns once the upload's row in the ledger is committed. Only then is the answer 201.
//
// Refusals are problem details (RFC 9457) that name every broken rule at once. The file
// openapi.yaml describes the API; a test compares it with the routes and the answers.
//
// Its listener is for applications, and for people if the upload page is on.
package issueapi

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"
	"golang.org/x/time/rate"

	"upcall/internal/callbackspec"
	"upcall/internal/eventstore"
	"upcall/internal/httpserver"
	"upcall/internal/issue"
	"upcall/internal/manifest"
	"upcall/internal/oss"
	"upcall/internal/policy"
)

// An Issuer issues uploads. It is an interface so that tests can set the clock and make OSS
// unreachable.
type Issuer interface {
	Issue(ctx context.Context, r issue.Request) (manifest.Upload, oss.ExpiryCause, error)
	IssueMultipart(ctx context.Context, r issue.MultipartRequest) (manifest.Multipart, oss.ExpiryCause, error)
	IssueForm(ctx context.Context, r issue.FormRequest) (manifest.Form, oss.ExpiryCause, error)
}

// A Ledger returns the status of the uploads that the Issuer entered in it. It is an
// interface so that a benchmark can measure this package without a database.
type Ledger interface {
	Get(ctx context.Context, id uuid.UUID) (eventstore.IssuedStatus, error)
	Revoke(ctx context.Context, id uuid.UUID) error
}

// Keys are the stored API keys. They are an interface so that a benchmark and the tests of
// the keyring need no database.
type Keys interface {
	// List returns all keys, including revoked ones.
	List(ctx context.Context) ([]eventstore.APIKey, error)
}

// Config is what a Server needs.
type Config struct {
	// Issuer issues uploads, each with its row in the ledger. Required.
	Issuer Issuer
	// CallbackHosts is the result of issue.CallbackHosts, for the checks that run along with
	// the policy's. Default callbackspec.PublicHosts.
	CallbackHosts callbackspec.Hosts
	// Ledger holds what the Issuer issued. Required.
	Ledger Ledger
	// Repeats keeps answers for requests with an Idempotency-Key. Required.
	Repeats Repeats
	// Keys are the API keys. Required.
	Keys Keys
	// Policies say what each key may do, until others are set. Required.
	Policies *policy.Set
	// Rate is how many requests a second each key may make, and Burst how many at once.
	// Defaults 100 and 200.
	Rate  rate.Limit
	Burst int
	// Proxies are our own, between the applications and us. Default none.
	Proxies httpserver.Proxies
	// Trace is middleware around everything. Default none.
	Trace gin.HandlerFunc
	// Page is the upload page, served at /. Default none.
	Page http.Handler
	// Module is upcall-uploader.js, with which pages upload, and Types are its types. Default none.
	Module, Types http.Handler
	// Metrics counts. Required.
	Metrics *Metrics
	// Logger gets one event for each request. Required.
	Logger *slog.Logger
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

// A Server answers applications.
type Server struct {
	cfg        Config
	keys       *keyring
	multiparts chan struct{} // holds a token for each multipart upload being issued

	policies atomic.Pointer[policy.Set]   // those of cfg, or later ones
	shown    atomic.Pointer[http.Handler] // the page that fits them
}

// maxMultiparts is how many multipart uploads may be issued at once, and maxKeyMultiparts how
// many of them for one key. One of ten thousand parts takes a second of signing and some
// megabytes of answer; without the limits, a single key could use up memory and processors
// within its rate, or keep all others waiting.
const (
	maxMultiparts    = 4
	maxKeyMultiparts = 2
)

// New returns a Server. The error says what is missing.
func New(cfg Config) (*Server, error) {
	cfg.Rate = cmp.Or(cfg.Rate, 100)
	cfg.Burst = cmp.Or(cfg.Burst, 200)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	switch {
	case cfg.Issuer == nil || cfg.Ledger == nil || cfg.Repeats == nil || cfg.Keys == nil || cfg.Policies == nil || cfg.Metrics == nil || cfg.Logger == nil:
		return nil, errors.New("issueapi: Issuer, Ledger, Repeats, Keys, Policies, Metrics and Logger are required")
	case cfg.Rate < 0 || cfg.Burst < 1:
		return nil, errors.New("issueapi: Rate and Burst must be positive")
	}
	s := &Server{
		cfg:        cfg,
		keys:       newKeyring(cfg.Keys, cfg.Rate, cfg.Burst, cfg.Now),
		multiparts: make(chan struct{}, maxMultiparts),
	}
	s.SetPolicies(cfg.Policies, cfg.Page)
	return s, nil
}

// SetPolicies replaces the policies, and the page, whose rules depend on them. Requests that are
// under way keep theirs. A server without a page gets none.
func (s *Server) SetPolicies(policies *policy.Set, page http.Handler) {
	s.policies.Store(policies)
	s.shown.Store(&page)
}

// API returns the handler for the listener that applications reach.
func (s *Server) API() http.Handler {
	engine := httpserver.NewEngine()
	engine.HandleMethodNotAllowed = true
	if s.cfg.Trace != nil {
		engine.Use(s.cfg.Trace)
	}
	engine.Use(httpserver.Observe(s.cfg.Logger, s.panicked, s.observe))
	engine.POST("/v1/uploads", s.authenticated(http.StatusCreated, s.repeatable(s.postUpload)))              // an application, before an upload
	engine.POST("/v1/uploads/multipart", s.authenticated(http.StatusCreated, s.repeatable(s.postMultipart))) // the same, before one in parts
	engine.POST("/v1/uploads/form", s.authenticated(http.StatusCreated, s.repeatable(s.postForm)))           // the same, before one by a web page's form
	engine.GET("/v1/uploads/:id", s.authenticated(http.StatusOK, s.getUpload))                               // the application that requested it
	engine.DELETE("/v1/uploads/:id", s.authenticated(http.StatusOK, s.deleteUpload))                         // the same
	engine.GET("/v1/policy", s.authenticated(http.StatusOK, s.getPolicy))                                    // a page, to offer what is allowed
	engine.GET("/openapi.yaml", s.openAPI)                                                                   // the author of an application
	engine.NoMethod(func(c *gin.Context) { refuse(c, problemOf(kindMethod, "see the Allow header")) })
	engine.NoRoute(func(c *gin.Context) { refuse(c, problemOf(kindNotFound, "there is nothing at this path")) })
	var page http.Handler
	if s.cfg.Page != nil {
		page = http.HandlerFunc(s.page)
	}
	for path, handler := range map[string]http.Handler{
		"/": page, "/upcall-uploader.js": s.cfg.Module, "/upcall-uploader.d.ts": s.cfg.Types, // people with a browser
	} {
		if handler != nil {
			serve := func(c *gin.Context) {
				eventOf(c).outcome = outcomePage
				handler.ServeHTTP(c.Writer, c.Request)
			}
			engine.GET(path, serve)
			engine.HEAD(path, serve)
		}
	}
	return engine
}

// page answers with the page that fits the policies now.
func (s *Server) page(w http.ResponseWriter, r *http.Request) { (*s.shown.Load()).ServeHTTP(w, r) }
