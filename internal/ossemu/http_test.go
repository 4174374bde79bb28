package ossemu

import (
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"upcall/internal/callbackspec"
)

func TestConfigMistakesAreReportedTogether(t *testing.T) {
	t.Parallel()
	_, err := New(Config{Region: "oss-cn-hangzhou", Buckets: []string{"_ossemu", "ok-name", "A"}, PublicURL: "ftp://x", CallbackTimeout: -1})
	for _, want := range []string{"access key id", "access key secret", "region", `"_ossemu"`, `"A"`, "public URL", "negative"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s is not reported in:\n%v", want, err)
		}
	}
	if _, err := New(Config{AccessKeyID: "a", AccessKeySecret: "b", Region: testRegion}); err == nil ||
		!strings.Contains(err.Error(), "no buckets") {
		t.Errorf("no buckets: %v", err)
	}
}

func TestRoutes(t *testing.T) {
	t.Parallel()
	_, base := start(t)
	for name, tc := range map[string]struct {
		method, path, query string
		status              int
		code                string
	}{
		"service":          {"GET", "/", "", 501, "NotImplemented"},
		"put bucket":       {"PUT", "/demo", "", 405, "MethodNotAllowed"},
		"list version 1":   {"GET", "/demo", "", 501, "NotImplemented"},
		"patch":            {"PATCH", "/demo/k", "", 405, "MethodNotAllowed"},
		"post object":      {"POST", "/demo/k", "", 405, "MethodNotAllowed"},
		"append":           {"POST", "/demo/k", "append&position=0", 501, "NotImplemented"},
		"acl":              {"PUT", "/demo/k", "acl", 501, "NotImplemented"},
		"unknown own path": {"GET", "/_ossemu/nothing", "", 405, "MethodNotAllowed"},
		"own root":         {"GET", "/_ossemu", "", 405, "MethodNotAllowed"},
		"own method":       {"POST", "/_ossemu/faults", "", 405, "MethodNotAllowed"},
		"form elsewhere":   {"POST", "/nowhere", "", 404, "NoSuchBucket"},
	} {
		r, err := http.NewRequestWithContext(t.Context(), tc.method, base+tc.path+"?"+tc.query, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			wantError(t, send(t, r), tc.status, tc.code)
		})
	}
	head := send(t, newWire("HEAD", base, "nothing").presigned(t))
	if head.status != 404 || head.body != "" || head.header.Get("x-oss-err") == "" || head.header.Get("x-oss-ec") != "0026-00000001" {
		t.Errorf("HEAD: %+v", head)
	}
	if got := send(t, newWire("PUT", base, "k").presigned(t)); got.header.Get("Server") != "AliyunOSS" ||
		got.header.Get("x-oss-server-time") == "" {
		t.Errorf("headers %v", got.header)
	}
	for path, want := range map[string]string{"/_ossemu/health": `{"status":"ok"}`, "/_ossemu/callbacks": `[]`} {
		if got := fetch(t, base+path); got.status != 200 || strings.TrimSpace(got.body) != want {
			t.Errorf("%s: %+v", path, got)
		}
	}
}

func TestListArguments(t *testing.T) {
	t.Parallel()
	_, base := start(t)
	for name, value := range map[string]string{"max-keys": "0", "max-keys ": "1001", "max-keys  ": "x",
		"encoding-type": "utf", "continuation-token": "!"} {
		w := newWire("GET", base, "")
		w.query.Set("list-type", "2")
		w.query.Set(strings.TrimSpace(name), value)
		wantError(t, send(t, w.presigned(t)), 400, "InvalidArgument")
	}
}

