// Package receiverfake plays a receiver of callbacks, which takes them as they are.
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
	// Answer is what a receiver says unless it is told otherwise, and an uploader must see.
	Answer = `{"status":"ok"}`
	// RefusePath is where it answers 403 instead.
	RefusePath = "/refuse"
)

// A Callback is one request that came.
type Callback struct {
	Method, Target, Host string
	Header               http.Header
	Body                 string
}

// A Receiver keeps what it was sent.
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

// AnswerWith sets what answers from now on. The request's body has been read.
func (r *Receiver) AnswerWith(answer http.HandlerFunc) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = answer
}

// Callbacks returns those that came.
func (r *Receiver) Callbacks() []Callback {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Callback(nil), r.came...)
}

// One returns the one callback that came since the last call, and fails the test if
// there is none or more.
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
		return // cut off: it is no callback
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
