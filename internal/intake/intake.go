// Package intake is the receiver's HTTP side: it accepts a callback, checks that it comes
// from OSS and belongs to an upload that we issued, has it recorded, and answers.
//
// The path of a callback is one straight line, in [Server.take]: it reads the raw body
// once, package admission turns those bytes into an event or refuses them, and the
// recorder returns once the row is committed, or safe in the spool or the stream. Only then is the
// answer 200, which OSS passes to the uploader.
//
// Its listener serves the callback path, and what [Server.Add] adds, and nothing else.
package intake

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"

	"upcall/internal/admission"
	"upcall/internal/event"
	"upcall/internal/httpserver"
	"upcall/internal/recorder"
	"upcall/internal/verify"
)

// Deadline is how long answering a callback may take, whatever happens. OSS waits five
// seconds; the rest is for the network.
const Deadline = 4 * time.Second

// DefaultPath is where callbacks come if no path is configured.
const DefaultPath = "/oss/callback"

// A Recorder keeps callbacks. It is an interface so that a benchmark can measure this
// package without a database.
type Recorder interface {
	// Record returns when the event is durable.
	Record(ctx context.Context, e *event.Event) (recorder.Outcome, error)
	// Find returns where an event was recorded before, or "".
	Find(ctx context.Context, id uuid.UUID, upload uuid.NullUUID) (recorder.Durable, error)
}

// replyBy is how long a callback may take with the call of the reply hook. What is left of the
// deadline is time to send the answer.
const replyBy = Deadline - 200*time.Millisecond

// A Replier asks the operator's application what to answer besides our own members. It is an
// interface so that this package knows no HTTP client.
type Replier interface {
	// Ask returns a JSON object, or nil, when ctx ends or before; and a word for the log.
	Ask(ctx context.Context, e *event.Event, repeat bool) (object []byte, outcome string)
}

