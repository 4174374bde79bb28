package ossemu

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"upcall/internal/callbackspec"
)

func TestFaultsDocument(t *testing.T) {
	t.Parallel()
	for name, doc := range map[string]string{
		"not json": "x", "empty": "", "list": "[]", "unknown field": `{"drop_all":true}`, "trailing": `{} {}`,
		"wrong type": `{"drop":"yes"}`, "bad delay": `{"delay":"3"}`, "negative delay": `{"delay":"-1s"}`, "long delay": `{"delay":"2m"}`,
		"negative duplicate": `{"duplicate":-1}`, "many": `{"duplicate":10001}`, "concurrent alone": `{"concurrent":true}`,
		"negative count": `{"count":-1}`, "key URL": `{"foreign_key_url":"x"}`, "space": `{"space_as":"_"}`, "hex": `{"hex_case":"mixed"}`,
		"plus": `{"path_plus":"x"}`, "escapes": `{"path_escapes":"x"}`,
		"negative notification delay": `{"delay_notification":"-1s"}`, "long notification delay": `{"delay_notification":"25h"}`,
		"negative notifications": `{"duplicate_notification":-1}`, "many notifications": `{"duplicate_notification":10001}`,
	} {
		_, base := start(t)
		r, err := http.NewRequestWithContext(t.Context(), "PUT", base+"/_ossemu/faults", strings.NewReader(doc))
		if err != nil {
			t.Fatal(err)
		}
		got := send(t, r)
		var body struct {
			Error struct{ Code, Message string }
		}
		if err := json.Unmarshal([]byte(got.body), &body); err != nil || got.status != 400 ||
			body.Error.Code != "bad_faults" || body.Error.Message == "" {
			t.Errorf("%s: %d %s", name, got.status, got.body)
		}
	}
	_, base := start(t)
	doc := `{"drop":true,"delay":"1.5s","duplicate":2,"concurrent":true,"foreign_key_url":"http://evil.example/k","space_as":"+","count":2}`
	setFaults(t, base, doc)
	if got := fetch(t, base+"/_ossemu/faults"); strings.TrimSpace(got.body) != doc {
		t.Errorf("got %s, want %s", got.body, doc)
	}
	setFaults(t, base, `{}`)
	if got := fetch(t, base+"/_ossemu/faults"); strings.TrimSpace(got.body) != `{}` {
		t.Errorf("cleared: %s", got.body)
	}
}

func TestFaultDrop(t *testing.T) {
	t.Parallel()
	rec := receive(t, nil)
	_, base := start(t)
	p := callbackspec.Parameter{URLs: []string{rec.url, rec.url}, Body: "a=b"}
	setFaults(t, base, `{"drop":true,"count":1}`)
	e := wantError(t, putWith(t, base, "k", "x", p), 203, "CallbackFailed")
	want := "Error status : -1 " + strings.TrimPrefix(rec.url, "http://") + " reply timeout, cost:5000ms, timeout:5000ms (err -4, errno110)"
	if e.Message != want {
		t.Errorf("%q, want %q", e.Message, want)
	}
	if n := len(rec.requests()); n != 0 {
		t.Errorf("%d callbacks were sent", n)
	}
	if d := deliveries(t, base, "k"); len(d) != 2 || d[0].Error != "dropped by fault, not sent" {
		t.Errorf("recorded %+v", d)
	}
	if got := putWith(t, base, "k", "x", p); got.status != 200 {
		t.Errorf("count is over: %d", got.status)
	}
}

func TestFaultDropAnswer(t *testing.T) {
	t.Parallel()
	rec := receive(t, nil)
	_, base := start(t)
	setFaults(t, base, `{"drop_answer":true}`)
	wantError(t, putWith(t, base, "k", "x", callbackspec.Parameter{URLs: []string{rec.url}, Body: "a=b"}), 203, "CallbackFailed")
	if n := len(rec.requests()); n != 1 {
		t.Errorf("%d callbacks, want 1", n)
	}
}

