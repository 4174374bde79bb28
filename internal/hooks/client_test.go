package hooks

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"upcall/internal/webhook"
)

var loopback = Rules{AllowHTTP: true, AllowedCIDRs: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}

func aRequest(url string) request {
	return request{url: url, secrets: []webhook.Secret{webhook.NewSecret()}, id: "id", body: []byte("{}")}
}

// send makes one attempt that must have an outcome.
func send(t *testing.T, s *sender, r request) outcome {
	t.Helper()
	defer s.close()
	o, err := s.send(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestSend(t *testing.T) {
	t.Parallel()
	secret := webhook.NewSecret()
	w, err := standardwebhooks.NewWebhook(secret.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if err := w.Verify(body, r.Header); err != nil || r.Method != "POST" || r.Header.Get("Content-Type") != "application/cloudevents+json" ||
			r.Header.Get("X-App") != "1" || r.Header.Get("User-Agent") == "" || r.ContentLength != int64(len(body)) {
			t.Errorf("%v: %+v", err, r)
		}
		rw.Header().Set("Retry-After", "7")
		rw.WriteHeader(http.StatusAccepted)
		io.WriteString(rw, "thanks\x00"+strings.Repeat("x", 2000))
	}))
	defer server.Close()
	r := aRequest(server.URL)
	r.secrets, r.headers = []webhook.Secret{secret}, map[string]string{"X-App": "1"}
	var connected, sent atomic.Int32
	r.connected, r.sent = func() { connected.Add(1) }, func() { sent.Add(1) }
	o := send(t, newSender(loopback, time.Now, nil), r)
	if !o.delivered() || o.problem != "" || !strings.HasPrefix(o.answer, "thanks\ufffdx") || o.retryAfter != 7*time.Second ||
		connected.Load() != 1 || sent.Load() != 1 || o.took <= 0 {
		t.Errorf("%+v", o)
	}
}

// TestSendAnswers are the answers that are no success, and those that would use us up.
func TestSendAnswers(t *testing.T) {
	t.Parallel()
	var elsewhere atomic.Int32
	endless, written := make(chan struct{}), 0
	mux := http.NewServeMux()
	status := func(path string, code int) {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(code)
		})
	}
	status("/301", 301)
	status("/307", 307)
	status("/410", 410)
	status("/500", 500)
	mux.HandleFunc("/elsewhere", func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) })
	mux.HandleFunc("/endless", func(w http.ResponseWriter, r *http.Request) {
		defer close(endless)
		for {
			n, err := w.Write(make([]byte, 4<<10))
			if written += n; err != nil {
				return
			}
		}
	})
	mux.HandleFunc("/headers", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Long", strings.Repeat("x", 128<<10))
	})
	mux.HandleFunc("/nothing", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	server := httptest.NewServer(mux)
	defer server.Close()
	for path, want := range map[string]string{
		"/301": "the answer is 301 Moved Permanently; redirects are not followed", "/307": "redirects are not followed",
		"/410": "the answer is 410 Gone", "/500": "the answer is 500", "/endless": "", "/headers": "server response header", "/nothing": "EOF",
	} {
		o := send(t, newSender(loopback, time.Now, nil), aRequest(server.URL+path))
		if (o.problem == "") != (want == "") || !strings.Contains(o.problem, want) || len(o.answer) > 3*keptAnswer {
			t.Errorf("%s: %+v", path, o)
		}
	}
	if elsewhere.Load() != 0 {
		t.Error("a redirect was followed")
	}
	if <-endless; written > 64*maxAnswer { // most of it lies in buffers
		t.Errorf("%d bytes of an answer were taken", written)
	}
}

func TestSendIsInterrupted(t *testing.T) {
	t.Parallel()
	arrived := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		close(arrived)
		<-r.Context().Done()
	}))
	defer server.Close()
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-arrived; cancel() }()
	if _, err := newSender(loopback, time.Now, nil).send(ctx, aRequest(server.URL)); !errors.Is(err, errInterrupted) {
		t.Errorf("%v", err)
	}
}

