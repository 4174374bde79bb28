package doctor

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/text/encoding/simplifiedchinese"

	"upcall/internal/admission"
	"upcall/internal/ossemu"
	"upcall/internal/testing/vectors"
	"upcall/internal/uploadtoken"
	"upcall/internal/verify"
)

const testKeyURL = "http://127.0.0.1:9000/_ossemu/callback_pub_key.pem"

// signedCallback is a callback as OSS would send it, but signed with the emulator's test key.
func signedCallback(target, contentType, body string) *Capture {
	return &Capture{
		Format: Raw, Method: "POST", Target: target, Body: []byte(body),
		Headers: []Header{
			{"Host", "receiver.example.com"},
			{"Authorization", ossemu.SignCallback(target, []byte(body))},
			{"x-oss-pub-key-url", base64.StdEncoding.EncodeToString([]byte(testKeyURL))},
			{"Content-Type", contentType},
		},
	}
}

func (c *Capture) set(name, value string) {
	c.Headers = slices.DeleteFunc(c.Headers, func(h Header) bool { return strings.EqualFold(h.Name, name) })
	c.Headers = append(c.Headers, Header{name, value})
}

// testKey is for what [signedCallback] returns.
var testKey = Config{Key: []byte(ossemu.PublicKeyPEM)}

const (
	formType = "application/x-www-form-urlencoded"
	jsonType = "application/json"
	aForm    = "bucket=demo&object=a%2Fb%20c%2B%E6%96%87.jpg&etag=ABC&size=12&mimeType=image%2Fjpeg&imageInfo.height=&reqId=5CF3"
	aJSON    = `{"bucket":"demo","object":"a/b 文<é>.jpg","size":12,"x":null}`
)

type (
	damage = []func(*Capture)
	kinds  = []Kind
)

func replaceInBody(old, new string) func(*Capture) {
	return func(c *Capture) { c.Body = bytes.ReplaceAll(c.Body, []byte(old), []byte(new)) }
}

func setBody(body string) func(*Capture) { return func(c *Capture) { c.Body = []byte(body) } }

func setTarget(target string) func(*Capture) { return func(c *Capture) { c.Target = target } }

func setHeader(name, value string) func(*Capture) { return func(c *Capture) { c.set(name, value) } }

