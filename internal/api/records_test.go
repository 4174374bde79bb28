package api

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"upcall/internal/callbackspec"
	"upcall/internal/capture"
	"upcall/internal/doctor"
	"upcall/internal/event"
	"upcall/internal/spool"
)

// TestRecords calls what tells operators how things are. Answers are compared with the description.
func TestRecords(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	for _, sql := range []string{
		`INSERT INTO upcall.refused_callbacks (digest, reason, refused_at, source_addr, bucket, object_key)
			SELECT gen_random_uuid(), CASE WHEN n % 3 = 0 THEN 'token_expired' ELSE 'bad_signature' END, now(), '192.0.2.1', 'photos', 'a.jpg'
			FROM generate_series(1, 9) n`,
		`INSERT INTO upcall.reconcile_runs (bucket, stage, begun_at, listed_at, ended_at, listed, missing, recovered)
			VALUES ('photos', 'done', now(), now(), now(), 100, 2, 2), ('videos', 'failed', now(), now(), now(), 0, 0, 0)`,
		`INSERT INTO upcall.rollup_hourly (generation, hour, bucket, mime_type, source, uploads, bytes, new_objects, overwrites)
			SELECT 0, date_trunc('hour', now()) - d * interval '1 day', 'photos', 'image/jpeg', s, CASE s WHEN 'callback' THEN 99 ELSE 1 END, 0, 0, 0
			FROM generate_series(0, 40, 20) d, unnest(ARRAY['callback', 'reconcile']) s`,
	} {
		if _, err := w.pool.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	for path, want := range map[string]string{
		"/v1/health":                        `"lost_share":0.01`,
		"/v1/refusals":                      `"reason":"token_expired","kept":3`,
		"/v1/refusals?reason=bad_signature": `"source_addr":"192.0.2.1"`,
		"/v1/reconcile/runs?limit=1":        `"bucket":"videos"`,
		"/v1/loss":                          `"by_reconcile":1,"lost_share":0.01`,
	} {
		got := w.call(t, http.MethodGet, path, w.viewer, "")
		if got.status != http.StatusOK || !strings.Contains(got.text, want) {
			t.Errorf("%s: %d %s, want %s", path, got.status, got.text, want)
		}
	}
	response, err := get(t, w.url+"/v1/consumers", w.viewer, "")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	documentOf(t).CheckAnswer(t, response.Request, response, text)
	if err != nil || !strings.Contains(string(text), `"consumers":[]`) {
		t.Errorf("consumers: %s, %v", text, err)
	}
	if days := strings.Count(w.call(t, http.MethodGet, "/v1/loss", w.viewer, "").text, `"day"`); days != 2 {
		t.Errorf("30 days have %d days with uploads, want 2", days)
	}
	if got := w.call(t, http.MethodGet, "/v1/spool", w.viewer, ""); got.status != http.StatusNotFound {
		t.Errorf("without a spool: %d %s", got.status, got.text)
	}
}

// TestCaptures lists captured refusals and tells of one, to a viewer, and of none if captures are off or the
// name is another.
func TestCaptures(t *testing.T) {
	t.Parallel()
	dir, at := t.TempDir(), time.Now().Truncate(time.Microsecond)
	logger := slog.New(slog.DiscardHandler)
	captures, err := capture.Open(capture.Config{Dir: dir, Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	captures.Put(&capture.Request{Reason: "signature_missing", At: at, Method: "POST", Target: "/oss/callback", Host: "h",
		Header: http.Header{"Cookie": {"session=hunter2hunter2"}}, Body: []byte("a=b")})
	ended, end := context.WithCancel(t.Context())
	end()
	captures.Run(ended)
	examiner, err := capture.NewExaminer(captures, doctor.Config{})
	if err != nil {
		t.Fatal(err)
	}
	running, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { examiner.Run(running); close(done) }()
	t.Cleanup(func() { stop(); <-done; captures.Close() })
	w := newWorld(t, func(cfg *Config) { cfg.Captures = examiner })
	if _, err := w.pool.Exec(t.Context(), `INSERT INTO upcall.refused_callbacks (digest, reason, refused_at, source_addr) VALUES
		(gen_random_uuid(), 'signature_missing', $1, '192.0.2.1'),
		(gen_random_uuid(), 'signature_missing', $1 + interval '1 s', '192.0.2.1')`, at); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 1 {
		t.Fatalf("%v, %v", files, err)
	}
	name := files[0].Name()
	for path, want := range map[string]string{
		"/v1/refusals?reason=signature_missing": `"captured":"` + name + `"`,
		"/v1/refusals/captured":                 `"name":"` + name + `"`,
		"/v1/refusals/captured?reason=other":    `"captured":[]`,
		"/v1/refusals/captured/" + name: `"verdict":"refused","accepted":false,` +
			`"summary":"no signature: the Authorization header is absent`,
	} {
		if got := w.call(t, http.MethodGet, path, w.viewer, ""); got.status != http.StatusOK || !strings.Contains(got.text, want) ||
			strings.Contains(got.text, "hunter2") {
			t.Errorf("%s: %d %s, want %s", path, got.status, got.text, want)
		}
	}
	off := newWorld(t, nil)
	for server, paths := range map[*world][]string{
		w:   {"/v1/refusals/captured/" + strings.Replace(name, "-", "-x", 1), "/v1/refusals/captured/..%2Fnotes.txt"},
		off: {"/v1/refusals/captured", "/v1/refusals/captured/" + name},
	} {
		for _, path := range paths {
			if got := server.call(t, http.MethodGet, path, server.viewer, ""); got.status != http.StatusNotFound {
				t.Errorf("%s: %d %s", path, got.status, got.text)
			}
			if got := server.call(t, http.MethodGet, path, "", ""); got.status != http.StatusUnauthorized {
				t.Errorf("%s without a key: %d", path, got.status)
			}
		}
	}
}

// TestSpool retries and discards dead letters while the spool is in use, and lets no viewer do it.
func TestSpool(t *testing.T) {
	t.Parallel()
	queue, err := spool.Open(t.Context(), spool.Config{Dir: t.TempDir(), MinFreeBytes: -1, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { queue.Close() })
	var ids []string
	for range 3 {
		e := &event.Event{ID: uuid.New(), ReceivedAt: time.Now(), Callback: callbackspec.Callback{Bucket: "photos", Object: "a.jpg"}}
		if _, err := queue.Put(t.Context(), e); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, e.ID.String())
	}
	deadLetters(t, queue)
	w := newWorld(t, func(cfg *Config) { cfg.Fallback = OfSpool(queue) })
	if got := w.call(t, http.MethodGet, "/v1/spool?limit=2", w.viewer, ""); strings.Count(got.text, `"event_id"`) != 2 ||
		!strings.Contains(got.text, `"dead_letters":3`) || !strings.Contains(got.text, `"kind":"spool","problem":null,"replicas":null`) {
		t.Errorf("%d %s", got.status, got.text)
	}
	for _, act := range []string{"retry", "discard"} {
		if got := w.call(t, http.MethodPost, "/v1/spool/"+act, w.viewer, `{"all":true}`); got.status != http.StatusForbidden {
			t.Errorf("%s by a viewer: %d %s", act, got.status, got.text)
		}
		for _, body := range []string{`{}`, `{"all":false}`, `{"all":true,"events":["` + ids[0] + `"]}`, `{"events":["1"]}`, `{"all":"yes"}`, `{"all":null}`} {
			if got := w.call(t, http.MethodPost, "/v1/spool/"+act, w.operator, body); got.status != http.StatusBadRequest {
				t.Errorf("%s %s: %d %s", act, body, got.status, got.text)
			}
		}
		if got := w.call(t, http.MethodPost, "/v1/spool/"+act, w.operator, `{"events":["`+uuid.NewString()+`"]}`); got.status != http.StatusNotFound {
			t.Errorf("%s of another: %d %s", act, got.status, got.text)
		}
	}
	if stats := queue.Stats(); stats.DeadLetters != 3 {
		t.Errorf("after refusals: %+v", stats)
	}
	if got := w.call(t, http.MethodPost, "/v1/spool/retry", w.operator, `{"events":["`+ids[0]+`"]}`); !strings.Contains(got.text, `"changed":1`) {
		t.Errorf("%d %s", got.status, got.text)
	}
	if got := w.call(t, http.MethodPost, "/v1/spool/discard", w.operator, `{"all":true}`); !strings.Contains(got.text, `"changed":2`) {
		t.Errorf("%d %s", got.status, got.text)
	}
	if stats := queue.Stats(); stats.DeadLetters != 0 || stats.Queued != 1 {
		t.Errorf("at last: %+v", stats)
	}
}

// deadLetters makes dead letters of all that waits.
func deadLetters(t *testing.T, queue *spool.Spool) {
	t.Helper()
	for queue.Stats().Queued > 0 {
		_, _ = queue.Move(t.Context(), func(context.Context, *event.Event) (bool, error) { return false, event.ErrUnstorable }, 100)
	}
}