func TestForgetCallbacks(t *testing.T) {
	t.Parallel()
	s, base := start(t)
	s.ring.add(Delivery{Object: "a"})
	r, err := http.NewRequestWithContext(t.Context(), "DELETE", base+"/_ossemu/callbacks", nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := send(t, r); got.status != 204 || len(deliveries(t, base, "")) != 0 {
		t.Errorf("%+v", got)
	}
}

func TestRangesAndConditions(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	_, base := start(t, func(c *Config) { c.Now = func() time.Time { return now } })
	get := func(header ...string) reply {
		w := newWire("GET", base, "k")
		w.at = now
		for i := 0; i < len(header); i += 2 {
			w.header.Set(header[i], header[i+1])
		}
		return send(t, w.presigned(t))
	}
	put := newWire("PUT", base, "k")
	put.at, put.body = now, strings.NewReader("0123456789")
	etag := send(t, put.presigned(t)).header.Get("ETag")
	for header, want := range map[string]struct {
		status       int
		body, range_ string
	}{
		"bytes=0-0":    {206, "0", "bytes 0-0/10"},
		"bytes=3-":     {206, "3456789", "bytes 3-9/10"},
		"bytes=-3":     {206, "789", "bytes 7-9/10"},
		"bytes=-30":    {206, "0123456789", "bytes 0-9/10"},
		"bytes=0-99":   {200, "0123456789", ""},
		"bytes=10-":    {200, "0123456789", ""},
		"bytes=5-3":    {200, "0123456789", ""},
		"bytes=0-1,3-": {200, "0123456789", ""},
		"bytes=-0":     {200, "0123456789", ""},
		"lines=0-1":    {200, "0123456789", ""},
		"bytes=-":      {200, "0123456789", ""},
	} {
		if got := get("Range", header); got.status != want.status || got.body != want.body || got.header.Get("Content-Range") != want.range_ {
			t.Errorf("%s: %d %q %q", header, got.status, got.body, got.header.Get("Content-Range"))
		}
	}
	wantError(t, get("Range", "bytes=10-", "x-oss-range-behavior", "standard"), 416, "InvalidRange")
	if got := get("Range", "bytes=8-99", "x-oss-range-behavior", "standard"); got.status != 206 || got.body != "89" {
		t.Errorf("standard: %d %q", got.status, got.body)
	}
	before, after := now.Add(-time.Hour).Format(http.TimeFormat), now.Add(time.Hour).Format(http.TimeFormat)
	for _, tc := range []struct {
		name, value string
		status      int
	}{
		{"If-Match", etag, 200}, {"If-Match", `"x"`, 412}, {"If-None-Match", etag, 304}, {"If-None-Match", `"x"`, 200},
		{"If-Modified-Since", after, 304}, {"If-Modified-Since", before, 200}, {"If-Unmodified-Since", before, 412}, {"If-Unmodified-Since", after, 200},
	} {
		if got := get(tc.name, tc.value); got.status != tc.status {
			t.Errorf("%s %s: %d, want %d", tc.name, tc.value, got.status, tc.status)
		}
	}
}

func TestCORS(t *testing.T) {
	t.Parallel()
	_, open := start(t)
	_, closed := start(t, func(c *Config) { c.AllowedOrigins = []string{"https://app.example"} })
	preflight := func(base, origin, method string) reply {
		r, err := http.NewRequestWithContext(t.Context(), "OPTIONS", base+"/demo/k", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Origin", origin)
		r.Header.Set("Access-Control-Request-Method", method)
		r.Header.Set("Access-Control-Request-Headers", "content-type,x-oss-callback")
		return send(t, r)
	}
	for base, origin := range map[string]string{open: "https://any.example", closed: "https://app.example"} {
		got := preflight(base, origin, "PUT")
		if got.status != 200 || got.header.Get("Access-Control-Allow-Origin") != origin ||
			got.header.Get("Access-Control-Allow-Headers") != "content-type,x-oss-callback" ||
			!strings.Contains(got.header.Get("Access-Control-Allow-Methods"), "PUT") {
			t.Errorf("preflight: %+v", got)
		}
	}
	for _, got := range []reply{preflight(closed, "https://evil.example", "PUT"), preflight(open, "https://any.example", "PATCH")} {
		e := wantError(t, got, 403, "AccessForbidden")
		if !strings.HasPrefix(e.Message, "CORSResponse: This CORS request is not allowed.") ||
			got.header.Get("Access-Control-Allow-Methods")+got.header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("denial: %+v", got)
		}
	}
	wantError(t, preflight(open, "", ""), 400, "InvalidArgument")
	w := newWire("PUT", open, "k")
	w.header.Set("Origin", "https://any.example")
	got := send(t, w.presigned(t))
	for _, name := range []string{"ETag", "x-oss-request-id", "x-oss-hash-crc64ecma", "x-oss-ec", "Content-MD5"} {
		if !strings.Contains(got.header.Get("Access-Control-Expose-Headers"), name) {
			t.Errorf("%s is not exposed", name)
		}
	}
	w = newWire("PUT", closed, "k")
	w.header.Set("Origin", "https://evil.example")
	if got := send(t, w.presigned(t)); got.header.Get("Access-Control-Allow-Origin") != "" {
		t.Error("a foreign origin may read the answer")
	}
}

// TestBodyCutShort: a connection that dies leaves no object.
func TestBodyCutShort(t *testing.T) {
	t.Parallel()
	s, base := start(t)
	r := newWire("PUT", base, "k").presigned(t)
	conn, err := net.Dial("tcp", strings.TrimPrefix(base, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "PUT "+r.URL.RequestURI()+" HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nshort"); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil || !strings.Contains(string(answer), "IncompleteBody") {
		t.Errorf("%s, %v", answer, err)
	}
	_, err = s.store.get(testBucket, "k")
	if e, ok := errors.AsType[*apiError](err); !ok || e.code != errNoSuchKey.code {
		t.Errorf("the object was stored: %v", err)
	}
}

// TestUploaderHangsUp: a stored object's callback goes out all the same.
func TestUploaderHangsUp(t *testing.T) {
	t.Parallel()
	reached, release := make(chan struct{}), make(chan struct{})
	finished := make(chan error, 1)
	rec := receive(t, func(w http.ResponseWriter, r *http.Request) {
		close(reached)
		<-release
		finished <- r.Context().Err()
		respond(w, 200, "{}")
	})
	_, base := start(t)
	w := newWire("PUT", base, "k")
	w.header.Set("x-oss-callback", callbackTo(rec.url))
	r := w.presigned(t)
	conn, err := net.Dial("tcp", strings.TrimPrefix(base, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Write(conn); err != nil {
		t.Fatal(err)
	}
	<-reached
	if err := conn.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		t.Fatal(err)
	}
	close(release)
	if err := <-finished; err != nil {
		t.Errorf("the callback was cut: %v", err)
	}
}

// TestOneKeyByMany: overwriting, reading and calling back at once loses nothing.
func TestOneKeyByMany(t *testing.T) {
	t.Parallel()
	rec := receive(t, nil)
	for _, dir := range []string{"", t.TempDir()} {
		s, base := start(t, func(c *Config) { c.DataDir = dir })
		before := len(rec.requests())
		callback := encode(t, callbackspec.Parameter{URLs: []string{rec.url}, Body: "w=${imageInfo.width}&s=${size}"})
		var all sync.WaitGroup
		for i := range 40 {
			put := newWire("PUT", base, "k")
			put.body = strings.NewReader(strings.Repeat("x", 1000+i))
			put.header.Set("x-oss-callback", callback)
			upload, download := put.presigned(t), newWire("GET", base, "k").presigned(t)
			all.Go(func() {
				if resp, err := http.DefaultClient.Do(upload); err != nil || resp.StatusCode != 200 {
					t.Errorf("upload: %v, %v", resp, err)
				} else {
					resp.Body.Close()
				}
			})
			all.Go(func() {
				resp, err := http.DefaultClient.Do(download)
				if err != nil {
					t.Error(err)
					return
				}
				defer resp.Body.Close()
				if body, err := io.ReadAll(resp.Body); resp.StatusCode == 200 && (err != nil ||
					int64(len(body)) != resp.ContentLength || len(body) < 1000) {
					t.Errorf("download: %d bytes, %v", len(body), err)
				} else if resp.StatusCode != 200 && resp.StatusCode != 404 {
					t.Errorf("download: %s", resp.Status)
				}
			})
		}
		all.Wait()
		if n := len(rec.requests()) - before; n != 40 {
			t.Errorf("%d callbacks, want 40", n)
		}
		if n := len(s.store.list(testBucket, "", "")); n != 1 {
			t.Errorf("%d objects", n)
		}
	}
}
