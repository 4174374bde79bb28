package oss_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"upcall/internal/manifest"
	"upcall/internal/oss"
	"upcall/internal/ossrule"
)

func goodMultipart() oss.MultipartPlan {
	size := int64(300_000)
	return oss.MultipartPlan{Object: oss.Object{Bucket: "demo", Key: "a b/video.mp4"}, Expires: time.Hour, Size: &size,
		PartSize: ossrule.MinPart}
}

func TestMultipartRejections(t *testing.T) {
	t.Parallel()
	size := func(n int64) func(*oss.MultipartPlan) {
		return func(m *oss.MultipartPlan) { m.Size, m.PartSize = &n, 0 }
	}
	count := func(parts int, partSize int64) func(*oss.MultipartPlan) {
		return func(m *oss.MultipartPlan) { m.Size, m.Parts, m.PartSize = nil, parts, partSize }
	}
	tests := []struct {
		name   string
		change func(*oss.MultipartPlan)
		says   string
		rules  []error
	}{
		{"neither size nor parts", count(0, 0), "give the size", []error{oss.ErrSize}},
		{"both", func(m *oss.MultipartPlan) { m.Parts = 3 }, "leave one out", []error{oss.ErrPartCount}},
		{"size 0", size(0), "1 to 53687091200000", []error{oss.ErrSize}},
		{"size negative", size(-1), "1 to 53687091200000", []error{oss.ErrSize}},
		{"size over the maximum", size(ossrule.MaxObject + 1), "1 to 53687091200000", []error{oss.ErrSize}},
		{"the largest int64 as the size", size(1<<63 - 1), "1 to 53687091200000", []error{oss.ErrSize}},
		{"parts negative", count(-1, 0), "1 to 10000", []error{oss.ErrPartCount}},
		{"parts over the maximum", count(ossrule.MaxParts+1, 0), "1 to 10000", []error{oss.ErrPartCount}},
		{"part size under the minimum", count(1, ossrule.MinPart-1), "102400 to 5368709120", []error{oss.ErrPartSize}},
		{"part size over the maximum", count(1, ossrule.MaxPart+1), "102400 to 5368709120", []error{oss.ErrPartSize}},
		{"part size negative", count(1, -1), "102400 to 5368709120", []error{oss.ErrPartSize}},
		{"part size of one byte with a size", func(m *oss.MultipartPlan) { m.PartSize = 1 }, "102400 to 5368709120", []error{oss.ErrPartSize}},
		{"size that makes one part too many", func(m *oss.MultipartPlan) {
			n := int64(ossrule.MaxParts*ossrule.MinPart + 1)
			m.Size = &n
		}, "give at least 102401", []error{oss.ErrPartCount}},
		{"expiry", func(m *oss.MultipartPlan) { m.Expires = 8 * 24 * time.Hour }, "1s to 7d", []error{oss.ErrExpires}},
		{"callback", func(m *oss.MultipartPlan) { m.Callback.CallbackVar = document("{}") }, "give a callback", []error{oss.ErrCallback}},
		{"all at once", func(m *oss.MultipartPlan) { *m = oss.MultipartPlan{Parts: -1, PartSize: 1} }, "",
			[]error{ossrule.ErrBucket, ossrule.ErrKey, oss.ErrExpires, oss.ErrPartCount, oss.ErrPartSize}},
	}
	p, err := oss.New(goodConfig())
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m := goodMultipart()
			tt.change(&m)
			checkMistakes(t, m.Check(), tt.says, tt.rules...)
			_, _, err := p.SignMultipart(t.Context(), m, oss.UploadRef{Bucket: "demo", Key: "k", ID: "U"})
			checkMistakes(t, err, tt.says, tt.rules...)
		})
	}
}

