package api

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/uuid"
)

// TestUploads makes each kind of search, and compares the answers with the description.
func TestUploads(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	id, other := uuid.New().String(), uuid.New().String()
	for sql, args := range map[string][]any{
		`INSERT INTO upcall.issued_uploads (upload_id, issued_at, expires_at, bucket, object_key, content_type, size, vars, api_key_id)
			VALUES ($1, now(), now() + interval '1 hour', 'photos', 'a.jpg', 'image/jpeg', 5, '{"uid":"7"}', 'shop')`: {id},
		`INSERT INTO upcall.upload_events (id, received_at, bucket, object_key, request_id, upload_id, vars, source)
			VALUES ($2, '2026-11-27T08:09:10Z', 'photos', 'a.jpg', 'R1', $1, '{"uid":"7"}', 'callback')`: {id, other},
		`INSERT INTO upcall.confirmations (event_received_at, event_id, outcome, looked_at, at)
			VALUES ('2026-11-27T08:09:10Z', $1, 'gone', 'object', now())`: {other},
		`INSERT INTO upcall.findings (id, event_received_at, event_id, kind, found, found_at)
			VALUES (gen_random_uuid(), '2026-11-27T08:09:10Z', $1, 'gone', '{"size":9}', now())`: {other},
		`INSERT INTO upcall.refused_callbacks (digest, reason, refused_at, source_addr, bucket, object_key, request_id, upload_id)
			VALUES (gen_random_uuid(), 'token_expired', now(), '192.0.2.1', 'photos', 'a.jpg', 'R2', $1)`: {id},
	} {
		if _, err := w.pool.Exec(t.Context(), sql, args...); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	hook := `{"name":"app","url":"http://127.0.0.1:1/","from":"oldest"}`
	if got := w.call(t, http.MethodPost, "/v1/hooks", w.operator, hook); got.status != http.StatusCreated {
		t.Fatalf("%d %s", got.status, got.text)
	}
	event := "event_id=" + other + "&received_at=2026-11-27T08:09:10Z"
	for path, want := range map[string]string{
		"/v1/uploads/" + id:                 `"status":"uploaded"`,
		"/v1/uploads?key=a.jpg":             `"state":"pending"`,
		"/v1/uploads?key=a.jpg&bucket=x":    `{"uploads":[]}`,
		"/v1/uploads?request_id=R2&limit=1": `"source_addr":"192.0.2.1"`,
		"/v1/uploads?" + event:              `"outcome":"gone"`,
	} {
		if got := w.call(t, http.MethodGet, path, w.viewer, ""); got.status != http.StatusOK || !strings.Contains(got.text, want) {
			t.Errorf("%s: %d %s, want %s", path, got.status, got.text, want)
		}
	}
	for path, want := range map[string]int{
		"/v1/uploads/" + uuid.New().String():       http.StatusNotFound,
		"/v1/uploads/1":                            http.StatusBadRequest,
		"/v1/uploads/" + id + "?key=a":             http.StatusBadRequest,
		"/v1/uploads":                              http.StatusBadRequest,
		"/v1/uploads?bucket=photos":                http.StatusBadRequest,
		"/v1/uploads?key=a&request_id=b":           http.StatusBadRequest,
		"/v1/uploads?event_id=" + id:               http.StatusBadRequest,
		"/v1/uploads?event_id=1&received_at=today": http.StatusBadRequest,
		"/v1/uploads?var.a=1&var.b=2":              http.StatusBadRequest,
		"/v1/uploads?var.uid=7":                    http.StatusBadRequest, // there is no index
		"/v1/uploads?key=a&limit=101":              http.StatusBadRequest,
		"/v1/uploads?key_prefix=a":                 http.StatusBadRequest,
	} {
		if got := w.call(t, http.MethodGet, path, w.viewer, ""); got.status != want {
			t.Errorf("%s: %d %s, want %d", path, got.status, got.text, want)
		}
	}
}
