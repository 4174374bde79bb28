package receiver

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"upcall/internal/dbtest"
	"upcall/internal/stream"
	"upcall/internal/testing/natstest"
	"upcall/internal/testing/openapitest"
	"upcall/internal/testing/servetest"
	"upcall/internal/testing/wait"
)

// A streamWorld is a receiver with a stream in which there is a message that is no callback, and people who look at it.
type streamWorld struct {
	*servetest.Service
	api              *openapitest.Description
	viewer, operator string
}

// call makes a call of the API, and compares the answer with the description.
func (w *streamWorld) call(t *testing.T, method, path, key, body string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, w.Admin+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+key)
	r.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	w.api.CheckAnswer(t, r, response, text)
	return response.StatusCode, string(text)
}

// TestStreamPages: the API and the console show what the stream holds, and an operator retries and discards its dead
// letters while the receiver runs. A viewer does not.
func TestStreamPages(t *testing.T) {
	t.Parallel()
	database, cluster := dbtest.URL(t), natstest.Start(t, nil)
	w := &streamWorld{Service: start(t, Config{DatabaseURL: database, Stream: &stream.Config{URL: cluster.URL()}}),
		viewer: roleKey(t, database, "viewer"), operator: roleKey(t, database, "operator")}
	document, err := os.ReadFile("../api/openapi.yaml")
	if err == nil {
		w.api, err = openapitest.Read(document)
	}
	if err != nil {
		t.Fatal(err)
	}
	wait.Until(t, "the stream is usable", func() bool { return w.Metric(t, "upcall_stream_usable") == 1 })
	conn, err := nats.Connect(cluster.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, message := range []string{"hello", "world"} {
		if err := conn.Publish("UPCALL.waiting", []byte(message)); err != nil {
			t.Fatal(err)
		}
	}
	dead := func(n float64) {
		t.Helper()
		wait.Until(t, "the dead letters are counted", func() bool { return w.Metric(t, "upcall_stream_rejected") == n })
	}
	dead(2)
	var shown struct {
		DeadLetters []struct {
			ID     string `json:"event_id"`
			Reason string
		} `json:"dead_letters"`
	}
	_, text := w.call(t, http.MethodGet, "/v1/spool", w.viewer, "")
	if err := json.Unmarshal([]byte(text), &shown); err != nil || len(shown.DeadLetters) != 2 ||
		!strings.Contains(shown.DeadLetters[0].Reason, "a record has the wrong") {
		t.Fatalf("got %s, %v", text, err)
	}
	for path, want := range map[string]string{"/v1/spool?limit=1": `"spool":{"kind":"stream","problem":null,"replicas":3,`,
		"/v1/health": `"spool":{"kind":"stream","problem":null,"replicas":3,`} {
		if code, text := w.call(t, http.MethodGet, path, w.viewer, ""); code != http.StatusOK || !strings.Contains(text, want) ||
			strings.Count(text, `"event_id"`) > 1 {
			t.Errorf("%s: %d %s", path, code, text)
		}
	}
	one := `{"events":["` + shown.DeadLetters[0].ID + `"]}`
	for _, act := range []string{"retry", "discard"} {
		if code, text := w.call(t, http.MethodPost, "/v1/spool/"+act, w.viewer, one); code != http.StatusForbidden {
			t.Errorf("%s by a viewer: %d %s", act, code, text)
		}
		unknown := `{"events":["00000000-0000-0000-0000-000000000001"]}`
		if code, text := w.call(t, http.MethodPost, "/v1/spool/"+act, w.operator, unknown); code != http.StatusNotFound {
			t.Errorf("%s of another: %d %s", act, code, text)
		}
	}
	dead(2)
	code, text := w.call(t, http.MethodPost, "/v1/spool/retry", w.operator, `{"all":true}`)
	if code != 200 || !strings.Contains(text, `"changed":2`) {
		t.Errorf("retry: %d %s", code, text)
	}
	dead(2) // again, because they are no callbacks
	if code, text := w.call(t, http.MethodPost, "/v1/spool/discard", w.operator, one); code != 200 || !strings.Contains(text, `"changed":1`) {
		t.Errorf("discard: %d %s", code, text)
	}
	dead(1)

	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	person := &http.Client{Jar: jar, Transport: &http.Transport{DisableKeepAlives: true}}
	page := func(method, path string, form url.Values) string {
		t.Helper()
		var response *http.Response
		var err error
		if method == http.MethodPost {
			response, err = person.PostForm(w.Admin+"/console/"+path, form)
		} else {
			response, err = person.Get(w.Admin + "/console/" + path)
		}
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		if err != nil || response.StatusCode != http.StatusOK {
			t.Fatalf("%s: %d %s, %v", path, response.StatusCode, text, err)
		}
		return string(text)
	}
	for _, tt := range []struct{ text, want string }{
		{page(http.MethodPost, "login", url.Values{"key": {w.operator}}), "servers keep up"},
		{page(http.MethodGet, "spool", nil), "Servers that keep up"}, {page(http.MethodGet, "spool", nil), "UPCALL_2"},
	} {
		if !strings.Contains(tt.text, tt.want) || !strings.Contains(tt.text, ">Stream</") || strings.Contains(tt.text, ">Spool<") {
			t.Errorf("no %q: %s", tt.want, tt.text)
		}
	}
	if text := page(http.MethodPost, "spool/discard", nil); !strings.Contains(text, "deleted permanently") {
		t.Errorf("discard asks: %s", text)
	}
	dead(1)
	if text := page(http.MethodPost, "spool/discard", url.Values{"confirm": {"yes"}}); !strings.Contains(text, "There are none") {
		t.Errorf("after discarding: %s", text)
	}
	dead(0)
}
