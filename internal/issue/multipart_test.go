package issue_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

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
		"callback":  func(r *issue.MultipartRequest) { r.Callback = &issue.CallbackSpec{URLs: []string{"ftp://x"}} },
		"variables": func(r *issue.MultipartRequest) {
			r.Callback = &issue.CallbackSpec{URLs: []string{"http://a.example.com/"}, Vars: map[string]string{"UID": "1"}}
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
	if strings.Contains(string(document), `"headers": null`) || strings.Contains(string(document), "list_parts_next") || strings.Contains(string(document), "Cause") {
		t.Errorf("manifest %s", document)
	}
}

// TestRenew: what is signed again is the same upload, with its callback and what else was
// to go along with the merge, though that travels in headers now.
func TestRenew(t *testing.T) {
	t.Parallel()
	o := newFakeOSS(t)
	issuer := o.issuer(t, nil)
	sized := multipartRequest()
	sized.Callback = goodRequest().Callback
	sized.Callback.InQuery = true
	sized.Object.ACL, sized.Object.ForbidOverwrite = "private", true
	counted := multipartRequest()
	counted.Size, counted.Parts = nil, 1001
	for _, r := range []issue.MultipartRequest{sized, counted} {
		m, _, err := issuer.IssueMultipart(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		renewed, err := issuer.Renew(t.Context(), m)
		if err != nil {
			t.Fatal(err)
		}
		ignored := cmpopts.IgnoreFields(manifest.Multipart{}, "ExpiresAt", "Complete")
		ignoredURLs := cmpopts.IgnoreFields(manifest.PresignedRequest{}, "URL")
		if diff := cmp.Diff(m, renewed, ignored, ignoredURLs); diff != "" {
			t.Errorf("renewed (-old +new):\n%s", diff)
		}
		if err := renewed.Check(); err != nil {
			t.Errorf("renewed: %v", err)
		}
		want := map[string]string{"content-type": "application/xml"}
		if r.Callback != nil {
			want["x-oss-callback"] = base64.StdEncoding.EncodeToString(m.Callback)
			want["x-oss-callback-var"] = base64.StdEncoding.EncodeToString(m.CallbackVar)
			want["x-oss-object-acl"], want["x-oss-forbid-overwrite"] = "private", "true"
		}
		if diff := cmp.Diff(want, renewed.Complete.Headers); diff != "" {
			t.Errorf("headers of the completion (-want +got):\n%s", diff)
		}
	}
}

// TestRenewBadManifest: OSS is not asked for what cannot be.
func TestRenewBadManifest(t *testing.T) {
	t.Parallel()
	o := newFakeOSS(t)
	issuer := o.issuer(t, nil)
	good := manifest.Multipart{Bucket: "demo", Key: "k", OSSUploadID: "u", PartSize: ossrule.MinPart, Parts: make([]manifest.Part, 1)}
	if _, err := issuer.Renew(t.Context(), good); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		change func(m *manifest.Multipart)
		want   error
	}{
		{func(m *manifest.Multipart) { m.CallbackVar = []byte("{}") }, manifest.ErrManifest},
		{func(m *manifest.Multipart) { m.Callback = []byte(`"e30="`) }, manifest.ErrManifest},
		{func(m *manifest.Multipart) { m.Bucket = "B" }, ossrule.ErrBucket},
		{func(m *manifest.Multipart) { m.PartSize = 1 }, oss.ErrPartSize},
	} {
		m := good
		tt.change(&m)
		if _, err := issuer.Renew(t.Context(), m); !errors.Is(err, tt.want) {
			t.Errorf("error %v, want %v", err, tt.want)
		}
	}
	if len(o.seen) != 0 {
		t.Errorf("OSS was asked: %v", o.seen)
	}
}
