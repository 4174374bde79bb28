package issueapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"upcall/internal/event"
	"upcall/internal/eventstore"
)

// repeat sends a request with an Idempotency-Key.
func (s *service) repeat(t *testing.T, path, key, body, name string) answer {
	t.Helper()
	r := s.request(t, http.MethodPost, path, key, body)
	r.Header["Idempotency-Key"] = strings.Split(name, "\n")
	return s.do(t, r)
}

// TestRepeat: a request that comes again gets the answer that it had, and issues nothing.
func TestRepeat(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	form := strings.Replace(goodBody, `"size":11`, `"max_size":11`, 1)
	first := make(map[string]answer)
	paths := map[string]string{"/v1/uploads": goodBody, "/v1/uploads/multipart": goodBody, "/v1/uploads/form": form}
	for path, body := range paths {
		first[path] = s.repeat(t, path, s.photos, body, "a"+path)
		if first[path].status != http.StatusCreated {
			t.Fatalf("%s: %d %s", path, first[path].status, first[path].raw)
		}
	}
	for path, body := range paths {
		again := s.repeat(t, path, s.photos, body, "a"+path)
		if again.status != http.StatusCreated || again.raw != first[path].raw || again.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s again: %d %s, want %s", path, again.status, again.raw, first[path].raw)
		}
	}
	if n := s.rows(t); n != len(paths) {
		t.Errorf("%d uploads were issued", n)
	}
	const path = "/v1/uploads"
	for name, tt := range map[string]struct {
		path, key, body, name string
		status                int
		rule                  string
	}{
		"another body":          {path, s.photos, with("11", "12"), "a" + path, 422, "idempotency_key"},
		"another spelling":      {path, s.photos, goodBody + " ", "a" + path, 422, "idempotency_key"},
		"another path":          {"/v1/uploads/multipart", s.photos, goodBody, "a" + path, 422, "idempotency_key"},
		"empty":                 {path, s.photos, goodBody, "", 400, "idempotency_key"},
		"two of them":           {path, s.photos, goodBody, "a\nb", 400, "idempotency_key"},
		"long":                  {path, s.photos, goodBody, strings.Repeat("a", 256), 400, "idempotency_key"},
		"not ASCII":             {path, s.photos, goodBody, "\xc3\xa9", 400, "idempotency_key"},
		"not JSON":              {path, s.photos, "{", "b", 400, "json"},
		"the same, still not":   {path, s.photos, "{", "b", 400, "json"},
		"another API key's own": {path, s.films, `{"bucket":"demo","key":"x","size":1}`, "a" + path, 201, ""},
		"without a key":         {path, "", goodBody, "a" + path, 401, "api_key"},
	} {
		got := s.repeat(t, tt.path, tt.key, tt.body, tt.name)
		if got.status != tt.status || tt.rule != "" && got.text("rule") != tt.rule {
			t.Errorf("%s: %d %s", name, got.status, got.raw)
		}
	}
	if got := s.repeat(t, path, s.photos, goodBody, "b"); got.status != 201 {
		t.Errorf("a request that was refused before: %d %s", got.status, got.raw)
	}
	// What is kept is of no use without the API key, and is gone after a day.
	var kept []byte
	if err := s.pool.QueryRow(t.Context(), "SELECT string_agg(answer, '') FROM upcall.repeatable_requests").Scan(&kept); err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(kept, []byte("signature")) || len(kept) < 500 {
		t.Errorf("%d bytes of answers can be read", len(kept))
	}
	if _, err := s.pool.Exec(t.Context(), "UPDATE upcall.repeatable_requests SET claimed_at = now() - interval '25 hours'"); err != nil {
		t.Fatal(err)
	}
	if got := s.repeat(t, path, s.photos, with("11", "12"), "a"+path); got.status != 201 {
		t.Errorf("a day later: %d %s", got.status, got.raw)
	}
	var n int
	if err := s.pool.QueryRow(t.Context(), "SELECT count(*) FROM upcall.repeatable_requests").Scan(&n); err != nil || n != 1 {
		t.Errorf("%d requests are kept (%v), want the last", n, err)
	}
}

// TestRepeatAtOnce: of requests that come together one issues, and the others wait or get its answer.
func TestRepeatAtOnce(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	var group sync.WaitGroup
	var mu sync.Mutex
	answers := make(map[string]int)
	for range 20 {
		group.Go(func() {
			got := s.repeat(t, "/v1/uploads", s.photos, goodBody, "a")
			mu.Lock()
			defer mu.Unlock()
			if got.status == http.StatusConflict {
				if got.header.Get("Retry-After") != "1" {
					t.Errorf("%v", got.header)
				}
				return
			}
			answers[fmt.Sprintf("%d %s", got.status, got.raw)]++
		})
	}
	group.Wait()
	if len(answers) != 1 || s.rows(t) != 1 {
		t.Errorf("%d different answers, %d uploads", len(answers), s.rows(t))
	}
	// A program that was killed while it answered leaves a claim, which another one takes over.
	if _, err := s.pool.Exec(t.Context(), "UPDATE upcall.repeatable_requests SET answer = NULL"); err != nil {
		t.Fatal(err)
	}
	if got := s.repeat(t, "/v1/uploads", s.photos, goodBody, "a"); got.status != http.StatusConflict {
		t.Errorf("while it is answered: %d %s", got.status, got.raw)
	}
	if _, err := s.pool.Exec(t.Context(), "UPDATE upcall.repeatable_requests SET claimed_at = now() - interval '2 minutes'"); err != nil {
		t.Fatal(err)
	}
	if got := s.repeat(t, "/v1/uploads", s.photos, goodBody, "a"); got.status != http.StatusCreated {
		t.Errorf("after it was abandoned: %d %s", got.status, got.raw)
	}
}

// stolen lets another attempt take over before the answer is kept.
type stolen struct{ *eventstore.Repeatables }

func (s stolen) Answer(context.Context, eventstore.Repeatable, []byte) error {
	return eventstore.ErrRepeat
}

// TestRepeatNotKept: an answer that is not kept is not given, because the request could get another one when it comes again.
func TestRepeatNotKept(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		repeats func(*eventstore.Repeatables) Repeats
		status  int
	}{
		"another attempt took over": {func(r *eventstore.Repeatables) Repeats { return stolen{r} }, http.StatusConflict},
		"the database is away":      {func(*eventstore.Repeatables) Repeats { return awayRepeats{} }, http.StatusServiceUnavailable},
	} {
		s := start(t, func(c *Config) { c.Repeats = tt.repeats(c.Repeats.(*eventstore.Repeatables)) })
		if got := s.repeat(t, "/v1/uploads", s.photos, goodBody, "a"); got.status != tt.status || got.text("url") != "" {
			t.Errorf("%s: %d %s", name, got.status, got.raw)
		}
	}
}

type awayRepeats struct{}

func (awayRepeats) Begin(context.Context, eventstore.Repeatable) (eventstore.Repeatable, []byte, error) {
	return eventstore.Repeatable{}, nil, errors.Join(event.ErrUnavailable)
}
func (awayRepeats) Answer(context.Context, eventstore.Repeatable, []byte) error { return nil }
func (awayRepeats) Forget(context.Context, eventstore.Repeatable) error         { return nil }
