package verify

import (
	"context"
	"encoding/base64"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"upcall/internal/testing/vectors"
)

func TestNewRefusesTrustedURLs(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"": `trusted key URL 1: "" is not an absolute http or https URL: ` +
			`give the whole URL of the PEM file, such as https://host/key.pem`,
		"host/key.pem":           "not an absolute http or https URL",
		"//host/key.pem":         "not an absolute http or https URL",
		"ftp://host/key.pem":     "not an absolute http or https URL",
		"file:///key.pem":        "not an absolute http or https URL",
		"https:///key.pem":       "not an absolute http or https URL",
		"https://:443/key.pem":   "not an absolute http or https URL",
		"https:host":             "not an absolute http or https URL",
		" https://host/key.pem":  "not a URL",
		"https://host/key.pem\n": "not a URL",
		"https://ho st/key.pem":  "not a URL",
		"https://host:x/key.pem": "not a URL",
		"https://u:pass@h:x/k":   "not a URL",
		"https://user@host/k":    "user name",
		"https://u:pass@host/k":  "user name",
		"https://host/key.pem#":  "fragment",
		"https://host/key.pem#x": "fragment",
		"http://gosspublic.alicdn.com/callback_pub_key_v2.pem":    "write https://",
		"http://gosspublic.alicdn.com:80/callback_pub_key_v2.pem": "write https://",
		"http://GOSSpublic.alicdn.com/callback_pub_key_v2.pem":    "write https://",
		"http://gosspublic.alicdn.com./callback_pub_key_v2.pem":   "write https://",
	} {
		_, err := New(Config{TrustKeyURLs: []string{url}})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %s", url, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "pass") {
			t.Errorf("%q: error shows a password: %v", url, err)
		}
	}
	_, err := New(Config{TrustKeyURLs: []string{"a", "https://host/key.pem", "b"}})
	if err == nil || !strings.Contains(err.Error(), "URL 1: ") || !strings.Contains(err.Error(), "URL 3: ") {
		t.Errorf("the error does not list all mistakes: %v", err)
	}
	if _, err := New(Config{TrustKeyURLs: []string{
		"http://127.0.0.1:9000/_ossemu/callback_pub_key.pem",
		"https://gosspublic.alicdn.com/callback_pub_key_v2.pem",
		"https://[::1]:9000/key.pem?v=1",
	}}); err != nil {
		t.Errorf("good URLs: %v", err)
	}
}

// TestOtherSpellingsOfATrustedURL names a trusted key by other spellings: each is refused,
// and nothing is fetched.
func TestOtherSpellingsOfATrustedURL(t *testing.T) {
	t.Parallel()
	url, requests := new(vectors.KeyServer).Start(t)
	verifier, err := New(Config{TrustKeyURLs: []string{url}})
	if err != nil {
		t.Fatal(err)
	}
	r := request(loadVectors(t)["test-key"])
	host := strings.TrimPrefix(strings.TrimSuffix(url, "/key.pem"), "http://")
	_, port, err := net.SplitHostPort(host)
	if err != nil {
		t.Fatal(err)
	}
	for _, other := range []string{
		"HTTP://" + host + "/key.pem",
		"https://" + host + "/key.pem",
		"http://user@" + host + "/key.pem",
		"http://localhost:" + port + "/key.pem",
		"http://127.1:" + port + "/key.pem",
		"http://" + host + "//key.pem",
		"http://" + host + "/./key.pem",
		"http://" + host + "/%6bey.pem",
		"http://" + host + "/key.pem?",
		"http://" + host + "/key.pem#",
		"http://" + host + "/key.pem ",
		"http://" + host + "/KEY.pem",
		"http://" + host,
		host + "/key.pem",
	} {
		r.PubKeyURL = base64.StdEncoding.EncodeToString([]byte(other))
		if err := verifier.Verify(t.Context(), r); !errors.Is(err, ErrKeyURL) {
			t.Errorf("%s: got %v, want ErrKeyURL", other, err)
		}
	}
	r.PubKeyURL = url
	if err := verifier.Verify(t.Context(), r); !errors.Is(err, ErrKeyURLEncoding) {
		t.Errorf("without Base64: got %v, want ErrKeyURLEncoding", err)
	}
	if n := requests.Load(); n != 0 {
		t.Errorf("the key server was asked %d times", n)
	}
	r.PubKeyURL = base64.StdEncoding.EncodeToString([]byte(url))
	if err := verifier.Verify(t.Context(), r); err != nil {
		t.Errorf("the trusted spelling: %v", err)
	}
}

// TestMalformedRequestsFetchNothing sends malformed requests that name a trusted URL.
func TestMalformedRequestsFetchNothing(t *testing.T) {
	t.Parallel()
	url, requests := new(vectors.KeyServer).Start(t)
	verifier, err := New(Config{TrustKeyURLs: []string{url}})
	if err != nil {
		t.Fatal(err)
	}
	good := request(loadVectors(t)["test-key"])
	good.PubKeyURL = base64.StdEncoding.EncodeToString([]byte(url))
	for want, change := range map[*Failure]func(*Request){
		ErrSignatureVersion:  func(r *Request) { r.SignatureVersion = "2.0" },
		ErrNoSignature:       func(r *Request) { r.Authorization = "" },
		ErrSignatureEncoding: func(r *Request) { r.Authorization = "?" },
		ErrTarget:            func(r *Request) { r.Target = "" },
	} {
		r := good
		change(&r)
		if err := verifier.Verify(t.Context(), r); !errors.Is(err, want) {
			t.Errorf("got %v, want %v", err, want)
		}
	}
	if n := requests.Load(); n != 0 {
		t.Errorf("the key server was asked %d times", n)
	}
}

