package console

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

// An object is the JSON of an answer.
type object = map[string]any

// call makes a call of the API as the visitor. The answer is nil if there is none.
func (v *visit) call(method, path string, query url.Values, body any) (status int, answer object) {
	var sent []byte
	if body != nil {
		var err error
		if sent, err = json.Marshal(body); err != nil {
			panic(err) // texts, numbers and lists of them
		}
	}
	target := url.URL{Path: path, RawQuery: query.Encode()}
	r, err := http.NewRequestWithContext(v.Context(), method, target.String(), bytes.NewReader(sent))
	if err != nil {
		return http.StatusNotFound, problem("Not found", path)
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	got := &recorded{header: make(http.Header), status: http.StatusOK}
	v.console.cfg.API.ServeAs(got, r, v.console.who(v.session))
	if got.body.Len() == 0 {
		return got.status, nil
	}
	dec := json.NewDecoder(&got.body)
	dec.UseNumber()
	if err := dec.Decode(&answer); err != nil {
		return http.StatusInternalServerError, problem("This cannot be answered now", fmt.Sprintf("the answer of %s is not JSON", path))
	}
	return got.status, answer
}

// get makes a call that reads. If it fails, the problem is shown, and answer is nil.
func (v *visit) get(w http.ResponseWriter, path string, query url.Values) (answer object) {
	status, answer := v.call(http.MethodGet, path, query, nil)
	if status != http.StatusOK {
		v.problem(w, status, answer)
		return nil
	}
	return answer
}

func problem(title, detail string) object { return object{"title": title, "detail": detail} }

// problem shows why the API refused a call.
func (v *visit) problem(w http.ResponseWriter, status int, answer object) {
	if answer == nil {
		answer = problem(http.StatusText(status), "")
	}
	v.show(w, status, "problem", "It did not work", answer)
}

// recorded is an answer in memory.
type recorded struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (r *recorded) Header() http.Header              { return r.header }
func (r *recorded) WriteHeader(status int)           { r.status = status }
func (r *recorded) Write(b []byte) (int, error)      { return r.body.Write(b) }
func (r *recorded) SetWriteDeadline(time.Time) error { return nil } // memory is never slow
func (r *recorded) SetReadDeadline(time.Time) error  { return nil }
