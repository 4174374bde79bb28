package notify

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"upcall/internal/admission"
	"upcall/internal/event"
	"upcall/internal/recorder"
	"upcall/internal/verify"
)

// bridgePrefix begins the names of EventBridge's headers, and bridgeToken has what its user
// has chosen ("Route events to HTTP endpoints" in the EventBridge documentation, 2025).
const (
	bridgePrefix = "X-Eventbridge-"
	bridgeToken  = "X-Eventbridge-Signature-Token"
)

// messageID is the header with the id of a message, the same at each push of it.
const messageID = "X-Mns-Message-Id"

// recordAtOnce is how many events of one message are recorded at the same time. They share
// commits.
const recordAtOnce = 64

// aheadMost is how far the time of an upload may be ahead of our clock.
const aheadMost = 15 * time.Minute

// take is the path of one push. It notes in seen what it learns, even if it refuses.
func (s *Server) take(ctx context.Context, r *http.Request, now time.Time, seen *logEvent) *admission.Refusal {
	request := &seen.request
	*request = admission.Request{
		Method: r.Method, Path: r.URL.Path, Target: r.RequestURI, Length: r.ContentLength, Source: s.cfg.Proxies.Source(r),
	}
	request.SetHeader(r.Header)
	seen.messageID = r.Header.Get(messageID)
	if refusal := s.policy.CheckHead(request); refusal != nil {
		return s.refused(request, nil, refusal, now)
	}
	// The body, or enough of it to know that it is too large, whatever its length says.
	var err error
	if request.Body, err = io.ReadAll(io.LimitReader(r.Body, MaxBody+1)); err != nil {
		return s.refused(request, nil, &admission.Refusal{
			Code: admission.Malformed, Reason: admission.ReasonBodyCutShort,
			Message: "the body ended early or came too slowly", Cause: err,
		}, now)
	}
	told, refusal := s.read(ctx, request, r.Header, now, seen)
	if refusal != nil {
		return s.refused(request, nil, refusal, now)
	}
	return s.record(ctx, request, told, now, seen)
}

// read returns what an authentic push tells.
func (s *Server) read(
	ctx context.Context, request *admission.Request, header http.Header, now time.Time, seen *logEvent,
) ([]*happening, *admission.Refusal) {
	if refusal := s.policy.CheckHead(request); refusal != nil { // the length of a chunked body
		return nil, refusal
	}
	message := string(request.Body)
	if isBridge(header) {
		if refusal := s.checkBridge(header); refusal != nil {
			return nil, refusal
		}
	} else {
		push := verify.Push{Target: request.Target, Header: header, Body: request.Body}
		if err := s.cfg.Verifier.VerifyPush(ctx, push, now); err != nil {
			return nil, admission.NotVerified(err)
		}
		envelope, err := openEnvelope(request.Body)
		if refusal := s.checkTopic(header, envelope.topic); refusal != nil {
			return nil, refusal
		}
		if err != nil {
			return nil, notRead(err)
		}
		message = envelope.message
	}
	told, ignored, err := readMessage(message)
	if err != nil {
		return nil, notRead(err)
	}
	seen.ignored = ignored
	s.metrics.results.WithLabelValues(resultIgnored).Add(float64(ignored))
	return told, nil
}

func notRead(err error) *admission.Refusal {
	return &admission.Refusal{Code: admission.Malformed, Reason: admission.ReasonBody, Message: err.Error(), Cause: err}
}

// isBridge reports whether EventBridge sends a request, or someone who says so: MNS has no such
// headers, and its own do not count then.
func isBridge(header http.Header) bool {
	for name := range header {
		if strings.HasPrefix(name, bridgePrefix) {
			return true
		}
	}
	return false
}

// checkBridge compares the token, in a time that does not tell how much of it is right.
func (s *Server) checkBridge(header http.Header) *admission.Refusal {
	given := sha256.Sum256([]byte(textproto.MIMEHeader(header).Get(bridgeToken)))
	if s.cfg.Token == "" || subtle.ConstantTimeCompare(given[:], s.token[:]) != 1 {
		return &admission.Refusal{Code: admission.BadToken, Reason: ReasonBridgeToken,
			Message: "x-eventbridge-signature-token is not the token of this receiver"}
	}
	return nil
}

