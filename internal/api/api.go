// Package api is the receiver's HTTP API on its admin listener: applications read the log with
// it, and operators manage endpoints of hooks.
//
// Every call under /v1 needs a key with a role. Refusals are problem details (RFC 9457).
//
// Long polls and streams hold no place in a queue: each has a cursor, and reads the log from
// there when its client has taken what it was sent. So a client that stops reading costs one
// page of the log, and is dropped when it takes nothing for a while.
package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"slices"
	"time"

	"upcall/internal/fault"
	"upcall/internal/feed"
	"upcall/internal/hooks"
	"upcall/internal/story"
	"upcall/internal/vitals"
)

const (
	// readTimeout limits each reading of the log or of a row.
	readTimeout = 5 * time.Second
	// mostWaiting is how many long polls and streams may be open at once.
	mostWaiting = 1000
	// mostBody is the most of a request's body.
	mostBody = 64 << 10
)

// Config is what a [Server] needs.
type Config struct {
	// Log is what is read. Required.
	Log *feed.Log
	// Keys are the API keys with roles. Required.
	Keys Keys
	// Endpoints are those of hooks. Required.
	Endpoints *hooks.Endpoints
	// Stories tell what became of uploads. Required.
	Stories *story.Stories
	// Vitals are the receiver's own metrics. Required.
	Vitals *vitals.Sampler
	// Ready is what /readyz asks. Required.
	Ready func(context.Context) (note string, err error)
	// Fallback is where callbacks wait. Default none.
	Fallback Fallback
	// Captures are the refused callbacks that are kept as they came. Default none.
	Captures Captures
	// Behind are functions that return a line for each thing that has work to do. Default none.
	Behind []func(context.Context) ([]string, error)
	// Ping is how often a stream sends a comment. Default 15 s.
	Ping time.Duration
	// Patience is how long a client may take to read what was sent. Default 10 s.
	Patience time.Duration
	// Logger gets one event for each request. Required.
	Logger *slog.Logger
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

// A Server answers applications and operators.
type Server struct {
	cfg      Config
	keys     *keyring
	metrics  *metrics
	mux      *http.ServeMux
	waiting  chan struct{} // holds a token for each long poll and stream
	stopping context.Context
	stop     context.CancelFunc
}

// New returns a Server. The error says what is missing.
func New(cfg Config) (*Server, error) {
	if cfg.Log == nil || cfg.Keys == nil || cfg.Endpoints == nil || cfg.Stories == nil ||
		cfg.Vitals == nil || cfg.Ready == nil || cfg.Logger == nil {
		return nil, errors.New("api: Log, Keys, Endpoints, Stories, Vitals, Ready and Logger are required")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Ping == 0 {
		cfg.Ping = 15 * time.Second
	}
	if cfg.Patience == 0 {
		cfg.Patience = 10 * time.Second
	}
	s := &Server{cfg: cfg, keys: newKeyring(cfg.Keys, cfg.Now), metrics: newMetrics(), mux: http.NewServeMux(),
		waiting: make(chan struct{}, mostWaiting)}
	s.stopping, s.stop = context.WithCancel(context.Background())
	for _, route := range s.routes() {
		s.mux.HandleFunc(route.pattern, s.handle(route))
	}
	s.mux.HandleFunc("/", s.handle(route{"/", "", s.noRoute}))
	return s, nil
}

// Stop ends all long polls and streams, and those that come later.
func (s *Server) Stop() { s.stop() }

// A route is a call of the API.
type route struct {
	pattern string
	role    Role // "" is open to all
	answer  func(http.ResponseWriter, *http.Request) error
}

// name is the route in metrics.
func (r route) name() string {
	if r.pattern == "/" {
		return "none"
	}
	return r.pattern
}

// routes lists every call, with who makes it.
func (s *Server) routes() []route {
	return []route{
		{"GET /v1/idle", Viewer, s.getIdle},            // a test of an application
		{"GET /v1/events", Viewer, s.getEvents},        // an application that pulls
		{"GET /v1/events/stream", Viewer, s.getStream}, // the same, or a page in a browser behind one
		{"GET /v1/uploads", Viewer, s.getUploads},      // who asks what became of an upload
		{"GET /v1/uploads/{upload_id}", Viewer, s.getUpload},
		{"GET /v1/hooks", Viewer, s.getHooks}, // an operator, or a program of theirs, as all below
		{"POST /v1/hooks", Operator, s.postHook},
		{"GET /v1/hooks/{id}", Viewer, s.getHook},
		{"PATCH /v1/hooks/{id}", Operator, s.patchHook},
		{"DELETE /v1/hooks/{id}", Operator, s.deleteHook},
		{"POST /v1/hooks/{id}/test", Operator, s.postTest},
		{"POST /v1/hooks/{id}/pause", Operator, s.postPause},
		{"POST /v1/hooks/{id}/resume", Operator, s.postResume},
		{"POST /v1/hooks/{id}/rotate", Operator, s.postRotate},
		{"POST /v1/hooks/{id}/redeliver", Operator, s.postRedeliver},
		{"GET /v1/hooks/{id}/attempts", Viewer, s.getAttempts},
		{"GET /v1/health", Viewer, s.getHealth},
		{"GET /v1/consumers", Viewer, s.getConsumers},
		{"GET /v1/refusals", Viewer, s.getRefusals},
		{"GET /v1/refusals/captured", Viewer, s.getCaptured},
		{"GET /v1/refusals/captured/{name}", Viewer, s.getCapture},
		{"GET /v1/reconcile/runs", Viewer, s.getRuns},
		{"GET /v1/loss", Viewer, s.getLoss},
		{"GET /v1/spool", Viewer, s.getSpool},
		{"POST /v1/spool/retry", Operator, s.postRetry},
		{"POST /v1/spool/discard", Operator, s.postDiscard},
		{"GET /openapi.yaml", "", s.openAPI}, // the author of an application
	}
}

// Register adds the API to the handler of the admin listener.
func (s *Server) Register(mux *http.ServeMux) {
	mux.Handle("/v1/", s.mux)
	mux.Handle("/openapi.yaml", s.mux)
}

// handle returns the handler of a route: it checks the key, answers, and writes the log line.
func (s *Server) handle(to route) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		began, a := time.Now(), &answer{ResponseWriter: w, patience: s.cfg.Patience}
		id, err := "", error(nil)
		defer func() {
			if p := recover(); p != nil {
				s.cfg.Logger.ErrorContext(r.Context(), "panic", slog.Any("panic", p), slog.String("stack", string(debug.Stack())))
				err = fmt.Errorf("panic: %v", p)
			}
			s.finish(a, r, to, id, err, time.Since(began))
		}()
		if to.role != "" {
			if id, err = s.authorize(r, to.role); err != nil {
				return
			}
		}
		if r.Method == http.MethodGet || r.Method == http.MethodHead {
			a.endless()
		}
		err = to.answer(a, r)
	}
}