// TestSendDeadline: one deadline bounds the name, the connection, the request and the answer.
func TestSendDeadline(t *testing.T) {
	t.Parallel()
	if s := newSender(Rules{}, time.Now, nil); s.timeout != 15*time.Second {
		t.Errorf("an attempt may take %v", s.timeout)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/silent", func(_ http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	})
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) { // a byte now and then, without an end
		w.WriteHeader(http.StatusInternalServerError)
		for r.Context().Err() == nil {
			io.WriteString(w, "x")
			w.(http.Flusher).Flush()
			time.Sleep(10 * time.Millisecond)
		}
	})
	server := httptest.NewServer(mux)
	defer server.Close()
	backlog, err := net.Listen("tcp", "127.0.0.1:0") // it accepts nothing, so TLS never begins
	if err != nil {
		t.Fatal(err)
	}
	defer backlog.Close()
	never := make(chan struct{})
	names := newNameServer(t, []string{"127.0.0.1"}, never)
	defer close(never)
	for _, tt := range []struct{ url, says string }{
		{server.URL + "/silent", "no answer within 15s"},
		{server.URL + "/slow", "the answer is 500"},
		{"https://" + backlog.Addr().String(), "no answer within 15s"},
		{"http://app.example.com/", "no answer within 15s"},
	} {
		s := newSender(loopback, time.Now, names.resolver())
		s.timeout = 300 * time.Millisecond
		began := time.Now()
		o := send(t, s, aRequest(tt.url))
		if took := time.Since(began); took > 5*time.Second || o.took < s.timeout || o.delivered() || !strings.Contains(o.problem, tt.says) {
			t.Errorf("%s: after %v: %+v", tt.url, took, o)
		}
	}
}

// TestForgery sends to what only this host can reach. Each must end before a connection.
func TestForgery(t *testing.T) {
	t.Parallel()
	inside := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a request arrived inside") }))
	defer inside.Close()
	_, port, _ := net.SplitHostPort(inside.Listener.Addr().String())
	for _, host := range []string{
		"127.0.0.1", "127.1.2.3", "[::1]", "0.0.0.0", "[::]", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", // private
		"169.254.1.1", "169.254.169.254", "[fe80::1]", "[fe80::1%25lo]", "[fd00:ec2::254]", "100.100.100.200", // link-local, metadata
		"[::ffff:127.0.0.1]", "[::ffff:169.254.169.254]", "[::127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", // mapped
		"localhost", "224.0.0.1", "255.255.255.255", "[ff02::1]", "198.18.0.1", "192.0.2.1", "[2001:db8::1]",
	} {
		o := send(t, newSender(Rules{AllowHTTP: true}, time.Now, nil), aRequest("http://"+host+":"+port))
		if o.status != 0 || !strings.Contains(o.problem, "is not public") && host != "[::]" && host != "localhost" {
			t.Errorf("%s: %+v", host, o)
		}
		err := Settings{URL: "http://" + host + ":" + port}.Check(Rules{AllowHTTP: true})
		if !errors.Is(err, webhook.ErrURL) {
			t.Errorf("%s can be added: %v", host, err)
		}
	}
}

// TestForgeryByName resolves a name to a public address first and to an inner one later.
func TestForgeryByName(t *testing.T) {
	t.Parallel()
	inside := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a request arrived inside") }))
	defer inside.Close()
	_, port, _ := net.SplitHostPort(inside.Listener.Addr().String())
	for _, answer := range []string{"127.0.0.1", "169.254.169.254", "10.1.2.3"} {
		names := newNameServer(t, []string{"192.88.99.1", answer}, nil) // the first is looked at, not connected to
		s := newSender(Rules{AllowHTTP: true}, time.Now, names.resolver())
		if addrs, err := names.resolver().LookupHost(t.Context(), "app.example.com"); err != nil || addrs[0] != "192.88.99.1" {
			t.Fatalf("%v, %v", addrs, err)
		}
		if o := send(t, s, aRequest("http://app.example.com:"+port)); o.status != 0 || !strings.Contains(o.problem, "is not public") {
			t.Errorf("%s: %+v", answer, o)
		}
	}
}

func TestNoProxyFromEnvironment(t *testing.T) {
	if newSender(Rules{}, time.Now, nil).transport.Proxy != nil {
		t.Error("there is a proxy")
	}
	proxy := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a request came to the proxy") }))
	defer proxy.Close()
	t.Setenv("HTTP_PROXY", proxy.URL)
	t.Setenv("http_proxy", proxy.URL)
	send(t, newSender(Rules{AllowHTTP: true}, time.Now, nil), aRequest("http://app.invalid/"))
}
