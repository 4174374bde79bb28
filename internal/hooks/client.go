package hooks

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"time"

	"code.dny.dev/ssrf"

	"upcall/internal/fault"
	"upcall/internal/webhook"
)

const (
	// attemptTimeout bounds all of an attempt: the name, the connection, the request, the answer.
	attemptTimeout = 15 * time.Second
	// maxAnswer is how much of an answer is read, so that its connection can be used again.
	maxAnswer = 64 << 10
	// keptAnswer is how much of an answer is kept with the attempt.
	keptAnswer = 1 << 10
	// maxAnswerHeaders bounds what an endpoint can make us hold for one attempt.
	maxAnswerHeaders = 64 << 10
)

// A sender sends requests to endpoints. Their URLs come from people who may want to reach what
// only this host can (server-side request forgery), so it connects to public and allowed
// addresses only, checked when the connection is made, follows no redirect, and uses no proxy.
type sender struct {
	transport *http.Transport
	now       func() time.Time
	agent     string
	timeout   time.Duration // of an attempt
}

// newSender returns a sender. resolver is for tests; nil is the system's.
func newSender(rules Rules, now func() time.Time, resolver *net.Resolver) *sender {
	dialer := &net.Dialer{Timeout: attemptTimeout, KeepAlive: 15 * time.Second, Resolver: resolver, Control: rules.guard().Safe}
	return &sender{now: now, agent: "Upcall/1", timeout: attemptTimeout, transport: &http.Transport{
		// With a proxy from the environment, the guard would see the proxy's address only.
		Proxy:                  nil,
		DialContext:            dialer.DialContext,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    attemptTimeout,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true, // an answer that grows when it is unpacked
		MaxIdleConns:           4 * maxMaxInFlight,
		MaxIdleConnsPerHost:    maxMaxInFlight,
		IdleConnTimeout:        60 * time.Second,
		MaxResponseHeaderBytes: maxAnswerHeaders,
	}}
}

// A request is one attempt to deliver a message.
type request struct {
	url     string
	headers map[string]string
	secrets []webhook.Secret // the newest first
	id      string           // the same on every attempt
	body    []byte
	// connected and sent are called when there is a connection and after the request was
	// written to it; nil is none.
	connected, sent func()
}

// An outcome is what became of an attempt.
type outcome struct {
	began      time.Time
	took       time.Duration
	status     int    // 0 if there was no answer
	answer     string // its beginning
	problem    string // why there was no good answer; "" if there was
	retryAfter time.Duration
}

func (o *outcome) delivered() bool { return o.status >= 200 && o.status <= 299 }

// errInterrupted says that the caller ended an attempt. Whether it reached the endpoint is not
// known.
var errInterrupted = errors.New("interrupted")

// send makes one attempt. The error is errInterrupted if ctx ended first.
func (s *sender) send(ctx context.Context, r request) (outcome, error) {
	started, o := time.Now(), outcome{began: s.now()}
	limited, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	traced := httptrace.WithClientTrace(limited, &httptrace.ClientTrace{
		GotConn:      func(httptrace.GotConnInfo) { call(r.connected) },
		WroteRequest: func(httptrace.WroteRequestInfo) { call(r.sent) },
	})
	req, err := http.NewRequestWithContext(traced, http.MethodPost, r.url, bytes.NewReader(r.body))
	if err != nil {
		return o, fmt.Errorf("make request: %w", err) // cannot happen: the URL was checked
	}
	for name, value := range r.headers {
		req.Header.Set(name, value)
	}
	if req.Header.Get("User-Agent") == "" {
		req.Header.Set("User-Agent", s.agent)
	}
	req.Header.Set("Content-Type", webhook.ContentType)
	webhook.Sign(req.Header, r.id, o.began, r.body, r.secrets)

	response, err := s.transport.RoundTrip(req) // unlike a client, it follows no redirect
	if err != nil {
		if ctx.Err() != nil {
			return o, errInterrupted
		}
		o.took, o.problem = time.Since(started), explain(err)
		return o, nil
	}
	defer response.Body.Close()
	head := make([]byte, keptAnswer)
	n, _ := io.ReadFull(response.Body, head) // what is missing does not matter: the status counts
	_, _ = io.CopyN(io.Discard, response.Body, maxAnswer-keptAnswer)
	o.took, o.status, o.answer = time.Since(started), response.StatusCode, strings.ToValidUTF8(string(head[:n]), "\uFFFD")
	o.answer = strings.ReplaceAll(o.answer, "\x00", "\uFFFD") // which PostgreSQL cannot hold
	o.retryAfter = retryAfter(response.Header, o.began)
	if !o.delivered() {
		o.problem = "the answer is " + response.Status
		if o.status >= 300 && o.status <= 399 {
			o.problem += "; redirects are not followed"
		}
		o.problem = fault.Line(o.problem)
	}
	return o, nil
}

func call(f func()) {
	if f != nil {
		f()
	}
}

// explain says on one line why there is no answer. It leaves out the URL, which may hold
// secrets.
func explain(err error) string {
	var dns *net.DNSError
	switch {
	case errors.Is(err, ssrf.ErrProhibitedIP) || errors.Is(err, ssrf.ErrProhibitedNetwork) || errors.Is(err, ssrf.ErrInvalidHostPort):
		return "the address is not public; UPCALL_HOOKS_ALLOW_CIDRS allows private ones"
	case errors.Is(err, context.DeadlineExceeded):
		return "no answer within " + attemptTimeout.String()
	case errors.As(err, &dns):
		return "the host was not found: " + fault.Short(fault.Line(dns.Err))
	}
	return fault.Short(fault.Line(err.Error()))
}

// close ends idle connections.
func (s *sender) close() { s.transport.CloseIdleConnections() }