func TestPartSizes(t *testing.T) {
	t.Parallel()
	const mib, gib = 1 << 20, 1 << 30
	for _, tt := range []struct {
		size, partSize, want int64
		count                int
		last                 int64
	}{
		{1, 0, 8 * mib, 1, 1},
		{8 * mib, 0, 8 * mib, 1, 8 * mib},
		{8*mib + 1, 0, 8 * mib, 2, 1},
		{5 * gib, 0, 8 * mib, 640, 8 * mib},
		{8000 * mib, 0, 8 * mib, 1000, 8 * mib},
		{8000*mib + 1, 0, 9 * mib, 889, 8*mib + 1},
		{1000 * gib, 0, 1 * gib, 1000, gib},
		{5000 * gib, 0, 5 * gib, 1000, 5 * gib},
		{5000*gib + 1, 0, 5 * gib, 1001, 1},
		{ossrule.MaxObject, 0, 5 * gib, 10000, 5 * gib},
		{ossrule.MaxObject, 5 * gib, 5 * gib, 10000, 5 * gib},
		{ossrule.MaxObject - 1, 0, 5 * gib, 10000, 5*gib - 1},
		{ossrule.MaxParts * ossrule.MinPart, ossrule.MinPart, ossrule.MinPart, 10000, ossrule.MinPart},
		{100, ossrule.MinPart, ossrule.MinPart, 1, 100},
	} {
		m := goodMultipart()
		m.Size, m.PartSize = &tt.size, tt.partSize
		if err := m.Check(); err != nil {
			t.Errorf("%d bytes in parts of %d: %v", tt.size, tt.partSize, err)
		}
		if m.SizeOfParts() != tt.want || m.Count() != tt.count || *m.SizeOf(m.Count()) != tt.last {
			t.Errorf("%d bytes: %d parts of %d, the last of %d; want %d of %d, the last of %d",
				tt.size, m.Count(), m.SizeOfParts(), *m.SizeOf(m.Count()), tt.count, tt.want, tt.last)
		}
		if m.Count() > 1 && *m.SizeOf(1) != tt.want {
			t.Errorf("%d bytes: the first part has %d", tt.size, *m.SizeOf(1))
		}
	}
	counted := oss.MultipartPlan{Parts: 7}
	if counted.Count() != 7 || counted.SizeOfParts() != 8*mib || counted.SizeOf(1) != nil {
		t.Errorf("7 parts: %d of %d", counted.Count(), counted.SizeOfParts())
	}
}

// FuzzPartSizes checks that the parts of a plan that passes the check add up, within the
// limits.
func FuzzPartSizes(f *testing.F) {
	for _, n := range []int64{0, 1, ossrule.MinPart, ossrule.MaxPart, ossrule.MaxObject, 1<<63 - 1} {
		f.Add(n, int64(0))
		f.Add(n, int64(ossrule.MinPart))
		f.Add(n, n)
	}
	f.Fuzz(func(t *testing.T, size, partSize int64) {
		m := goodMultipart()
		m.Size, m.PartSize = &size, partSize
		if m.Check() != nil {
			return
		}
		if m.Count() < 1 || m.Count() > ossrule.MaxParts || m.SizeOfParts() < ossrule.MinPart || m.SizeOfParts() > ossrule.MaxPart {
			t.Fatalf("%d bytes: %d parts of %d", size, m.Count(), m.SizeOfParts())
		}
		last := *m.SizeOf(m.Count())
		if last < 1 || last > m.SizeOfParts() || int64(m.Count()-1)*m.SizeOfParts()+last != size {
			t.Errorf("%d bytes: %d parts of %d, the last of %d", size, m.Count(), m.SizeOfParts(), last)
		}
	})
}

