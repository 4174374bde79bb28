package verify

import (
	"crypto/md5"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"upcall/internal/testing/vectors"
)

// pushed is when the pushes of these tests were sent.
var pushed = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// genuinePush reads the push that MNS itself signed.
func genuinePush(t testing.TB) (push Push, stringToSign string, certificate []byte) {
	t.Helper()
	var v struct {
		Target       string
		Headers      map[string]string
		StringToSign string `json:"string_to_sign"`
		Certificate  []byte `json:"certificate_der"`
	}
	if err := json.Unmarshal(vectors.File(t, "pushes/genuine-2023.json"), &v); err != nil {
		t.Fatal(err)
	}
	// So that nobody can change the vector to make a test pass.
	if sum := sha1.Sum([]byte(v.StringToSign)); hex.EncodeToString(sum[:]) != "789c96bc0d4727f581ce2d2fb5e2e57f90212fac" {
		t.Fatalf("the genuine push was changed: %x", sum)
	}
	push = Push{Target: v.Target, Header: http.Header{}}
	for name, value := range v.Headers {
		push.Header[name] = []string{value}
	}
	return push, v.StringToSign, v.Certificate
}

func newVerifier(t testing.TB, trusted ...string) *Verifier {
	t.Helper()
	v, err := New(Config{TrustKeyURLs: trusted})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestGenuinePush checks the pinned key and the string to sign with what MNS has signed. The
// body is not known, so a verified signature ends with the complaint that it is another one.
func TestGenuinePush(t *testing.T) {
	t.Parallel()
	push, want, certificate := genuinePush(t)
	signed, err := PushStringToSign(push.Target, push.Header)
	if err != nil || string(signed) != want {
		t.Errorf("string to sign: %v\n%s\nwant\n%s", err, signed, want)
	}
	parsed, err := x509.ParseCertificate(certificate)
	if err != nil {
		t.Fatal(err)
	}
	v := newVerifier(t)
	if key := parsed.PublicKey.(*rsa.PublicKey); modulus(v.push).Cmp(key.N) != 0 || v.push.e != uint(key.E) {
		t.Error("the pinned key is not that of the certificate")
	}
	sent := time.Date(2023, 3, 29, 8, 41, 27, 0, time.UTC)
	if got := reason(t, v.VerifyPush(t.Context(), push, sent)); got != "body_mismatch" {
		t.Errorf("got %s: the signature is not accepted", got)
	}
	// Whatever the signature covers, and a forger changes.
	for name := range push.Header {
		if name == "Authorization" || name == certURLHeader {
			continue
		}
		forged := Push{Target: push.Target, Header: maps.Clone(push.Header)}
		forged.Header[name] = []string{push.Header[name][0] + "1"}
		if got := reason(t, v.VerifyPush(t.Context(), forged, sent)); got != "digest_mismatch" {
			t.Errorf("changed %s: got %s", name, got)
		}
		delete(forged.Header, name)
		if got := reason(t, v.VerifyPush(t.Context(), forged, sent)); got != "digest_mismatch" {
			t.Errorf("without %s: got %s", name, got)
		}
	}
	forged := Push{Target: push.Target, Header: maps.Clone(push.Header)}
	forged.Header["X-Mns-More"] = []string{"1"}
	if got := reason(t, v.VerifyPush(t.Context(), forged, sent)); got != "digest_mismatch" {
		t.Errorf("a header more: got %s", got)
	}
}

// signPush returns a push signed with the test key, whose URL it names. The headers that change
// sets are signed.
func signPush(t testing.TB, keyURL, body string, change func(http.Header)) Push {
	t.Helper()
	sum := md5.Sum([]byte(body))
	header := http.Header{
		contentMD5Header: {strings.ToUpper(hex.EncodeToString(sum[:]))},
		"Content-Type":   {"text/xml;charset=UTF-8"},
		dateHeader:       {pushed.Format(http.TimeFormat)},
		certURLHeader:    {base64.StdEncoding.EncodeToString([]byte(keyURL))},
		"X-Mns-Version":  {"2015-06-06"},
	}
	if change != nil {
		change(header)
	}
	key := privateKey(t, "testkey_512.pem")
	signed, err := PushStringToSign("/oss/notify?a=b", header)
	if err != nil {
		signed = nil // nobody could have signed it
	}
	public, err := newPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	digest := sha1.Sum(signed)
	signature := encodeBlock(key, slices.Concat(public.sha1.head, digest[:]))
	header["Authorization"] = []string{base64.StdEncoding.EncodeToString(signature)}
	return Push{Target: "/oss/notify?a=b", Header: header, Body: []byte(body)}
}

func TestVerifyPush(t *testing.T) {
	t.Parallel()
	requests := new(atomic.Int64)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		requests.Add(1)
		_, _ = w.Write(vectors.PublicKey(t))
	}))
	t.Cleanup(server.Close)
	keyURL := server.URL + "/key.pem"
	v := newVerifier(t, keyURL)

	const body = "<Notification/>"
	sum := md5.Sum([]byte(body))
	small := hex.EncodeToString(sum[:])
	set := func(name string, values ...string) func(http.Header) {
		return func(h http.Header) {
			if h[name] = values; len(values) == 0 {
				delete(h, name)
			}
		}
	}
	sent := pushed.Format(http.TimeFormat)
	date := func(off time.Duration) func(http.Header) {
		return set(dateHeader, pushed.Add(off).Format(http.TimeFormat))
	}
	certURL := func(url string) func(http.Header) { return set(certURLHeader, encoded(url)) }
	after := func(change func(*Push)) func(*Push) { return change }
	header := func(name string, values ...string) func(*Push) {
		return func(p *Push) { set(name, values...)(p.Header) }
	}
	md5Signed := func(p *Push) { // as OSS signs callbacks
		key := privateKey(t, "testkey_512.pem")
		public, _ := newPublicKey(&key.PublicKey)
		signed, _ := PushStringToSign(p.Target, p.Header)
		digest := md5.Sum(signed)
		signature := encodeBlock(key, slices.Concat(public.md5.head, digest[:]))
		header("Authorization", encoded(string(signature)))(p)
	}
	for name, test := range map[string]struct {
		want   string
		before func(http.Header) // it is signed
		after  func(*Push)       // it has been signed
	}{
		"genuine":                  {want: "ok"},
		"small digits":             {"ok", set(contentMD5Header, small), nil},
		"Base64 of digits":         {"ok", set(contentMD5Header, encoded(small)), nil},
		"Base64 of bytes":          {"ok", set(contentMD5Header, base64.StdEncoding.EncodeToString(sum[:])), nil},
		"Base64 of capital digits": {"body_mismatch", set(contentMD5Header, encoded(strings.ToUpper(small))), nil},
		"Base64 without padding":   {"body_mismatch", set(contentMD5Header, base64.RawStdEncoding.EncodeToString(sum[:])), nil},
		"half of the MD5":          {"body_mismatch", set(contentMD5Header, small[:16]), nil},
		"empty MD5":                {"body_mismatch", set(contentMD5Header, ""), nil},
		"no MD5":                   {"body_mismatch", set(contentMD5Header), nil},
		"two MD5s":                 {"signed_header", set(contentMD5Header, small, small), nil},
		"body changed":             {"body_mismatch", nil, after(func(p *Push) { p.Body = []byte("<Notification />") })},
		"body gone":                {"body_mismatch", nil, after(func(p *Push) { p.Body = nil })},
		"body and MD5 changed": {"digest_mismatch", nil, after(func(p *Push) {
			p.Body = []byte("x")
			p.Header[contentMD5Header] = []string{"9DD4E461268C8034F5C8564E155C67A6"}
		})},
		"15 minutes old":          {"ok", date(-pushWindow), nil},
		"15 minutes ahead":        {"ok", date(pushWindow), nil},
		"older":                   {"date_expired", date(-pushWindow - time.Second), nil},
		"further ahead":           {"date_expired", date(pushWindow + time.Second), nil},
		"a year old":              {"date_expired", date(-365 * 24 * time.Hour), nil},
		"date renewed":            {"digest_mismatch", date(-time.Hour), after(func(p *Push) { date(0)(p.Header) })},
		"no date":                 {"date_malformed", set(dateHeader), nil},
		"date of RFC 3339":        {"date_malformed", set(dateHeader, pushed.Format(time.RFC3339)), nil},
		"two dates":               {"signed_header", set(dateHeader, sent, sent), nil},
		"two types":               {"signed_header", set("Content-Type", "text/xml", "text/xml"), nil},
		"no type":                 {"ok", set("Content-Type"), nil},
		"type changed":            {"digest_mismatch", nil, header("Content-Type", "text/xml")},
		"type in other case":      {"ok", nil, header("Content-Type", "Text/XML;charset=utf-8")},
		"two topics":              {"signed_header", set("X-Mns-Topic-Name", "a", "b"), nil},
		"topic with a line break": {"signed_header", set("X-Mns-Topic-Name", "a\nx-mns-topic-owner:1"), nil},
		"topic added":             {"digest_mismatch", nil, header("X-Mns-Topic-Name", "a")},
		"topic changed":           {"digest_mismatch", set("X-Mns-Topic-Name", "a"), header("X-Mns-Topic-Name", "b")},
		"header renamed": {"digest_mismatch", set("X-Mns-Topic-Name", "a"), after(func(p *Push) {
			header("X-Mns-Topic-Name")(p)
			header("X-Mns-Subscriber", "a")(p)
		})},
		"other headers":              {"ok", nil, header("X-Forwarded-For", "10.1.2.3")},
		"path changed":               {"digest_mismatch", nil, after(func(p *Push) { p.Target = "/notify?a=b" })},
		"query changed":              {"digest_mismatch", nil, after(func(p *Push) { p.Target = "/oss/notify?a=c" })},
		"target with a line break":   {"target_malformed", nil, after(func(p *Push) { p.Target = "/\n" })},
		"no signature":               {"signature_missing", nil, header("Authorization")},
		"signature no Base64":        {"signature_encoding", nil, header("Authorization", "MNS a:b")},
		"signature too short":        {"signature_length", nil, header("Authorization", "AAAA")},
		"signature of ones":          {"signature_range", nil, header("Authorization", strings.Repeat("/", 85)+"w==")},
		"signature of zeros":         {"signature_padding", nil, header("Authorization", strings.Repeat("A", 86)+"==")},
		"signed as a callback":       {"signature_padding", nil, md5Signed},
		"test key as that of MNS":    {"signature_padding", set(certURLHeader), nil},
		"test key, MNS named":        {"signature_padding", certURL("https://mns-cert.oss-cn-shanghai.aliyuncs.com/x.pem"), nil},
		"key not trusted":            {"cert_url_untrusted", certURL(keyURL + "?"), nil},
		"host begins like MNS":       {"cert_url_untrusted", certURL("https://mns-cert.oss-cn-x.aliyuncs.com.evil.example/x"), nil},
		"user like MNS":              {"cert_url_untrusted", certURL("https://mns-cert.oss-cn-x.aliyuncs.com@evil.example/x"), nil},
		"URL of MNS inside":          {"cert_url_untrusted", certURL("http://evil.example/https://mns-cert.oss-cn-x.aliyuncs.com/x"), nil},
		"another bucket":             {"cert_url_untrusted", certURL("https://evil.oss-cn-hangzhou.aliyuncs.com/x"), nil},
		"key URL no Base64":          {"cert_url_untrusted", set(certURLHeader, keyURL), nil},
		"key URL too long":           {"cert_url_untrusted", certURL(strings.Repeat("a", 2<<10+1)), nil},
		"two key URLs":               {"signed_header", set(certURLHeader, encoded(keyURL), encoded(keyURL)), nil},
		"key URL changed afterwards": {"cert_url_untrusted", nil, header(certURLHeader, encoded("http://evil.example/"))},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			push := signPush(t, keyURL, body, test.before)
			if test.after != nil {
				test.after(&push)
			}
			if got := reason(t, v.VerifyPush(t.Context(), push, pushed)); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
	t.Cleanup(func() {
		if n := requests.Load(); n != 1 {
			t.Errorf("the key was fetched %d times", n)
		}
	})
}

