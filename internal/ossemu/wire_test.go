package ossemu

import (
	"io"
	"net"
	"net/http"
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

func TestReadableErrors(t *testing.T) {
	t.Parallel()
	_, base := start(t)
	w := newWire("PUT", base, `tab	quote"'<&>`)
	w.header.Set("x-oss-meta-a", `"b"`)
	w.secret = "x"
	got := send(t, w.presigned(t))
	if !strings.Contains(got.body, "<StringToSign>"+algorithmV4+"\n"+w.at.Format(isoTime)+"\n") ||
		!strings.Contains(got.body, "<CanonicalRequest>PUT\n/demo/tab%09quote%22%27%3C%26%3E\n") || !strings.Contains(got.body, "\nx-oss-meta-a:\"b\"\n") {
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

func TestContentLength(t *testing.T) {
	t.Parallel()
	s, base := start(t)
	id := initiate(t, base, "m")
	part := newWire("PUT", base, "m")
	part.query.Set("uploadId", id)
	part.query.Set("partNumber", "1")
	for what, r := range map[string]*http.Request{"put": newWire("PUT", base, "k").presigned(t), "part": part.presigned(t)} {
		got := raw(t, base, rawRequest(r))
		if !strings.HasPrefix(got, "HTTP/1.1 411 ") || !strings.Contains(got, "<Code>MissingContentLength</Code>") || !strings.Contains(got, "0017-00000101") {
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
