// Package notify is the second feed: it accepts OSS's event notifications over HTTP, which tell
// of uploads whose callbacks were lost.
//
// OSS publishes them to a topic of MNS (SMQ), which pushes them to the receiver. A push passes
// one straight line, in [Server.take]: it reads the raw body once, package verify checks the
// signature of MNS, the topic is compared, and each event that the message tells of is checked
// by package admission as a callback is. What concerns us is recorded as an event of source
// notification, and only when all of it is durable the answer is 204, after which MNS does not
// push the message again.
//
// EventBridge sends the same events as CloudEvents. Those are believed for a token that the
// operator has chosen.
package notify

import (
	"context"
	"crypto/sha256"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"

	"upcall/internal/admission"
	"upcall/internal/event"
	"upcall/internal/fault"
	"upcall/internal/httpserver"
	"upcall/internal/recorder"
	"upcall/internal/verify"
)

const (
	// Deadline is how long answering a push may take. MNS waits five seconds and pushes again.
	Deadline = 4 * time.Second
	// MaxBody is the largest body, in bytes. MNS's own limit on a message is 64 KiB before Base64.
	MaxBody = 256 << 10
	// DefaultPath is where pushes go.
	DefaultPath = "/oss/notify"
	// MinToken is the shortest token, in bytes, that nobody guesses.
	MinToken = 16
)

// A Recorder keeps events, as recorder.Failover does. It is an interface so that tests can fail.
type Recorder interface {
	// Record returns when the event is durable.
	Record(ctx context.Context, e *event.Event) (recorder.Outcome, error)
}

// A Refused keeps refusals, as intake.Server does for the whole listener.
type Refused interface {
	// Refused keeps a refused request, unless there are too many.
	Refused(r *admission.Refusal, at time.Time, describe func() event.RefusedCallback)
}

// Config is what a Server needs.
type Config struct {
	// Path is where pushes go. Default DefaultPath.
	Path string
	// Topics are those that pushes may come from. Default none.
	Topics []Topic
	// Token is what EventBridge sends as x-eventbridge-signature-token. Default none: its
	// events are refused.
	Token string
	// Admission has the buckets and the keys of upload tokens.
	Admission admission.Config
	// Verifier checks signatures. Required.
	Verifier *verify.Verifier
	// Recorder keeps what notifications tell. Required.
	Recorder Recorder
	// Refusals keeps refused notifications. Default none.
	Refusals Refused
	// Proxies are our own, between MNS and us. Default none.
	Proxies httpserver.Proxies
	// Logger gets one event for each request. Required.
	Logger *slog.Logger
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

// On reports whether notifications are accepted at all.
func (cfg Config) On() bool { return len(cfg.Topics) > 0 || cfg.Token != "" }

// Check returns all mistakes in the settings of notifications.
func (cfg Config) Check() error {
	var faults fault.List
	switch {
	case cfg.Path == "":
	case !admission.IsPlainPath(cfg.Path) || admission.IsPattern(cfg.Path):
		faults.AddNew(nil, "UPCALL_NOTIFY_PATH", "start it with / and use no %, ?, #, : or *",
			"%s is not a plain path", fault.Quote(cfg.Path))
	case cfg.On() && cfg.Admission.IsCallbackPath(cfg.Path):
		faults.AddNew(nil, "UPCALL_NOTIFY_PATH", "choose another", "%s is the path of callbacks", fault.Quote(cfg.Path))
	}
	if cfg.Token != "" && len(cfg.Token) < MinToken {
		faults.AddNew(nil, "UPCALL_NOTIFY_TOKEN", "make one with openssl rand -hex 32",
			"the token can be guessed: it is shorter than %d bytes", MinToken)
	}
	return faults.Err()
}

// A Server accepts notifications.
type Server struct {
	cfg     Config
	policy  *admission.Policy
	token   [sha256.Size]byte // of Config.Token
	metrics *metrics
}

// New returns a Server. Its error has all mistakes in the configuration.
func New(cfg Config) (*Server, error) {
	if cfg.Path == "" {
		cfg.Path = DefaultPath
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	if cfg.Verifier == nil || cfg.Recorder == nil || cfg.Logger == nil {
		return nil, errors.New("notify: Verifier, Recorder and Logger are required")
	}
	rules := cfg.Admission
	rules.CallbackPaths, rules.PublicURL, rules.MaxBody = []string{cfg.Path}, "", MaxBody
	policy, err := admission.New(rules, cfg.Verifier)
	if err != nil {
		return nil, err
	}
	return &Server{cfg: cfg, policy: policy, token: sha256.Sum256([]byte(cfg.Token)), metrics: newMetrics()}, nil
}

// Register adds the path of notifications to the public listener.
func (s *Server) Register(public gin.IRoutes) {
	public.Any(s.cfg.Path, httpserver.Observe(s.cfg.Logger, s.panicked, s.observe), s.push) // MNS or EventBridge
}

// push answers one push.
func (s *Server) push(c *gin.Context) {
	now := s.cfg.Now()
	ctx, cancel := context.WithTimeout(c.Request.Context(), Deadline)
	defer cancel()
	// A sender that stalls must not hold the request past its deadline.
	_ = http.NewResponseController(c.Writer).SetReadDeadline(time.Now().Add(Deadline))
	if refusal := s.take(ctx, c.Request, now, httpserver.Event[logEvent](c)); refusal != nil {
		s.refuse(c, refusal)
		return
	}
	c.Status(http.StatusNoContent)
	c.Writer.WriteHeaderNow()
}

func (s *Server) refuse(c *gin.Context, r *admission.Refusal) {
	httpserver.Event[logEvent](c).refusal = r
	switch r.Code {
	case admission.TooLarge:
		c.Header("Connection", "close") // the rest of the message is not read
	case admission.MethodNotAllowed:
		c.Header("Allow", http.MethodPost)
	case admission.Unavailable:
		c.Header("Retry-After", "1")
	}
	c.Data(r.Code.Status(), "application/json", r.Body())
}

// panicked refuses a push whose handler has panicked.
func (s *Server) panicked(c *gin.Context, err error) {
	if !c.Writer.Written() {
		refusal := admission.Ours(admission.ReasonPanic, err)
		s.metrics.refusals.WithLabelValues(string(refusal.Reason)).Inc()
		s.refuse(c, refusal)
	}
}