func encoded(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// FuzzPushStringToSign checks that no two pushes have one string to sign, so that a signature
// means one thing.
func FuzzPushStringToSign(f *testing.F) {
	f.Add("/n", "m", "t", "d", "X-Mns-A", "1", "X-Mns-B", "2")
	f.Add("/n?x-mns-a:1", "", "", "", "x-mns-a:b", "", "", "x-mns-")
	f.Add("\n", "\n", "\n", "\n", "X-Mns-\n", "\n", "X-Mns-A\r", "\t")
	f.Fuzz(func(t *testing.T, target, contentMD5, contentType, date, nameA, a, nameB, b string) {
		header := http.Header{contentMD5Header: {contentMD5}, "Content-Type": {contentType}, dateHeader: {date}}
		for name, value := range map[string]string{nameA: a, nameB: b} {
			if strings.HasPrefix(strings.ToLower(name), mnsPrefix) && !strings.Contains(name, ":") { // HTTP allows no colon
				header[http.CanonicalHeaderKey(name)] = []string{value}
			}
		}
		signed, err := PushStringToSign(target, header)
		if err != nil {
			reason(t, err)
			return
		}
		lines := strings.Split(string(signed), "\n")
		if want := 4 + len(header) - 3 + 1; len(lines) != want {
			t.Fatalf("%d lines, want %d: %q", len(lines), want, signed)
		}
		got := fmt.Sprint(lines[:4], lines[len(lines)-1])
		if want := fmt.Sprint([]string{"POST", contentMD5, strings.ToLower(contentType), date}, target); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		for _, line := range lines[4 : len(lines)-1] {
			name, value, _ := strings.Cut(line, ":")
			if values := header[http.CanonicalHeaderKey(name)]; len(values) != 1 || values[0] != value {
				t.Errorf("line %q is no header of %q", line, header)
			}
		}
	})
}
