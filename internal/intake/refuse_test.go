package intake

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"upcall/internal/admission"
	"upcall/internal/callbackspec"
	"upcall/internal/testing/servetest"
	"upcall/internal/verify"
)

const path = "/oss/callback"

// TestRefuses provokes each error code of a running service, and checks that nothing is recorded
// and the process keeps running. Package admission tests the rules themselves.
func TestRefuses(t *testing.T) {
	t.Parallel()
	o := newOSS(t)
	s := serve(t, o, nil, func(c *Config) { c.Admission.Buckets = []string{"demo", "other"} })

	good := issued(t, "a.txt", "R1")
	genuine := func(t *testing.T) *http.Request {
		return o.request(t, s.Public, path, form, good.body(t, callbackspec.Form))
	}
	// signed returns a request with any body, signed by OSS.
	signed := func(contentType, body string) func(*testing.T) *http.Request {
		return func(t *testing.T) *http.Request { return o.request(t, s.Public, path, contentType, body) }
	}
	with := func(name, value string) func(*testing.T) *http.Request {
		return func(t *testing.T) *http.Request {
			r := genuine(t)
			if r.Header.Del(name); value != "" {
				r.Header.Set(name, value)
			}
			return r
		}
	}
	_, expired := mint(t, "demo", "a.txt", noon)

	tests := []struct {
		name    string
		request func(*testing.T) *http.Request
		status  int
		code    admission.Code
	}{
		{"no signature", with("Authorization", ""), 403, admission.BadSignature},
		{"body changed", func(t *testing.T) *http.Request {
			r := genuine(t)
			body := strings.Replace(good.body(t, callbackspec.Form), "size=5", "size=6", 1)
			r.Body = io.NopCloser(strings.NewReader(body))
			return r
		}, 403, admission.BadSignature},
		{"query added", func(t *testing.T) *http.Request {
			r := genuine(t)
			r.URL.RawQuery = "x=1"
			return r
		}, 403, admission.BadSignature},
		{"empty body", func(t *testing.T) *http.Request {
			r := genuine(t)
			r.Body, r.ContentLength = http.NoBody, 0
			return r
		}, 403, admission.BadSignature},
		{"foreign key URL", with("X-Oss-Pub-Key-Url", "aHR0cDovL2V2aWwuZXhhbXBsZS9rZXkucGVt"), 403, admission.UntrustedKey},
		{"no token", signed(form, "bucket=demo&object=a.txt&reqId=R2"), 403, admission.BadToken},
		{"expired token", signed(form, "bucket=demo&object=a.txt&reqId=R6&upcall_token="+expired), 403, admission.ExpiredToken},
		{"token of 1 MB", signed(form, "bucket=demo&object=a.txt&upcall_token="+strings.Repeat("A", 1<<20)), 413, admission.TooLarge},
		{"token of 1 MB in a header", with("Authorization", strings.Repeat("A", 1<<20)), 413, admission.TooLarge},
		{"bucket not allowed in the header", with("X-Oss-Bucket", "secret"), 403, admission.WrongBucket},
		{"bucket not UTF-8", func(t *testing.T) *http.Request {
			r := signed(form, "object=a.txt")(t)
			r.Header.Set("X-Oss-Bucket", "demo\xff")
			return r
		}, 403, admission.WrongBucket},
		{"form with repeated keys", signed(form, "bucket=demo&bucket=other&object=a.txt"), 400, admission.Malformed},
		{"gzip", with("Content-Encoding", "gzip"), 415, admission.UnsupportedType},
		{"plain text", signed("text/plain", "bucket=demo&object=a.txt"), 415, admission.UnsupportedType},

		{"10 MB", signed(form, strings.Repeat("a", 10<<20)), 413, admission.TooLarge},
		{"endless chunked body", func(t *testing.T) *http.Request {
			r := genuine(t)
			r.Body, r.ContentLength = io.NopCloser(endless{}), -1
			return r
		}, 413, admission.TooLarge},

		{"GET", func(t *testing.T) *http.Request {
			r := genuine(t)
			r.Method, r.Body, r.ContentLength = http.MethodGet, http.NoBody, 0
			return r
		}, 405, admission.MethodNotAllowed},
		{"another path", func(t *testing.T) *http.Request {
			return o.request(t, s.Public, "/metrics", form, good.body(t, callbackspec.Form))
		}, 404, admission.NotFound},
		{"trailing slash", func(t *testing.T) *http.Request {
			return o.request(t, s.Public, path+"/", form, good.body(t, callbackspec.Form))
		}, 404, admission.NotFound},
	}
	t.Run("table", func(t *testing.T) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				t.Parallel()
				got := do(t, tt.request(t))
				if got.Code != tt.status || got.Error.Code != string(tt.code) || got.Error.Message == "" {
					t.Errorf("got %d %s, want %d %s", got.Code, got.Raw, tt.status, tt.code)
				}
				if want := fmt.Sprintf(`{"error":{"code":%q,"message":`, tt.code); !strings.HasPrefix(got.Raw, want) {
					t.Errorf("the answer is %s, want it to start with %s", got.Raw, want)
				}
				if tt.status == 405 && got.Header.Get("Allow") != http.MethodPost {
					t.Errorf("Allow is %q", got.Header.Get("Allow"))
				}
			})
		}
	})
	if n := count(t, s.pool); n != 0 {
		t.Errorf("%d rows were recorded", n)
	}
	if got := do(t, genuine(t)); got.Code != 200 {
		t.Errorf("afterwards a genuine callback got %d %s", got.Code, got.Raw)
	}
}

