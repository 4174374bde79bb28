package api

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"upcall/internal/webhook"
)

// TestHooks goes through the life of an endpoint.
func TestHooks(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	var calls atomic.Int64
	application := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		w.WriteHeader(http.StatusNoContent)
	}))
	defer application.Close()
	do := func(method, path, body string, status int) reply {
		t.Helper()
		got := w.call(t, method, "/v1/hooks"+path, w.operator, body)
		if got.status != status || got.header.Get("Cache-Control") != "no-store" {
			t.Fatalf("%s %s: %d %v %s", method, path, got.status, got.header, got.text)
		}
		return got
	}
	if got := do("GET", "", "", 200); got.text != `{"hooks":[]}` {
		t.Errorf("no endpoint: %s", got.text)
	}
	made := do("POST", "", `{"name":"app","url":"`+application.URL+`","buckets":["photos"],"vars":{"a":"b"},"headers":{"X-Token":"hush"},"max_in_flight":2}`, 201)
	secret, err := webhook.ParseSecret(made.hook.Secret)
	if err != nil || made.header.Get("Location") != "/v1/hooks/"+made.hook.ID || strings.Contains(made.text, "hush") {
		t.Fatalf("%v: %v %s", err, made.header, made.text)
	}
	if got := do("GET", "/app", "", 200); got.hook.ID != made.hook.ID || strings.Contains(got.text, "secret") || strings.Contains(got.text, "hush") {
		t.Errorf("by name: %s", got.text)
	}
	if got := w.call(t, "GET", "/v1/hooks/"+made.hook.ID, w.viewer, ""); got.status != 200 || got.hook.Name != "app" {
		t.Errorf("by id, as viewer: %d %s", got.status, got.text)
	}
	changed := do("PATCH", "/app", `{"name":"app.2","buckets":[],"key_prefixes":["a/"]}`, 200).hook
	if diff := cmp.Diff([][]string{{}, {"a/"}, {"X-Token"}}, [][]string{changed.Buckets, changed.KeyPrefixes, changed.Headers}); diff != "" ||
		changed.Name != "app.2" || changed.MaxInFlight != 2 || changed.Vars["a"] != "b" {
		t.Errorf("changed: %+v, %s", changed, diff)
	}
	if got := do("POST", "/app.2/test", "", 200); !strings.Contains(got.text, `"delivered":true,"status":204`) || calls.Load() != 1 {
		t.Errorf("sample: %s after %d calls", got.text, calls.Load())
	}
	if got := do("GET", "/app.2/attempts?limit=1", "", 200); strings.Count(got.text, `"reason":"test"`) != 1 {
		t.Errorf("attempts: %s", got.text)
	}
	if got := do("GET", "/app.2/attempts?before=2001-01-01T00:00:00Z", "", 200); got.text != `{"attempts":[]}` {
		t.Errorf("attempts of earlier: %s", got.text)
	}
	if got := do("POST", "/app.2/pause", "{}", 200); got.hook.State != "paused" {
		t.Errorf("paused: %s", got.text)
	}
	if got := do("POST", "/app.2/resume", "", 200); got.hook.State != "active" {
		t.Errorf("resumed: %s", got.text)
	}
	rotated := do("POST", "/app.2/rotate", `{"keep":"1h"}`, 200)
	if next, err := webhook.ParseSecret(rotated.hook.Secret); err != nil || next.Reveal() == secret.Reveal() || rotated.hook.RotatedUntil == nil {
		t.Errorf("rotated: %v, %s", err, rotated.text)
	}
	given := webhook.NewSecret().Reveal()
	if got := do("POST", "/app.2/rotate", `{"secret":"`+given+`","keep":"0s"}`, 200); got.hook.Secret != "" || got.hook.RotatedUntil != nil {
		t.Errorf("rotated to a given secret: %s", got.text)
	}
	do("PATCH", "/app.2", `{"key_prefixes":[],"vars":{}}`, 200)
	ids := w.add(t, "photos", 3)
	for body, want := range map[string]string{
		"": `{"redelivered":0}`, `{"event":"` + ids[1] + `"}`: `{"redelivered":1}`, `{"since":"2001-01-01T00:00:00Z"}`: `{"redelivered":3}`,
	} {
		if got := do("POST", "/app.2/redeliver", body, 200); got.text != want {
			t.Errorf("redeliver %s: %s", body, got.text)
		}
	}
	if got := do("POST", "", `{"url":"`+application.URL+`","secret":"`+given+`","from":"oldest"}`, 201); got.hook.Secret != "" ||
		!strings.HasPrefix(got.hook.Name, "hook-") {
		t.Errorf("with a given secret: %s", got.text)
	}
	if got := do("DELETE", "/"+made.hook.ID, "", 204); got.text != "" {
		t.Errorf("removed: %s", got.text)
	}
	do("GET", "/app.2", "", 404)
	if got := do("GET", "", "", 200); strings.Count(got.text, `"id":`) != 1 {
		t.Errorf("what is left: %s", got.text)
	}
}

