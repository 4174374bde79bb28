package intake

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"upcall/internal/admission"
	"upcall/internal/callbackspec"
	"upcall/internal/dbtest"
	"upcall/internal/event"
	"upcall/internal/eventstore"
	"upcall/internal/testing/metrictest"
	"upcall/internal/verify"
)

const form = string(callbackspec.Form)

// TestRefusalsAreKept checks that refused callbacks become rows with their claims and without
// secrets, and that requests that are not callbacks do not.
func TestRefusalsAreKept(t *testing.T) {
	t.Parallel()
	o, pool := newOSS(t), dbtest.Pool(t, eventstore.Open)
	store, err := eventstore.NewRefusals(pool, 1000)
	if err != nil {
		t.Fatal(err)
	}
	s := serve(t, o, pool, func(c *Config) { c.Refusals, c.Admission.Buckets = store, []string{"demo", "other"} })

	expiredID, expired := mint(t, "demo", "late.txt", noon)
	good := issued(t, "a.txt", "R1")
	body := func(u upload) string { return u.body(t, callbackspec.Form) }
	with := func(change func(*http.Request)) *http.Request {
		r := o.request(t, s.Public, path, form, body(good))
		change(r)
		return r
	}
	requests := []*http.Request{
		with(func(r *http.Request) { r.Header.Set("Authorization", "AAAA") }),
		with(func(r *http.Request) { r.Header.Del("Authorization") }),
		with(func(r *http.Request) { r.Header.Set("X-Oss-Pub-Key-Url", "aHR0cDovL2V2aWwuZXhhbXBsZS9rZXkucGVt") }),
		with(func(r *http.Request) { r.Header.Set("X-Oss-Bucket", "other") }),
		with(func(r *http.Request) { r.Header.Set("Content-Encoding", "gzip") }),
		with(func(r *http.Request) { r.Method = http.MethodPut }),
		o.request(t, s.Public, "/elsewhere", form, body(good)),
		o.request(t, s.Public, path, form, body(upload{bucket: "demo", object: "late.txt", reqID: "R2", token: expired})),
		o.request(t, s.Public, path, form, body(upload{bucket: "demo", object: "forged.txt", reqID: "R3", token: "k1.hunter2"})),
		o.request(t, s.Public, path, form, "object=no+bucket"),
		o.request(t, s.Public, path, "text/plain", "hello"),
		o.request(t, s.Public, path, form, "bucket=demo&object=%ff\x00&reqId=R4"),
		o.request(t, s.Public, path, form, strings.Repeat("a", admission.MaxBody+1)),
		o.request(t, s.Public, path, form, strings.Repeat("b", admission.MaxBody+1)),
	}
	for range 2 { // a repeat adds no row
		for _, r := range requests {
			again := r.Clone(t.Context())
			if r.GetBody != nil {
				if again.Body, err = r.GetBody(); err != nil {
					t.Fatal(err)
				}
			}
			if got := do(t, again); got.Code < 400 {
				t.Errorf("got %d %s", got.Code, got.Raw)
			}
		}
	}
	if err := s.Stop(); err != nil { // writes the waiting refusals
		t.Fatal(err)
	}

	rows, err := pool.Query(t.Context(), `SELECT concat_ws(' ', reason, host(source_addr), coalesce(bucket, '-'), coalesce(object_key, '-'),
		coalesce(request_id, '-'), upload_id, refused_at = $1) FROM upcall.refused_callbacks`, noon)
	if err != nil {
		t.Fatal(err)
	}
	got, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	const header = "5C3D9175B6FC201293AD0001"     // x-oss-request-id of every request
	unread := "127.0.0.1 demo - " + header + " t" // from the headers
	want := []string{
		"body " + unread, "body " + unread, "body " + unread, // malformed or too large
		"bucket_conflict 127.0.0.1 demo a.txt R1 t",
		"content_encoding " + unread,
		"content_type " + unread,
		"key_url_untrusted 127.0.0.1 demo a.txt R1 t",
		"signature_length 127.0.0.1 demo a.txt R1 t",
		"signature_missing 127.0.0.1 demo a.txt R1 t",
		"token_expired 127.0.0.1 demo late.txt R2 " + expiredID.String() + " t",
		"token_forged 127.0.0.1 demo forged.txt R3 t",
		"token_missing 127.0.0.1 demo no bucket " + header + " t",
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
	var all string
	const query = "SELECT string_agg(to_jsonb(r)::text, ' ') FROM upcall.refused_callbacks r"
	if err := pool.QueryRow(t.Context(), query).Scan(&all); err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"hunter2", expired, good.token, requests[3].Header.Get("Authorization")} {
		if strings.Contains(all, secret) {
			t.Errorf("%q is in the table", secret)
		}
	}
}

// A stuck store blocks until it is released.
type stuck struct {
	called  chan struct{}
	release chan struct{}
	err     error
}

func (s *stuck) Keep(context.Context, []event.RefusedCallback) error {
	select {
	case s.called <- struct{}{}:
	default:
	}
	<-s.release
	return s.err
}