func TestFetchGivesUp(t *testing.T) {
	t.Parallel()
	for name, handler := range map[string]http.HandlerFunc{
		"no answer": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"endless answer": func(w http.ResponseWriter, r *http.Request) {
			w.Write([]byte("-----BEGIN PUBLIC KEY-----\n"))
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		},
		"cut short": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "300")
			w.Write([]byte("-----BEGIN PUBLIC KEY-----\n"))
		},
		"connection closed": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"endless headers": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Long", strings.Repeat("a", 1<<20))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(handler)
			t.Cleanup(server.Close)
			client := newKeyClient()
			if client.Timeout != fetchTimeout {
				t.Errorf("timeout is %s", client.Timeout)
			}
			client.Timeout = 100 * time.Millisecond
			if _, err := fetchKey(client, server.URL); !errors.Is(err, ErrKeyUnreachable) {
				t.Errorf("got %v, want ErrKeyUnreachable", err)
			}
		})
	}
}

// TestFetchIgnoresProxies sets the variables that http.DefaultTransport obeys. It does not
// run in parallel, because they belong to the process.
func TestFetchIgnoresProxies(t *testing.T) {
	proxied := new(atomic.Int64)
	proxy := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { proxied.Add(1) }))
	t.Cleanup(proxy.Close)
	t.Setenv("HTTP_PROXY", proxy.URL)
	t.Setenv("http_proxy", proxy.URL)
	// Not a loopback address, for which the variables are ignored; RFC 2606 reserves the name.
	client := newKeyClient()
	client.Timeout = 100 * time.Millisecond
	if _, err := fetchKey(client, "http://keys.invalid/key.pem"); !errors.Is(err, ErrKeyUnreachable) {
		t.Errorf("got %v, want ErrKeyUnreachable", err)
	}
	if proxied.Load() != 0 {
		t.Error("the fetch went through a proxy from the environment")
	}
}

func TestCallersShareOneFetch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		want := new(publicKey)
		release := make(chan struct{})
		fetches := 0
		key := &trustedKey{now: time.Now, fetch: func() (*publicKey, error) {
			fetches++
			<-release
			return want, nil
		}}
		impatient, giveUp := context.WithCancelCause(t.Context())
		cause := errors.New("caller gave up")
		var gaveUp error
		go func() { _, gaveUp = key.get(impatient) }()
		results := make(chan *publicKey, 50)
		for range cap(results) {
			go func() {
				got, err := key.get(t.Context())
				if err != nil {
					t.Error(err)
				}
				results <- got
			}()
		}
		synctest.Wait() // until all of them wait
		giveUp(cause)
		synctest.Wait()
		if reason(t, gaveUp) != ErrCanceled.Reason() || !errors.Is(gaveUp, cause) {
			t.Errorf("got %v, want ErrCanceled and the cause", gaveUp)
		}
		close(release)
		for range cap(results) {
			if got := <-results; got != want {
				t.Errorf("got %p, want %p", got, want)
			}
		}
		if fetches != 1 {
			t.Errorf("%d fetches, not 1", fetches)
		}
	})
}

// TestKeyAges fetches a key again and again over time. get waits for the fetch that it
// starts, so each step has ended when the next begins.
func TestKeyAges(t *testing.T) {
	t.Parallel()
	var (
		now     = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		first   = new(publicKey)
		second  = new(publicKey)
		served  *publicKey
		problem = ErrKeyStatus.with("503")
		fetches int
	)
	key := &trustedKey{
		now:   func() time.Time { return now },
		fetch: func() (*publicKey, error) { fetches++; return served, problem },
	}
	for i, step := range []struct {
		pass    time.Duration // since the step before
		served  *publicKey
		problem error
		want    *publicKey
		wantErr error
		fetches int // so far
	}{
		{0, nil, problem, nil, ErrKeyStatus, 1},
		{keyRetry - 1, first, nil, nil, ErrKeyStatus, 1}, // a failure is remembered for a while
		{1, first, nil, first, nil, 2},
		{keyFresh - 1, second, nil, first, nil, 2},
		{1, second, nil, second, nil, 3},
		{keyFresh, nil, problem, second, nil, 4}, // the old key outlives its server
		{keyFresh - 1, nil, problem, second, nil, 4},
		{1, nil, problem, second, nil, 5},
		{keyFresh, first, nil, first, nil, 6},
	} {
		now = now.Add(step.pass)
		served, problem = step.served, step.problem
		got, err := key.get(t.Context())
		if got != step.want || !errors.Is(err, step.wantErr) || fetches != step.fetches {
			t.Errorf("step %d: got %p, %v after %d fetches; want %p, %v after %d",
				i+1, got, err, fetches, step.want, step.wantErr, step.fetches)
		}
	}
}

// TestWaitEndsWithTheCaller calls Verify with a context that ends while the key server
// hangs.
func TestWaitEndsWithTheCaller(t *testing.T) {
	t.Parallel()
	asked := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(asked)
		<-r.Context().Done()
	}))
	t.Cleanup(server.Close)
	t.Cleanup(server.CloseClientConnections)
	verifier, err := New(Config{TrustKeyURLs: []string{server.URL}})
	if err != nil {
		t.Fatal(err)
	}
	r := request(loadVectors(t)["test-key"])
	r.PubKeyURL = base64.StdEncoding.EncodeToString([]byte(server.URL))
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-asked
		cancel()
	}()
	err = verifier.Verify(ctx, r)
	if reason(t, err) != ErrCanceled.Reason() || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want ErrCanceled and context.Canceled", err)
	}
}