// finish answers with the problem, if there is one, and logs the request.
func (s *Server) finish(a *answer, r *http.Request, to route, id string, err error, took time.Duration) {
	level, attrs := slog.LevelInfo, []slog.Attr{slog.String("route", to.pattern), slog.String("api_key_id", id)}
	if err != nil {
		p := asProblem(err)
		if a.status == 0 && r.Context().Err() == nil {
			p.write(a)
		}
		attrs = append(attrs, slog.String("problem", p.kind.label), slog.String("error", fault.Line(err.Error())))
		if p.kind.status >= http.StatusInternalServerError && p.kind != kindBehind {
			level = slog.LevelWarn
		}
	}
	s.metrics.ended(to, a.status)
	attrs = append(attrs, slog.Int("status", a.status), slog.Float64("took_ms", float64(took.Microseconds())/1000))
	s.cfg.Logger.LogAttrs(context.WithoutCancel(r.Context()), level, "api request", attrs...)
}

// noRoute refuses a path or a method that is not there.
func (s *Server) noRoute(_ http.ResponseWriter, r *http.Request) error {
	var allowed []string
	for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPatch, http.MethodDelete} {
		other := r.Clone(r.Context())
		other.Method = method
		if _, pattern := s.mux.Handler(other); pattern != "/" {
			allowed = append(allowed, method)
		}
	}
	if len(allowed) > 0 && !slices.Contains(allowed, r.Method) {
		return &problem{kind: kindMethod, detail: "see the Allow header", allow: allowed}
	}
	return &problem{kind: kindNotFound, detail: "there is nothing at this path"}
}

// An answer is a response whose deadline goes by write, not by request.
type answer struct {
	http.ResponseWriter
	patience time.Duration
	status   int
}

// Unwrap is for http.ResponseController.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

func (a *answer) WriteHeader(status int) {
	a.status = status
	_ = a.extend() // there may be no body; a writer without deadlines needs none
	a.ResponseWriter.WriteHeader(status)
}

// mostWrite is the most that is written with one deadline.
const mostWrite = 64 << 10

func (a *answer) Write(b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		if err = a.extend(); err != nil {
			break
		}
		var part int
		part, err = a.ResponseWriter.Write(b[n:min(n+mostWrite, len(b))])
		n += part
	}
	return n, err
}

// flush sends what was written.
func (a *answer) flush() error {
	if err := a.extend(); err != nil {
		return err
	}
	return http.NewResponseController(a.ResponseWriter).Flush()
}

func (a *answer) extend() error {
	return http.NewResponseController(a.ResponseWriter).SetWriteDeadline(time.Now().Add(a.patience))
}

// endless lifts the deadline for reading the request, after which net/http would cancel its
// context. The request has been read.
func (a *answer) endless() {
	_ = http.NewResponseController(a.ResponseWriter).SetReadDeadline(time.Time{}) // a test's recorder has none
}

// wait returns a context for something that waits up to so long, until the client leaves or the
// receiver stops. The error is a problem: too many wait.
func (s *Server) wait(ctx context.Context, kind string) (context.Context, func(), error) {
	select {
	case s.waiting <- struct{}{}:
	default:
		return nil, nil, &problem{kind: kindUnavailable, detail: fmt.Sprintf("there are %d long polls and streams already", mostWaiting)}
	}
	open := s.metrics.open.WithLabelValues(kind)
	open.Inc()
	ctx, cancel := context.WithCancel(ctx)
	unlink := context.AfterFunc(s.stopping, cancel)
	return ctx, func() { unlink(); cancel(); open.Dec(); <-s.waiting }, nil
}