// TestRefusalsDoNotBlock checks that a flood and a blocked store cost rows but not answers.
func TestRefusalsDoNotBlock(t *testing.T) {
	t.Parallel()
	o := newOSS(t)
	store := &stuck{make(chan struct{}, 1), make(chan struct{}), errors.New("broken")}
	s := serve(t, o, nil, func(c *Config) { c.Refusals = store })
	refuse := func(n int, change func(*http.Request)) {
		t.Helper()
		var group sync.WaitGroup
		for i := range n {
			group.Go(func() {
				r := o.request(t, s.Public, path, form, fmt.Sprintf("bucket=demo&object=%d&reqId=%d", i, i))
				change(r)
				if got := do(t, r); got.Code != 403 {
					t.Errorf("got %d %s", got.Code, got.Raw)
				}
			})
		}
		group.Wait()
	}
	refuse(1, func(*http.Request) {})
	<-store.called // and blocks
	for i := range 5 {
		refuse(12, func(r *http.Request) { r.Header.Del("Authorization") })
		body := issued(t, "a.txt", fmt.Sprint("G", i)).body(t, callbackspec.Form)
		if got := do(t, o.request(t, s.Public, path, form, body)); got.Code != 200 {
			t.Errorf("a genuine callback got %d %s", got.Code, got.Raw)
		}
	}
	// 50 for each reason at once, because the clock stands still.
	if got := s.Metric(t, `upcall_refusals_dropped_total{cause="rate"}`); got != 10 {
		t.Errorf("%v were dropped for the rate, want 10", got)
	}
	if got := s.Metric(t, `upcall_refusals_total{reason="signature_missing"}`); got != 60 {
		t.Errorf("%v were counted, want 60", got)
	}
	close(store.release)
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	if log := s.log.String(); !strings.Contains(log, "refusals were not kept") || !strings.Contains(log, "broken") {
		t.Error("the log does not have the error")
	}
}

// TestRefusalLimits checks the limits for each reason and for all together.
func TestRefusalLimits(t *testing.T) {
	t.Parallel()
	f := newLimits()
	allowed := func(reason admission.Reason, n int, now time.Time) (yes int) {
		for range n {
			if f.allow(reason, now) {
				yes++
			}
		}
		return yes
	}
	for _, tt := range []struct {
		reason admission.Reason
		after  time.Duration
		want   int
	}{
		{"a", 0, 50}, {"b", 0, 50}, {"c", 0, 0}, // 100 for all together
		{"a", time.Second, 5}, {"b", time.Second, 5},
		{"a", -time.Hour, 0},      // a clock that is set back allows none
		{"a", 24 * time.Hour, 50}, // a clock that jumps ahead allows no more than usual
		{"x", 24 * time.Hour, 50},
	} {
		if got := allowed(tt.reason, 1000, noon.Add(tt.after)); got != tt.want {
			t.Errorf("%s after %s: %d, want %d", tt.reason, tt.after, got, tt.want)
		}
	}
}

// TestCapturesTakeNoRows checks that requests that are captured, but not kept in the table, leave its limits alone.
func TestCapturesTakeNoRows(t *testing.T) {
	t.Parallel()
	server := newPlain(t, &stuck{})
	server.cfg.Captures = make(keeping)
	note := func(code admission.Code, reason admission.Reason) (captured bool) {
		seen := &logEvent{refusal: &admission.Refusal{Code: code, Reason: reason}}
		server.noteRefusal(seen, true)
		return !seen.captureAt.IsZero()
	}
	for range 1000 { // anyone can send these
		note(admission.NotFound, admission.ReasonPath)
		note(admission.MethodNotAllowed, admission.ReasonMethod)
	}
	if note(admission.BadToken, admission.ReasonTokenForged) {
		t.Error("captures have no limit of all reasons together")
	}
	if n := len(server.refusals.queue); n != 1 {
		t.Errorf("%d are kept, want the one that was sent as a callback", n)
	}
}

// TestRefusalQueue checks that refusals beyond the queue are counted at once.
func TestRefusalQueue(t *testing.T) {
	t.Parallel()
	metrics := NewMetrics()
	s := &Server{cfg: Config{Now: func() time.Time { return noon }, Metrics: metrics}}
	s.refusals = newRefusals(Config{Metrics: metrics, Refusals: &stuck{}})
	var err error
	if s.policy, err = admission.New(admission.Config{TokenPolicy: admission.TokenOff}, new(verify.Verifier)); err != nil {
		t.Fatal(err)
	}
	for i := range refusalQueue {
		s.refusals.queue <- &refused{reason: admission.Reason(fmt.Sprint(i))}
	}
	s.noteRefusal(&logEvent{refusal: &admission.Refusal{Code: admission.BadToken, Reason: admission.ReasonTokenForged}}, false)
	values := metrictest.Values(t, metrics.Collectors()...)
	for _, cause := range []string{droppedByRate, droppedByQueue, droppedByDatabase, droppedByPanic} {
		if n := values["upcall_refusals_dropped_total{"+cause+"}"]; (cause == droppedByQueue) != (n == 1) {
			t.Errorf("%s: %v", cause, n)
		}
	}
}