// TestSlowChange checks that an answer without a body is sent, too, after a change that took longer
// than the server's timeout.
func TestSlowChange(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	handler := w.handle(route{"DELETE /v1/x", "", func(w http.ResponseWriter, _ *http.Request) error {
		time.Sleep(500 * time.Millisecond) // what the change takes
		w.WriteHeader(http.StatusNoContent)
		return nil
	}})
	server := httptest.NewUnstartedServer(handler)
	server.Config.WriteTimeout = 100 * time.Millisecond
	server.Start()
	defer server.Close()
	if got := call(t, "DELETE", server.URL, "", ""); got.status != http.StatusNoContent {
		t.Errorf("%d %s", got.status, got.text)
	}
}

// TestRefusedBodies checks that each mistake in a body gets one problem document that names it
// and changes nothing.
func TestRefusedBodies(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	const url = `"url":"http://127.0.0.1:1/"`
	made := w.call(t, "POST", "/v1/hooks", w.operator, `{"name":"app",`+url+`,"headers":{"X":"y"}}`)
	if made.status != 201 {
		t.Fatal(made.text)
	}
	w.add(t, "photos", 1)
	before := w.rows(t)
	long := strings.Repeat("a", 2049)
	for _, tt := range []struct {
		call, body string
		status     int
		fields     string
	}{
		// the form of a body
		{"POST /v1/hooks", ``, 415, ""},
		{"POST /v1/hooks", ` `, 400, "body"},
		{"POST /v1/hooks", `[]`, 400, "body"},
		{"POST /v1/hooks", `null`, 400, "body"},
		{"POST /v1/hooks", `{` + url, 400, "body"},
		{"POST /v1/hooks", `{` + url + `,}`, 400, "body"},
		{"POST /v1/hooks", `{` + url + `} {}`, 400, "body"},
		{"POST /v1/hooks", "{" + url + ",\"name\":\"\xff\"}", 400, "body"},
		{"POST /v1/hooks", `{` + url + `,` + url + `}`, 400, "url"},
		{"POST /v1/hooks", `{` + url + `,"URL":"x"}`, 400, "URL"},
		{"POST /v1/hooks", `{` + url + `,"buckt":["photos"],"name":1}`, 400, "buckt name"},
		{"POST /v1/hooks", `{` + url + `,"name":null}`, 400, "name"},
		{"POST /v1/hooks", `{` + url + `,"buckets":"photos"}`, 400, "buckets"},
		{"POST /v1/hooks", `{` + url + `,"buckets":["photos",1]}`, 400, "buckets"},
		{"POST /v1/hooks", `{` + url + `,"vars":{"a":1}}`, 400, "vars"},
		{"POST /v1/hooks", `{` + url + `,"vars":{"a":"1","a":"2"}}`, 400, "vars"},
		{"POST /v1/hooks", `{` + url + `,"vars":[]}`, 400, "vars"},
		{"POST /v1/hooks", `{` + url + `,"key_prefixes":["\ud800"]}`, 400, "key_prefixes"},
		{"POST /v1/hooks", `{"url":"` + strings.Repeat("a", mostBody) + `"}`, 413, ""},
		// what is in it
		{"POST /v1/hooks", `{}`, 400, "url"},
		{"POST /v1/hooks", `{"url":""}`, 400, "url"},
		{"POST /v1/hooks", `{"url":"ftp://example.com/"}`, 400, "url"},
		{"POST /v1/hooks", `{"url":"https://10.0.0.1/"}`, 400, "url"},
		{"POST /v1/hooks", `{"url":"https://169.254.169.254/"}`, 400, "url"},
		{"POST /v1/hooks", `{"url":"https://u:p@example.com/"}`, 400, "url"},
		{"POST /v1/hooks", `{"url":"https://example.com/#a"}`, 400, "url"},
		{"POST /v1/hooks", `{"url":"https://example.com/` + long + `"}`, 400, "url"},
		{"POST /v1/hooks", `{` + url + `,"name":""}`, 400, "name"},
		{"POST /v1/hooks", `{` + url + `,"name":"` + made.hook.ID + `"}`, 400, "name"},
		{"POST /v1/hooks", `{` + url + `,"name":"a/b"}`, 400, "name"},
		{"POST /v1/hooks", `{` + url + `,"name":"app"}`, 409, "name"},
		{"POST /v1/hooks", `{` + url + `,"on":["deleted"]}`, 400, "on"},
		{"POST /v1/hooks", `{` + url + `,"on":["gone","gone"]}`, 400, "on"},
		{"POST /v1/hooks", `{` + url + `,"buckets":["A"]}`, 400, "buckets"},
		{"POST /v1/hooks", `{` + url + `,"buckets":[""]}`, 400, "buckets"},
		{"POST /v1/hooks", `{` + url + `,"key_prefixes":[""]}`, 400, "key_prefixes"},
		{"POST /v1/hooks", `{` + url + `,"key_prefixes":["\u0000"]}`, 400, "key_prefixes"},
		{"POST /v1/hooks", `{` + url + `,"key_globs":["[a"]}`, 400, "key_globs"},
		{"POST /v1/hooks", `{` + url + `,"key_globs":["a**"]}`, 400, "key_globs"},
		{"POST /v1/hooks", `{` + url + `,"mime_types":["image"]}`, 400, "mime_types"},
		{"POST /v1/hooks", `{` + url + `,"vars":{"x:a":"1"}}`, 400, "vars"},
		{"POST /v1/hooks", `{` + url + `,"max_in_flight":0}`, 400, "max_in_flight"},
		{"POST /v1/hooks", `{` + url + `,"max_in_flight":65}`, 400, "max_in_flight"},
		{"POST /v1/hooks", `{` + url + `,"max_in_flight":1.5}`, 400, "max_in_flight"},
		{"POST /v1/hooks", `{` + url + `,"max_in_flight":"8"}`, 400, "max_in_flight"},
		{"POST /v1/hooks", `{` + url + `,"headers":{"Host":"a"}}`, 400, "headers"},
		{"POST /v1/hooks", `{` + url + `,"headers":{"Webhook-Id":"a"}}`, 400, "headers"},
		{"POST /v1/hooks", `{` + url + `,"headers":{"X":"hush\r\nY: z"}}`, 400, "headers"},
		{"POST /v1/hooks", `{` + url + `,"secret":"hush"}`, 400, "secret"},
		{"POST /v1/hooks", `{` + url + `,"secret":""}`, 400, "secret"},
		{"POST /v1/hooks", `{` + url + `,"secret":"whsec_aHVzaA=="}`, 400, "secret"},
		{"POST /v1/hooks", `{` + url + `,"from":"yesterday"}`, 400, "from"},
		{"POST /v1/hooks", `{` + url + `,"from":""}`, 400, "from"},
		{"POST /v1/hooks", `{` + url + `,"from":"2026-13-01T00:00:00Z"}`, 400, "from"},
		{"POST /v1/hooks?dry_run=1", `{` + url + `}`, 400, "dry_run"},
		{"PATCH /v1/hooks/app", `{}`, 400, "body"},
		{"PATCH /v1/hooks/app", ``, 415, ""},
		{"PATCH /v1/hooks/app", `{"url":"http://10.0.0.1/","name":"b"}`, 400, "url"},
		{"PATCH /v1/hooks/app", `{"name":""}`, 400, "name"},
		{"PATCH /v1/hooks/app", `{"secret":"hush"}`, 400, "secret"},
		{"PATCH /v1/hooks/app", `{"state":"paused"}`, 400, "state"},
		{"PATCH /v1/hooks/other", `{"name":"b"}`, 404, "id"},
		{"POST /v1/hooks/app/pause", `{"for":"1h"}`, 400, "for"},
		{"POST /v1/hooks/app/resume?at=now", ``, 400, "at"},
		{"POST /v1/hooks/app/test", `x`, 400, "body"},
		{"DELETE /v1/hooks/app", `{"force":true}`, 400, "force"},
		{"POST /v1/hooks/app/rotate", `{"secret":"whsec_hush!"}`, 400, "secret"},
		{"POST /v1/hooks/app/rotate", `{"keep":"1 day"}`, 400, "keep"},
		{"POST /v1/hooks/app/rotate", `{"keep":"-1s"}`, 400, "keep"},
		{"POST /v1/hooks/app/rotate", `{"keep":"721h"}`, 400, "keep"},
		{"POST /v1/hooks/app/redeliver", `{"event":"x","since":"now"}`, 400, "event since"},
		{"POST /v1/hooks/app/redeliver", `{"event":"{00000000-0000-0000-0000-000000000001}"}`, 400, "event"},
		{"POST /v1/hooks/app/redeliver", `{"event":"00000000-0000-0000-0000-000000000001"}`, 404, "event"},
		{"POST /v1/hooks/app/redeliver", `{"since":"2026-11-02T00:00:00Z","until":"2026-11-01T00:00:00Z"}`, 400, "until"},
		{"POST /v1/hooks/app/redeliver", `{"since":""}`, 400, "since"},
		{"GET /v1/hooks?limit=1", ``, 400, "limit"},
		{"GET /v1/hooks/app?x=", ``, 400, "x"},
		{"GET /v1/hooks/app/attempts?limit=0", ``, 400, "limit"},
		{"GET /v1/hooks/app/attempts?before=now", ``, 400, "before"},
		{"GET /v1/hooks/%00", ``, 404, "id"},
		{"GET /v1/hooks/a%2Fb", ``, 404, "id"},
		{"GET /v1/hooks/00000000-0000-0000-0000-000000000001", ``, 404, "id"},
		{"GET /v1/hooks/other/attempts", ``, 404, "id"},
		{"DELETE /v1/hooks/other", ``, 404, "id"},
		{"POST /v1/hooks/other/pause", ``, 404, "id"},
		{"POST /v1/hooks/other/resume", ``, 404, "id"},
		{"POST /v1/hooks/other/rotate", ``, 404, "id"},
		{"POST /v1/hooks/other/test", ``, 404, "id"},
		{"POST /v1/hooks/other/redeliver", ``, 404, "id"},
		{"PUT /v1/hooks/app", `{}`, 405, ""},
		{"POST /v1/hooks/app/disable", ``, 404, ""},
	} {
		method, path, _ := strings.Cut(tt.call, " ")
		got := w.call(t, method, path, w.operator, tt.body)
		var fields []string
		for _, e := range got.body.Errors {
			fields = append(fields, e.Field)
			if e.Detail == "" || strings.Contains(e.Detail, "\n") {
				t.Errorf("%s %.100s: says %q", tt.call, tt.body, e.Detail)
			}
		}
		if got.status != tt.status || strings.Join(fields, " ") != tt.fields || got.body.Status != tt.status || got.body.Detail == "" ||
			got.header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s %.100s: %d %s", tt.call, tt.body, got.status, got.text)
		}
		if strings.Contains(got.text, "hush") || strings.Contains(got.text, "receiver hooks") {
			t.Errorf("%s %.100s shows a secret, or what only the command line has: %s", tt.call, tt.body, got.text)
		}
	}
	if diff := cmp.Diff(before, w.rows(t)); diff != "" {
		t.Errorf("changed (-before +after):\n%s", diff)
	}
}