func TestDamage(t *testing.T) {
	t.Parallel()
	const form, query = aForm, "?id=1&zone=%e6%96%87&next=a+b"
	const target = "/oss/callback" + query
	gbk := func(s string) string {
		out, err := simplifiedchinese.GBK.NewEncoder().String(s)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	tests := []struct {
		name   string
		typ    string
		damage damage
		want   kinds
	}{
		{"BOM", formType, damage{setBody("\xef\xbb\xbf" + form)}, kinds{BodyBOMAdded}},
		{"CRLF at the end", formType, damage{setBody(form + "\r\n")}, kinds{BodyNewlineAdded}},
		{"NULs", formType, damage{setBody(form + "\x00\x00")}, kinds{BodyNUL}},
		{"blanks", formType, damage{setBody(" \t" + form + "  ")}, kinds{BodyWhitespace}},
		{"chunk sizes still there", formType, damage{setBody(fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(form), form))}, kinds{BodyChunked}},
		{"gzip", formType, damage{setBody(gzipped(t, form))}, kinds{BodyCompressed}},
		{"longer than its length", formType, damage{setBody(form + "GET / HTTP/1.1"), setHeader("Content-Length", fmt.Sprint(len(form)))},
			kinds{BodyLonger}},
		{"plus for space", formType, damage{replaceInBody("%20", "+")}, kinds{BodyReencoded}},
		{"decoded", formType, damage{setBody(strings.ReplaceAll(unescape(form), "c+", "c%2B"))}, kinds{BodyReencoded}},
		{"encoded twice", formType, damage{replaceInBody("%", "%25")}, kinds{BodyReencoded}},
		{"fields sorted", formType,
			damage{setBody("bucket=demo&etag=ABC&imageInfo.height=&mimeType=image%2Fjpeg&object=a%2Fb%20c%2B%E6%96%87.jpg&reqId=5CF3&size=12")},
			kinds{BodyReordered}},
		{"field added", formType, damage{setBody("_csrf=x&" + form)}, kinds{BodyFieldAdded}},
		{"charset", formType, damage{replaceInBody("%E6%96%87", "%CE%C4")}, kinds{BodyCharset}},
		{"quoted", formType, damage{setBody(`"` + form + `"`)}, kinds{BodyQuoted}},
		{"entities", formType, damage{setBody(strings.ReplaceAll(form, "&", "&amp;"))}, kinds{BodyEntities}},
		{"form as JSON", formType, damage{
			setBody(`{"bucket":"demo","object":"a/b c+文.jpg","etag":"ABC","size":"12",` +
				`"mimeType":"image/jpeg","imageInfo.height":"","reqId":"5CF3"}`),
		}, kinds{BodyFormAsJSON}},

		{"JSON of Python", jsonType, damage{setBody(`{"bucket": "demo", "object": "a/b \u6587<\u00e9>.jpg", "size": 12, "x": null}`)},
			kinds{BodyJSONRewritten}},
		{"JSON of Go", jsonType, damage{setBody(`{"bucket":"demo","object":"a/b 文\u003cé\u003e.jpg","size":12,"x":null}` + "\n")},
			kinds{BodyJSONRewritten}},
		{"JSON indented", jsonType,
			damage{setBody("{\n  \"bucket\": \"demo\",\n  \"object\": \"a/b 文<é>.jpg\",\n  \"size\": 12,\n  \"x\": null\n}")},
			kinds{BodyJSONRewritten}},
		{"JSON, numbers as text", jsonType, damage{setBody(`{"bucket":"demo","object":"a/b 文<é>.jpg","size":"12","x":null}`)},
			kinds{BodyJSONRewritten}},
		{"JSON sorted", jsonType, damage{setBody(`{"size":12,"object":"a/b 文<é>.jpg","bucket":"demo","x":null}`)}, kinds{BodyReordered}},
		{"JSON in GBK", jsonType, damage{setBody(gbk(aJSON))}, kinds{BodyCharset}},
		{"JSON as Latin 1 twice", jsonType, damage{setBody(latin1Twice(aJSON))}, kinds{BodyCharset}},

		{"prefix stripped", formType, damage{setTarget("/callback" + query)}, kinds{PathPrefixStripped}},
		{"prefix added", formType, damage{setTarget("/a/b" + target)}, kinds{PathPrefixAdded}},
		{"slash added", formType, damage{setTarget(strings.Replace(target, "?", "/?", 1))}, kinds{PathTrailingSlash}},
		{"upper case", formType, damage{setTarget(strings.Replace(target, "oss", "OSS", 1))}, kinds{PathCase}},
		{"query sorted", formType, damage{setTarget("/oss/callback?id=1&next=a+b&zone=%e6%96%87")}, kinds{QueryReordered}},
		{"query with upper-case hex", formType, damage{setTarget(strings.Replace(target, "%e6", "%E6", 1))}, kinds{QueryEncoding}},
		{"query with another parameter", formType, damage{setTarget(target + "&utm=1")}, kinds{QueryAdded}},
		{"query lost, in a header of the proxy", formType, damage{setTarget("/oss/callback"), setHeader("X-Original-URI", target)},
			kinds{QueryLost}},
		{"path replaced, in a header of the proxy", formType,
			damage{setTarget("/internal" + query), setHeader("X-Replaced-Path", "/oss/callback")}, kinds{PathReplaced}},
		{"prefix in a header of the proxy", formType, damage{setTarget("/callback" + query), setHeader("X-Forwarded-Prefix", "/oss/")},
			kinds{PathPrefixStripped}},

		{"path and body", formType, damage{setTarget("/callback" + query), setBody(form + "\n")}, kinds{PathPrefixStripped, BodyNewlineAdded}},
		{"path, query and body", formType, damage{setTarget("/oss/callback/" + query + "&x=y"), setBody(form + "\n")},
			kinds{PathTrailingSlash, QueryAdded, BodyNewlineAdded}},
		{"signature in another header, and the path", formType, damage{
			func(c *Capture) {
				c.set("X-Forwarded-Authorization", c.Get("Authorization"))
				c.set("Authorization", "Bearer x")
			},
			setTarget("/x" + target),
		}, kinds{SignatureHeader, PathPrefixAdded}},
		{"signature as a form, and the query", formType, damage{
			func(c *Capture) {
				c.set("Authorization", strings.ReplaceAll(c.Get("Authorization"), "=", "%3D"))
			}, setTarget(target + "&utm=1"),
		}, kinds{SignaturePercent, QueryAdded}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			body := form
			if tt.typ == jsonType {
				body = aJSON
			}
			c := signedCallback(target, tt.typ, body)
			if r := examine(t, testKey, c); r.Verdict != Verifies {
				t.Fatalf("undamaged: %+v", r)
			}
			want := sumOf(string(c.stringToSign(t)))
			for _, change := range tt.damage {
				change(c)
			}
			r := examine(t, testKey, c)
			if r.Verdict != Repaired || !slices.Equal(kindsOf(r), tt.want) {
				t.Errorf("%s %v, want %v: %s", r.Verdict, kindsOf(r), tt.want, r.Summary)
			}
			if r.Signed.MD5 != want {
				t.Errorf("signed: %+v", r.Signed)
			}
			checkWritten(t, r)
		})
	}
}

