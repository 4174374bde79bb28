package admission

import (
	"bytes"
	"encoding/base64"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"upcall/internal/callbackspec"
	"upcall/internal/event"
	"upcall/internal/ossemu"
	"upcall/internal/uploadtoken"
	"upcall/internal/verify"
)

const (
	path     = "/oss/callback"
	form     = string(callbackspec.Form)
	jsonType = string(callbackspec.JSON)
	keyURL   = "http://127.0.0.1:9000/_ossemu/callback_pub_key.pem"
)

// noon is the time of every test.
var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func keyring(t testing.TB) *uploadtoken.Keyring {
	t.Helper()
	keys, err := uploadtoken.ParseKeys("k1:a test secret of 32 bytes or so")
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func mint(t testing.TB, bucket, object string, expires time.Time) (uuid.NullUUID, string) {
	t.Helper()
	id := uuid.New()
	token, err := keyring(t).Mint(uploadtoken.Claims{UploadID: id, Expires: expires, Bucket: bucket, Object: object})
	if err != nil {
		t.Fatal(err)
	}
	return uuid.NullUUID{UUID: id, Valid: true}, token
}

// mintFor mints the token of an upload of a.txt, with a template of its own.
func mintFor(t testing.TB, p callbackspec.Parameter) (uuid.NullUUID, string) {
	t.Helper()
	terms, err := p.Terms(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	id := uuid.New()
	token, err := keyring(t).Mint(uploadtoken.Claims{
		UploadID: id, Expires: noon.Add(time.Hour), Bucket: "demo", Object: "a.txt", Terms: uploadtoken.Terms(terms),
	})
	if err != nil {
		t.Fatal(err)
	}
	return uuid.NullUUID{UUID: id, Valid: true}, token
}

func newPolicy(t testing.TB, cfg Config) *Policy {
	t.Helper()
	verifier, err := verify.NewWithKey(keyURL, []byte(ossemu.PublicKeyPEM))
	if err != nil {
		t.Fatal(err)
	}
	cfg.Tokens = keyring(t)
	policy, err := New(cfg, verifier)
	if err != nil {
		t.Fatal(err)
	}
	return policy
}

// request returns a request as OSS sends it, with the emulator's signature.
func request(contentType, body string) *Request {
	return &Request{
		Method: "POST", Path: path, Target: path, Length: int64(len(body)), Body: []byte(body),
		Source:        netip.MustParseAddr("203.0.113.1"),
		Authorization: ossemu.SignCallback(path, []byte(body)),
		ContentType:   contentType,
		Bucket:        "demo",
		PubKeyURL:     base64.StdEncoding.EncodeToString([]byte(keyURL)),
		RequestID:     "5C3D9175B6FC201293AD0001", SignatureVersion: "1.0",
	}
}

// TestRefuses has requests that break each rule, and attempts to get around it.
func TestRefuses(t *testing.T) {
	t.Parallel()
	policy := newPolicy(t, Config{CallbackPaths: []string{path}, Buckets: []string{"demo", "other"}})
	_, good := mint(t, "demo", "a.txt", noon.Add(time.Hour))
	_, expired := mint(t, "demo", "a.txt", noon)
	_, elsewhere := mint(t, "other", "a.txt", noon.Add(time.Hour))
	_, otherKey := mint(t, "demo", "b.txt", noon.Add(time.Hour))
	const fields = "bucket=demo&object=a.txt&reqId=R1"
	genuine := func() *Request { return request(form, fields+"&size=5&upcall_token="+good) }
	if _, refusal := policy.Admit(t.Context(), genuine(), noon); refusal != nil {
		t.Fatalf("the genuine request: %+v", refusal)
	}
	// with returns the genuine request with one change.
	with := func(change func(*Request)) *Request {
		r := genuine()
		change(r)
		return r
	}
	token := func(token string) *Request { return request(form, fields+"&upcall_token="+token) }
	in := func(bucket string, r *Request) *Request {
		r.Bucket = bucket
		return r
	}
	ofOSS := func(r *Request) *Request {
		r.PubKeyURL = ""
		return r
	}
	for _, tt := range []struct {
		name    string
		request *Request
		code    Code
		reason  Reason
	}{
		{"another path", with(func(r *Request) { r.Path = "/metrics" }), NotFound, ReasonPath},
		{"trailing slash", with(func(r *Request) { r.Path += "/" }), NotFound, ReasonPath},
		{"GET", with(func(r *Request) { r.Method = "GET" }), MethodNotAllowed, ReasonMethod},
		{"PUT to another path", with(func(r *Request) { r.Method, r.Path = "PUT", "/" }), NotFound, ReasonPath},
		{"headers", with(func(r *Request) { r.HeaderBytes = MaxHeaders + 1 }), TooLarge, ReasonHeaders},
		{"gzip", with(func(r *Request) { r.ContentEncoding = "gzip" }), UnsupportedType, ReasonContentEncoding},
		{"two encodings", with(func(r *Request) { r.ContentEncoding = "identity, gzip" }), UnsupportedType, ReasonContentEncoding},
		{"announced as too large", with(func(r *Request) { r.Length, r.Body = MaxBody+1, nil }), TooLarge, ReasonBody},
		{"too large", request(form, strings.Repeat("a", MaxBody+1)), TooLarge, ReasonBody},
		{"too large, without a length", with(func(r *Request) { r.Length, r.Body = -1, make([]byte, MaxBody+1) }), TooLarge, ReasonBody},

		{"no signature", with(func(r *Request) { r.Authorization = "" }), BadSignature, "signature_missing"},
		{"short signature", with(func(r *Request) { r.Authorization = "AAAA" }), BadSignature, "signature_length"},
		{"signature version 2.0", with(func(r *Request) { r.SignatureVersion = "2.0" }), BadSignature, "signature_version"},
		{"body changed", with(func(r *Request) { r.Body = bytes.Replace(r.Body, []byte("size=5"), []byte("size=6"), 1) }),
			BadSignature, "digest_mismatch"},
		{"query added", with(func(r *Request) { r.Target += "?x=1" }), BadSignature, "digest_mismatch"},
		{"empty body", with(func(r *Request) { r.Length, r.Body = 0, nil }), BadSignature, "digest_mismatch"},
		{"no target", with(func(r *Request) { r.Target = "" }), BadSignature, "target_malformed"},
		{"foreign key URL", with(func(r *Request) { r.PubKeyURL = "aHR0cDovL2V2aWwuZXhhbXBsZS9rZXkucGVt" }), UntrustedKey, "key_url_untrusted"},
		{"official key, test signature", ofOSS(request(form, fields)), BadSignature, "signature_padding"},
		{"signature before content", with(func(r *Request) { r.Authorization, r.ContentType = "", "text/plain" }),
			BadSignature, "signature_missing"},

		{"plain text", request("text/plain", fields), UnsupportedType, ReasonContentType},
		{"multipart form", request("multipart/form-data; boundary=x", "--x--"), UnsupportedType, ReasonContentType},
		{"JSON with repeated keys", request(jsonType, `{"bucket":"demo","bucket":"other","object":"a.txt"}`), Malformed, ReasonBody},
		{"form with repeated keys", request(form, "bucket=demo&bucket=other&object=a.txt"), Malformed, ReasonBody},
		{"JSON cut short", request(jsonType, `{"bucket":"demo","object":`), Malformed, ReasonBody},
		{"invalid UTF-8", request(form, "bucket=demo&object=%ff%fe"), Malformed, ReasonBody},
		{"raw invalid UTF-8", request(form, "bucket=demo&object=\xff\xfe"), Malformed, ReasonBody},
		{"invalid UTF-8 in JSON", request(jsonType, "{\"bucket\":\"demo\",\"object\":\"\xff\"}"), Malformed, ReasonBody},
		{"NUL", request(form, "bucket=demo&object=a%00b"), Malformed, ReasonBody},
		{"raw NUL", request(form, "bucket=demo&object=a\x00b"), Malformed, ReasonBody},
		{"NUL in JSON", request(jsonType, `{"bucket":"demo","object":"a\u0000b"}`), Malformed, ReasonBody},
		{"size is a word", request(form, "bucket=demo&object=a.txt&size=large"), Malformed, ReasonBody},
		{"template was percent-encoded", request(form, "bucket=%24%7Bbucket%7D"), Malformed, ReasonBody},

		{"bucket not allowed", in("secret", request(form, "bucket=secret&object=a.txt&upcall_token="+good)), WrongBucket, ReasonBucketNotAllowed},
		{"bucket not allowed, another in the header", request(form, "bucket=secret&object=a.txt"), WrongBucket, ReasonBucketNotAllowed},
		{"bucket of the header not allowed", in("secret", request(form, "object=a.txt")), WrongBucket, ReasonBucketNotAllowed},
		{"body and header name different buckets", in("other", genuine()), WrongBucket, ReasonBucketConflict},
		{"header not allowed, another in the body", in("secret", genuine()), WrongBucket, ReasonBucketConflict},
		{"header not UTF-8, another in the body", in("demo\xff", genuine()), WrongBucket, ReasonBucketConflict},
		{"header not UTF-8", in("demo\xff", request(form, "object=a.txt")), WrongBucket, ReasonBucketMalformed},
		{"header with NUL", in("demo\x00", request(form, "object=a.txt")), WrongBucket, ReasonBucketMalformed},

		{"no token", request(form, fields), BadToken, ReasonTokenMissing},
		{"no token, JSON", request(jsonType, `{"bucket":"demo","object":"a.txt","reqId":"R2"}`), BadToken, ReasonTokenMissing},
		{"forged token", token("k1.AAAA"), BadToken, ReasonTokenForged},
		{"token of 40 KB", token(strings.Repeat("A", 40<<10)), BadToken, ReasonTokenForged},
		{"token of another bucket", token(elsewhere), BadToken, ReasonTokenForeignBucket},
		{"token of another object", token(otherKey), BadToken, ReasonTokenForeignKey},
		{"token of another object, no bucket", in("", request(form, "object=a.txt&upcall_token="+otherKey)), BadToken, ReasonTokenForeignKey},
		{"token of another bucket than the header's", in("other", request(form, "object=a.txt&upcall_token="+good)), BadToken,
			ReasonTokenForeignBucket},
		{"expired token", token(expired), ExpiredToken, ReasonTokenExpired},
	} {
		e, refusal := policy.Admit(t.Context(), tt.request, noon)
		if refusal == nil || refusal.Code != tt.code || refusal.Reason != tt.reason || refusal.Message == "" || e == nil {
			t.Errorf("%s: %+v, want %s (%s)", tt.name, refusal, tt.code, tt.reason)
		}
		if ahead := policy.CheckHead(tt.request); ahead != nil && ahead.Reason != tt.reason {
			t.Errorf("%s: CheckHead gives %s, Admit %s", tt.name, ahead.Reason, tt.reason)
		}
	}
}

// TestAdmits compares the event with the request.
func TestAdmits(t *testing.T) {
	t.Parallel()
	id, token := mint(t, "demo", "a.txt", noon.Add(time.Hour))
	callback := callbackspec.Callback{Bucket: "demo", Object: "a.txt", RequestID: "R1", Token: token}
	noBucket, noObject, noRequestID := callback, callback, callback
	noBucket.Bucket, noObject.Object, noRequestID.RequestID = "", "", ""
	headerID := callback
	headerID.RequestID = "5C3D9175B6FC201293AD0001"
	foreignID, foreignToken := mintFor(t, callbackspec.Parameter{Body: "b=${bucket}&o=${object}&r=${reqId}&t=${x:upcall_token}"})
	ofForeign := callback
	ofForeign.Token = foreignToken
	noToken, foreign := callback, callback
	noToken.Token, foreign.Token = "", "k1.AAAA"
	for _, tt := range []struct {
		name   string
		cfg    Config
		body   string
		change func(*Request)
		want   callbackspec.Callback
		upload uuid.NullUUID
	}{
		{"all", Config{}, "bucket=demo&object=a.txt&reqId=R1&upcall_token=" + token, nil, callback, id},
		{"bucket of the header", Config{Buckets: []string{"demo"}}, "object=a.txt&reqId=R1&upcall_token=" + token, nil, callback, id},
		{"no bucket", Config{Buckets: []string{"demo"}}, "object=a.txt&reqId=R1&upcall_token=" + token,
			func(r *Request) { r.Bucket = "" }, noBucket, id},
		{"no object", Config{}, "bucket=demo&reqId=R1&upcall_token=" + token, nil, noObject, id},
		{"request id of the header", Config{}, "bucket=demo&object=a.txt&upcall_token=" + token, nil, headerID, id},
		{"no request id", Config{}, "bucket=demo&object=a.txt&upcall_token=" + token,
			func(r *Request) { r.RequestID = "" }, noRequestID, id},
		{"request id that is not text", Config{}, "bucket=demo&object=a.txt&upcall_token=" + token,
			func(r *Request) { r.RequestID = "R\xff" }, noRequestID, id},
		{"request id that is too long", Config{}, "bucket=demo&object=a.txt&upcall_token=" + token,
			func(r *Request) { r.RequestID = strings.Repeat("R", 129) }, noRequestID, id},
		{"identity encoding", Config{}, "bucket=demo&object=a.txt&reqId=R1&upcall_token=" + token,
			func(r *Request) { r.ContentEncoding = "Identity" }, callback, id},
		{"any path", Config{}, "bucket=demo&object=a.txt&reqId=R1&upcall_token=" + token, func(r *Request) { r.Path = "/x" }, callback, id},
		{"other names", Config{Fields: callbackspec.Fields{"b": "bucket", "o": "object", "r": "reqId",
			"t": callbackspec.TokenField}}, "b=demo&o=a.txt&r=R1&t=" + foreignToken, nil, ofForeign, foreignID},
		{"no token", Config{TokenPolicy: TokenOptional}, "bucket=demo&object=a.txt&reqId=R1", nil, noToken, uuid.NullUUID{}},
		{"token not needed", Config{TokenPolicy: TokenOptional}, "bucket=demo&object=a.txt&reqId=R1&upcall_token=" + token, nil, callback, id},
		{"tokens off", Config{TokenPolicy: TokenOff}, "bucket=demo&object=a.txt&reqId=R1&upcall_token=k1.AAAA", nil, foreign, uuid.NullUUID{}},
	} {
		r := request(form, tt.body)
		if tt.change != nil {
			tt.change(r)
		}
		policy := newPolicy(t, tt.cfg)
		got, refusal := policy.Admit(t.Context(), r, noon)
		if refusal != nil {
			t.Errorf("%s: %+v", tt.name, refusal)
			continue
		}
		body, err := callbackspec.Parse(form, r.Body, tt.cfg.Fields)
		if err != nil {
			t.Fatal(err)
		}
		identity, err := Identify(policy.Signed(r), &body, r.RequestID)
		if err != nil {
			t.Fatal(err)
		}
		want := &event.Event{
			ID: identity, ReceivedAt: noon, Callback: tt.want, UploadID: tt.upload, Source: event.SourceCallback, SourceAddr: r.Source,
		}
		if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
	optional := newPolicy(t, Config{TokenPolicy: TokenOptional})
	if _, refusal := optional.Admit(t.Context(), request(form, "bucket=demo&object=a.txt&upcall_token=k1.AAAA"), noon); refusal == nil {
		t.Error("a forged token is accepted because tokens are optional")
	}
}

// TestLearned checks what a refused callback's event holds.
func TestLearned(t *testing.T) {
	t.Parallel()
	policy := newPolicy(t, Config{CallbackPaths: []string{path}})
	id, expired := mint(t, "demo", "a.txt", noon)
	body := "bucket=demo&object=a.txt&reqId=R1&upcall_token=" + expired
	whole, refusal := policy.Admit(t.Context(), request(form, body), noon.Add(-time.Second))
	if refusal != nil {
		t.Fatal(refusal)
	}
	late, refusal := policy.Admit(t.Context(), request(form, body), noon)
	if late.ID != whole.ID || late.UploadID != id || late.Callback.Object != "a.txt" || !errors.Is(refusal.Cause, uploadtoken.ErrExpired) {
		t.Errorf("with an expired token: %+v, %v", late, refusal.Cause)
	}
	if end := "valid until 2026-11-22T12:00:00Z"; !strings.Contains(refusal.Cause.Error(), end) ||
		strings.Contains(refusal.Message, "2026") {
		t.Errorf("cause %q, message %q; want %q in the cause only", refusal.Cause, refusal.Message, end)
	}

	forged, refusal := policy.Admit(t.Context(), request(form, "bucket=demo&object=a.txt&upcall_token=k1.AAAA"), noon)
	if forged.ID == uuid.Nil || forged.UploadID.Valid || !errors.Is(refusal.Cause, uploadtoken.ErrForged) {
		t.Errorf("with a forged token: %+v, %v", forged, refusal.Cause)
	}
	conflict := request(form, body)
	conflict.Bucket = "other"
	if e, _ := policy.Admit(t.Context(), conflict, noon); e.ID != uuid.Nil || e.UploadID.Valid || e.Callback.Bucket != "demo" {
		t.Errorf("with two buckets: %+v", e)
	}
	unsigned := request(form, body)
	unsigned.Authorization = ""
	if e, refusal := policy.Admit(t.Context(), unsigned, noon); e.Callback.Object != "" ||
		!errors.Is(refusal.Cause, verify.ErrNoSignature) {
		t.Errorf("without a signature: %+v, %v", e, refusal.Cause)
	}
}

func TestIdentity(t *testing.T) {
	t.Parallel()
	signed := verify.Request{Target: path, Body: []byte("object=a.txt")}
	id := func(signed verify.Request, reqID, header string) uuid.UUID {
		got, err := Identify(signed, &callbackspec.Callback{RequestID: reqID}, header)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	base := id(signed, "", "R1")
	if id(signed, "", "R1") != base {
		t.Error("the same callback has two identities")
	}
	if id(signed, "", "R2") == base {
		t.Error("a second upload by the same URL, which differs only in the header, has the same identity")
	}
	if id(signed, "R9", "R1") != id(signed, "R9", "R2") {
		t.Error("the unsigned header changes the identity although the body holds the request id")
	}
	other := signed
	other.Body = []byte("object=b.txt")
	if id(other, "", "R1") == base {
		t.Error("two bodies have one identity")
	}
}

func TestSetHeader(t *testing.T) {
	t.Parallel()
	var got Request
	got.SetHeader(map[string][]string{
		"Authorization": {"a", "not this"}, "Content-Encoding": {"e"}, "Content-Type": {"t"}, "X-Oss-Bucket": {"b"},
		"X-Oss-Pub-Key-Url": {"u"}, "X-Oss-Request-Id": {"i"}, "X-Oss-Signature-Version": {"v"}, "X-None": {}, "X": {"", "yz"},
	})
	want := Request{
		Authorization: "a", ContentEncoding: "e", ContentType: "t", Bucket: "b", PubKeyURL: "u", RequestID: "i", SignatureVersion: "v",
	}
	want.HeaderBytes = 2*len("Authorization") + len("anot this") + len("Content-Encoding"+"e"+"Content-Type"+"t"+"X-Oss-Bucket"+"b"+
		"X-Oss-Pub-Key-Url"+"u"+"X-Oss-Request-Id"+"i"+"X-Oss-Signature-Version"+"v"+"X"+"X"+"yz")
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	keys := keyring(t)
	for name, tt := range map[string]struct {
		cfg  Config
		want string
	}{
		"required without keys": {Config{}, "set UPCALL_TOKEN_KEYS"},
		"optional without keys": {Config{TokenPolicy: TokenOptional}, "set UPCALL_TOKEN_KEYS"},
		"unknown policy":        {Config{TokenPolicy: "maybe", Tokens: keys}, "use required, optional or off"},
		"relative path":         {Config{CallbackPaths: []string{"cb"}, Tokens: keys}, "start it with /"},
		"escaped path":          {Config{CallbackPaths: []string{"/a%20b"}, Tokens: keys}, "plain path"},
		"path with a query":     {Config{CallbackPaths: []string{"/a?b"}, Tokens: keys}, "plain path"},
		"path twice":            {Config{CallbackPaths: []string{"/a", "/a"}, Tokens: keys}, "given twice"},
		"second path relative":  {Config{CallbackPaths: []string{"/a", "b"}, Tokens: keys}, `"b" is not a plain path`},
		"empty path":            {Config{CallbackPaths: []string{"/a", ""}, Tokens: keys}, `"" is not a plain path`},
		"star before the end":   {Config{CallbackPaths: []string{"/*/a"}, Tokens: keys}, "write /oss/:session/:key or /oss/*"},
		"star in a segment":     {Config{CallbackPaths: []string{"/a*"}, Tokens: keys}, "write /oss/:session/:key or /oss/*"},
		"parameter in a name":   {Config{CallbackPaths: []string{"/a:b"}, Tokens: keys}, "write /oss/:session/:key or /oss/*"},
		"parameter without one": {Config{CallbackPaths: []string{"/:"}, Tokens: keys}, "write /oss/:session/:key or /oss/*"},
		"public URL of two":     {Config{PublicURL: "https://h/p", CallbackPaths: []string{"/a", "/b"}, Tokens: keys}, "stands for one path"},
		"public URL of many":    {Config{PublicURL: "https://h/p", CallbackPaths: []string{"/a/*"}, Tokens: keys}, "stands for one path"},
		"public URL is a path":  {Config{PublicURL: "/oss", Tokens: keys}, "https://host/path"},
		"public URL has query":  {Config{PublicURL: "https://h/p?q", Tokens: keys}, "without its query"},
		"two mistakes":          {Config{PublicURL: "ftp://h", CallbackPaths: []string{"cb"}, Tokens: keys}, "\n"},
		"no verifier":           {Config{Tokens: keys}, "a verifier is required"},
	} {
		if _, err := New(tt.cfg, nil); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q in it", name, err, tt.want)
		}
	}
}
