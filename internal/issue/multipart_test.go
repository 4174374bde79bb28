package issue_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"upcall/internal/callbackspec"
	"upcall/internal/issue"
	"upcall/internal/manifest"
	"upcall/internal/oss"
	"upcall/internal/ossrule"
	"upcall/internal/testing/ossfake"
)

// emulated returns the gate in front of an emulator, and an issuer for it. source may be nil.
func emulated(t *testing.T, source oss.Source) (*ossfake.Gate, *issue.Issuer) {
	t.Helper()
	gate := ossfake.NewGate(t, ossfake.NewEmulator(t))
	return gate, newIssuer(t, func(c *oss.Config, _ *issue.Config) { c.Endpoint, c.Source = gate.URL, source })
}

func multipartRequest() issue.MultipartRequest {
	size := int64(250_000)
	r := goodRequest()
	return issue.MultipartRequest{Object: r.Object, Expires: time.Hour, Size: &size, PartSize: ossrule.MinPart, Callback: nil}
}

// TestIssueMultipartInVain checks that the upload is aborted whatever fails after it was
// initiated.
func TestIssueMultipartInVain(t *testing.T) {
	t.Parallel()
	dry := errors.New("no more credentials")
	good := oss.Credentials{AccessKeyID: ossfake.AccessKeyID, AccessKeySecret: ossfake.AccessKeySecret}
	t.Run("credentials end", func(t *testing.T) {
		t.Parallel()
		asked := 0
		o, issuer := emulated(t, func(context.Context, bool) (oss.Credentials, error) {
			if asked++; asked == 2 {
				return oss.Credentials{}, dry
			}
			return good, nil
		})
		_, _, err := issuer.IssueMultipart(t.Context(), multipartRequest())
		if !errors.Is(err, dry) || o.Count("POST") != 1 || o.Count("DELETE") != 1 {
			t.Errorf("error %v; initiated %d times, aborted %d times", err, o.Count("POST"), o.Count("DELETE"))
		}
	})
	t.Run("the caller has gone", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(t.Context())
		asked := 0
		o, issuer := emulated(t, func(ctx context.Context, _ bool) (oss.Credentials, error) {
			if asked++; asked == 2 {
				cancel()
			}
			return good, ctx.Err()
		})
		if _, _, err := issuer.IssueMultipart(ctx, multipartRequest()); !errors.Is(err, context.Canceled) || o.Count("DELETE") != 1 {
			t.Errorf("error %v; aborted %d times", err, o.Count("DELETE"))
		}
	})
	t.Run("the abort fails too", func(t *testing.T) {
		t.Parallel()
		asked := 0
		o, issuer := emulated(t, func(context.Context, bool) (oss.Credentials, error) {
			if asked++; asked > 1 {
				return oss.Credentials{}, dry
			}
			return good, nil
		})
		_, _, err := issuer.IssueMultipart(t.Context(), multipartRequest())
		if !errors.Is(err, dry) || !strings.Contains(err.Error(), `of "photos/cat.jpg" in demo stays open at OSS`) ||
			o.Count("DELETE") != 0 {
			t.Errorf("error %v", err)
		}
	})
}

// TestIssueMultipartChecksFirst checks that a bad request does not reach OSS.
func TestIssueMultipartChecksFirst(t *testing.T) {
	t.Parallel()
	o, issuer := emulated(t, nil)
	for name, tt := range map[string]struct {
		change func(*issue.MultipartRequest)
		want   error
	}{
		"bucket":    {func(r *issue.MultipartRequest) { r.Object.Bucket = "B" }, ossrule.ErrBucket},
		"expiry":    {func(r *issue.MultipartRequest) { r.Expires = 0 }, oss.ErrExpires},
		"size":      {func(r *issue.MultipartRequest) { *r.Size = 0 }, oss.ErrSize},
		"part size": {func(r *issue.MultipartRequest) { r.PartSize = 1 }, oss.ErrPartSize},
		"parts":     {func(r *issue.MultipartRequest) { r.Parts = 1 }, oss.ErrPartCount},
		"callback": {func(r *issue.MultipartRequest) {
			r.Callback = &issue.CallbackSpec{URLs: []string{"ftp://x"}}
		}, callbackspec.ErrURL},
		"variables": {func(r *issue.MultipartRequest) {
			r.Callback = &issue.CallbackSpec{URLs: []string{"http://a.example.com/"}, Vars: map[string]string{"UID": "1"}}
		}, callbackspec.ErrVarName},
	} {
		r := multipartRequest()
		tt.change(&r)
		if _, _, err := issuer.IssueMultipart(t.Context(), r); !errors.Is(err, tt.want) || o.Count("POST") != 0 {
			t.Errorf("%s: error %v, %d requests", name, err, o.Count("POST"))
		}
	}
}

// TestManifestSurvives checks that a manifest is read as it was written.
func TestManifestSurvives(t *testing.T) {
	t.Parallel()
	_, issuer := emulated(t, nil)
	r := multipartRequest()
	r.Callback = goodRequest().Callback
	want, _, err := issuer.IssueMultipart(t.Context(), r)
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
	if strings.Contains(string(document), `"headers": null`) || strings.Contains(string(document), "list_parts_next") ||
		strings.Contains(string(document), "Cause") {
		t.Errorf("manifest %s", document)
	}
}

// TestRenew checks that the renewed requests are for the same upload, with its callback and
// the other settings of its completion, which travel in headers now.
func TestRenew(t *testing.T) {
	t.Parallel()
	_, issuer := emulated(t, nil)
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

// TestRenewBadManifest checks that a bad manifest does not reach OSS.
func TestRenewBadManifest(t *testing.T) {
	t.Parallel()
	o, issuer := emulated(t, nil)
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
	if seen := o.Seen(); len(seen) != 0 {
		t.Errorf("OSS got the requests %v", seen)
	}
}