func TestFaultDelay(t *testing.T) {
	t.Parallel()
	rec := receive(t, nil)
	s, base := start(t)
	p := callbackspec.Parameter{URLs: []string{rec.url}, Body: "a=b"}
	setFaults(t, base, `{"delay":"50ms"}`)
	begun := time.Now()
	if got := putWith(t, base, "k", "x", p); got.status != 200 || time.Since(begun) < 50*time.Millisecond {
		t.Errorf("%d after %s", got.status, time.Since(begun))
	}
	// Close ends a delay: the upload is answered, not cut.
	setFaults(t, base, `{"delay":"1m"}`)
	s.Close()
	if got := putWith(t, base, "k", "x", p); got.status != 200 {
		t.Errorf("%d", got.status)
	}
}

func TestFaultDuplicate(t *testing.T) {
	t.Parallel()
	for _, doc := range []string{`{"duplicate":4}`, `{"duplicate":4,"concurrent":true}`} {
		// A concurrent receiver answers only when all five are there.
		var all sync.WaitGroup
		if strings.Contains(doc, "concurrent") {
			all.Add(5)
		}
		rec := receive(t, func(w http.ResponseWriter, _ *http.Request) {
			if strings.Contains(doc, "concurrent") {
				all.Done()
				all.Wait()
			}
			respond(w, 200, "{}")
		})
		_, base := start(t)
		setFaults(t, base, doc)
		if got := putWith(t, base, "k", "x", callbackspec.Parameter{URLs: []string{rec.url}, Body: "r=${reqId}"}); got.status != 200 {
			t.Errorf("%s: %d", doc, got.status)
		}
		calls := rec.requests()
		if len(calls) != 5 {
			t.Fatalf("%s: %d callbacks", doc, len(calls))
		}
		for _, c := range calls[1:] {
			if d := cmp.Diff(calls[0], c, cmp.AllowUnexported(received{})); d != "" {
				t.Errorf("%s: a duplicate differs:\n%s", doc, d)
			}
		}
	}
}

func TestFaultSignatures(t *testing.T) {
	t.Parallel()
	rec := receive(t, nil)
	_, base := start(t)
	key := publicKey(t, base)
	last := func(doc, path, body string) received {
		setFaults(t, base, doc)
		if got := putWith(t, base, "a b/ü", "x", callbackspec.Parameter{URLs: []string{rec.url + path}, Body: body}); got.status != 200 {
			t.Fatalf("%d %s", got.status, got.body)
		}
		calls := rec.requests()
		return calls[len(calls)-1]
	}
	c := last(`{"corrupt_signature":true}`, "/cb", "a=b")
	if len(c.header.Get("Authorization")) != 88 || verified(key, c.header.Get("Authorization"), "/cb\na=b") {
		t.Error("corrupt_signature: still verifies, or lost its shape")
	}
	c = last(`{"foreign_key_url":"http://evil.example/k.pem"}`, "/cb", "a=b")
	if got, _ := base64.StdEncoding.DecodeString(c.header.Get("x-oss-pub-key-url")); string(got) != "http://evil.example/k.pem" {
		t.Errorf("foreign_key_url: %s", got)
	}
	for doc, want := range map[string]struct{ body, path string }{
		`{}`:                                  {"c=%20+&o=a%20b%2F%C3%BC", "/x+y z"},
		`{"space_as":"+"}`:                    {"c=++&o=a+b%2F%C3%BC", "/x+y z"},
		`{"hex_case":"lower"}`:                {"c=%20+&o=a%20b%2f%c3%bc", "/x+y z"},
		`{"space_as":"+","hex_case":"lower"}`: {"c=++&o=a+b%2f%c3%bc", "/x+y z"},
		`{"path_plus":"space"}`:               {"c=%20+&o=a%20b%2F%C3%BC", "/x y z"},
		`{"path_escapes":"raw"}`:              {"c=%20+&o=a%20b%2F%C3%BC", "/x+y%20z"},
	} {
		c := last(doc, "/x+y%20z", "c=%20+&o=${object}")
		if c.body != want.body || c.target != "/x+y%20z" {
			t.Errorf("%s: body %s, target %s", doc, c.body, c.target)
		}
		if !verified(key, c.header.Get("Authorization"), want.path+"\n"+want.body) {
			t.Errorf("%s: the signature is not over %s", doc, want.path)
		}
	}
}
