package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"upcall/internal/apikey"
	"upcall/internal/event"
	"upcall/internal/fault"
	"upcall/internal/feed"
	"upcall/internal/hooks"
)

// A kind of problem has a label, on which a program may branch.
type kind struct {
	label  string
	status int
	title  string
}

var (
	kindMalformed       = kind{"malformed", http.StatusBadRequest, "The request cannot be read"}
	kindUnauthenticated = kind{"unauthenticated", http.StatusUnauthorized, "A valid API key is needed"}
	kindForbidden       = kind{"forbidden", http.StatusForbidden, "The role of the API key does not allow this"}
	kindNotFound        = kind{"not-found", http.StatusNotFound, "Not found"}
	kindMethod          = kind{"method-not-allowed", http.StatusMethodNotAllowed, "The method is not allowed here"}
	kindConflict        = kind{"conflict", http.StatusConflict, "There is one already"}
	kindGone            = kind{"gone", http.StatusGone, "The cursor is older than the log"}
	kindTooLarge        = kind{"too-large", http.StatusRequestEntityTooLarge, "The request is too large"}
	kindMediaType       = kind{"unsupported-media-type", http.StatusUnsupportedMediaType, "The request is not JSON"}
	kindUnavailable     = kind{"unavailable", http.StatusServiceUnavailable, "This cannot be answered now"}
	kindUnconfirmed     = kind{"unconfirmed", http.StatusServiceUnavailable, "The change is made, but not in force yet"}
	kindBehind          = kind{"behind", http.StatusServiceUnavailable, "There is work to do"}
)

// A problem says why a request is refused.
type problem struct {
	kind   kind
	detail string
	errors fault.List // the members or parameters that are wrong
	allow  []string   // methods, of kindMethod
	oldest string     // cursor, of kindGone
	behind []string   // of kindBehind
	cause  error      // only for the log
}

func (p *problem) Error() string { return p.detail }

func (p *problem) Unwrap() error { return p.cause }

// asProblem turns an error into a problem. An unknown error is our mistake: the answer is 503,
// and the log says why.
func asProblem(err error) *problem {
	if p, ok := errors.AsType[*problem](err); ok {
		return p
	}
	if gone, ok := errors.AsType[*feed.GoneError](err); ok {
		return &problem{kind: kindGone, detail: "events after the cursor have been dropped; oldest is the oldest cursor", oldest: gone.Oldest.String()}
	}
	for _, known := range []struct {
		sentinel error
		kind     kind
	}{
		{apikey.ErrInvalid, kindUnauthenticated}, {hooks.ErrUnconfirmed, kindUnconfirmed},
		{feed.ErrRestored, kindUnavailable}, {feed.ErrUnready, kindUnavailable}, {feed.ErrBehind, kindUnavailable},
	} {
		if errors.Is(err, known.sentinel) {
			return &problem{kind: known.kind, detail: fault.OneLine(err).Error(), cause: err}
		}
	}
	if errors.Is(err, event.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) {
		return &problem{kind: kindUnavailable, detail: "the database did not answer in time; try again", cause: err}
	}
	if mistakes := mistakesOf(err); mistakes != nil {
		p := &problem{kind: kindMalformed, detail: fault.Line(mistakes[0].Error()), errors: mistakes}
		if more := len(mistakes) - 1; more > 0 {
			p.detail += fmt.Sprintf(" (and %d more)", more)
		}
		switch {
		case errors.Is(err, hooks.ErrNotFound):
			p.kind = kindNotFound
		case errors.Is(err, hooks.ErrExists):
			p.kind = kindConflict
		}
		return p
	}
	return &problem{kind: kindUnavailable, detail: "try again; the receiver's log says why", cause: err}
}

// mistakesOf returns what a caller can fix: mistakes that all name a member or a parameter.
func mistakesOf(err error) fault.List {
	mistakes := slices.Clone(fault.Of(err))
	for i, m := range mistakes {
		switch m.Field {
		case "":
			return nil
		case "endpoint": // as package hooks and the command line call it
			mistakes[i].Field, mistakes[i].Fix = "id", "see GET /v1/hooks"
		}
	}
	return mistakes
}

// write answers with the problem.
func (p *problem) write(w http.ResponseWriter) {
	type item struct {
		Field  string `json:"field"`
		Detail string `json:"detail"`
	}
	var items []item
	for _, m := range p.errors {
		detail := fault.Fault{Problem: m.Problem, Fix: m.Fix}
		items = append(items, item{m.Field, detail.Error()})
	}
	h := w.Header()
	switch {
	case p.kind == kindUnauthenticated:
		h.Set("WWW-Authenticate", `Bearer realm="upcall"`)
	case p.kind == kindMethod:
		h.Set("Allow", strings.Join(p.allow, ", "))
	case p.kind == kindTooLarge:
		h.Set("Connection", "close") // the rest of the message is not read
	case p.kind.status == http.StatusServiceUnavailable:
		h.Set("Retry-After", "1")
	}
	body, err := json.Marshal(struct {
		Type   string   `json:"type"`
		Title  string   `json:"title"`
		Status int      `json:"status"`
		Detail string   `json:"detail"`
		Errors []item   `json:"errors,omitempty"`
		Oldest string   `json:"oldest,omitempty"`
		Behind []string `json:"behind,omitempty"`
	}{"urn:upcall:problem:" + p.kind.label, p.kind.title, p.kind.status, p.detail, items, p.oldest, p.behind})
	if err != nil {
		panic(err) // strings and numbers
	}
	writeBody(w, p.kind.status, "application/problem+json", body)
}

func writeBody(w http.ResponseWriter, status int, contentType string, body []byte) {
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client may be gone
}