// endless is a body that never ends.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'a'
	}
	return len(p), nil
}

// TestBrokenTransport sends messages that HTTP clients do not send.
func TestBrokenTransport(t *testing.T) {
	t.Parallel()
	o := newOSS(t)
	s := serve(t, o, nil, nil)
	host := strings.TrimPrefix(s.Public, "http://")
	dial := func(t *testing.T) *net.TCPConn {
		conn, err := net.Dial("tcp", host)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn.(*net.TCPConn)
	}
	raw := func(t *testing.T, r *http.Request) []byte {
		var buf bytes.Buffer
		if err := r.Write(&buf); err != nil {
			t.Fatal(err)
		}
		return buf.Bytes()
	}
	genuine := func(t *testing.T, reqID string) *http.Request {
		return o.request(t, s.Public, path, string(callbackspec.Form), issued(t, "a.txt", reqID).body(t, callbackspec.Form))
	}
	t.Run("conditions", func(t *testing.T) {
		t.Run("body cut short", func(t *testing.T) {
			t.Parallel()
			conn, message := dial(t), raw(t, genuine(t, "R1"))
			conn.Write(message[:len(message)-10])
			conn.CloseWrite()
			if got := answerOn(t, conn); got.Code != 400 || got.Error.Code != "malformed" {
				t.Errorf("got %d %s", got.Code, got.Raw)
			}
		})
		t.Run("body stalls", func(t *testing.T) {
			t.Parallel()
			conn, message := dial(t), raw(t, genuine(t, "R2"))
			conn.Write(message[:len(message)-10])
			if got := answerOn(t, conn); got.Code != 400 || got.Error.Code != "malformed" {
				t.Errorf("got %d %s", got.Code, got.Raw)
			}
		})
		for name, cut := range map[string]int{"headers stall": 40, "request line stalls": 7} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				conn, message := dial(t), raw(t, genuine(t, "R3"))
				conn.Write(message[:cut])
				if got := answerOn(t, conn); got.Code != 400 || got.Error.Code != "malformed" {
					t.Errorf("got %d %s", got.Code, got.Raw)
				}
				if rest, err := io.ReadAll(conn); len(rest) != 0 || err != nil {
					t.Errorf("the answer is followed by %q, %v; want the connection closed", rest, err)
				}
			})
		}
		for name, tt := range map[string]struct {
			message string
			status  int
			code    admission.Code
		}{
			"not HTTP": {"hello\r\n\r\n", 400, admission.Malformed},
			"no host":  {"POST " + path + " HTTP/1.1\r\n\r\n", 400, admission.Malformed},
			"two lengths": {"POST " + path + " HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
				400, admission.Malformed},
			"unknown transfer encoding": {"POST " + path + " HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 400, admission.Malformed},
			"headers of 3 MB":           {"POST " + path + " HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("a", 3<<20), 413, admission.TooLarge},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				conn := dial(t)
				go conn.Write([]byte(tt.message)) // the answer may come before all is sent
				if got := answerOn(t, conn); got.Code != tt.status || got.Error.Code != string(tt.code) {
					t.Errorf("got %d %s", got.Code, got.Raw)
				}
			})
		}
		t.Run("100 headers", func(t *testing.T) {
			t.Parallel()
			r := genuine(t, "R4")
			for i := range 100 {
				r.Header.Set(fmt.Sprintf("X-Proxy-%d", i), "value")
			}
			if got := do(t, r); got.Code != 200 {
				t.Errorf("got %d %s", got.Code, got.Raw)
			}
		})
		t.Run("absolute request target", func(t *testing.T) {
			t.Parallel()
			conn, message := dial(t), raw(t, genuine(t, "R5"))
			conn.Write(bytes.Replace(message, []byte("POST /"), []byte("POST http://callbacks.example/"), 1))
			if got := answerOn(t, conn); got.Code != 200 {
				t.Errorf("got %d %s", got.Code, got.Raw)
			}
		})
		t.Run("one connection for each request", func(t *testing.T) {
			t.Parallel()
			r := genuine(t, "R6")
			r.Close = true // as OSS does
			if got := do(t, r); got.Code != 200 {
				t.Errorf("got %d %s", got.Code, got.Raw)
			}
		})
		t.Run("Expect: 100-continue", func(t *testing.T) {
			t.Parallel()
			r := genuine(t, "R7")
			r.Header.Set("Expect", "100-continue")
			if got := do(t, r); got.Code != 200 {
				t.Errorf("got %d %s", got.Code, got.Raw)
			}
		})
	})
	if got := do(t, genuine(t, "R8")); got.Code != 200 {
		t.Errorf("afterwards a genuine callback got %d %s", got.Code, got.Raw)
	}
}