// TestMultipartSignatures compares every kind of URL with canonical requests written by hand.
func TestMultipartSignatures(t *testing.T) {
	t.Parallel()
	const (
		scope = "x-oss-credential=ak%2F20000101%2Fcn-hangzhou%2Foss%2Faliyun_v4_request&x-oss-date=20000101T000000Z&x-oss-expires=3600&x-oss-signature-version=OSS4-HMAC-SHA256"
		path  = "/a%20b/video.mp4"
	)
	inQuery := goodMultipart()
	inQuery.Callback = oss.CallbackHeaders{Callback: document(`{">>?":"??>"}`), CallbackVar: document(`{"~":">?"}`), InQuery: true}
	inHeaders := goodMultipart()
	inHeaders.Callback = oss.CallbackHeaders{Callback: document(`{">>?":"??>"}`), CallbackVar: document(`{"~":">?"}`)}
	inHeaders.Object.ACL, inHeaders.Object.ForbidOverwrite = "private", true
	inHeaders.Object.ContentType, inHeaders.Object.Meta = "video/mp4", map[string]string{"a": "1"} // sent when the upload is initiated
	counted := goodMultipart()
	counted.Size, counted.Parts = nil, 2001
	type request = func(*testing.T) manifest.PresignedRequest
	signed := func(m oss.MultipartPlan, choose func(manifest.Multipart) manifest.PresignedRequest) request {
		return func(t *testing.T) manifest.PresignedRequest {
			p, err := oss.New(goodConfig())
			if err != nil {
				t.Fatal(err)
			}
			all, cause, err := p.SignMultipart(t.Context(), m, oss.UploadRef{Bucket: "demo", Key: "a b/video.mp4", ID: "U/1"})
			if err != nil {
				t.Fatal(err)
			}
			if want := time.Date(2000, 1, 1, 1, 0, 0, 0, time.UTC); !all.ExpiresAt.Equal(want) || cause != oss.ExpiryRequested ||
				len(all.Parts) != m.Count() {
				t.Errorf("%d parts, expire at %s by %d", len(all.Parts), all.ExpiresAt, cause)
			}
			return choose(all)
		}
	}
	tests := []struct {
		name           string
		signed         func(*testing.T) manifest.PresignedRequest
		method, query  string
		headers, added string
	}{
		{"first part", signed(inHeaders, func(m manifest.Multipart) manifest.PresignedRequest { return m.Parts[0].PresignedRequest }), "PUT",
			"partNumber=1&uploadId=U%2F1&x-oss-additional-headers=content-length&" + scope, "content-length:102400\n", "content-length"},
		{"last part", signed(inQuery, func(m manifest.Multipart) manifest.PresignedRequest { return m.Parts[2].PresignedRequest }), "PUT",
			"partNumber=3&uploadId=U%2F1&x-oss-additional-headers=content-length&" + scope, "content-length:95200\n", "content-length"},
		{"part of any size", signed(counted, func(m manifest.Multipart) manifest.PresignedRequest { return m.Parts[2000].PresignedRequest }), "PUT",
			"partNumber=2001&uploadId=U%2F1&" + scope, "", ""},
		{"complete with the callback in headers", signed(inHeaders, func(m manifest.Multipart) manifest.PresignedRequest { return m.Complete }), "POST",
			"uploadId=U%2F1&" + scope,
			"content-type:application/xml\nx-oss-callback:eyI+Pj8iOiI/Pz4ifQ==\nx-oss-callback-var:eyJ+IjoiPj8ifQ==\nx-oss-forbid-overwrite:true\nx-oss-object-acl:private\n", ""},
		{"complete with the callback in the query", signed(inQuery, func(m manifest.Multipart) manifest.PresignedRequest { return m.Complete }), "POST",
			"callback=eyI%2BPj8iOiI%2FPz4ifQ%3D%3D&callback-var=eyJ%2BIjoiPj8ifQ%3D%3D&uploadId=U%2F1&" +
				scope, "content-type:application/xml\n", ""},
		{"complete without a callback", signed(counted, func(m manifest.Multipart) manifest.PresignedRequest { return m.Complete }), "POST",
			"uploadId=U%2F1&" + scope, "content-type:application/xml\n", ""},
		{"abort", signed(inHeaders, func(m manifest.Multipart) manifest.PresignedRequest { return m.Abort }), "DELETE",
			"uploadId=U%2F1&" + scope, "", ""},
		{"head", signed(inQuery, func(m manifest.Multipart) manifest.PresignedRequest { return *m.Head }), "HEAD", scope, "", ""},
		{"list", signed(inHeaders, func(m manifest.Multipart) manifest.PresignedRequest { return m.ListParts }), "GET",
			"uploadId=U%2F1&" + scope, "", ""},
		{"third list", signed(counted, func(m manifest.Multipart) manifest.PresignedRequest { return m.ListPartsNext[1] }), "GET",
			"part-number-marker=2000&uploadId=U%2F1&" + scope, "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			canonical := tt.method + "\n/demo" + path + "\n" + tt.query + "\n" + tt.headers + "\n" + tt.added + "\nUNSIGNED-PAYLOAD"
			synctest.Test(t, func(t *testing.T) {
				got := tt.signed(t)
				u := parseURL(t, got.URL)
				query := u.Query()
				query.Del("x-oss-signature")
				if diff := cmp.Diff(tt.query, strings.ReplaceAll(query.Encode(), "+", "%20")); diff != "" || u.EscapedPath() != path ||
					got.Method != tt.method {
					t.Errorf("%s %s, query (-want +got):\n%s", got.Method, got.URL, diff)
				}
				if want := signature("sk", "cn-hangzhou", "20000101T000000Z", canonical); u.Query().Get("x-oss-signature") != want {
					t.Errorf("signature %s, want %s", u.Query().Get("x-oss-signature"), want)
				}
				for line := range strings.Lines(tt.headers) {
					if name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":"); got.Headers[name] != value {
						t.Errorf("header %s is %q, want %q", name, got.Headers[name], value)
					}
				}
				if len(got.Headers) != strings.Count(tt.headers, "\n") || got.Headers == nil {
					t.Errorf("headers %v", got.Headers)
				}
			})
		})
	}
}

