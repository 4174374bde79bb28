package receiver

import (
	"bufio"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"upcall/internal/apikey"
	"upcall/internal/dbtest"
	"upcall/internal/eventstore"
	"upcall/internal/testing/servetest"
	"upcall/internal/testing/wait"
)

// viewerKey makes a key of the API.
func viewerKey(t *testing.T, databaseURL string) string { return roleKey(t, databaseURL, "viewer") }

// roleKey makes a key of the API with a role, which is also its id.
func roleKey(t *testing.T, databaseURL, role string) string {
	t.Helper()
	text, hash, err := apikey.New(role)
	if err != nil {
		t.Fatal(err)
	}
	keys := eventstore.NewRoleKeys(dbtest.Open(t, databaseURL, eventstore.Open))
	if err := keys.Add(t.Context(), eventstore.APIKey{ID: role, Hash: hash[:], Role: role, CreatedAt: time.Now()}); err != nil {
		t.Fatal(err)
	}
	return text
}

// request returns a call of the API.
func request(t *testing.T, url, key string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+key)
	return r
}

// open begins a call of the API.
func open(t *testing.T, url, key string) *http.Response {
	t.Helper()
	response, err := http.DefaultClient.Do(request(t, url, key))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { response.Body.Close() })
	return response
}

// TestStopEndsWaitingCalls checks that long polls and streams end at once when the receiver
// stops, and that each gets a whole answer.
func TestStopEndsWaitingCalls(t *testing.T) {
	t.Parallel()
	url := dbtest.URL(t)
	s := start(t, Config{DatabaseURL: url})
	key := viewerKey(t, url)
	stream := open(t, s.Admin+"/v1/events/stream", key)
	if line, err := bufio.NewReader(stream.Body).ReadString('\n'); line != ":\n" || err != nil {
		t.Fatalf("%q, %v", line, err)
	}
	type answer struct {
		status int
		body   string
		err    error
	}
	polls := make(chan answer, 2)
	for _, path := range []string{"/v1/events?wait=30s&after=now", "/v1/events?wait=30s&after=now&bucket=bbb"} {
		go func() {
			response, err := http.DefaultClient.Do(request(t, s.Admin+path, key))
			if err != nil {
				polls <- answer{err: err}
				return
			}
			defer response.Body.Close()
			body, err := io.ReadAll(response.Body)
			polls <- answer{response.StatusCode, string(body), err}
		}()
	}
	wait.Until(t, "all calls wait", func() bool {
		return s.Metric(t, `upcall_api_open{kind="poll"}`) == 2 && s.Metric(t, `upcall_api_open{kind="stream"}`) == 1
	})
	began := time.Now()
	if err := s.Stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
	took := time.Since(began)
	if _, err := io.Copy(io.Discard, stream.Body); err != nil {
		t.Errorf("the stream did not end cleanly: %v", err)
	}
	for range 2 {
		if got := <-polls; got.err != nil || got.status != 200 || !strings.HasPrefix(got.body, `{"events":[],"next":"`) {
			t.Errorf("%+v", got)
		}
	}
	if took > 5*time.Second { // the rest of a receiver takes a moment to stop; a poll waits 30 s, a drain 25 s
		t.Errorf("it took %v", took)
	}
	t.Logf("stopped after %v", took)
}

// TestReaderOutlivesReceiver checks that a reader goes on at a receiver that was started anew
// where it was.
func TestReaderOutlivesReceiver(t *testing.T) {
	t.Parallel()
	url := dbtest.URL(t)
	var key, after string
	for n := range 3 {
		s := start(t, Config{DatabaseURL: url})
		wait.Until(t, "the receiver is ready", func() bool { return status(t, s.Admin+"/readyz") == http.StatusOK })
		if n == 0 {
			key = viewerKey(t, url)
		}
		pool := dbtest.Open(t, url, eventstore.Open)
		if _, err := pool.Exec(t.Context(), `INSERT INTO upcall.upload_events (id, received_at, bucket, object_key, vars, source)
			VALUES (gen_random_uuid(), now(), 'bbb', 'k' || $1::int, '{}', 'callback')`, n); err != nil {
			t.Fatal(err)
		}
		_, text := servetest.Do(t, request(t, s.Admin+"/v1/events?wait=30s"+after, key))
		if strings.Count(text, `"event_id"`) != 1 || !strings.Contains(text, `"object_key":"k`+string(rune('0'+n))) {
			t.Errorf("receiver %d: %s", n, text)
		}
		_, next, _ := strings.Cut(text, `"next":"`)
		after = "&after=" + strings.TrimSuffix(next, `"}`)
		if err := s.Stop(); err != nil {
			t.Fatal(err)
		}
	}
}
