package oss_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"upcall/internal/callbackspec"
	"upcall/internal/oss"
)

// signature makes a V4 signature from a canonical request, as described (Alibaba Cloud, "Add
// signatures to URLs"), without the SDK.
func signature(secret, region, datetime, canonicalRequest string) string {
	scope := datetime[:8] + "/" + region + "/oss/aliyun_v4_request"
	hash := sha256.Sum256([]byte(canonicalRequest))
	stringToSign := strings.Join([]string{"OSS4-HMAC-SHA256", datetime, scope, hex.EncodeToString(hash[:])}, "\n")
	key := []byte("aliyun_v4" + secret)
	for _, part := range []string{datetime[:8], region, "oss", "aliyun_v4_request", stringToSign} {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(part))
		key = mac.Sum(nil)
	}
	return hex.EncodeToString(key)
}

// TestSignatureOfficial compares the test's own signature with a value that the OSS SDKs for
// Go and Python publish (TestV4AuthQuery).
func TestSignatureOfficial(t *testing.T) {
	t.Parallel()
	canonical := "PUT\n/bucket/1234%2B-/123/1.txt\n" +
		"%2Bparam1=value3&%2Bparam2&%7Cparam1=value4&%7Cparam2&param1=value1&param2&" +
		"x-oss-credential=ak%2F20231217%2Fcn-hangzhou%2Foss%2Faliyun_v4_request&x-oss-date=20231217T025437Z&" +
		"x-oss-expires=599&x-oss-signature-version=OSS4-HMAC-SHA256\n" +
		"content-type:application/octet-stream\nx-oss-head1:value\n\n\nUNSIGNED-PAYLOAD"
	const want = "a39966c61718be0d5b14e668088b3fa07601033f6518ac7b523100014269c0fe"
	if got := signature("sk", "cn-hangzhou", "20231217T025437Z", canonical); got != want {
		t.Errorf("signature %s, want %s", got, want)
	}
}

// document returns a document whose Base64 the tests know. Together they hold every Base64
// character that must be escaped in a URL.
func document(text string) callbackspec.Document {
	d, err := callbackspec.ReadDocument("test", []byte(text))
	if err != nil {
		panic(err)
	}
	return d
}