// rows returns all that calls could change.
func (w *world) rows(t *testing.T) (all []string) {
	t.Helper()
	for _, table := range []string{"hook_endpoints", "hook_retries", "hook_attempts", "hook_changes", "feed_consumers", "api_keys"} {
		rows, err := w.pool.Query(t.Context(), "SELECT t::text FROM upcall."+table+" AS t ORDER BY 1")
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		for rows.Next() {
			var text string
			if err := rows.Scan(&text); err != nil {
				t.Fatal(err)
			}
			all = append(all, table+text)
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// TestMediaTypes checks what is read of a body that is not plain JSON.
func TestMediaTypes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	for _, tt := range []struct {
		kind, encoding string
		chunked        bool
		size, status   int
	}{
		{"", "", false, 2, 415}, {"text/plain", "", false, 2, 415}, {"application/json; charset=latin1", "", false, 2, 415},
		{"application/merge-patch+json", "", false, 2, 415}, {"application/json", "gzip", false, 2, 415},
		{"application/json", "identity", false, 2, 400}, {"application/json; charset=UTF-8", "", false, 2, 400},
		{"application/json", "", true, mostBody + 1, 413}, {"application/json", "", true, mostBody, 400},
	} {
		var body io.Reader = strings.NewReader("{" + strings.Repeat(" ", tt.size-2) + "}")
		if tt.chunked {
			body = io.MultiReader(body) // of a length that the client does not know
		}
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.url+"/v1/hooks", body)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+w.operator)
		for name, value := range map[string]string{"Content-Type": tt.kind, "Content-Encoding": tt.encoding} {
			if value != "" {
				r.Header.Set(name, value)
			}
		}
		if got := send(t, r); got.status != tt.status || got.body.Status != tt.status {
			t.Errorf("%+v: %d %s", tt, got.status, got.text)
		}
	}
}