// record returns when everything that a message tells and we accept is durable, or the refusal to answer with. An event
// that is refused keeps the others neither from being recorded nor from being acknowledged: MNS would push all of them
// again, for a day. What could not be recorded now must come again; a repeat of the rest is known by its id. A message
// of which nothing is accepted is refused.
func (s *Server) record(
	ctx context.Context, request *admission.Request, told []*happening, now time.Time, seen *logEvent,
) *admission.Refusal {
	refusals := make([]*admission.Refusal, len(told))
	outcomes := make([]recorder.Outcome, len(told))
	slots := make(chan struct{}, recordAtOnce)
	var recording sync.WaitGroup
	for i, h := range told {
		h.event.SourceAddr = request.Source
		if refusals[i] = s.admit(h, now); refusals[i] != nil {
			continue
		}
		slots <- struct{}{}
		recording.Go(func() {
			defer func() { <-slots }()
			outcomes[i], refusals[i] = s.keep(ctx, &h.event)
		})
	}
	recording.Wait()
	var kept, later bool
	for i, h := range told {
		if r := refusals[i]; r != nil {
			seen.note(&h.event, "")
			s.refused(request, &h.event, r, now)
			if seen.refused++; seen.refusal == nil || !later && mayPass(r) {
				seen.refusal, later = r, mayPass(r)
			}
			continue
		}
		kept = true
		result := resultRecorded
		switch {
		case outcomes[i].Duplicate:
			result = resultDuplicate
		case outcomes[i].Durable != recorder.InPostgres:
			result = resultSpooled
		}
		seen.note(&h.event, result)
		s.metrics.results.WithLabelValues(result).Inc()
	}
	if kept && !later {
		return nil
	}
	return seen.refusal
}

// mayPass reports whether the same event may be recorded later. What PostgreSQL cannot hold will not.
func mayPass(r *admission.Refusal) bool {
	return r.Code == admission.Unavailable && r.Reason != admission.ReasonNotStorable
}

// keep records one event. A panic in it must cost this event, not the process.
func (s *Server) keep(ctx context.Context, e *event.Event) (outcome recorder.Outcome, refusal *admission.Refusal) {
	defer func() {
		if p := recover(); p != nil {
			refusal = admission.Ours(admission.ReasonPanic, fmt.Errorf("panic: %v", p))
		}
	}()
	outcome, err := s.cfg.Recorder.Record(ctx, e)
	if err != nil {
		return outcome, admission.NotRecorded(err)
	}
	return outcome, nil
}

// admit checks one event. What is told of the future would be counted there, and perhaps have
// no place in the database.
func (s *Server) admit(h *happening, now time.Time) *admission.Refusal {
	if h.event.ReceivedAt.After(now.Add(aheadMost)) {
		return &admission.Refusal{Code: admission.Malformed, Reason: ReasonEventTime, Message: "an event is of the future"}
	}
	return s.policy.AdmitNotified(&h.event, h.vars)
}

// refused counts a refusal and has it kept: that of an event, or of the whole request if e is nil.
func (s *Server) refused(request *admission.Request, e *event.Event, r *admission.Refusal, now time.Time) *admission.Refusal {
	s.metrics.refusals.WithLabelValues(string(r.Reason)).Inc()
	if s.cfg.Refusals != nil {
		s.cfg.Refusals.Refused(r, now, func() event.RefusedCallback { return describe(request, e, r, now) })
	}
	return r
}

// describe returns the row of a refusal: what the event says, or what the body claims. The digest
// tells messages apart, and not how often they came.
func describe(request *admission.Request, e *event.Event, r *admission.Refusal, now time.Time) event.RefusedCallback {
	row := event.RefusedCallback{Reason: string(r.Reason), At: now, Source: request.Source}
	if e == nil {
		digest := sha256.New()
		parts := [][]byte{[]byte("notification"), request.Body}
		if len(request.Body) == 0 || len(request.Body) > MaxBody {
			parts = [][]byte{[]byte("notification"), []byte(request.Target), []byte(request.Authorization)}
		}
		for _, part := range parts {
			digest.Write(part)
			digest.Write([]byte{0})
		}
		row.Digest = uuid.UUID(digest.Sum(nil)[:16])
		if e = claimed(request.Body); e == nil {
			return row
		}
	}
	row.Digest = cmp.Or(row.Digest, e.ID)
	row.Bucket, row.Object, row.RequestID, row.UploadID = e.Callback.Bucket, e.Callback.Object, e.Callback.RequestID, e.UploadID
	return row
}

// claimed returns the first event that a body tells of, or nil. Nothing says yet who sent it.
func claimed(body []byte) *event.Event {
	if len(body) > MaxBody {
		return nil
	}
	message := string(body)
	if envelope, err := openEnvelope(body); err == nil {
		message = envelope.message
	}
	told, _, err := readMessage(message)
	if err != nil || len(told) == 0 {
		return nil
	}
	return &told[0].event
}