// Config is what a Server needs.
type Config struct {
	// Admission says what is acceptable. Its CallbackPaths default to DefaultPath.
	Admission admission.Config
	// Verifier checks OSS signatures. Required.
	Verifier *verify.Verifier
	// Recorder keeps accepted callbacks. Required.
	Recorder Recorder
	// Proxies are our own, between OSS and us. Default none.
	Proxies httpserver.Proxies
	// Reply is asked about each callback that is durable. Default none.
	Reply Replier
	// ReplyReplaces makes the application's object the whole answer, not a member of ours.
	ReplyReplaces bool
	// Refusals keeps some of the refused callbacks. Default none.
	Refusals RefusalStore
	// Captures keeps the last of them as they came. Default none.
	Captures Captures
	// Trace is middleware around everything but captures. Default none.
	Trace gin.HandlerFunc
	// Metrics counts. Required.
	Metrics *Metrics
	// Logger gets one event for each request. Required.
	Logger *slog.Logger
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

// A Server answers callbacks.
type Server struct {
	cfg      Config
	policy   *admission.Policy
	refusals *refusals
	recent   *recent
	others   []Routes
}

// Routes are what else the listener serves. It is an interface so that this package knows
// callbacks only.
type Routes interface {
	// Register adds routes, each with its own log line and metrics.
	Register(public gin.IRoutes)
}

// Add adds routes to the listener, before [Server.Serve].
func (s *Server) Add(routes Routes) { s.others = append(s.others, routes) }

// New returns a Server. Its error joins all mistakes in the configuration.
func New(cfg Config) (*Server, error) {
	if len(cfg.Admission.CallbackPaths) == 0 {
		cfg.Admission.CallbackPaths = []string{DefaultPath}
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	policy, err := admission.New(cfg.Admission, cfg.Verifier)
	if err != nil {
		return nil, err
	}
	if cfg.Recorder == nil || cfg.Metrics == nil || cfg.Logger == nil {
		return nil, errors.New("intake: Verifier, Recorder, Metrics and Logger are required")
	}
	return &Server{cfg: cfg, policy: policy, refusals: newRefusals(cfg), recent: newRecent()}, nil
}

// Public returns the handler for the listener that OSS reaches.
func (s *Server) Public() http.Handler {
	engine := httpserver.NewEngine()
	first := []gin.HandlerFunc{markHandled}
	if s.cfg.Trace != nil {
		first = []gin.HandlerFunc{s.cfg.Trace, markHandled}
	}
	for _, routes := range s.others {
		routes.Register(engine.Group("", first...))
	}
	if s.cfg.Captures != nil {
		engine.Use(s.capture) // around what traces and observes, because it comes after the answer
	}
	engine.Use(append(first, httpserver.Observe(s.cfg.Logger, s.panicked, s.observe))...)
	for _, path := range s.cfg.Admission.CallbackPaths {
		if !admission.IsPattern(path) {
			engine.POST(path, s.callback) // OSS, after an upload
		}
	}
	engine.NoRoute(s.callback) // paths with parameters, and everything else: admission refuses the path or the method
	return engine
}

// callback answers one callback.
func (s *Server) callback(c *gin.Context) {
	started := s.cfg.Now()
	ctx := newExpiring(c.Request.Context(), time.Now().Add(Deadline))
	defer ctx.end()
	seen := seenIn(c)
	accepted, refusal := s.take(ctx, c.Request, started, seen)
	if refusal != nil {
		s.refuse(c, refusal)
		return
	}
	if s.recent.conflicts(seen.requestID(), accepted.EventID) {
		seen.conflict = conflictRequestID
		s.cfg.Metrics.conflicts.WithLabelValues(conflictRequestID).Inc()
	}
	switch {
	case accepted.Duplicate:
		seen.outcome = outcomeDuplicate
	case accepted.Durable != recorder.InPostgres:
		seen.outcome = outcomeSpooled
	default:
		seen.outcome = outcomeRecorded
	}
	body := accepted.body()
	if s.cfg.Reply != nil {
		body = s.withReply(ctx, seen, accepted.Duplicate, body)
	}
	answer(c, http.StatusOK, body)
}

// withReply returns our answer with the application's reply. The callback is durable, so no
// failure here may change its status.
func (s *Server) withReply(ctx context.Context, seen *logEvent, repeat bool, own []byte) []byte {
	deadline, _ := ctx.Deadline()
	asking, cancel := context.WithDeadline(ctx, deadline.Add(replyBy-Deadline))
	defer cancel()
	var object []byte
	object, seen.reply = s.cfg.Reply.Ask(asking, seen.event, repeat)
	switch {
	case object == nil:
		object = []byte("null")
	case s.cfg.ReplyReplaces:
		return object
	}
	return slices.Concat(own[:len(own)-1], []byte(`,"reply":`), object, []byte("}"))
}

// usualBody is up to where a body gets all of its space at once. A stranger who announces a
// larger one and sends nothing must not cost us more.
const usualBody = 4096

func readBody(r *http.Request) ([]byte, error) {
	if r.ContentLength < 0 || r.ContentLength > usualBody {
		return io.ReadAll(io.LimitReader(r.Body, admission.MaxBody+1))
	}
	body := make([]byte, r.ContentLength)
	n, err := io.ReadFull(r.Body, body)
	return body[:n], err
}

// take is the path of one callback. It notes in seen what it learns, even if it refuses.
func (s *Server) take(ctx context.Context, r *http.Request, now time.Time, seen *logEvent) (*acceptance, *admission.Refusal) {
	request := &seen.request
	*request = admission.Request{
		Method: r.Method, Path: r.URL.Path, Target: r.RequestURI, Length: r.ContentLength, Source: s.cfg.Proxies.Source(r),
	}
	request.SetHeader(r.Header)
	if refusal := s.policy.CheckHead(request); refusal != nil {
		return nil, refusal
	}
	// The body, or enough of it to know that it is too large, whatever its length says.
	// The message is read only here: these bytes are verified, and these bytes are parsed.
	var err error
	if request.Body, err = readBody(r); err != nil {
		return nil, &admission.Refusal{
			Code: admission.Malformed, Reason: admission.ReasonBodyCutShort,
			Message: "the body ended early or came too slowly", Cause: err,
		}
	}
	admitted, refusal := s.policy.Admit(ctx, request, now)
	seen.event = admitted
	if refusal != nil && refusal.Reason == admission.ReasonTokenExpired {
		return s.repeatOrExpired(ctx, admitted, refusal)
	}
	if refusal != nil {
		return nil, refusal
	}
	outcome, err := s.cfg.Recorder.Record(ctx, admitted)
	if err != nil {
		return nil, admission.NotRecorded(err)
	}
	return newAcceptance(admitted, outcome), nil
}

// repeatOrExpired answers a callback whose token has expired: as a duplicate, if it was
// recorded before; otherwise it is refused.
func (s *Server) repeatOrExpired(ctx context.Context, e *event.Event, expired *admission.Refusal) (*acceptance, *admission.Refusal) {
	where, err := s.cfg.Recorder.Find(ctx, e.ID, e.UploadID)
	if err != nil {
		return nil, admission.NotRecorded(err)
	}
	if where == "" {
		return nil, expired
	}
	return newAcceptance(e, recorder.Outcome{Durable: where, Duplicate: true}), nil
}
