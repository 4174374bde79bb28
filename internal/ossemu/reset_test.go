package ossemu

import (
	"net/http"
	"strings"
	"testing"

	"upcall/internal/callbackspec"
	"upcall/internal/testing/wait"
)

func reset(t *testing.T, base, want string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "POST", base+"/_ossemu/reset", nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := send(t, r); got.status != 200 || strings.TrimSpace(got.body) != want {
		t.Errorf("reset: %d %s, want %s", got.status, got.body, want)
	}
}

// TestReset holds that nothing is left, in memory and on disk, and that all works afterwards.
func TestReset(t *testing.T) {
	t.Parallel()
	for name, dir := range map[string]string{"memory": "", "disk": t.TempDir()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rec := receive(t, nil)
			p := callbackspec.Parameter{URLs: []string{rec.url}, Body: "a=b"}
			s, base := start(t, func(c *Config) { c.DataDir = dir })
			if got := send(t, newWire("PUT", base, "").inBucket("mine").presigned(t)); got.status != 200 {
				t.Fatalf("bucket: %d %s", got.status, got.body)
			}
			for round := range 2 {
				putWith(t, base, "a", "x", p)
				w := newWire("PUT", base, "b").inBucket("mine")
				w.body = strings.NewReader("y")
				send(t, w.presigned(t))
				setFaults(t, base, `{"drop":true}`)
				putWith(t, base, "c", "x", p)
				id := initiate(t, base, "big")
				reset(t, base, `{"callbacks":2,"multipart_uploads":1,"objects":3}`)
				if got := send(t, newWire("GET", base, "a").presigned(t)); got.status != 404 {
					t.Errorf("the object is there: %d", got.status)
				}
				if got := send(t, newWire("GET", base, "b").inBucket("mine").presigned(t)); got.status != 404 || !strings.Contains(got.body, "NoSuchKey") {
					t.Errorf("the object in a bucket of the test: %d %s", got.status, got.body)
				}
				list := newWire("GET", base, "big")
				list.query.Set("uploadId", id)
				wantError(t, send(t, list.presigned(t)), 404, "NoSuchUpload")
				if got := fetch(t, base+"/_ossemu/faults"); strings.TrimSpace(got.body) != "{}" || len(deliveries(t, base, "")) != 0 {
					t.Errorf("round %d: faults %s", round, got.body)
				}
			}
			reset(t, base, `{"callbacks":0,"multipart_uploads":0,"objects":0}`)
			if m, ok := s.store.backend.(*memory); ok && len(m.blobs) != 0 {
				t.Errorf("%d blobs are left", len(m.blobs))
			}
			if dir != "" {
				again, err := openStore(s.store.backend, []string{"demo"}, s.cfg.Now())
				if err != nil || len(again.uploads) != 0 || len(again.list("demo", "", "")) != 0 {
					t.Errorf("after a restart: %v, %d uploads", err, len(again.uploads))
				}
			}
		})
	}
}

// TestResetWithCallbacksUnderWay holds that a callback of before is not listed afterwards, and
// not sent if it has waited.
func TestResetWithCallbacksUnderWay(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	rec := receive(t, func(w http.ResponseWriter, _ *http.Request) { <-release; respond(w, 200, "{}") })
	p := callbackspec.Parameter{URLs: []string{rec.url}, Body: "a=b"}
	_, base := start(t)
	setFaults(t, base, `{"duplicate":3,"count":1}`)
	sent, delayed := make(chan reply, 1), make(chan reply, 1)
	go func() { sent <- putWith(t, base, "sent", "x", p) }()
	wait.Until(t, "the receiver has it", func() bool { return len(rec.requests()) == 1 })
	setFaults(t, base, `{"delay":"1m","count":1}`)
	go func() { delayed <- putWith(t, base, "delayed", "x", p) }()
	wait.Until(t, "the other waits", func() bool { return strings.TrimSpace(fetch(t, base+"/_ossemu/faults").body) == "{}" })
	reset(t, base, `{"callbacks":0,"multipart_uploads":0,"objects":2}`)
	if got := <-delayed; got.status != 203 { // at once, not after a minute
		t.Errorf("the delayed upload got %d %s", got.status, got.body)
	}
	close(release)
	if got := <-sent; got.status != 200 || got.body != "{}" {
		t.Errorf("the uploader whose callback was under way got %d %s", got.status, got.body)
	}
	if got := deliveries(t, base, ""); len(got) != 0 || len(rec.requests()) != 1 {
		t.Errorf("listed %+v; the receiver got %d", got, len(rec.requests()))
	}
	if got := putWith(t, base, "next", "x", p); got.status != 200 || len(deliveries(t, base, "next")) != 1 {
		t.Errorf("afterwards: %d", got.status)
	}
}
