// Package receiverfake plays a receiver that accepts callbacks without checking them.
package receiverfake

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"
)

const (
	// Answer is the default answer of a receiver, which an uploader must get.
	Answer = `{"status":"ok"}`
	// RefusePath is the path at which it answers 403 instead.
	RefusePath = "/refuse"
)

// A Callback is one request to the receiver.
type Callback struct {
	Method, Target, Host string
	Header               http.Header
	Body                 string
}

// A Receiver keeps the callbacks that it gets.
type Receiver struct {
	*httptest.Server

	mu     sync.Mutex
	came   []Callback
	answer http.HandlerFunc
}

// New starts a receiver for the test.
func New(t testing.TB) *Receiver {
	t.Helper()
	r := NewUnstarted(t)
	r.Start()
	return r
}

// NewUnstarted returns a receiver for the caller to start, such as with TLS.
func NewUnstarted(t testing.TB) *Receiver {
	t.Helper()
	r := &Receiver{answer: func(w http.ResponseWriter, request *http.Request) {
		if request.URL.Path == RefusePath {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		Respond(w, http.StatusOK, Answer)
	}}
	r.Server = httptest.NewUnstartedServer(r)
	t.Cleanup(r.Server.Close)
	return r
}

// AnswerWith sets the handler that answers from now on, after the request's body was read.
func (r *Receiver) AnswerWith(answer http.HandlerFunc) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = answer
}

// Callbacks returns the callbacks that came.
func (r *Receiver) Callbacks() []Callback {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Callback(nil), r.came...)
}

// One returns the only callback since the last call, and fails the test if there is none or
// more than one.
func (r *Receiver) One(t testing.TB) Callback {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	came := r.came
	r.came = nil
	if len(came) != 1 {
		t.Fatalf("%d callbacks came, want 1", len(came))
	}
	return came[0]
}

func (r *Receiver) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	body, err := io.ReadAll(request.Body)
	if err != nil {
		return // cut off, so it is not a callback
	}
	r.mu.Lock()
	r.came = append(r.came, Callback{request.Method, request.RequestURI, request.Host, request.Header.Clone(), string(body)})
	answer := r.answer
	r.mu.Unlock()
	answer(w, request)
}

// Respond writes JSON with a Content-Length, which OSS demands.
func Respond(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	io.WriteString(w, body)
}
