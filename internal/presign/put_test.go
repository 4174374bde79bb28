package presign_test

import (
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"upcall/internal/presign"
)

func TestPutRejections(t *testing.T) {
	t.Parallel()
	length := func(n int64) *int64 { return &n }
	eleven := make(map[string]string)
	for i := range 11 {
		eleven["t"+strconv.Itoa(i)] = "v"
	}
	tests := []struct {
		name   string
		change func(*presign.Put)
		rule   error
		says   string
	}{
		{"no bucket", func(u *presign.Put) { u.Object.Bucket = "" }, presign.ErrBucket, "is empty"},
		{"bucket of two letters", func(u *presign.Put) { u.Object.Bucket = "ab" }, presign.ErrBucket, "3 to 63"},
		{"bucket of 64 letters", func(u *presign.Put) { u.Object.Bucket = strings.Repeat("a", 64) }, presign.ErrBucket, "3 to 63"},
		{"bucket in capitals", func(u *presign.Put) { u.Object.Bucket = "Demo" }, presign.ErrBucket, "lower-case"},
		{"bucket with a dot", func(u *presign.Put) { u.Object.Bucket = "demo.example" }, presign.ErrBucket, "hyphens"},
		{"bucket with an underscore", func(u *presign.Put) { u.Object.Bucket = "demo_1" }, presign.ErrBucket, "hyphens"},
		{"bucket that changes the host", func(u *presign.Put) { u.Object.Bucket = "evil.example.com/" }, presign.ErrBucket, "hyphens"},
		{"bucket starts with a hyphen", func(u *presign.Put) { u.Object.Bucket = "-demo" }, presign.ErrBucket, "start and end"},
		{"bucket ends with a hyphen", func(u *presign.Put) { u.Object.Bucket = "demo-" }, presign.ErrBucket, "start and end"},
		{"bucket with a line break", func(u *presign.Put) { u.Object.Bucket = "demo\n" }, presign.ErrBucket, "lower-case"},

		{"no key", func(u *presign.Put) { u.Object.Key = "" }, presign.ErrKey, "is empty"},
		{"key of 1024 bytes", func(u *presign.Put) { u.Object.Key = strings.Repeat("k", 1024) }, presign.ErrKey, "1023"},
		{"key of 1024 bytes in 512 letters", func(u *presign.Put) { u.Object.Key = strings.Repeat("é", 512) }, presign.ErrKey, "1023"},
		{"key not UTF-8", func(u *presign.Put) { u.Object.Key = "caf\xe9" }, presign.ErrKey, "UTF-8"},
		{"key starts with a slash", func(u *presign.Put) { u.Object.Key = "/cat.jpg" }, presign.ErrKey, "leading separator"},
		{"key starts with a backslash", func(u *presign.Put) { u.Object.Key = `\cat.jpg` }, presign.ErrKey, "leading separator"},
		{"key with NUL", func(u *presign.Put) { u.Object.Key = "cat\x00.jpg" }, presign.ErrKey, "NUL"},

		{"no expiry", func(u *presign.Put) { u.Expires = 0 }, presign.ErrExpires, "1s to 7d"},
		{"expiry in the past", func(u *presign.Put) { u.Expires = -time.Hour }, presign.ErrExpires, "1s to 7d"},
		{"expiry over seven days", func(u *presign.Put) { u.Expires = presign.MaxExpires + time.Second }, presign.ErrExpires, "1s to 7d"},
		{"expiry without end", func(u *presign.Put) { u.Expires = 1<<63 - 1 - (1<<63-1)%time.Second }, presign.ErrExpires, "1s to 7d"},
		{"expiry of half a second", func(u *presign.Put) { u.Expires = 500 * time.Millisecond }, presign.ErrExpires, "whole seconds"},
		{"expiry with a fraction", func(u *presign.Put) { u.Expires = 90*time.Second + 1 }, presign.ErrExpires, "whole seconds"},

		{"negative size", func(u *presign.Put) { u.ContentLength = length(-1) }, presign.ErrContentLength, "out of range"},
		{"size over 5 GiB", func(u *presign.Put) { u.ContentLength = length(presign.MaxPutSize + 1) }, presign.ErrContentLength, "out of range"},
		{"MD5 in hex", func(u *presign.Put) { u.ContentMD5 = "d41d8cd98f00b204e9800998ecf8427e" }, presign.ErrContentMD5, "Base64"},
		{"MD5 too short", func(u *presign.Put) { u.ContentMD5 = "1B2M2Y8AsgTpgAmY7PhC" }, presign.ErrContentMD5, "Base64"},
		{"MD5 with stray bits", func(u *presign.Put) { u.ContentMD5 = "1B2M2Y8AsgTpgAmY7PhCfh==" }, presign.ErrContentMD5, "Base64"},
		{"MD5 with a line break", func(u *presign.Put) { u.ContentMD5 = "1B2M2Y8AsgTpgAmY7PhCfg==\n" }, presign.ErrContentMD5, "Base64"},

		{"content type without a slash", func(u *presign.Put) { u.Object.ContentType = "image" }, presign.ErrContentType, "image/jpeg"},
		{"content type with a line break", func(u *presign.Put) { u.Object.ContentType = "image/jpeg\r\nx-oss-acl: public-read" }, presign.ErrContentType, "image/jpeg"},
		{"content type with spaces around", func(u *presign.Put) { u.Object.ContentType = " image/jpeg" }, presign.ErrContentType, "image/jpeg"},
		{"storage class", func(u *presign.Put) { u.Object.StorageClass = "STANDARD" }, presign.ErrStorageClass, "Standard, IA"},
		{"ACL", func(u *presign.Put) { u.Object.ACL = "public" }, presign.ErrACL, "public-read"},

		{"meta without a name", func(u *presign.Put) { u.Object.Meta = map[string]string{"": "v"} }, presign.ErrMeta, "name=value"},
		{"meta with an underscore", func(u *presign.Put) { u.Object.Meta = map[string]string{"a_b": "v"} }, presign.ErrMeta, "hyphens"},
		{"meta with a colon", func(u *presign.Put) { u.Object.Meta = map[string]string{"a: b\r\nx": "v"} }, presign.ErrMeta, "hyphens"},
		{"meta twice", func(u *presign.Put) { u.Object.Meta = map[string]string{"Name": "v", "name": "w"} }, presign.ErrMeta, "given twice"},
		{"meta empty", func(u *presign.Put) { u.Object.Meta = map[string]string{"name": ""} }, presign.ErrMeta, "is empty"},
		{"meta with a line break", func(u *presign.Put) { u.Object.Meta = map[string]string{"name": "v\nx-oss-acl: public-read"} }, presign.ErrMeta, "control character"},
		{"meta not ASCII", func(u *presign.Put) { u.Object.Meta = map[string]string{"name": "猫"} }, presign.ErrMeta, "percent-encode"},
		{"meta with spaces around", func(u *presign.Put) { u.Object.Meta = map[string]string{"name": "v "} }, presign.ErrMeta, "space"},
		{"meta over 8 KB", func(u *presign.Put) { u.Object.Meta = map[string]string{"name": strings.Repeat("v", 8<<10)} }, presign.ErrMeta, "8192"},

		{"eleven tags", func(u *presign.Put) { u.Object.Tags = eleven }, presign.ErrTag, "allows 10"},
		{"tag without a key", func(u *presign.Put) { u.Object.Tags = map[string]string{"": "v"} }, presign.ErrTag, "key=value"},
		{"tag key too long", func(u *presign.Put) { u.Object.Tags = map[string]string{strings.Repeat("k", 129): "v"} }, presign.ErrTag, "128"},
		{"tag value too long", func(u *presign.Put) { u.Object.Tags = map[string]string{"k": strings.Repeat("v", 257)} }, presign.ErrTag, "256"},
		{"tag with an ampersand", func(u *presign.Put) { u.Object.Tags = map[string]string{"k": "a&b"} }, presign.ErrTag, "character"},

		{"header without a name", func(u *presign.Put) { u.Object.Headers = map[string]string{"": "v"} }, presign.ErrHeader, "name=value"},
		{"header that OSS drops", func(u *presign.Put) { u.Object.Headers = map[string]string{"X-Custom": "v"} }, presign.ErrHeader, "goes into meta"},
		{"header with a line break in its name", func(u *presign.Put) { u.Object.Headers = map[string]string{"x-oss-a\r\nb": "v"} }, presign.ErrHeader, "hyphens"},
		{"header with a line break in its value", func(u *presign.Put) { u.Object.Headers = map[string]string{"Cache-Control": "no-cache\r\nx: y"} }, presign.ErrHeader, "control character"},
		{"header empty", func(u *presign.Put) { u.Object.Headers = map[string]string{"Cache-Control": ""} }, presign.ErrHeader, "is empty"},
		{"header twice", func(u *presign.Put) {
			u.Object.Headers = map[string]string{"Cache-Control": "a", "cache-control": "b"}
		}, presign.ErrHeader, "given twice"},
		{"the signed time", func(u *presign.Put) { u.Object.Headers = map[string]string{"X-Oss-Date": "v"} }, presign.ErrHeader, "part of the signature"},
		{"the signed payload", func(u *presign.Put) { u.Object.Headers = map[string]string{"x-oss-content-sha256": "v"} }, presign.ErrHeader, "part of the signature"},
		{"the session token", func(u *presign.Put) { u.Object.Headers = map[string]string{"x-oss-security-token": "v"} }, presign.ErrHeader, "OSS_SESSION_TOKEN"},
		{"a callback past the checks", func(u *presign.Put) { u.Object.Headers = map[string]string{"x-oss-callback": "v"} }, presign.ErrHeader, "use callback-url"},
		{"metadata as a header", func(u *presign.Put) { u.Object.Headers = map[string]string{"x-oss-meta-a": "v"} }, presign.ErrHeader, "use meta"},
		{"content type as a header", func(u *presign.Put) { u.Object.Headers = map[string]string{"Content-Type": "v"} }, presign.ErrHeader, "use content-type"},
		{"authorization", func(u *presign.Put) { u.Object.Headers = map[string]string{"Authorization": "v"} }, presign.ErrHeader, "leave it out"},
		{"host", func(u *presign.Put) { u.Object.Headers = map[string]string{"Host": "v"} }, presign.ErrHeader, "no header that OSS keeps"},

		{"variables without a callback", func(u *presign.Put) { u.Callback.Vars = document("{}") }, presign.ErrCallback, "give a callback"},
		{"unknown carriage", func(u *presign.Put) { u.Callback.Carriage = 2 }, presign.ErrCallback, "neither"},
	}
	p, err := presign.New(goodConfig())
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			u := goodPut()
			tt.change(&u)
			signed, err := p.Put(t.Context(), u)
			if signed.URL != "" {
				t.Error("a URL was returned")
			}
			checkMistakes(t, err, tt.says, tt.rule)
		})
	}
}