// TestCannotCheck checks the answer if the key cannot be fetched.
func TestCannotCheck(t *testing.T) {
	t.Parallel()
	gone := httptest.NewServer(http.NotFoundHandler())
	o := &oss{gone.URL + "/key.pem"}
	gone.Close()
	s := serve(t, o, nil, nil)
	r := o.request(t, s.Public, path, string(callbackspec.Form), issued(t, "a.txt", "R1").body(t, callbackspec.Form))
	got := do(t, r)
	if got.Code != 503 || got.Error.Code != "unavailable" || got.Header.Get("Retry-After") == "" {
		t.Errorf("got %d %s", got.Code, got.Raw)
	}
	metrics := get(t, s.Admin+"/metrics")
	if want := `upcall_verify_failures_total{reason="key_unreachable"} 1`; !strings.Contains(metrics, want) {
		t.Errorf("metrics lack %s", want)
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	verifier, err := verify.New(verify.Config{})
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		cfg  Config
		want string
	}{
		"policy": {Config{}, "set UPCALL_TOKEN_KEYS"},
		"parts":  {Config{Verifier: verifier, Admission: admission.Config{Tokens: keyring(t)}}, "are required"},
	} {
		if _, err := New(tt.cfg); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q in it", name, err, tt.want)
		}
	}
}

// get returns the body of an answer.
func get(t testing.TB, url string) string {
	t.Helper()
	_, body := servetest.Get(t, url)
	return body
}