// TestExpiryCause checks that a URL ends with its expiry or the credentials, whichever is
// earlier.
func TestExpiryCause(t *testing.T) {
	t.Parallel()
	now := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC) // of a synctest bubble
	at := func(d time.Duration) oss.Credentials {
		return oss.Credentials{AccessKeyID: "ak", AccessKeySecret: "sk", SessionToken: "t", Expires: now.Add(d)}
	}
	tests := []struct {
		name        string
		credentials oss.Credentials
		expires     time.Duration
		want        time.Duration
		cause       oss.ExpiryCause
		rule        error
	}{
		{"permanent", oss.Credentials{AccessKeyID: "ak", AccessKeySecret: "sk"}, time.Hour, time.Hour, oss.ExpiryRequested, nil},
		{"unknown", oss.Credentials{AccessKeyID: "ak", AccessKeySecret: "sk", SessionToken: "t"}, time.Hour, time.Hour, oss.ExpiryUnknown, nil},
		{"later", at(time.Hour + time.Second), time.Hour, time.Hour, oss.ExpiryRequested, nil},
		{"at the same time", at(time.Hour), time.Hour, time.Hour, oss.ExpiryRequested, nil},
		{"within the same second", at(time.Hour + 999*time.Millisecond), time.Hour, time.Hour, oss.ExpiryRequested, nil},
		{"earlier", at(time.Hour - time.Millisecond), time.Hour, time.Hour - time.Second, oss.ExpiryOfCredentials, nil},
		{"a second is left", at(time.Second), 7 * 24 * time.Hour, time.Second, oss.ExpiryOfCredentials, nil},
		{"less than a second is left", at(999 * time.Millisecond), time.Hour, 0, 0, oss.ErrCredentials},
		{"now", at(0), time.Second, 0, 0, oss.ErrCredentials},
		{"long ago", at(-24 * time.Hour), time.Hour, 0, 0, oss.ErrCredentials},
		{"expiry over the maximum, though the credentials end before", at(time.Minute), 8 * 24 * time.Hour, 0, 0, oss.ErrExpires},
		{"source without a secret", oss.Credentials{AccessKeyID: "ak"}, time.Hour, 0, 0, oss.ErrCredentials},
		{"source with a line break", oss.Credentials{AccessKeyID: "ak", AccessKeySecret: "hunter\n2"}, time.Hour, 0, 0, oss.ErrCredentials},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cfg := goodConfig()
			cfg.AccessKeyID, cfg.AccessKeySecret = "", ""
			cfg.Source = func(context.Context, bool) (oss.Credentials, error) { return tt.credentials, nil }
			synctest.Test(t, func(t *testing.T) {
				p, err := oss.New(cfg)
				if err != nil {
					t.Fatal(err)
				}
				u := goodPut()
				u.Expires = tt.expires
				signed, putErr := p.Put(t.Context(), u)
				m := goodMultipart()
				m.Expires = tt.expires
				all, cause, multipartErr := p.SignMultipart(t.Context(), m, oss.UploadRef{Bucket: "demo", Key: "k", ID: "U"})
				if tt.rule != nil {
					checkMistakes(t, putErr, "", tt.rule)
					checkMistakes(t, multipartErr, "", tt.rule)
					return
				}
				if putErr != nil || multipartErr != nil {
					t.Fatal(putErr, multipartErr)
				}
				requests := []manifest.PresignedRequest{signed.PresignedRequest, all.Complete, all.Abort, *all.Head, all.ListParts}
				for _, part := range all.Parts {
					requests = append(requests, part.PresignedRequest)
				}
				for _, r := range requests {
					if got := parseURL(t, r.URL).Query().Get("x-oss-expires"); got != fmt.Sprint(int(tt.want.Seconds())) {
						t.Errorf("x-oss-expires %s of %s", got, r.URL)
					}
				}
				if want := now.Add(tt.want); !signed.ExpiresAt.Equal(want) || signed.ExpiryCause != tt.cause ||
					!all.ExpiresAt.Equal(want) || cause != tt.cause {
					t.Errorf("expire at %s by %d, manifest at %s by %d", signed.ExpiresAt, signed.ExpiryCause, all.ExpiresAt, cause)
				}
			})
		})
	}
}

