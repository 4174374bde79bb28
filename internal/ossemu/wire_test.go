package ossemu

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// raw sends the bytes of a request and returns the bytes of the answer.
func raw(t *testing.T, base, request string) string {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(base, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	return string(answer)
}

// rawRequest is a signed request as text, without a body.
func rawRequest(r *http.Request, header ...string) string {
	var b strings.Builder
	b.WriteString(r.Method + " " + r.URL.RequestURI() + " HTTP/1.1\r\nHost: " + r.URL.Host + "\r\nConnection: close\r\n")
	for name, values := range r.Header {
		b.WriteString(name + ": " + values[0] + "\r\n")
	}
	for _, line := range header {
		b.WriteString(line + "\r\n")
	}
	return b.String() + "\r\n"
}

// TestHeaderNames looks at the bytes on the wire: clients exist that read the names of
// headers by exact case.
func TestHeaderNames(t *testing.T) {
	t.Parallel()
	_, base := start(t)
	put := newWire("PUT", base, "k")
	put.header.Set("x-oss-meta-Author", "me")
	put.header.Set("x-oss-server-side-encryption", "AES256")
	put.header.Set("x-oss-tagging", "a=1")
	stored := raw(t, base, rawRequest(put.presigned(t), "Content-Length: 0"))
	id := initiate(t, base, "m")
	part := newWire("PUT", base, "m")
	part.query.Set("uploadId", id)
	part.query.Set("partNumber", "1")
	for what, tc := range map[string]struct {
		answer string
		want   []string
	}{
		"put": {stored, []string{"ETag", "Content-MD5", "x-oss-hash-crc64ecma", "x-oss-request-id", "x-oss-server-time",
			"x-oss-server-side-encryption"}},
		"part": {raw(t, base, rawRequest(part.presigned(t), "Content-Length: 0")), []string{"ETag", "Content-MD5", "x-oss-hash-crc64ecma"}},
		"head": {raw(t, base, rawRequest(newWire("HEAD", base, "k").presigned(t))), []string{"ETag", "Content-MD5",
			"x-oss-meta-author", "x-oss-object-type", "x-oss-storage-class", "x-oss-tagging-count",
			"x-oss-server-side-encryption"}},
		"none":  {raw(t, base, rawRequest(newWire("HEAD", base, "none").presigned(t))), []string{"x-oss-ec", "x-oss-err", "x-oss-request-id"}},
		"admin": {raw(t, base, "GET /_ossemu/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"), []string{"x-oss-request-id"}},
	} {
		head, _, _ := strings.Cut(tc.answer, "\r\n\r\n")
		var names []string
		for _, line := range strings.Split(head, "\r\n")[1:] {
			name, _, _ := strings.Cut(line, ":")
			names = append(names, name)
			if strings.HasPrefix(name, "X-Oss-") || name == "Content-Md5" || name == "Etag" {
				t.Errorf("%s: %s is spelled as Go has it", what, name)
			}
		}
		for _, name := range tc.want {
			if !slices.Contains(names, name) {
				t.Errorf("%s: no header %s among %v", what, name, names)
			}
		}
	}
}

func TestReadableErrors(t *testing.T) {
	t.Parallel()
	_, base := start(t)
	w := newWire("PUT", base, `tab	quote"'<&>`)
	w.header.Set("x-oss-meta-a", `"b"`)
	w.secret = "x"
	got := send(t, w.presigned(t))
	if !strings.Contains(got.body, "<StringToSign>"+algorithmV4+"\n"+w.at.Format(isoTime)+"\n") ||
		!strings.Contains(got.body, "<CanonicalRequest>PUT\n/demo/tab%09quote%22%27%3C%26%3E\n") ||
		!strings.Contains(got.body, "\nx-oss-meta-a:\"b\"\n") {
		t.Errorf("texts to compare by eye are escaped:\n%s", got.body)
	}
	if e := got.errorXML(t); !strings.HasPrefix(e.StringToSign, algorithmV4+"\n") {
		t.Errorf("not the same text: %+v", e)
	}
	got = send(t, newWire("GET", base, "a\x01\"<&>").presigned(t))
	if !strings.Contains(got.body, `<Key>a&#1;"&lt;&amp;&gt;</Key>`) {
		t.Errorf("key: %s", got.body)
	}
}

// TestRefusedWhileSending: a client that listens only after it has sent all of a large
// body sees the refusal.
func TestRefusedWhileSending(t *testing.T) {
	t.Parallel()
	_, base := start(t)
	r := newWire("PUT", base, "k")
	r.secret = "wrong"
	const size = 20 << 20
	request := rawRequest(r.presigned(t), "Content-Length: 20971520") + strings.Repeat("x", size)
	if got := raw(t, base, request); !strings.HasPrefix(got, "HTTP/1.1 403 ") || !strings.Contains(got, "SignatureDoesNotMatch") {
		t.Errorf("%.200s", got)
	}
	// The next request on the connection is served.
	client := &http.Client{Transport: &http.Transport{}}
	for range 2 {
		again := r.presigned(t)
		again.Body, again.ContentLength = io.NopCloser(bytes.NewReader(make([]byte, 1<<20))), 1<<20
		resp, err := client.Do(again)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != 403 {
			t.Errorf("%d %v", resp.StatusCode, err)
		}
		resp.Body.Close()
	}
}

// TestRefusedBeforeSending: a client that waits for leave to send is refused at once.
func TestRefusedBeforeSending(t *testing.T) {
	t.Parallel()
	_, base := start(t)
	w := newWire("PUT", base, "k")
	w.secret = "wrong"
	if got := raw(t, base, rawRequest(w.presigned(t), "Content-Length: 100",
		"Expect: 100-continue")); !strings.HasPrefix(got, "HTTP/1.1 403 ") {
		t.Errorf("%.100s", got)
	}
}

func TestContentLength(t *testing.T) {
	t.Parallel()
	s, base := start(t)
	id := initiate(t, base, "m")
	part := newWire("PUT", base, "m")
	part.query.Set("uploadId", id)
	part.query.Set("partNumber", "1")
	for what, r := range map[string]*http.Request{"put": newWire("PUT", base, "k").presigned(t), "part": part.presigned(t)} {
		got := raw(t, base, rawRequest(r))
		if !strings.HasPrefix(got, "HTTP/1.1 411 ") || !strings.Contains(got, "<Code>MissingContentLength</Code>") ||
			!strings.Contains(got, "0017-00000101") {
			t.Errorf("%s: %.300s", what, got)
		}
	}
	if _, err := s.store.get(testBucket, "k"); err == nil {
		t.Error("an object was stored")
	}
	for what, header := range map[string][]string{"a length": {"Content-Length: 0"}, "chunks": {"Transfer-Encoding: chunked\r\n\r\n0"}} {
		if got := raw(t, base, rawRequest(newWire("PUT", base, "k").presigned(t), header...)); !strings.HasPrefix(got, "HTTP/1.1 200 ") {
			t.Errorf("%s: %.300s", what, got)
		}
	}
}