// TestSignatures compares whole URLs, at a fixed time, with canonical requests written by hand.
func TestSignatures(t *testing.T) {
	t.Parallel()
	const (
		credential = "x-oss-credential=ak%2F20000101%2Fcn-hangzhou%2Foss%2Faliyun_v4_request"
		date       = "&x-oss-date=20000101T000000Z"
		version    = "x-oss-signature-version=OSS4-HMAC-SHA256"
	)
	size := int64(1048576)
	tests := []struct {
		name      string
		token     string
		put       oss.Put
		path      string // escaped
		query     string // canonical
		headers   string // canonical
		additions string
	}{
		{
			name:  "plain",
			put:   oss.Put{Object: oss.Object{Bucket: "demo", Key: "cat.jpg"}, Expires: time.Hour},
			path:  "/cat.jpg",
			query: credential + date + "&x-oss-expires=3600&" + version,
		},
		{
			name:  "shortest",
			put:   oss.Put{Object: oss.Object{Bucket: "demo", Key: "cat.jpg"}, Expires: time.Second},
			path:  "/cat.jpg",
			query: credential + date + "&x-oss-expires=1&" + version,
		},
		{
			name:  "longest",
			put:   oss.Put{Object: oss.Object{Bucket: "demo", Key: "cat.jpg"}, Expires: 7 * 24 * time.Hour},
			path:  "/cat.jpg",
			query: credential + date + "&x-oss-expires=604800&" + version,
		},
		{
			name:  "key that needs escaping",
			put:   oss.Put{Object: oss.Object{Bucket: "demo", Key: "a b/c+d/é/../%41?#&='\"~*.jpg"}, Expires: time.Hour},
			path:  "/a%20b/c%2Bd/%C3%A9/../%2541%3F%23%26%3D%27%22~%2A.jpg",
			query: credential + date + "&x-oss-expires=3600&" + version,
		},
		{
			name:  "temporary credentials",
			token: "sts+/=token",
			put:   oss.Put{Object: oss.Object{Bucket: "demo", Key: "cat.jpg"}, Expires: time.Hour},
			path:  "/cat.jpg",
			query: credential + date + "&x-oss-expires=3600&x-oss-security-token=sts%2B%2F%3Dtoken&" + version,
		},
		{
			name: "callback in headers",
			put: oss.Put{
				Object: oss.Object{Bucket: "demo", Key: "cat.jpg", ContentType: "image/jpeg",
					Meta: map[string]string{"B": "2", "a": "1"}},
				Expires:  time.Hour,
				Callback: oss.CallbackHeaders{Callback: document(`{">>?":"??>"}`), CallbackVar: document(`{"~":">?"}`)},
			},
			path:    "/cat.jpg",
			query:   credential + date + "&x-oss-expires=3600&" + version,
			headers: "content-type:image/jpeg\nx-oss-callback:eyI+Pj8iOiI/Pz4ifQ==\nx-oss-callback-var:eyJ+IjoiPj8ifQ==\nx-oss-meta-a:1\nx-oss-meta-b:2\n",
		},
		{
			// callback comes before callback-var, because keys are sorted. Sorted as text with
			// their values, they would be the other way round: "-" is less than "=".
			name: "callback in the query",
			put: oss.Put{
				Object:   oss.Object{Bucket: "demo", Key: "cat.jpg", ContentType: "image/jpeg"},
				Expires:  time.Hour,
				Callback: oss.CallbackHeaders{Callback: document(`{">>?":"??>"}`), CallbackVar: document(`{"~":">?"}`), InQuery: true},
			},
			path: "/cat.jpg",
			query: "callback=eyI%2BPj8iOiI%2FPz4ifQ%3D%3D&callback-var=eyJ%2BIjoiPj8ifQ%3D%3D&" + credential + date +
				"&x-oss-expires=3600&" + version,
			headers: "content-type:image/jpeg\n",
		},
		{
			name: "callback in the query without variables",
			put: oss.Put{
				Object:   oss.Object{Bucket: "demo", Key: "cat.jpg"},
				Expires:  time.Hour,
				Callback: oss.CallbackHeaders{Callback: document(`{">>?":"??>"}`), InQuery: true},
			},
			path:  "/cat.jpg",
			query: "callback=eyI%2BPj8iOiI%2FPz4ifQ%3D%3D&" + credential + date + "&x-oss-expires=3600&" + version,
		},
		{
			name: "exact size",
			put: oss.Put{
				Object:  oss.Object{Bucket: "demo", Key: "cat.jpg", Headers: map[string]string{"Cache-Control": "no-cache"}},
				Expires: time.Hour, ContentLength: &size, ContentMD5: "1B2M2Y8AsgTpgAmY7PhCfg==",
			},
			path:      "/cat.jpg",
			query:     "x-oss-additional-headers=cache-control%3Bcontent-length&" + credential + date + "&x-oss-expires=3600&" + version,
			headers:   "cache-control:no-cache\ncontent-length:1048576\ncontent-md5:1B2M2Y8AsgTpgAmY7PhCfg==\n",
			additions: "cache-control;content-length",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cfg := goodConfig()
			cfg.SessionToken = tt.token
			canonical := "PUT\n/demo" + tt.path + "\n" + tt.query + "\n" + tt.headers + "\n" + tt.additions + "\nUNSIGNED-PAYLOAD"
			want := "x-oss-signature=" + signature("sk", "cn-hangzhou", "20000101T000000Z", canonical)
			// The SDK reads the system's clock, which stands still at the beginning of the
			// year 2000 here.
			synctest.Test(t, func(t *testing.T) {
				p, err := oss.New(cfg)
				if err != nil {
					t.Fatal(err)
				}
				signed, err := p.Put(t.Context(), tt.put)
				if err != nil {
					t.Fatal(err)
				}
				u := parseURL(t, signed.URL)
				if got := u.EscapedPath(); got != tt.path {
					t.Errorf("path %s, want %s", got, tt.path)
				}
				parts := strings.Split(u.RawQuery, "&")
				var rest []string
				got := ""
				for _, part := range parts {
					if strings.HasPrefix(part, "x-oss-signature=") {
						got = part
						continue
					}
					rest = append(rest, part)
				}
				if diff := cmp.Diff(tt.query, strings.Join(rest, "&")); diff != "" {
					t.Errorf("query (-want +got):\n%s", diff)
				}
				if got != want {
					t.Errorf("%s, want %s", got, want)
				}
				if want := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).Add(tt.put.Expires); !signed.ExpiresAt.Equal(want) ||
					signed.ExpiresAt.Location() != time.UTC {
					t.Errorf("expires at %s, want %s", signed.ExpiresAt, want)
				}
				if signed.Method != "PUT" {
					t.Errorf("method %s", signed.Method)
				}
				var headers strings.Builder
				for line := range strings.Lines(tt.headers) {
					name, _, _ := strings.Cut(line, ":")
					fmt.Fprintf(&headers, "%s:%s\n", name, signed.Headers[name])
				}
				if headers.String() != tt.headers || len(signed.Headers) != strings.Count(tt.headers, "\n") {
					t.Errorf("headers %v, want\n%s", signed.Headers, tt.headers)
				}
			})
		})
	}
}

// TestExpiryAtSecondBoundary signs repeatedly until the clock's second changes, and checks that
// the URL's own start and length add up to the expiry that is reported.
func TestExpiryAtSecondBoundary(t *testing.T) {
	t.Parallel()
	p, err := oss.New(goodConfig())
	if err != nil {
		t.Fatal(err)
	}
	u := goodPut()
	u.Expires = time.Second
	for first := time.Now().Unix(); time.Now().Unix() == first; {
		signed, err := p.Put(t.Context(), u)
		if err != nil {
			t.Fatal(err)
		}
		query := parseURL(t, signed.URL).Query()
		start, err := time.Parse("20060102T150405Z", query.Get("x-oss-date"))
		if err != nil {
			t.Fatal(err)
		}
		if query.Get("x-oss-expires") != "1" || !start.Add(time.Second).Equal(signed.ExpiresAt) {
			t.Fatalf("%s for %s s, but expires at %s", start, query.Get("x-oss-expires"), signed.ExpiresAt)
		}
	}
}

// FuzzKey checks that every key that passes the checks can be read back from the URL, and
// cannot reach another bucket's host or the query.
func FuzzKey(f *testing.F) {
	for _, key := range []string{"cat.jpg", "a/../b", "a//b/", "100%", "a+b c?d#e&f=g", "é猫", `\`, "@evil.example.com/", ".", "..",
		"\x7f\n"} {
		f.Add("demo", key)
	}
	p, err := oss.New(goodConfig())
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, bucket, key string) {
		u := goodPut()
		u.Object.Bucket, u.Object.Key = bucket, key
		signed, err := p.Put(t.Context(), u)
		if err != nil {
			if u.Check() == nil {
				t.Fatalf("checked, but not signed: %v", err)
			}
			return
		}
		parsed := parseURL(t, signed.URL)
		if parsed.Host != bucket+".oss-cn-hangzhou.aliyuncs.com" || parsed.Path != "/"+key || parsed.Fragment != "" ||
			len(parsed.Query()) != 5 {
			t.Errorf("bucket %q and key %q became %s", bucket, key, signed.URL)
		}
	})
}
