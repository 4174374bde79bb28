package api

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"upcall/internal/apikey"
	"upcall/internal/eventstore"
	"upcall/internal/testing/metrictest"
	"upcall/internal/testing/wait"
)

// TestClientsThatTakeNothing checks that clients that stop reading cost at most a page each, do
// not hold up another client, and are dropped.
func TestClientsThatTakeNothing(t *testing.T) {
	t.Parallel()
	const stalled, events, bytes = 40, 2000, 16 << 10 // 32 MiB for each
	w := newWorld(t, func(c *Config) { c.Patience = 2 * time.Second })
	if _, err := w.pool.Exec(t.Context(), `INSERT INTO upcall.upload_events (id, received_at, bucket, object_key, vars, source)
		SELECT gen_random_uuid(), now(), 'bbb', 'k' || i, jsonb_build_object('a', repeat('a', $1)), 'callback' FROM generate_series(1, $2) i`,
		bytes, events); err != nil {
		t.Fatal(err)
	}
	w.add(t, "bbb", 1) // waits until the log tells them
	address, err := url.Parse(w.url)
	if err != nil {
		t.Fatal(err)
	}
	var before, now runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for range stalled {
		conn, err := net.Dial("tcp", address.Host)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "GET /v1/events/stream HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %s\r\n\r\n", w.viewer)
	}
	began := time.Now()
	s := w.stream(t, w.url+"/v1/events/stream", "")
	s.lines.Buffer(nil, 1<<20)
	for range events {
		s.next(t)
	}
	took := time.Since(began)
	most := uint64(0)
	wait.Until(t, "all clients that take nothing are dropped", func() bool {
		runtime.ReadMemStats(&now)
		most = max(most, now.HeapAlloc-min(before.HeapAlloc, now.HeapAlloc))
		return metrictest.Values(t, w.Collectors()...)["upcall_api_dropped_total"] == stalled
	})
	if most > stalled*(4<<20) { // a page is 1 MiB; the rest is garbage, and other tests
		t.Errorf("%d clients that take nothing cost %d MiB", stalled, most>>20)
	}
	if took > time.Minute {
		t.Errorf("another client took %v", took)
	}
	w.add(t, "bbb", 1)
	s.next(t) // it is still there
	t.Logf("%d MiB at most; another client took %v", most>>20, took)
	s.response.Body.Close()
	wait.Until(t, "nothing is open", func() bool { return len(w.waiting) == 0 })
	if n := metrictest.Values(t, w.Collectors()...)["upcall_api_open"]; n != 0 {
		t.Errorf("the metric says that %v calls are open", n)
	}
}

// TestRevoked checks that a stream ends when its key is revoked.
func TestRevoked(t *testing.T) {
	t.Parallel()
	var later atomic.Int64
	w := newWorld(t, func(c *Config) {
		c.Ping, c.Now = 50*time.Millisecond, func() time.Time { return time.Now().Add(time.Duration(later.Load())) }
	})
	s, other := w.stream(t, w.url+"/v1/events/stream", ""), w.key(t, "other", Operator)
	if err := eventstore.NewRoleKeys(w.pool).Revoke(t.Context(), "viewer"); err != nil {
		t.Fatal(err)
	}
	later.Store(int64(apikey.RevokedWithin))
	if _, err := io.Copy(io.Discard, s.response.Body); err != nil {
		t.Errorf("the stream did not end cleanly: %v", err)
	}
	if got := w.call(t, "GET", "/v1/events", w.viewer, ""); got.status != http.StatusUnauthorized {
		t.Errorf("a revoked key: %d", got.status)
	}
	if got := w.call(t, "GET", "/v1/events", other, ""); got.status != http.StatusOK {
		t.Errorf("another key: %d %s", got.status, got.text)
	}
}

// TestTooMany checks that long polls and streams are limited, and that other calls are not.
func TestTooMany(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	for range mostWaiting {
		w.waiting <- struct{}{}
	}
	for _, path := range []string{"/v1/events", "/v1/events/stream", "/v1/idle"} {
		if got := w.call(t, "GET", path, w.viewer, ""); got.status != 503 || got.header.Get("Retry-After") != "1" {
			t.Errorf("%s: %d %s", path, got.status, got.text)
		}
	}
	if got := w.call(t, "GET", "/v1/hooks", w.viewer, ""); got.status != 200 {
		t.Errorf("hooks: %d %s", got.status, got.text)
	}
}

