package oss_test

import (
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"upcall/internal/oss"
	"upcall/internal/ossrule"
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
		change func(*oss.Put)
		rule   error
		says   string
	}{
		{"no bucket", func(u *oss.Put) { u.Object.Bucket = "" }, ossrule.ErrBucket, "is empty"},
		{"bucket of two letters", func(u *oss.Put) { u.Object.Bucket = "ab" }, ossrule.ErrBucket, "3 to 63"},
		{"bucket of 64 letters", func(u *oss.Put) { u.Object.Bucket = strings.Repeat("a", 64) }, ossrule.ErrBucket, "3 to 63"},
		{"bucket in capitals", func(u *oss.Put) { u.Object.Bucket = "Demo" }, ossrule.ErrBucket, "lower-case"},
		{"bucket with a dot", func(u *oss.Put) { u.Object.Bucket = "demo.example" }, ossrule.ErrBucket, "hyphens"},
		{"bucket with an underscore", func(u *oss.Put) { u.Object.Bucket = "demo_1" }, ossrule.ErrBucket, "hyphens"},
		{"bucket that changes the host", func(u *oss.Put) { u.Object.Bucket = "evil.example.com/" }, ossrule.ErrBucket, "hyphens"},
		{"bucket starts with a hyphen", func(u *oss.Put) { u.Object.Bucket = "-demo" }, ossrule.ErrBucket, "start and end"},
		{"bucket ends with a hyphen", func(u *oss.Put) { u.Object.Bucket = "demo-" }, ossrule.ErrBucket, "start and end"},
		{"bucket with a line break", func(u *oss.Put) { u.Object.Bucket = "demo\n" }, ossrule.ErrBucket, "lower-case"},

		{"no key", func(u *oss.Put) { u.Object.Key = "" }, ossrule.ErrKey, "is empty"},
		{"key of 1024 bytes", func(u *oss.Put) { u.Object.Key = strings.Repeat("k", 1024) }, ossrule.ErrKey, "1023"},
		{"key of 1024 bytes in 512 letters", func(u *oss.Put) { u.Object.Key = strings.Repeat("é", 512) }, ossrule.ErrKey, "1023"},
		{"key not UTF-8", func(u *oss.Put) { u.Object.Key = "caf\xe9" }, ossrule.ErrKey, "UTF-8"},
		{"key starts with a slash", func(u *oss.Put) { u.Object.Key = "/cat.jpg" }, ossrule.ErrKey, "leading separator"},
		{"key starts with a backslash", func(u *oss.Put) { u.Object.Key = `\cat.jpg` }, ossrule.ErrKey, "leading separator"},
		{"key with NUL", func(u *oss.Put) { u.Object.Key = "cat\x00.jpg" }, ossrule.ErrKey, "NUL"},

		{"no expiry", func(u *oss.Put) { u.Expires = 0 }, oss.ErrExpires, "1s to 7d"},
		{"expiry in the past", func(u *oss.Put) { u.Expires = -time.Hour }, oss.ErrExpires, "1s to 7d"},
		{"expiry over seven days", func(u *oss.Put) { u.Expires = ossrule.MaxExpiry + time.Second }, oss.ErrExpires, "1s to 7d"},
		{"the longest time.Duration", func(u *oss.Put) { u.Expires = 1<<63 - 1 - (1<<63-1)%time.Second }, oss.ErrExpires, "1s to 7d"},
		{"expiry of half a second", func(u *oss.Put) { u.Expires = 500 * time.Millisecond }, oss.ErrExpires, "whole seconds"},
		{"expiry with a fraction", func(u *oss.Put) { u.Expires = 90*time.Second + 1 }, oss.ErrExpires, "whole seconds"},

		{"negative size", func(u *oss.Put) { u.ContentLength = length(-1) }, oss.ErrContentLength, "out of range"},
		{"size over 5 GiB", func(u *oss.Put) { u.ContentLength = length(ossrule.MaxPut + 1) }, oss.ErrContentLength, "out of range"},
		{"MD5 in hex", func(u *oss.Put) { u.ContentMD5 = "d41d8cd98f00b204e9800998ecf8427e" }, oss.ErrContentMD5, "Base64"},
		{"MD5 too short", func(u *oss.Put) { u.ContentMD5 = "1B2M2Y8AsgTpgAmY7PhC" }, oss.ErrContentMD5, "Base64"},
		{"MD5 with stray bits", func(u *oss.Put) { u.ContentMD5 = "1B2M2Y8AsgTpgAmY7PhCfh==" }, oss.ErrContentMD5, "Base64"},
		{"MD5 with a line break", func(u *oss.Put) { u.ContentMD5 = "1B2M2Y8AsgTpgAmY7PhCfg==\n" }, oss.ErrContentMD5, "Base64"},

		{"content type without a slash", func(u *oss.Put) { u.Object.ContentType = "image" }, oss.ErrContentType, "image/jpeg"},
		{"content type with a line break",
			func(u *oss.Put) { u.Object.ContentType = "image/jpeg\r\nx-oss-acl: public-read" }, oss.ErrContentType,
			"image/jpeg"},
		{"content type with spaces around", func(u *oss.Put) { u.Object.ContentType = " image/jpeg" }, oss.ErrContentType, "image/jpeg"},
		{"storage class", func(u *oss.Put) { u.Object.StorageClass = "STANDARD" }, oss.ErrStorageClass, "Standard, IA"},
		{"ACL", func(u *oss.Put) { u.Object.ACL = "public" }, oss.ErrACL, "public-read"},

		{"meta without a name", func(u *oss.Put) { u.Object.Meta = map[string]string{"": "v"} }, oss.ErrMeta, "name=value"},
		{"meta with an underscore", func(u *oss.Put) { u.Object.Meta = map[string]string{"a_b": "v"} }, oss.ErrMeta, "hyphens"},
		{"meta with a colon", func(u *oss.Put) { u.Object.Meta = map[string]string{"a: b\r\nx": "v"} }, oss.ErrMeta, "hyphens"},
		{"meta twice", func(u *oss.Put) { u.Object.Meta = map[string]string{"Name": "v", "name": "w"} }, oss.ErrMeta, "given twice"},
		{"meta empty", func(u *oss.Put) { u.Object.Meta = map[string]string{"name": ""} }, oss.ErrMeta, "is empty"},
		{"meta with a line break",
			func(u *oss.Put) { u.Object.Meta = map[string]string{"name": "v\nx-oss-acl: public-read"} }, oss.ErrMeta,
			"control character"},
		{"meta not ASCII", func(u *oss.Put) { u.Object.Meta = map[string]string{"name": "猫"} }, oss.ErrMeta, "percent-encode"},
		{"meta with spaces around", func(u *oss.Put) { u.Object.Meta = map[string]string{"name": "v "} }, oss.ErrMeta, "space"},
		{"meta over 8 KB", func(u *oss.Put) { u.Object.Meta = map[string]string{"name": strings.Repeat("v", 8<<10)} }, oss.ErrMeta, "8192"},

		{"eleven tags", func(u *oss.Put) { u.Object.Tags = eleven }, oss.ErrTag, "allows 10"},
		{"tag without a key", func(u *oss.Put) { u.Object.Tags = map[string]string{"": "v"} }, oss.ErrTag, "key=value"},
		{"tag key too long", func(u *oss.Put) { u.Object.Tags = map[string]string{strings.Repeat("k", 129): "v"} }, oss.ErrTag, "128"},
		{"tag value too long", func(u *oss.Put) { u.Object.Tags = map[string]string{"k": strings.Repeat("v", 257)} }, oss.ErrTag, "256"},
		{"tag with an ampersand", func(u *oss.Put) { u.Object.Tags = map[string]string{"k": "a&b"} }, oss.ErrTag, "character"},

		{"header without a name", func(u *oss.Put) { u.Object.Headers = map[string]string{"": "v"} }, oss.ErrHeader, "name=value"},
		{"header that OSS drops", func(u *oss.Put) { u.Object.Headers = map[string]string{"X-Custom": "v"} }, oss.ErrHeader, "goes into meta"},
		{"header with a line break in its name",
			func(u *oss.Put) { u.Object.Headers = map[string]string{"x-oss-a\r\nb": "v"} }, oss.ErrHeader, "hyphens"},
		{"header with a line break in its value",
			func(u *oss.Put) { u.Object.Headers = map[string]string{"Cache-Control": "no-cache\r\nx: y"} }, oss.ErrHeader,
			"control character"},
		{"file name in another script", func(u *oss.Put) {
			u.Object.Headers = map[string]string{"Content-Disposition": `attachment; filename="报告 1.pdf"; x=1`}
		}, oss.ErrHeader, "write filename*=UTF-8''%E6%8A%A5%E5%91%8A%201.pdf in place of filename="},
		{"file name in another script, without quotes", func(u *oss.Put) {
			u.Object.Headers = map[string]string{"content-disposition": "inline; filename=é.pdf; x=1"}
		}, oss.ErrHeader, "write filename*=UTF-8''%C3%A9.pdf in place of filename="},
		{"file name in another script in the newer form", func(u *oss.Put) {
			u.Object.Headers = map[string]string{"Content-Disposition": "attachment; filename*=UTF-8''报告.pdf"}
		}, oss.ErrHeader, "write filename*=UTF-8'' and the percent-encoded name"},
		{"header in another script", func(u *oss.Put) { u.Object.Headers = map[string]string{"Content-Language": "中文"} },
			oss.ErrHeader, "use ASCII"},
		{"metadata in another script", func(u *oss.Put) { u.Object.Meta = map[string]string{"name": "报告"} },
			oss.ErrMeta, "percent-encode the value"},
		{"metadata empty", func(u *oss.Put) { u.Object.Meta = map[string]string{"name": ""} }, oss.ErrMeta, "give one, or leave it out"},
		{"metadata with a space at the end", func(u *oss.Put) { u.Object.Meta = map[string]string{"name": "a "} },
			oss.ErrMeta, "spaces at the ends"},
		{"header empty", func(u *oss.Put) { u.Object.Headers = map[string]string{"Cache-Control": ""} }, oss.ErrHeader, "is empty"},
		{"header twice", func(u *oss.Put) {
			u.Object.Headers = map[string]string{"Cache-Control": "a", "cache-control": "b"}
		}, oss.ErrHeader, "given twice"},
		{"the signed time", func(u *oss.Put) { u.Object.Headers = map[string]string{"X-Oss-Date": "v"} }, oss.ErrHeader, "part of the signature"},
		{"the signed payload", func(u *oss.Put) { u.Object.Headers = map[string]string{"x-oss-content-sha256": "v"} },
			oss.ErrHeader, "part of the signature"},
		{"the session token", func(u *oss.Put) { u.Object.Headers = map[string]string{"x-oss-security-token": "v"} },
			oss.ErrHeader, "OSS_SESSION_TOKEN"},
		{"a callback as a header", func(u *oss.Put) { u.Object.Headers = map[string]string{"x-oss-callback": "v"} },
			oss.ErrHeader, "use callback-url"},
		{"metadata as a header", func(u *oss.Put) { u.Object.Headers = map[string]string{"x-oss-meta-a": "v"} }, oss.ErrHeader, "use meta"},
		{"content type as a header", func(u *oss.Put) { u.Object.Headers = map[string]string{"Content-Type": "v"} },
			oss.ErrHeader, "use content-type"},
		{"authorization", func(u *oss.Put) { u.Object.Headers = map[string]string{"Authorization": "v"} }, oss.ErrHeader, "leave it out"},
		{"host", func(u *oss.Put) { u.Object.Headers = map[string]string{"Host": "v"} }, oss.ErrHeader, "not a header that OSS stores"},

		{"variables without a callback", func(u *oss.Put) { u.Callback.CallbackVar = document("{}") }, oss.ErrCallback, "give a callback"},
	}
	p, err := oss.New(goodConfig())
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
	err := oss.Put{
		Object:     oss.Object{Bucket: "B", ACL: "x", StorageClass: "y", ContentType: "z", Meta: map[string]string{"_": "", "é": ""}},
		ContentMD5: "?",
	}.Check()
	checkMistakes(t, err, "", ossrule.ErrBucket, ossrule.ErrKey, oss.ErrContentType, oss.ErrStorageClass, oss.ErrACL,
		oss.ErrMeta, oss.ErrMeta, oss.ErrExpires, oss.ErrContentMD5)
}

// TestSignedHeaders uses every setting and checks which headers the uploader must send.
func TestSignedHeaders(t *testing.T) {
	t.Parallel()
	p, err := oss.New(goodConfig())
	if err != nil {
		t.Fatal(err)
	}
	size := int64(0)
	u := oss.Put{
		Object: oss.Object{
			Bucket: "demo", Key: "k", ContentType: "text/plain; charset=utf-8", StorageClass: "IA", ACL: "private",
			Meta: map[string]string{"Origin-Name": "a 'b' \"c\".txt"}, Tags: map[string]string{"b": "2 + 2", "a": "", "c/d": "=:"},
			ForbidOverwrite: true,
			Headers: map[string]string{"Cache-Control": "no-cache", "content-disposition": "attachment; filename=a.txt", "Expires": "0",
				"Content-Encoding": "gzip", "Content-Language": "de", "X-OSS-Server-Side-Encryption": "AES256",
				"x-oss-traffic-limit": "819200"},
		},
		Expires: time.Minute, ContentLength: &size, ContentMD5: "1B2M2Y8AsgTpgAmY7PhCfg==",
		Callback: oss.CallbackHeaders{Callback: document("{}"), CallbackVar: document(`{"x:a":"b"}`)},
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