// TestDescribe checks that digests differ for requests without a body, and are the event's
// identity for requests with one.
func TestDescribe(t *testing.T) {
	t.Parallel()
	f := newRefusals(Config{})
	digest := func(target, body, authorization string) uuid.UUID {
		t.Helper()
		r := &refused{request: admission.Request{ContentType: form, RequestID: "H"}}
		r.signed.Target, r.signed.Authorization = target, authorization
		if body != "" {
			r.signed.Body = []byte(body)
		}
		row, err := f.describe(r)
		if err != nil || row.Digest == uuid.Nil {
			t.Errorf("%v, %v", row, err)
		}
		return row.Digest
	}
	if digest("/a", "", "s1") == digest("/a", "", "s2") || digest("/a", "", "s") == digest("/b", "", "s") ||
		digest("/%zz", "x", "s") == digest("/%zz", "y", "s") {
		t.Error("two requests have one digest")
	}
	if digest("/a", "reqId=1", "s1") != digest("/a", "reqId=1", "s2") {
		t.Error("one callback with two signatures has two digests")
	}
	r := new(refused)
	r.signed.Target, r.signed.Body = "/a", []byte("reqId=1")
	claimed, err := callbackspec.Parse(form, r.signed.Body, nil)
	if err != nil {
		t.Fatal(err)
	}
	id, err := admission.Identify(r.signed, &claimed, "H")
	if err != nil || id != digest("/a", "reqId=1", "s") {
		t.Errorf("the digest is not the event's id %s, %v", id, err)
	}
}

// TestConflicts checks that conflicts are counted by reason, and that a reused request ID is
// recorded.
func TestConflicts(t *testing.T) {
	t.Parallel()
	o := newOSS(t)
	s := serve(t, o, nil, nil)
	send := func(u upload, change func(*http.Request), want int) {
		t.Helper()
		r := o.request(t, s.Public, path, form, u.body(t, callbackspec.Form))
		if change != nil {
			change(r)
		}
		if got := do(t, r); got.Code != want {
			t.Errorf("got %d %s, want %d", got.Code, got.Raw, want)
		}
	}
	first, second := issued(t, "a.txt", "R1"), issued(t, "b.txt", "R1")
	send(first, nil, 200)
	send(first, nil, 200) // a repeat is not a conflict
	send(issued(t, "a.txt", "R2"), nil, 200)
	want := func(reason string, n float64) {
		t.Helper()
		if got := s.Metric(t, `upcall_conflicts_total{reason="`+reason+`"}`); got != n {
			t.Errorf("%s: %v, want %v", reason, got, n)
		}
	}
	want("request_id_reused", 0)
	want("bucket_conflict", 0)
	send(second, nil, 200)
	want("request_id_reused", 1)
	send(upload{bucket: "demo", object: "c.txt", reqID: "R1", token: "forged"}, nil, 403) // a refused callback does not count
	send(first, func(r *http.Request) { r.Header.Set("X-Oss-Bucket", "other") }, 403)
	want("request_id_reused", 1)
	want("bucket_conflict", 1)
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	if n := count(t, s.pool); n != 3 {
		t.Errorf("%d rows, want 3", n)
	}
	if !regexp.MustCompile(`"conflict":"request_id_reused"[^\n]*"request_id":"R1"`).MatchString(s.log.String()) {
		t.Error("the log does not show the conflict")
	}
}

// TestRecent checks that exactly two generations are remembered.
func TestRecent(t *testing.T) {
	t.Parallel()
	r := newRecent()
	one, other := uuid.New(), uuid.New()
	for range 2 {
		if r.conflicts("", one) || r.conflicts("", other) {
			t.Error("an empty request id conflicts")
		}
	}
	if r.conflicts("first", one) || r.conflicts("first", one) {
		t.Error("the same callback conflicts")
	}
	for i := range recentIDs {
		if r.conflicts(fmt.Sprint(i), uuid.New()) {
			t.Fatal("another request id conflicts")
		}
	}
	if !r.conflicts("first", other) || !r.conflicts("first", one) {
		t.Error("different content does not conflict")
	}
	for i := range 3 * recentIDs {
		r.conflicts(fmt.Sprint("more", i), one)
	}
	if r.conflicts("first", other) {
		t.Error("the oldest request id is not forgotten")
	}
	if n := len(r.now) + len(r.old); n > 2*recentIDs {
		t.Errorf("%d request ids are remembered", n)
	}
}

func BenchmarkRecent(b *testing.B) {
	r := newRecent()
	for i := 0; b.Loop(); i++ {
		id := uuid.UUID{byte(i), byte(i >> 8), byte(i >> 16)}
		r.conflicts(id.String(), id)
	}
}

// TestRefusalOfPanic checks that a panic while a refusal is described costs only its row.
func TestRefusalOfPanic(t *testing.T) {
	t.Parallel()
	f := newRefusals(Config{})
	if _, err := f.describe(nil); err == nil || !strings.HasPrefix(err.Error(), "panic: ") {
		t.Errorf("got %v", err)
	}
}