// TestRestarts checks that a reader by pages and a reader by stream see each event once and in
// order, while receivers are started and killed, writers commit out of order, and each goes on
// at another receiver with what it had.
func TestRestarts(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	var writers sync.WaitGroup
	const writer, each = 4, 150
	for i := range writer {
		writers.Go(func() {
			for n := range each {
				tx, err := w.pool.Begin(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				_, err = tx.Exec(t.Context(), `INSERT INTO upcall.upload_events (id, received_at, bucket, object_key, vars, source)
					VALUES ($1, now(), 'bbb', 'k', '{}', 'callback')`, uuid.New())
				if n%10 == i { // open for longer than others that began later
					_, err = tx.Exec(t.Context(), "SELECT pg_sleep(0.05)")
				}
				if err == nil {
					err = tx.Commit(t.Context())
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	urls := []string{w.url}
	_, second := w.another(t, nil)
	urls = append(urls, second)
	var current atomic.Pointer[[]string]
	current.Store(&urls)
	var readers sync.WaitGroup
	var paged, streamed []string
	enough := func(ids []string) bool { return len(ids) >= writer*each }
	readers.Go(func() {
		after := ""
		for n := 0; !enough(paged) && t.Context().Err() == nil; n++ {
			at := *current.Load()
			got, err := get(t, at[n%len(at)]+"/v1/events?limit=7&wait=1s"+after, w.viewer, "")
			if err != nil {
				continue // it was killed
			}
			text, err := io.ReadAll(got.Body)
			got.Body.Close()
			if r := parse(t, text); err == nil && got.StatusCode == 200 {
				paged = append(paged, r.ids()...)
				after = "&after=" + r.body.Next
			}
		}
	})
	readers.Go(func() {
		cursor := ""
		for n := 0; !enough(streamed) && t.Context().Err() == nil; n++ {
			at := *current.Load()
			response, err := get(t, at[n%len(at)]+"/v1/events/stream", w.viewer, cursor)
			if err != nil {
				continue
			}
			s := newSSE(response)
			for !enough(streamed) {
				next, id, err := s.read()
				if err != nil {
					break
				}
				cursor, streamed = next, append(streamed, id)
			}
			response.Body.Close()
		}
	})
	for n := range 6 { // restarts, while there is something to read
		wait.Until(t, "more is written", func() (more bool) {
			if err := w.pool.QueryRow(t.Context(), "SELECT count(*) >= $1 FROM upcall.upload_events", (n+1)*writer*each/8).Scan(&more); err != nil {
				t.Fatal(err)
			}
			return more
		})
		_, fresh := w.another(t, nil)
		next := slices.Clone(urls)
		killed := next[n%2]
		next[n%2] = fresh
		urls = next
		current.Store(&next)
		if n%3 == 0 {
			w.servers[killed].CloseClientConnections() // in the middle of an answer
		}
		w.stops[killed]()
	}
	writers.Wait()
	readers.Wait()
	var want []string
	rows, err := w.pool.Query(t.Context(), "SELECT id::text FROM upcall.upload_events ORDER BY recorded_xid, id")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			t.Fatal(err)
		}
		want = append(want, id)
	}
	if diff := cmp.Diff(want, paged); diff != "" {
		t.Errorf("by pages (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want, streamed); diff != "" {
		t.Errorf("by stream (-want +got):\n%s", diff)
	}
}

// TestHead checks that a HEAD request ends.
func TestHead(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	for _, path := range []string{"/v1/events", "/v1/events/stream", "/v1/hooks"} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodHead, w.url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+w.viewer)
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != 200 {
			t.Errorf("%s: %d", path, response.StatusCode)
		}
	}
}

// TestPanic checks that a mistake of ours is a problem document, and one line in the log.
func TestPanic(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	server := httptest.NewServer(w.handle(route{"GET /v1/x", "", func(http.ResponseWriter, *http.Request) error { panic("a mistake") }}))
	defer server.Close()
	if got := call(t, "GET", server.URL, "", ""); got.status != 503 || got.body.Type != "urn:upcall:problem:unavailable" ||
		strings.Contains(got.text, "a mistake") {
		t.Errorf("%d %s", got.status, got.text)
	}
}