// TestSourceFails checks that the source's error is shown once and unchanged.
func TestSourceFails(t *testing.T) {
	t.Parallel()
	dry := errors.New("no credentials today")
	cfg := goodConfig()
	cfg.Source = func(context.Context, bool) (oss.Credentials, error) { return oss.Credentials{}, dry }
	p, err := oss.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Put(t.Context(), goodPut()); !errors.Is(err, dry) || err.Error() != dry.Error() {
		t.Errorf("error %v", err)
	}
	if _, err := p.Initiate(t.Context(), goodPut().Object); !errors.Is(err, dry) ||
		err.Error() != "initiate multipart upload: "+dry.Error() {
		t.Errorf("error %v", err)
	}
}

// TestMultipartOverBeforeSigned checks that a manifest that has expired before it is complete
// is an error.
func TestMultipartOverBeforeSigned(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cfg := goodConfig()
		asked := 0
		cfg.Source = func(context.Context, bool) (oss.Credentials, error) {
			if asked++; asked == 3 {
				time.Sleep(time.Second) // of the bubble's clock
			}
			return oss.Credentials{AccessKeyID: "ak", AccessKeySecret: "sk"}, nil
		}
		p, err := oss.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		m := goodMultipart()
		m.Expires = time.Second
		_, _, err = p.SignMultipart(t.Context(), m, oss.UploadRef{Bucket: "demo", Key: "k", ID: "U"})
		checkMistakes(t, err, "1s is over before 3 parts are signed", oss.ErrExpires)
	})
}
