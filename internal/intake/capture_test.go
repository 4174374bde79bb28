package intake

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/gin-gonic/gin"
	"github.com/google/go-cmp/cmp"

	"upcall/internal/admission"
	"upcall/internal/callbackspec"
	"upcall/internal/capture"
	"upcall/internal/doctor"
	"upcall/internal/testing/logtest"
	"upcall/internal/testing/wait"
)

// capturing serves a receiver that captures, and returns what the doctor says about it.
func capturing(t *testing.T, o *oss) (*service, *capture.Examiner) {
	t.Helper()
	logger, _ := logtest.New()
	dir, err := capture.Open(capture.Config{Dir: t.TempDir(), Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	rules := admission.Config{Tokens: keyring(t), Buckets: []string{"demo", "other"}, CallbackPaths: []string{DefaultPath}}
	examiner, err := capture.NewExaminer(dir, doctor.Config{Admission: rules, TrustKeyURLs: []string{o.keyURL}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{}, 2)
	for _, run := range []func(context.Context){dir.Run, examiner.Run} {
		go func() { run(ctx); ended <- struct{}{} }()
	}
	t.Cleanup(func() { stop(); <-ended; <-ended; dir.Close() })
	return serve(t, o, nil, func(c *Config) { c.Admission, c.Captures = rules, dir }), examiner
}

// A refusedRequest is one that is refused, and what the doctor is to say of it.
type refusedRequest struct {
	reason   string
	request  *http.Request
	verdict  doctor.Verdict
	findings string // kinds of causes, reasons of refusals
}

func refusedRequests(t *testing.T, o *oss, base string) (all []refusedRequest, secrets []string) {
	good := issued(t, "a.txt", "R1")
	_, expired := mint(t, "demo", "late.txt", noon.Add(-1))
	form := string(callbackspec.Form)
	body := good.body(t, callbackspec.Form)
	signed := func(target, contentType, body string, change func(*http.Request)) *http.Request {
		r := o.request(t, base, target, contentType, body)
		secrets = append(secrets, r.Header.Get("Authorization"))
		if change != nil {
			change(r)
		}
		return r
	}
	with := func(change func(*http.Request)) *http.Request { return signed(path, form, body, change) }
	send := func(other string) func(*http.Request) {
		return func(r *http.Request) {
			r.Body, r.ContentLength = http.NoBody, int64(len(other))
			r.GetBody = nil
			r.Body = readCloser{strings.NewReader(other)}
		}
	}
	header := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	expiredBody := upload{bucket: "demo", object: "late.txt", reqID: "R2", token: expired}.body(t, callbackspec.Form)
	foreignBody := upload{bucket: "demo", object: "c.txt", reqID: "R4", token: good.token}.body(t, callbackspec.Form)
	large := strings.Repeat("a", admission.MaxBody+1)
	encoded := base64.StdEncoding.EncodeToString([]byte(body))
	secrets = append(secrets, good.token[3:], expired[3:], encoded, base64.StdEncoding.EncodeToString([]byte("x"+good.token)))
	return []refusedRequest{
		{"signature_length", with(header("Authorization", "AAAA")), doctor.Refused, ""},
		{"signature_missing", with(func(r *http.Request) { r.Header.Del("Authorization") }), doctor.Refused, ""},
		{"signature_missing", with(func(r *http.Request) {
			r.Header.Set("X-Forwarded-Authorization", r.Header.Get("Authorization"))
			r.Header.Del("Authorization")
		}), doctor.Repaired, "signature_header"},
		{"signature_encoding", with(func(r *http.Request) {
			r.Header.Set("Authorization", "OSS "+r.Header.Get("Authorization"))
		}), doctor.Repaired, "signature_scheme"},
		{"key_url_untrusted", with(header("X-Oss-Pub-Key-Url", "aHR0cDovL2V2aWwuZXhhbXBsZS9rZXkucGVt")), doctor.Repaired, "key_url"},
		{"digest_mismatch", with(send(body + "\n")), doctor.Repaired, "body_newline_added"},
		{"digest_mismatch", with(send(encoded)), doctor.Repaired, "body_base64"},
		{"digest_mismatch", with(send(strings.Replace(body, "a.txt", "b.txt", 1))), doctor.Refused, ""},
		{"digest_mismatch", signed("/api"+path, form, body, func(r *http.Request) {
			r.URL.Path = path
			r.Header.Set("X-Forwarded-Prefix", "/api")
		}), doctor.Repaired, "path_prefix_stripped"},
		{"bucket_conflict", with(header("X-Oss-Bucket", "other")), doctor.Verifies, "bucket_conflict"},
		{"bucket_not_allowed", signed(path, form, strings.Replace(body, "demo", "elsewhere", 1), header("X-Oss-Bucket", "elsewhere")),
			doctor.Verifies, "bucket_not_allowed"},
		{"content_encoding", with(header("Content-Encoding", "gzip")), doctor.Verifies, "content_encoding"},
		{"method", with(func(r *http.Request) { r.Method = http.MethodPut }), doctor.Verifies, "method"},
		{"path", signed("/elsewhere", form, body, nil), doctor.Verifies, "path"},
		{"token_expired", signed(path, form, expiredBody, nil), doctor.Verifies, "token_expired"},
		{"token_forged", signed(path, form, upload{bucket: "demo", object: "f.txt", reqID: "R3",
			token: "k1.hunter2"}.body(t, callbackspec.Form), nil), doctor.Verifies, "token_forged"},
		{"token_foreign_key", signed(path, form, foreignBody, nil), doctor.Verifies, "token_foreign_key"},
		{"token_missing", signed(path, form, "bucket=demo&object=d.txt&reqId=R5", nil), doctor.Verifies, "token_missing"},
		{"content_type", signed(path, "text/plain", "hello", nil), doctor.Verifies, "content_type"},
		{"body", signed(path, form, "bucket=demo&object=%f&reqId=R6", nil), doctor.Verifies, "body"},
		{"body", signed(path, form, large, nil), doctor.Verifies, "body"},
		{"body", signed(path, form, large+"and more", func(r *http.Request) { r.ContentLength = -1 }), doctor.Refused, ""}, // chunked
	}, secrets
}

type readCloser struct{ *strings.Reader }

func (readCloser) Close() error { return nil }

// doWhole is do, but sends all of the request before it reads the answer, as OSS does. Others stop when an answer
// comes early, and then less is captured.
func doWhole(t *testing.T, r *http.Request) answered {
	t.Helper()
	conn, err := net.Dial("tcp", r.URL.Host)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := r.Write(conn); err != nil {
		t.Fatal(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), r)
	if err != nil {
		t.Fatal(err)
	}
	return readAnswer(t, response)
}

// TestCaptured sends requests that are refused each for another reason: each is captured, the doctor
// comes to the right verdict on it, and nothing that is shown of it is a secret.
func TestCaptured(t *testing.T) {
	t.Parallel()
	o := newOSS(t)
	s, examiner := capturing(t, o)
	requests, secrets := refusedRequests(t, o, s.Public)
	known := make(map[string]bool)
	for _, tt := range requests {
		if got := doWhole(t, tt.request); got.Code < 400 || got.Code >= 500 {
			t.Errorf("%s: %d %s", tt.reason, got.Code, got.Raw)
		}
		var kept []capture.Entry
		wait.Until(t, tt.reason+" is captured", func() bool {
			var err error
			kept, err = examiner.Kept()
			return err == nil && len(kept) == len(known)+1
		})
		kept = slices.DeleteFunc(kept, func(e capture.Entry) bool { return known[e.Name] })
		known[kept[0].Name] = true
		report, err := examiner.Report(t.Context(), kept[0].Name)
		if err != nil {
			t.Fatal(err)
		}
		var findings []string
		for _, c := range report.Causes {
			findings = append(findings, c.Kind)
		}
		for _, r := range report.Refusals {
			findings = append(findings, r.Reason)
		}
		if report.Reason != tt.reason || report.Verdict != tt.verdict || strings.Join(findings, " ") != tt.findings ||
			!report.At.Equal(noon) {
			t.Errorf("%s: want %s %q, got %+v", tt.reason, tt.verdict, tt.findings, report)
		}
		shown, err := json.Marshal(report)
		if err != nil {
			t.Fatal(err)
		}
		if secret := leaked(string(shown), secrets); secret != "" {
			t.Errorf("%s: %q of a secret is shown: %s", tt.reason, secret, shown)
		}
	}
	list, err := examiner.List(t.Context(), "digest_mismatch", 3)
	if err != nil || len(list) != 3 || list[0].Verdict == nil || *list[0].Summary == "" {
		t.Errorf("list %+v, %v", list, err)
	}
}

// leaked returns a piece of a secret that is in the text.
func leaked(text string, secrets []string) string {
	const piece = 20
	for _, secret := range secrets {
		for i := 0; i+piece <= len(secret); i++ {
			if strings.Contains(text, secret[i:i+piece]) {
				return secret[i : i+piece]
			}
		}
	}
	return ""
}

// TestNotCaptured: what OSS did not send, and what says nothing about the request.
func TestNotCaptured(t *testing.T) {
	t.Parallel()
	o := newOSS(t)
	s, examiner := capturing(t, o)
	for method, target := range map[string]string{http.MethodGet: "/wp-login.php", http.MethodPost: "/", http.MethodHead: path} {
		r, err := http.NewRequestWithContext(t.Context(), method, s.Public+target, nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
	}
	if got := do(t, o.request(t, s.Public, path, form, issued(t, "good.txt", "G").body(t, callbackspec.Form))); got.Code != 200 {
		t.Errorf("a good callback: %d", got.Code)
	}
	do(t, o.request(t, s.Public, path, form, "bucket=demo&object=last&reqId=L")) // the one that is
	wait.Until(t, "the last is captured", func() bool { kept, _ := examiner.Kept(); return len(kept) > 0 })
	if kept, err := examiner.Kept(); err != nil || len(kept) != 1 || kept[0].Reason != "token_missing" {
		t.Errorf("%+v, %v", kept, err)
	}
}

// A fullDir takes nothing.
type fullDir struct{ puts, drops chan string }

func (d fullDir) Put(r *capture.Request) { d.puts <- string(r.Reason) }
func (d fullDir) Drop(cause string)      { d.drops <- cause }

// TestAnswerBeforeCapture: the answer is there before anything is captured, also if the body that is to be
// captured never comes; and a flood is not captured whole.
func TestAnswerBeforeCapture(t *testing.T) {
	t.Parallel()
	o := newOSS(t)
	dir := fullDir{make(chan string), make(chan string, 100)} // Put blocks, as the interface forbids
	s := serve(t, o, nil, func(c *Config) { c.Captures = dir })
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.Public, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	head := "POST /elsewhere HTTP/1.1\r\nHost: h\r\nX-Oss-Pub-Key-Url: x\r\nContent-Length: 100\r\n\r\nhalf"
	if _, err := conn.Write([]byte(head)); err != nil {
		t.Fatal(err)
	}
	if got := answerOn(t, conn); got.Code != 404 { // although neither the rest of the body nor room is there
		t.Errorf("%d %s", got.Code, got.Raw)
	}
	if reason := <-dir.puts; reason != "path" {
		t.Errorf("captured %s", reason)
	}
	done := make(chan int)
	go func() {
		n := 0
		for range dir.puts {
			n++
		}
		done <- n
	}()
	const flood = 70
	for range flood {
		r := o.request(t, s.Public, path, form, "bucket=demo&object=x&reqId=1")
		r.Header.Del("Authorization")
		if got := do(t, r); got.Code != 403 {
			t.Errorf("%d", got.Code)
		}
	}
	wait.Until(t, "the rest of the flood is dropped", func() bool { return len(dir.drops) == flood-refusalsOfOneAtOnce })
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	close(dir.puts)
	if n := <-done; n != refusalsOfOneAtOnce {
		t.Errorf("%d were captured", n)
	}
	if cause := <-dir.drops; cause != capture.DroppedByRate {
		t.Errorf("dropped by %s", cause)
	}
}

// TestCaptureIsNotTraced: what a capture takes after the answer is not in the time of the trace.
func TestCaptureIsNotTraced(t *testing.T) {
	t.Parallel()
	var traced atomic.Bool
	ended := make(chan bool, 1)
	s := serve(t, newOSS(t), nil, func(c *Config) {
		c.Trace = func(c *gin.Context) { c.Next(); traced.Store(true) }
		c.Captures = putter(func(*capture.Request) { ended <- traced.Load() })
	})
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.Public+"/elsewhere", strings.NewReader("body"))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Oss-Pub-Key-Url", "x")
	if got := do(t, r); got.Code != 404 {
		t.Errorf("%d %s", got.Code, got.Raw)
	}
	if !<-ended {
		t.Error("the trace has not ended when the request is captured")
	}
}

type putter func(*capture.Request)

func (p putter) Put(r *capture.Request) { p(r) }
func (putter) Drop(string)              {}

// TestBodyCutShort: of a body that ends early, what came is captured.
func TestBodyCutShort(t *testing.T) {
	t.Parallel()
	o := newOSS(t)
	puts := make(chan *capture.Request, 1)
	s := serve(t, o, nil, func(c *Config) { c.Captures = keeping(puts) })
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.Public, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte("POST " + path + " HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\nbucket=demo")); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	got := <-puts
	if diff := cmp.Diff([]byte("bucket=demo"), got.Body); diff != "" || got.Reason != admission.ReasonBodyCutShort {
		t.Errorf("%s: %s", got.Reason, diff)
	}
	if got := answerOn(t, conn); got.Code != 400 || !bytes.Contains([]byte(got.Raw), []byte("ended early")) {
		t.Errorf("%d %s", got.Code, got.Raw)
	}
}

type keeping chan *capture.Request

func (k keeping) Put(r *capture.Request) { k <- r }
func (keeping) Drop(string)              {}
