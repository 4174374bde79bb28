package issue_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc64"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"upcall/internal/issue"
	"upcall/internal/manifest"
	"upcall/internal/oss"
	"upcall/internal/ossemu"
	"upcall/internal/ossrule"
)

// A fakeOSS is an emulator behind a door at which a test can change requests and answers.
type fakeOSS struct {
	*httptest.Server
	emulator http.Handler

	mu   sync.Mutex
	door func(next http.Handler, w http.ResponseWriter, r *http.Request) // nil is open
	seen []string                                                        // methods and operations
}

func newFakeOSS(t *testing.T) *fakeOSS {
	t.Helper()
	emulator, err := ossemu.New(ossemu.Config{AccessKeyID: "ak", AccessKeySecret: "sk", Region: "cn-hangzhou", Buckets: []string{"demo"}})
	if err != nil {
		t.Fatal(err)
	}
	o := &fakeOSS{emulator: emulator}
	o.Server = httptest.NewServer(o)
	t.Cleanup(func() { emulator.Close(); o.Close() })
	return o
}

func (o *fakeOSS) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	o.seen = append(o.seen, r.Method)
	door := o.door
	o.mu.Unlock()
	if door == nil {
		o.emulator.ServeHTTP(w, r)
		return
	}
	door(o.emulator, w, r)
}

// count is how many requests of a method came.
func (o *fakeOSS) count(method string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := 0
	for _, m := range o.seen {
		if m == method {
			n++
		}
	}
	return n
}

func (o *fakeOSS) issuer(t *testing.T, source oss.Source) *issue.Issuer {
	t.Helper()
	return newIssuer(t, func(p *oss.Config, _ *issue.Config) { p.Endpoint, p.Source = o.URL, source })
}

func multipartRequest() issue.MultipartRequest {
	size := int64(250_000)
	r := goodRequest()
	return issue.MultipartRequest{Object: r.Object, Expires: time.Hour, Size: &size, PartSize: ossrule.MinPart, Callback: nil}
}

var text = bytes.Repeat([]byte("0123456789"), 25_000)

// upload sends the parts of a manifest.
func upload(t *testing.T, m manifest.Multipart) {
	t.Helper()
	for _, part := range m.Parts {
		start := int64(part.Number-1) * m.PartSize
		req, err := http.NewRequestWithContext(t.Context(), part.Method, part.URL, bytes.NewReader(text[start:start+*part.Size]))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("part %d: %s", part.Number, resp.Status)
		}
	}
}

// TestIssueMultipartInVain: whatever fails after the upload was initiated, it is aborted.
func TestIssueMultipartInVain(t *testing.T) {
	t.Parallel()
	dry := errors.New("no credentials any more")
	good := oss.Credentials{AccessKeyID: "ak", AccessKeySecret: "sk"}
	t.Run("credentials end", func(t *testing.T) {
		t.Parallel()
		o := newFakeOSS(t)
		asked := 0
		issuer := o.issuer(t, func(context.Context) (oss.Credentials, error) {
			if asked++; asked == 2 {
				return oss.Credentials{}, dry
			}
			return good, nil
		})
		if _, _, err := issuer.IssueMultipart(t.Context(), multipartRequest()); !errors.Is(err, dry) || o.count("POST") != 1 || o.count("DELETE") != 1 {
			t.Errorf("error %v; initiated %d times, aborted %d times", err, o.count("POST"), o.count("DELETE"))
		}
	})
	t.Run("the caller has gone", func(t *testing.T) {
		t.Parallel()
		o := newFakeOSS(t)
		ctx, cancel := context.WithCancel(t.Context())
		asked := 0
		issuer := o.issuer(t, func(ctx context.Context) (oss.Credentials, error) {
			if asked++; asked == 2 {
				cancel()
			}
			return good, ctx.Err()
		})
		if _, _, err := issuer.IssueMultipart(ctx, multipartRequest()); !errors.Is(err, context.Canceled) || o.count("DELETE") != 1 {
			t.Errorf("error %v; aborted %d times", err, o.count("DELETE"))
		}
	})
	t.Run("the abort fails too", func(t *testing.T) {
		t.Parallel()
		o := newFakeOSS(t)
		asked := 0
		issuer := o.issuer(t, func(context.Context) (oss.Credentials, error) {
			if asked++; asked > 1 {
				return oss.Credentials{}, dry
			}
			return good, nil
		})
		_, _, err := issuer.IssueMultipart(t.Context(), multipartRequest())
		if !errors.Is(err, dry) || !strings.Contains(err.Error(), `of "photos/cat.jpg" in demo stays open at OSS`) || o.count("DELETE") != 0 {
			t.Errorf("error %v", err)
		}
	})
}