func (c *Capture) stringToSign(t testing.TB) []byte {
	t.Helper()
	signed, err := verify.StringToSign(c.Target, c.Body)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

func gzipped(t testing.TB, s string) string {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write([]byte(s)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// latin1Twice reads UTF-8 as Latin 1 and writes it as UTF-8.
func latin1Twice(s string) string {
	var out strings.Builder
	for _, b := range []byte(s) {
		out.WriteRune(rune(b))
	}
	return out.String()
}

// TestEveryKindIsExplained: every kind has its texts, and no two share a label.
func TestEveryKindIsExplained(t *testing.T) {
	t.Parallel()
	kinds := []Kind{
		PathReplaced, PublicURL, TargetForm, BoundaryMoved, QueryLost, QueryReplaced, SignatureHeader, KeyURL, SignatureVersion,
		SenderSeparator, SenderQueryMark, SenderHexDigest, SenderReversedDigest, SenderNothing,
		BodyMultipart, BodyJSONAsForm, BodyPrinted, BodyNames, BodyEmpties, BodyRounded, BodyNegative,
		MethodChanged, BodyEmpty, BodyMissing, BodyNoBody, BodyLength, BodyLooks, TypeChanged, TypeUnlike, NotFromOSS, Encoded,
	}
	for _, steps := range [][]step{pathSteps("/"), querySteps, bodySteps(-1), signatureSteps} {
		for _, s := range steps {
			kinds = append(kinds, s.kind)
		}
	}
	known := make(map[string]Kind)
	for _, k := range kinds {
		if k.label == "" || k.what == "" || k.fix == "" || strings.HasSuffix(k.fix, ".") {
			t.Errorf("not explained: %#v", k)
		}
		if other, ok := known[k.label]; ok && other != k {
			t.Errorf("%#v and %#v have the same label", k, other)
		}
		known[k.label] = k
	}
	if len(known) != 87 {
		t.Errorf("%d kinds are checked, want 87", len(known))
	}
}

func TestSettings(t *testing.T) {
	t.Parallel()
	query := loadVectors(t)["query-dropped"].capture()
	stripped := loadVectors(t)["path-stripped-by-proxy"].capture()
	tests := []struct {
		name    string
		cfg     Config
		capture *Capture
		verdict Verdict
		kinds   []Kind
	}{
		{"query from the callback URL", Config{CallbackURL: "https://cb.example.com/index.php?id=1&index=2"}, query, Repaired, []Kind{QueryLost}},
		{"callback URL of another callback", Config{CallbackURL: "https://cb.example.com/index.php?id=2"}, query, Refused, nil},
		{"public URL set", Config{Admission: admission.Config{PublicURL: "https://cb.example.com/api/AliYunOssCallback"}},
			stripped, Verifies, nil},
		{"public URL wrong", Config{Admission: admission.Config{PublicURL: "https://cb.example.com/other"}},
			loadVectors(t)["docs-2015-query"].capture(), Repaired, []Kind{PublicURL}},
		{"path from the callback URL", Config{CallbackURL: "http://cb.example.com/api/AliYunOssCallback"},
			stripped, Repaired, []Kind{PathPrefixStripped}},
		{"key file", Config{Key: vectors.PublicKey(t), TrustKeyURLs: []string{testKeyURL}},
			loadVectors(t)["test-key-under-pinned"].capture(), Repaired, []Kind{KeyURL}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := examine(t, tt.cfg, tt.capture)
			if r.Verdict != tt.verdict || !slices.Equal(kindsOf(r), tt.kinds) {
				t.Errorf("%s %v, want %s %v: %s", r.Verdict, kindsOf(r), tt.verdict, tt.kinds, r.Summary)
			}
			checkWritten(t, r)
		})
	}
	for want, cfg := range map[string]Config{
		"cb.example.com": {Admission: admission.Config{PublicURL: "cb.example.com"}},
		"https://h/p?q":  {Admission: admission.Config{PublicURL: "https://h/p?q"}},
		"ftp://h/":       {CallbackURL: "ftp://h/"},
		`"%"`:            {CallbackURL: "%"},
		"nowhere":        {TrustKeyURLs: []string{"nowhere"}},
		"PEM":            {Key: []byte("no key")},
	} {
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: got %v, want an error about %s", cfg, err, want)
		}
	}
}

// TestPublicURLIsRight: with the suggested setting the callback verifies.
func TestPublicURLIsRight(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"/api/oss/callback", "/api/a%20b/callback", "/api/%E6%96%87/callback"} {
		c := signedCallback(path, formType, aForm)
		c.Target = strings.TrimPrefix(path, "/api")
		r := examine(t, testKey, c)
		if len(r.Causes) != 1 {
			t.Fatalf("%s: %+v", path, r)
		}
		_, rest, _ := strings.Cut(r.Causes[0].Fix, "UPCALL_PUBLIC_URL=")
		set, _, _ := strings.Cut(rest, ",")
		cfg := testKey
		cfg.Admission.PublicURL = set
		if r := examine(t, cfg, c); r.Verdict != Verifies {
			t.Errorf("%s: with %s the verdict is %s", path, set, r.Verdict)
		}
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	keys, err := uploadtoken.ParseKeys("k1:0123456789abcdef")
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := uploadtoken.ParseKeys("k1:fedcba9876543210")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	mint := func(k *uploadtoken.Keyring, bucket, object string) string {
		token, err := k.Mint(uploadtoken.Claims{UploadID: [16]byte{1}, Expires: now.Add(time.Minute), Bucket: bucket, Object: object})
		if err != nil {
			t.Fatal(err)
		}
		return "&upcall_token=" + token
	}
	const body = "bucket=demo&object=a.jpg"
	good := body + mint(keys, "demo", "a.jpg")
	tests := []struct {
		name, typ, body string
		change          func(*Capture, *Config)
		want            string
	}{
		{"good", formType, good, nil, ""},
		{"token by another key", formType, body + mint(foreign, "demo", "a.jpg"), nil, "token_forged"},
		{"token for another bucket", formType, body + mint(keys, "other", "a.jpg"), nil, "token_foreign_bucket"},
		{"token for another object key", formType, body + mint(keys, "demo", "b.jpg"), nil, "token_foreign_key"},
		{"no token", formType, body, nil, "token_missing"},
		{"no token, optional", formType, body, func(_ *Capture, cfg *Config) { cfg.Admission.TokenPolicy = admission.TokenOptional }, ""},
		{"expired by the clock", formType, good, func(_ *Capture, cfg *Config) {
			cfg.Now = func() time.Time { return now.Add(time.Hour) }
		}, "token_expired"},
		{"expired by Date", formType, good, func(c *Capture, _ *Config) { c.set("Date", "Sun, 01 Nov 2026 12:30:00 GMT") }, "token_expired"},
		{"valid at the given time", formType, good, func(c *Capture, cfg *Config) {
			c.set("Date", "Sun, 01 Nov 2026 12:30:00 GMT")
			cfg.At = now
		}, ""},
		{"tokens not checked", formType, body, func(_ *Capture, cfg *Config) { cfg.Admission.Tokens = nil }, ""},
		{"bucket conflict", formType, good, func(c *Capture, _ *Config) { c.set("x-oss-bucket", "other") }, "bucket_conflict"},
		{"bucket not allowed", formType, good, func(_ *Capture, cfg *Config) { cfg.Admission.Buckets = []string{"mine"} }, "bucket_not_allowed"},
		{"bucket of the header not allowed", formType, "object=a.jpg", func(c *Capture, cfg *Config) {
			c.set("x-oss-bucket", "demo")
			cfg.Admission.Buckets = []string{"mine"}
		}, "bucket_not_allowed"},
		{"content type", "text/plain", good, nil, "content_type"},
		{"body", jsonType, `{"bucket":`, nil, "body"},
		{"content encoding", formType, good, func(c *Capture, _ *Config) { c.set("Content-Encoding", "gzip") }, "content_encoding"},
		{"method", formType, good, func(c *Capture, _ *Config) { c.Method = "PUT" }, "method"},
		{"path", formType, good, func(_ *Capture, cfg *Config) { cfg.Admission.CallbackPaths = []string{"/callback"} }, "path"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cfg := testKey
			cfg.Admission.Tokens, cfg.Now = keys, func() time.Time { return now }
			c := signedCallback("/oss/callback", tt.typ, tt.body)
			if tt.change != nil {
				tt.change(c, &cfg)
			}
			r := examine(t, cfg, c)
			got := ""
			for _, refusal := range r.Refusals {
				got += string(refusal.Reason)
				if refusal.Code == "" || refusal.What == "" || refusal.Fix == "" {
					t.Errorf("%+v", refusal)
				}
			}
			if r.Verdict != Verifies || got != tt.want || r.Accepted != (tt.want == "") {
				t.Errorf("%s, accepted %t, refused %q, want %q", r.Verdict, r.Accepted, got, tt.want)
			}
			checkWritten(t, r)
			var out strings.Builder
			if err := r.Write(&out); err != nil {
				t.Fatal(err)
			}
			if _, token, ok := strings.Cut(tt.body, "upcall_token=k1."); ok && strings.Contains(out.String(), token[:40]) {
				t.Errorf("the token is printed:\n%s", &out)
			}
		})
	}
}
