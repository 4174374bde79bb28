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
		"service":          {"GET", "/", "", 403, "AccessDenied"},
		"put bucket":       {"PUT", "/demo", "", 403, "AccessDenied"},
		"list version 1":   {"GET", "/demo", "", 403, "AccessDenied"},
		"append":           {"POST", "/demo/k", "append&position=0", 403, "AccessDenied"},
		"acl":              {"PUT", "/demo/k", "acl", 403, "AccessDenied"},
		"unknown own path": {"GET", "/_ossemu/nothing", "", 405, "MethodNotAllowed"},
		"own root":         {"GET", "/_ossemu", "", 405, "MethodNotAllowed"},
		"own method":       {"POST", "/_ossemu/faults", "", 405, "MethodNotAllowed"},
		"form elsewhere":   {"POST", "/nowhere", "", 404, "NoSuchBucket"},
		"no bucket":        {"GET", "/nowhere/k", "", 404, "NoSuchBucket"},
		"bucket name":      {"GET", "/No_Bucket/k", "", 400, "InvalidBucketName"},
	} {
		r, err := http.NewRequestWithContext(t.Context(), tc.method, base+tc.path+"?"+tc.query, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Run("unsigned "+name, func(t *testing.T) {
			t.Parallel()
			wantError(t, send(t, r), tc.status, tc.code)
		})
	}
	for name, tc := range map[string]struct {
		method, bucket, key, parameter string
		status                         int
		code                           string
	}{
		"delete service":      {"DELETE", "", "", "", 501, "NotImplemented"},
		"patch":               {"PATCH", testBucket, "k", "", 405, "MethodNotAllowed"},
		"post object":         {"POST", testBucket, "k", "", 405, "MethodNotAllowed"},
		"append":              {"POST", testBucket, "k", "append", 501, "NotImplemented"},
		"symlink":             {"PUT", testBucket, "k", "symlink", 501, "NotImplemented"},
		"tagging":             {"GET", testBucket, "k", "tagging", 501, "NotImplemented"},
		"version":             {"GET", testBucket, "k", "versionId", 501, "NotImplemented"},
		"meta by GET":         {"GET", testBucket, "k", "objectMeta", 501, "NotImplemented"},
		"versioning":          {"PUT", testBucket, "", "versioning", 501, "NotImplemented"},
		"lifecycle":           {"DELETE", testBucket, "", "lifecycle", 501, "NotImplemented"},
		"a setting to come":   {"PUT", testBucket, "", "settingToCome", 501, "NotImplemented"},
		"another to delete":   {"DELETE", testBucket, "", "settingToCome", 501, "NotImplemented"},
		"setting of nothing":  {"PUT", "nowhere", "", "cors", 404, "NoSuchBucket"},
		"regions":             {"GET", "", "", "regions", 501, "NotImplemented"},
		"delete by POST":      {"POST", testBucket, "k", "delete", 501, "NotImplemented"},
		"bucket info by POST": {"POST", testBucket, "", "bucketInfo", 501, "NotImplemented"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWire(tc.method, base, tc.key)
			w.bucket = tc.bucket
			if tc.parameter != "" {
				w.query.Set(tc.parameter, "")
			}
			wantError(t, send(t, w.headerSigned(t)), tc.status, tc.code)
		})
	}
	if got := send(t, newWire("HEAD", base, "none").presigned(t)); got.status != 404 {
		t.Errorf("a refused setting must leave the bucket: %d", got.status)
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
	s.ring.add(s.ring.now(), Delivery{Object: "a"})
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
		"bytes=-10":    {206, "0123456789", "bytes 0-9/10"},
		"bytes=-30":    {200, "0123456789", ""},
		"bytes=0-99":   {200, "0123456789", ""},
		"bytes=10-":    {200, "0123456789", ""},
		"bytes=5-3":    {200, "0123456789", ""},
		"bytes=0-1,3-": {206, "01", "bytes 0-1/10"},
		"bytes=-0":     {200, "0123456789", ""},
		"lines=0-1":    {200, "0123456789", ""},
		"bytes=-":      {200, "0123456789", ""},
	} {
		if got := get("Range", header); got.status != want.status || got.body != want.body || got.header.Get("Content-Range") != want.range_ {
			t.Errorf("%s: %d %q %q", header, got.status, got.body, got.header.Get("Content-Range"))
		}
	}
	for _, header := range []string{"bytes=10-", "bytes=0-1,3-"} {
		wantError(t, get("Range", header, "x-oss-range-behavior", "standard"), 416, "InvalidRange")
	}
	for header, want := range map[string]string{"bytes=8-99": "89", "bytes=-30": "0123456789"} {
		if got := get("Range", header, "x-oss-range-behavior", "standard"); got.status != 206 || got.body != want {
			t.Errorf("standard, %s: %d %q", header, got.status, got.body)
		}
	}
	wantError(t, get("Range", "bytes=0-1,3-", "x-oss-multi-range-behavior", "multi-range"), 501, "NotImplemented")
	before, after := now.Add(-time.Hour).Format(http.TimeFormat), now.Add(time.Hour).Format(http.TimeFormat)
	for _, tc := range []struct {
		name, value string
		status      int
	}{
		{"If-Match", etag, 200}, {"If-Match", `"x"`, 412}, {"If-None-Match", etag, 304}, {"If-None-Match", `"x"`, 200},
		{"If-Modified-Since", after, 304}, {"If-Modified-Since", before, 200}, {"If-Unmodified-Since", before, 412},
		{"If-Unmodified-Since", after, 200},
	} {
		if got := get(tc.name, tc.value); got.status != tc.status {
			t.Errorf("%s %s: %d, want %d", tc.name, tc.value, got.status, tc.status)
		}
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