// TestIssueMultipartChecksFirst: OSS is not asked for what cannot be.
func TestIssueMultipartChecksFirst(t *testing.T) {
	t.Parallel()
	o := newFakeOSS(t)
	issuer := o.issuer(t, nil)
	for name, change := range map[string]func(*issue.MultipartRequest){
		"bucket":    func(r *issue.MultipartRequest) { r.Object.Bucket = "B" },
		"expiry":    func(r *issue.MultipartRequest) { r.Expires = 0 },
		"size":      func(r *issue.MultipartRequest) { *r.Size = 0 },
		"part size": func(r *issue.MultipartRequest) { r.PartSize = 1 },
		"parts":     func(r *issue.MultipartRequest) { r.Parts = 1 },
		"callback":  func(r *issue.MultipartRequest) { r.Callback = &issue.Callback{URLs: []string{"ftp://x"}} },
		"variables": func(r *issue.MultipartRequest) {
			r.Callback = &issue.Callback{URLs: []string{"http://a.example.com/"}, Vars: map[string]string{"UID": "1"}}
		},
	} {
		r := multipartRequest()
		change(&r)
		if _, _, err := issuer.IssueMultipart(t.Context(), r); err == nil || o.count("POST") != 0 {
			t.Errorf("%s: error %v, %d requests", name, err, o.count("POST"))
		}
	}
}

