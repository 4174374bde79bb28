package issueapi

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"upcall/internal/apikey"
	"upcall/internal/event"
	"upcall/internal/issue"
	"upcall/internal/manifest"
	"upcall/internal/oss"
)

func TestRate(t *testing.T) {
	t.Parallel()
	keys, at := &shelf{}, &clock{}
	web, app := keys.add(t, "web"), keys.add(t, "app")
	ring := newKeyring(keys, 0.5, 2, at.now)
	request := func(key string) *problem {
		who, err := ring.check(t.Context(), header(key))
		if err != nil {
			t.Fatal(err)
		}
		if err := ring.limit(who); err != nil {
			return asProblem(err)
		}
		return nil
	}
	for range 2 {
		if p := request(web); p != nil {
			t.Fatal(p)
		}
	}
	for range 10 { // refused requests do not count
		p := request(web)
		if p == nil || p.kind != kindRate || p.retryAfter != 2*time.Second ||
			p.Error() != "Rate limit: 0.5 requests/s, burst of 2. Retry in 2 s." {
			t.Fatalf("%+v", p)
		}
	}
	if p := request(app); p != nil {
		t.Errorf("one key's requests count against another's rate: %v", p)
	}
	at.move(2 * time.Second)
	if p := request(web); p != nil {
		t.Error(p)
	}
}

// TestRateOutlivesReading checks that neither reading the keys again nor an outage resets a
// key's rate.
func TestRateOutlivesReading(t *testing.T) {
	t.Parallel()
	keys, at := &shelf{}, &clock{}
	text := keys.add(t, "web")
	ring := newKeyring(keys, 1e-6, 1, at.now)
	limited := func() bool {
		who, err := ring.check(t.Context(), header(text))
		if err != nil {
			t.Fatal(err)
		}
		return ring.limit(who) != nil
	}
	if limited() || !limited() {
		t.Fatal("the first request is refused, or the second is not")
	}
	at.move(apikey.RevokedWithin)
	if !limited() || keys.lists != 2 {
		t.Errorf("reading the keys again reset the rate (%d lists)", keys.lists)
	}
	keys.change(func(s *shelf) { s.err = event.ErrUnavailable })
	at.move(apikey.RevokedWithin)
	if _, err := ring.check(t.Context(), header(text)); kindOf(err) != kindUnavailable {
		t.Fatalf("there was no outage: %v", err)
	}
	keys.change(func(s *shelf) { s.err = nil })
	at.move(time.Second)
	if !limited() {
		t.Error("an outage reset the rate")
	}
}

// TestRateOverHTTP checks the answer.
func TestRateOverHTTP(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *Config) { c.Rate, c.Burst = 0.001, 1 })
	if got := s.call(t, http.MethodPost, "/v1/uploads", s.photos, goodBody); got.status != http.StatusCreated {
		t.Fatalf("%d %s", got.status, got.raw)
	}
	for _, route := range routesWithKey {
		got := s.call(t, route[0], route[1], s.photos, goodBody)
		if got.status != http.StatusTooManyRequests || got.text("rule") != "rate" ||
			!slices.Contains([]string{"999", "1000"}, got.header.Get("Retry-After")) {
			t.Errorf("%v: %d %v %s", route, got.status, got.header, got.raw)
		}
	}
	if n := s.rows(t); n != 1 {
		t.Errorf("%d rows", n)
	}
}

// A busyIssuer takes as long for a multipart upload as the test likes.
type busyIssuer struct {
	Issuer
	begun chan string // the key of each upload that has begun
	end   chan struct{}
}

func (b busyIssuer) IssueMultipart(ctx context.Context, r issue.MultipartRequest) (manifest.Multipart, oss.ExpiryCause, error) {
	b.begun <- r.APIKeyID
	<-b.end
	return b.Issuer.IssueMultipart(ctx, r)
}

// TestMultipartsOfOneKey checks that a key with many multipart uploads at once does not keep
// another waiting, and that this outlives a reading of the keys.
func TestMultipartsOfOneKey(t *testing.T) {
	t.Parallel()
	busy := busyIssuer{begun: make(chan string, 100), end: make(chan struct{})}
	at := &clock{}
	s := start(t, func(c *Config) {
		busy.Issuer = c.Issuer
		c.Issuer, c.Now = busy, at.now
	})
	const photo = `{"key":"photos/web/a.jpg","content_type":"image/jpeg","size":1024,"vars":{"uid":"42"}}`
	var calls sync.WaitGroup
	ask := func(key, body string) {
		calls.Go(func() {
			if got := s.call(t, http.MethodPost, "/v1/uploads/multipart", key, body); got.status != http.StatusCreated {
				t.Errorf("%d: %s", got.status, got.raw)
			}
		})
	}
	for range 10 {
		ask(s.photos, photo)
	}
	for range 2 {
		<-busy.begun
	}
	at.move(apikey.RevokedWithin)
	for range 10 {
		ask(s.photos, photo)
	}
	ask(s.films, `{"bucket":"demo","key":"a.mp4","content_type":"video/mp4","size":1024}`)
	if who := <-busy.begun; who != "app" {
		t.Errorf("an upload of %s began next", who)
	}
	close(busy.end)
	calls.Wait()
}