func TestPutMistakesAtOnce(t *testing.T) {
	t.Parallel()
	err := presign.Put{
		Object:     presign.Object{Bucket: "B", ACL: "x", StorageClass: "y", ContentType: "z", Meta: map[string]string{"_": "", "é": ""}},
		ContentMD5: "?",
	}.Check()
	checkMistakes(t, err, "", presign.ErrBucket, presign.ErrKey, presign.ErrContentType, presign.ErrStorageClass, presign.ErrACL,
		presign.ErrMeta, presign.ErrMeta, presign.ErrExpires, presign.ErrContentMD5)
}

// TestSignedHeaders takes every setting there is and asserts what an uploader has to send.
func TestSignedHeaders(t *testing.T) {
	t.Parallel()
	p, err := presign.New(goodConfig())
	if err != nil {
		t.Fatal(err)
	}
	size := int64(0)
	u := presign.Put{
		Object: presign.Object{
			Bucket: "demo", Key: "k", ContentType: "text/plain; charset=utf-8", StorageClass: "IA", ACL: "private",
			Meta: map[string]string{"Origin-Name": "a 'b' \"c\".txt"}, Tags: map[string]string{"b": "2 + 2", "a": "", "c/d": "=:"},
			ForbidOverwrite: true,
			Headers: map[string]string{"Cache-Control": "no-cache", "content-disposition": "attachment; filename=a.txt", "Expires": "0",
				"Content-Encoding": "gzip", "Content-Language": "de", "X-OSS-Server-Side-Encryption": "AES256", "x-oss-traffic-limit": "819200"},
		},
		Expires: time.Minute, ContentLength: &size, ContentMD5: "1B2M2Y8AsgTpgAmY7PhCfg==",
		Callback: presign.Callback{Parameter: document("{}"), Vars: document(`{"x:a":"b"}`)},
	}
	signed, err := p.Put(t.Context(), u)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"cache-control":                "no-cache",
		"content-disposition":          "attachment; filename=a.txt",
		"content-encoding":             "gzip",
		"content-language":             "de",
		"content-length":               "0",
		"content-md5":                  "1B2M2Y8AsgTpgAmY7PhCfg==",
		"content-type":                 "text/plain; charset=utf-8",
		"expires":                      "0",
		"x-oss-callback":               "e30=",
		"x-oss-callback-var":           "eyJ4OmEiOiJiIn0=",
		"x-oss-forbid-overwrite":       "true",
		"x-oss-meta-origin-name":       "a 'b' \"c\".txt",
		"x-oss-object-acl":             "private",
		"x-oss-server-side-encryption": "AES256",
		"x-oss-storage-class":          "IA",
		"x-oss-tagging":                "a=&b=2%20%2B%202&c%2Fd=%3D%3A",
		"x-oss-traffic-limit":          "819200",
	}
	if diff := cmp.Diff(want, signed.Headers); diff != "" {
		t.Errorf("headers (-want +got):\n%s", diff)
	}
	query := parseURL(t, signed.URL).Query()
	if got, want := query.Get("x-oss-additional-headers"), "cache-control;content-disposition;content-encoding;content-language;content-length;expires"; got != want {
		t.Errorf("additional headers %q, want %q", got, want)
	}
	if query.Has("callback") || query.Has("callback-var") {
		t.Error("the callback is in the query as well")
	}
}

func parseURL(t *testing.T, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}