// TestManifestSurvives: what was printed is read as it was.
func TestManifestSurvives(t *testing.T) {
	t.Parallel()
	o := newFakeOSS(t)
	r := multipartRequest()
	r.Callback = goodRequest().Callback
	want, _, err := o.issuer(t, nil).IssueMultipart(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	document, err := json.MarshalIndent(want, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got, err := manifest.Read(bytes.NewReader(document))
	if err != nil {
		t.Fatal(err)
	}
	again, err := json.MarshalIndent(got.Multipart, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(document), string(again)); diff != "" {
		t.Errorf("manifest (-written +read):\n%s", diff)
	}
	if strings.Contains(string(document), `"headers": null`) || strings.Contains(string(document), "list_parts_next") || strings.Contains(string(document), "Bound") {
		t.Errorf("manifest %s", document)
	}
}

// TestCompleteMultipartDocuments: a manifest whose callback cannot be one is refused
// before OSS is asked for anything.
func TestCompleteMultipartDocuments(t *testing.T) {
	t.Parallel()
	o := newFakeOSS(t)
	issuer := o.issuer(t, nil)
	for name, tt := range map[string]struct{ callback, vars, says string }{
		"variables alone":       {"null", `{"x:a":"b"}`, "no callback"},
		"callback is a string":  {`"e30="`, "null", "callback: is not one JSON object"},
		"callback too large":    {`{"a":"` + strings.Repeat("a", 4000) + `"}`, "null", "OSS allows 5120"},
		"variables are a list":  {"{}", "[]", "callback_var: is not one JSON object"},
		"variables name twice":  {"{}", `{"x:a":"1","x:a":"2"}`, "stands twice"},
		"variables are not one": {"{}", "{}{}", "callback_var"},
	} {
		m := manifest.Multipart{Bucket: "demo", Key: "k", OSSUploadID: "u", Callback: json.RawMessage(tt.callback), CallbackVar: json.RawMessage(tt.vars)}
		if _, err := issuer.CompleteMultipart(t.Context(), m, nil); !errors.Is(err, manifest.ErrManifest) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(o.seen) != 0 {
		t.Errorf("OSS was asked: %v", o.seen)
	}
}

// TestCompleteMultipart disturbs the answers of OSS.
func TestCompleteMultipart(t *testing.T) {
	t.Parallel()
	want := crc64.Checksum(text, crc64.MakeTable(crc64.ECMA))
	other := want + 1
	// rewrite passes a request on and changes the answer to it.
	rewrite := func(method string, change func(header http.Header, body string) string) func(http.Handler, http.ResponseWriter, *http.Request) {
		return func(next http.Handler, w http.ResponseWriter, r *http.Request) {
			if r.Method != method {
				next.ServeHTTP(w, r)
				return
			}
			answer := httptest.NewRecorder()
			next.ServeHTTP(answer, r)
			body := change(answer.Header(), answer.Body.String())
			for name, values := range answer.Header() {
				w.Header()[name] = values
			}
			w.Header().Set("Content-Length", fmt.Sprint(len(body)))
			w.WriteHeader(answer.Code)
			io.WriteString(w, body)
		}
	}
	noCRCs := rewrite("GET", func(_ http.Header, body string) string {
		return regexp.MustCompile(`<HashCrc64ecma>\d+</HashCrc64ecma>`).ReplaceAllString(body, "")
	})
	tests := []struct {
		name   string
		door   func(http.Handler, http.ResponseWriter, *http.Request)
		expect *uint64
		is     error // nil is success
		says   string
		merges int // requests to merge
		stored bool
	}{
		{"as expected", nil, &want, nil, "", 1, true},
		{"nothing expected", nil, nil, nil, "", 1, true},
		{"other parts", nil, &other, issue.ErrMismatch, "nothing was merged", 0, false},
		{"parts without a CRC-64", noCRCs, &want, nil, "", 1, true},
		{"parts without a CRC-64, other object", noCRCs, &other, issue.ErrMismatch, "it is stored all the same", 1, true},
		{"merged wrongly", rewrite("POST", func(h http.Header, body string) string {
			h.Set("x-oss-hash-crc64ecma", "7")
			return body
		}), nil, issue.ErrMismatch, "the stored object has 7", 1, true},
		{"CRC-64 that is none", rewrite("POST", func(h http.Header, body string) string {
			h.Set("x-oss-hash-crc64ecma", "many")
			return body
		}), &want, issue.ErrMismatch, "OSS does not say", 1, true},
		{"refused", func(next http.Handler, w http.ResponseWriter, r *http.Request) {
			if r.Method == "POST" {
				w.WriteHeader(http.StatusServiceUnavailable)
				io.WriteString(w, "<Error><Code>ServiceBusy</Code><Message>later,\nplease</Message></Error>")
				return
			}
			next.ServeHTTP(w, r)
		}, &want, nil, "complete multipart upload: OSS answers 503 ServiceBusy: later, please", 1, false},
		{"connection cut", func(next http.Handler, w http.ResponseWriter, r *http.Request) {
			if r.Method == "POST" {
				panic(http.ErrAbortHandler)
			}
			next.ServeHTTP(w, r)
		}, &want, nil, "complete multipart upload: ", 1, false},
		{"203 without a callback", func(next http.Handler, w http.ResponseWriter, r *http.Request) {
			if r.Method == "POST" {
				w.Header().Set("ETag", `"E"`)
				w.WriteHeader(http.StatusNonAuthoritativeInfo)
				io.WriteString(w, "no XML")
				return
			}
			next.ServeHTTP(w, r)
		}, nil, oss.ErrCallbackFailed, "203 unknown: its reason cannot be read", 1, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o := newFakeOSS(t)
			issuer := o.issuer(t, nil)
			m, _, err := issuer.IssueMultipart(t.Context(), multipartRequest())
			if err != nil {
				t.Fatal(err)
			}
			upload(t, m)
			o.mu.Lock()
			o.door, o.seen = tt.door, nil
			o.mu.Unlock()
			done, err := issuer.CompleteMultipart(t.Context(), m, tt.expect)
			if tt.says == "" && err != nil || tt.says != "" && (err == nil || !strings.Contains(err.Error(), tt.says)) || tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("error %v, want %q", err, tt.says)
			}
			if err != nil && strings.Contains(strings.ReplaceAll(err.Error(), "\nthe CRC-64", ""), "\n") {
				t.Errorf("error of several lines: %q", err)
			}
			if got := o.count("POST"); got != tt.merges {
				t.Errorf("merged %d times, want %d", got, tt.merges)
			}
			if (done.ETag != "") != tt.stored || tt.stored && (done.Parts != 3 || done.Size != 250_000) {
				t.Errorf("completed %+v", done)
			}
		})
	}
}

// TestCompleteMultipartWaits longer than the SDK does by itself, on a connection that
// was used before: five callback URLs have 25 seconds.
func TestCompleteMultipartWaits(t *testing.T) {
	t.Parallel()
	o := newFakeOSS(t)
	issuer := o.issuer(t, nil)
	m, _, err := issuer.IssueMultipart(t.Context(), multipartRequest())
	if err != nil {
		t.Fatal(err)
	}
	upload(t, m)
	o.mu.Lock()
	o.door = func(next http.Handler, w http.ResponseWriter, r *http.Request) {
		if r.Method == "POST" {
			select {
			case <-time.After(12 * time.Second):
			case <-r.Context().Done():
			}
		}
		next.ServeHTTP(w, r)
	}
	o.mu.Unlock()
	if done, err := issuer.CompleteMultipart(t.Context(), m, nil); err != nil || done.Size != 250_000 {
		t.Errorf("completed %+v: %v", done, err)
	}
}
