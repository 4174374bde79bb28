package issueapi

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// TestBodies checks how bodies may be sent, whatever they hold.
func TestBodies(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	for _, tt := range []struct {
		name   string
		change func(*http.Request)
		status int
		rule   string
	}{
		{"no content type", func(r *http.Request) { r.Header.Del("Content-Type") }, 415, "media_type"},
		{"form", func(r *http.Request) { r.Header.Set("Content-Type", "application/x-www-form-urlencoded") }, 415, "media_type"},
		{"text", func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") }, 415, "media_type"},
		{"no media type", func(r *http.Request) { r.Header.Set("Content-Type", "json;;") }, 415, "media_type"},
		{"media type that resembles JSON's", func(r *http.Request) { r.Header.Set("Content-Type", "application/json-seq") }, 415, "media_type"},
		{"another charset", func(r *http.Request) { r.Header.Set("Content-Type", "application/json; charset=utf-16") }, 415, "media_type"},
		{"compressed", func(r *http.Request) { r.Header.Set("Content-Encoding", "gzip") }, 415, "media_type"},
		{"too large", func(r *http.Request) { r.Body, r.ContentLength = readAll(strings.Repeat(" ", maxBody+1)), maxBody+1 }, 413, "body_size"},
		{"chunked and too large", func(r *http.Request) {
			r.Body, r.ContentLength = readAll(strings.Repeat(" ", maxBody+1)), -1
		}, 413, "body_size"},
		{"chunked and endless", func(r *http.Request) { r.Body, r.ContentLength = io.NopCloser(endless{}), -1 }, 413, "body_size"},
		{"empty", func(r *http.Request) { r.Body, r.ContentLength = http.NoBody, 0 }, 400, "json"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, path := range []string{"/v1/uploads", "/v1/uploads/multipart"} {
				r := s.request(t, http.MethodPost, path, s.photos, goodBody)
				tt.change(r)
				if got := s.do(t, r); got.status != tt.status || got.text("rule") != tt.rule {
					t.Errorf("%s: %d %s", path, got.status, got.raw)
				}
			}
		})
	}
	for _, contentType := range []string{"application/json; charset=utf-8", "Application/JSON", "application/json;charset=UTF-8"} {
		r := s.request(t, http.MethodPost, "/v1/uploads", s.photos, goodBody)
		r.Header.Set("Content-Type", contentType)
		r.Header.Set("Content-Encoding", "identity")
		if got := s.do(t, r); got.status != http.StatusCreated {
			t.Errorf("%s: %d %s", contentType, got.status, got.raw)
		}
	}
	if n := s.rows(t); n != 3 {
		t.Errorf("%d rows", n)
	}
}

func readAll(s string) io.ReadCloser { return io.NopCloser(strings.NewReader(s)) }

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

// TestCutShort sends a body that ends before its Content-Length.
func TestCutShort(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.Public, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, rawUpload, "x", s.photos, len(goodBody)+1, goodBody)
	conn.(*net.TCPConn).CloseWrite()
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusBadRequest || s.rows(t) != 0 {
		t.Errorf("%s, %d rows", response.Status, s.rows(t))
	}
}
