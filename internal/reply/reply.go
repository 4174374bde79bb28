// Package reply asks the operator's own application, while an uploader waits, what to answer to
// it besides our own members: the reply hook.
//
// The question is the same signed message as a delivery of package hooks, and its answer a JSON
// object. It is asked only after the callback is durable, so whatever becomes of it, the upload
// counts. There is no second try: the uploader would wait for it.
package reply

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/google/uuid"

	"upcall/internal/event"
	"upcall/internal/fault"
	"upcall/internal/webhook"
)

const (
	// MaxTimeout is the longest time limit of a call. The whole callback has not much more.
	MaxTimeout = 3800 * time.Millisecond
	// maxCalls is how many calls there are at once. Behind an application that hangs, a further
	// uploader gets an answer without a reply at once.
	maxCalls = 64
	// maxReply is the longest answer of an application, in bytes. OSS passes on up to 1 MB, but
	// each call holds its answer in memory.
	maxReply = 64 << 10
	// maxHeaders bounds the headers of an answer, in bytes.
	maxHeaders = 16 << 10
	// idleTime is how long a connection is kept that no call uses.
	idleTime = 60 * time.Second
)

var (
	// ErrSecret says that there is no secret to sign with.
	ErrSecret = errors.New("no secret")
	// ErrTimeout says that a duration is not a time limit of a call.
	ErrTimeout = errors.New("wrong time limit")
)

// Config configures a [Hook].
type Config struct {
	// URL of the application. It is the operator's, so private addresses and plain http are
	// allowed. Required.
	URL string
	// Secret signs. Required.
	Secret webhook.Secret
	// Timeout limits a call, besides the deadline of its context; 0 does not.
	Timeout time.Duration
	// Received returns when a callback that came again was recorded, so that the application
	// sees the same event as before. Default: the time of the repeat is sent.
	Received func(ctx context.Context, id uuid.UUID, upload uuid.NullUUID) (time.Time, error)
	// Logger gets a line about failures, at most one in ten seconds. Required.
	Logger *slog.Logger
	// Now is the clock of signatures. Default time.Now.
	Now func() time.Time
}

// Check returns all mistakes in the settings.
func (cfg Config) Check() error {
	var faults fault.List
	_, err := webhook.ParseURL(cfg.URL)
	faults.Add(fault.In("UPCALL_REPLY_URL", err))
	if cfg.Secret.IsZero() {
		faults.AddNew(ErrSecret, "UPCALL_REPLY_SECRET", "make one with echo \"whsec_$(openssl rand -base64 32)\"",
			"it is missing: the application could not tell who asks")
	}
	if cfg.Timeout < 0 || cfg.Timeout > MaxTimeout {
		faults.AddNew(ErrTimeout, "UPCALL_REPLY_TIMEOUT", "OSS gives up after 5s", "%v is not between 0s and %v", cfg.Timeout, MaxTimeout)
	}
	return faults.Err()
}

// A Hook asks the application.
type Hook struct {
	cfg       Config
	transport *http.Transport
	slots     chan struct{} // has room for each call that is under way
	metrics   *metrics
	failures  failures
}

// New returns a Hook. Its error joins all mistakes in the configuration.
func New(cfg Config) (*Hook, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	if cfg.Logger == nil {
		return nil, errors.New("reply: Logger is required")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	slots := make(chan struct{}, maxCalls)
	return &Hook{cfg: cfg, slots: slots, metrics: newMetrics(slots), failures: failures{logger: cfg.Logger, now: cfg.Now}, transport: &http.Transport{
		// An operator who names a URL does not mean a proxy that is set for something else.
		Proxy:                  nil,
		DialContext:            (&net.Dialer{Timeout: MaxTimeout, KeepAlive: 15 * time.Second}).DialContext,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    MaxTimeout,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true, // an answer that grows when it is unpacked
		MaxIdleConns:           maxCalls,
		MaxIdleConnsPerHost:    maxCalls,
		IdleConnTimeout:        idleTime,
		MaxResponseHeaderBytes: maxHeaders,
	}}, nil
}

// Close ends idle connections.
func (h *Hook) Close() { h.transport.CloseIdleConnections() }

// Ask returns the application's reply to an event that is durable: a JSON object, as its bytes
// came, or nil if there is none. It returns when ctx ends, or before. The outcome says what
// became of the call, for the log.
func (h *Hook) Ask(ctx context.Context, e *event.Event, repeat bool) (object []byte, outcome string) {
	select {
	case h.slots <- struct{}{}:
		defer func() { <-h.slots }()
	default: // waiting for a slot would cost this uploader what the application owes to others
		h.metrics.calls.WithLabelValues(busy).Inc()
		h.failures.note(ctx, e, busy, errBusy)
		return nil, busy
	}
	began := time.Now()
	object, err := h.call(ctx, e, repeat)
	h.metrics.seconds.Observe(time.Since(began).Seconds())
	if outcome = outcomeOf(ctx, err); outcome != replied && outcome != canceled {
		h.failures.note(ctx, e, outcome, err)
	}
	h.metrics.calls.WithLabelValues(outcome).Inc()
	return object, outcome
}

// call makes one call.
func (h *Hook) call(ctx context.Context, e *event.Event, repeat bool) ([]byte, error) {
	if h.cfg.Timeout > 0 {
		limited, cancel := context.WithTimeout(ctx, h.cfg.Timeout)
		defer cancel()
		ctx = limited
	}
	if repeat && h.cfg.Received != nil {
		if at, err := h.cfg.Received(ctx, e.ID, e.UploadID); err == nil { // else the application sees a later time
			first := *e
			first.ReceivedAt = at
			e = &first
		}
	}
	body, err := webhook.NewMessage(e).Body()
	if err != nil {
		return nil, err // cannot happen: what is durable could be encoded
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, h.cfg.URL, bytes.NewReader(body))
	if err != nil {
		return nil, err // cannot happen: the URL was checked
	}
	request.Header.Set("Content-Type", webhook.ContentType)
	request.Header.Set("User-Agent", "Upcall/1")
	request.Header.Set("Accept", "application/json")
	// Lets the transport send it again if a kept connection turns out to be dead, as after a
	// restart of the application. The header itself is not sent.
	request.Header["Idempotency-Key"] = nil
	webhook.Sign(request.Header, e.ID.String(), h.cfg.Now(), body, []webhook.Secret{h.cfg.Secret})

	response, err := h.transport.RoundTrip(request) // unlike a client, it follows no redirect
	if err != nil {
		return nil, cmp.Or(ctx.Err(), err)
	}
	defer response.Body.Close()
	if response.StatusCode < 200 || response.StatusCode > 299 {
		return nil, fmt.Errorf("%w %s", errStatus, response.Status)
	}
	text, err := io.ReadAll(io.LimitReader(response.Body, maxReply+1))
	if err != nil {
		return nil, cmp.Or(ctx.Err(), err)
	}
	return parse(text)
}
