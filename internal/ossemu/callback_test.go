package ossemu

import (
	"bytes"
	"crypto/md5"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"image"
	"image/color"
	"image/gif"
	"image/jpeg"
	"image/png"
	"math/big"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"upcall/internal/callbackspec"
	"upcall/internal/verify"
)

// publicKey reads the key that a server serves.
func publicKey(t testing.TB, base string) *rsa.PublicKey {
	t.Helper()
	block, _ := pem.Decode([]byte(fetch(t, base+PublicKeyPath).body))
	if block == nil {
		t.Fatal("no PEM")
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return key.(*rsa.PublicKey)
}

// verified does the public operation itself: s^e mod n must be the whole block.
func verified(key *rsa.PublicKey, authorization, text string) bool {
	signature, err := base64.StdEncoding.DecodeString(authorization)
	if err != nil || len(signature) != 64 {
		return false
	}
	block := new(big.Int).Exp(new(big.Int).SetBytes(signature), big.NewInt(int64(key.E)), key.N).FillBytes(make([]byte, 64))
	info, _ := hex.DecodeString("3020300c06082a864886f70d020505000410")
	sum := md5.Sum([]byte(text))
	want := append([]byte{0, 1}, bytes.Repeat([]byte{0xff}, 64-3-len(info)-16)...)
	want = append(append(append(want, 0), info...), sum[:]...)
	return bytes.Equal(block, want)
}

func TestCallbackRequest(t *testing.T) {
	t.Parallel()
	rec := receive(t, nil)
	_, base := start(t, func(c *Config) { c.PublicURL = "http://emulator.example:9000/" })
	p := callbackspec.Parameter{URLs: []string{rec.url + "/a%20b/c+d?id=1&index=2&e=%2f"}, Host: "receiver.example:81",
		Body: "bucket=${bucket}&object=${object}&etag=${etag}&size=${size}&mimeType=${mimeType}&h=${imageInfo.height}&crc=${crc64}" +
			"&md5=${contentMd5}&vpc=${vpcId}&ip=${clientIp}&req=${reqId}&op=${operation}&x=${x:none}",
		AdditionalHeaders: map[string]string{"x-shard": "7"}}
	got := putWith(t, base, "dir/a b.txt", "hello", p)
	if got.status != 200 || got.body != `{"Status":"OK"}` || got.header.Get("Content-MD5") == "" ||
		got.header.Get("x-oss-hash-crc64ecma") == "" {
		t.Fatalf("uploader got %+v", got)
	}
	id := got.header.Get("x-oss-request-id")
	if len(id) != 24 || strings.ToUpper(id) != id {
		t.Errorf("request id %q", id)
	}
	calls := rec.requests()
	if len(calls) != 1 {
		t.Fatalf("%d callbacks", len(calls))
	}
	c := calls[0]
	wantBody := "bucket=demo&object=dir%2Fa%20b.txt&etag=5D41402ABC4B2A76B9719D911017C592&size=5&mimeType=application%2Foctet-stream&h=&crc=" +
		got.header.Get("x-oss-hash-crc64ecma") + "&md5=XUFAKrxLKna5cZ2REBfFkg%3D%3D&vpc=&ip=127.0.0.1&req=" + id + "&op=PutObject&x="
	if d := cmp.Diff(wantBody, c.body); d != "" {
		t.Errorf("body (-want +got):\n%s", d)
	}
	if c.method != "POST" || c.target != "/a%20b/c+d?id=1&index=2&e=%2f" || c.host != "receiver.example:81" {
		t.Errorf("request %s %s to %s", c.method, c.target, c.host)
	}
	sum := md5.Sum([]byte(c.body))
	for name, want := range map[string]string{
		"Connection": "close", "Content-Length": fmt.Sprint(len(c.body)), "Content-Md5": base64.StdEncoding.EncodeToString(sum[:]),
		"Content-Type": "application/x-www-form-urlencoded", "User-Agent": "aliyun-oss-callback", "X-Oss-Additional-Headers": "",
		"X-Oss-Bucket": "demo", "X-Oss-Owner": ownerID, "X-Oss-Requester": ownerID, "X-Oss-Request-Id": id,
		"X-Oss-Signature-Version": "1.0", "X-Oss-Tag": "CALLBACK", "Eagleeye-Rpcid": "0.1", "X-Shard": "7",
		"X-Oss-Pub-Key-Url": base64.StdEncoding.EncodeToString([]byte("http://emulator.example:9000/_ossemu/callback_pub_key.pem")),
	} {
		if values := c.header.Values(name); len(values) != 1 || values[0] != want {
			t.Errorf("%s: %q, want %q", name, values, want)
		}
	}
	if _, err := http.ParseTime(c.header.Get("Date")); err != nil {
		t.Error(err)
	}
	for name := range c.header {
		if name == "Accept-Encoding" || name == "Transfer-Encoding" {
			t.Errorf("OSS does not send %s", name)
		}
	}
	text := "/a b/c+d?id=1&index=2&e=%2f\n" + c.body
	if !verified(publicKey(t, base), c.header.Get("Authorization"), text) {
		t.Error("the signature does not verify")
	}
	list := deliveries(t, base, "dir/a b.txt")
	if len(list) != 1 || list[0].StringToSign != text || list[0].Status != 200 || list[0].Answer != `{"Status":"OK"}` ||
		list[0].RequestID != id || list[0].Error != "" {
		t.Errorf("recorded: %+v", list)
	}
}

func TestReceiversVerifierAccepts(t *testing.T) {
	t.Parallel()
	rec := receive(t, nil)
	_, base := start(t)
	v, err := verify.New(verify.Config{TrustKeyURLs: []string{base + PublicKeyPath}})
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"", "/", "/cb", "/cb?a=1", "/a%2Fb%20c/?q=%20+", "/cb?"} {
		putWith(t, base, "k", "x", callbackspec.Parameter{URLs: []string{rec.url + path}, Body: `{"o":${object}}`, BodyType: callbackspec.JSON})
	}
	calls := rec.requests()
	if len(calls) != 6 || calls[0].target != "/" || calls[0].body != `{"o":"k"}` {
		t.Fatalf("callbacks: %+v", calls)
	}
	for _, c := range calls {
		err := v.Verify(t.Context(), verify.Request{Target: c.target, Body: []byte(c.body), Authorization: c.header.Get("Authorization"),
			PubKeyURL: c.header.Get("x-oss-pub-key-url"), SignatureVersion: c.header.Get("x-oss-signature-version")})
		if err != nil {
			t.Errorf("%s: %v", c.target, err)
		}
	}
}

// TestCallbackIsNoJSON: OSS does not check what it makes of a template whose type is JSON.
func TestCallbackIsNoJSON(t *testing.T) {
	t.Parallel()
	rec := receive(t, nil)
	_, base := start(t)
	for template, want := range map[string]string{
		`{"size":${size}, "filename",${object}}`: `{"size":1, "filename","k"}`, // seen in a callback that OSS signed
		`filename=${object}&size=${size}`:        `filename="k"&size=1`,        // seen, too
		`{"a":${size}`:                           `{"a":1`,
	} {
		got := putWith(t, base, "k", "x", callbackspec.Parameter{URLs: []string{rec.url}, Body: template, BodyType: callbackspec.JSON})
		calls := rec.requests()
		if got.status != 200 || len(calls) == 0 || calls[len(calls)-1].body != want {
			t.Errorf("%s: %+v, callbacks %+v", template, got, calls)
		}
	}
}

func TestCallbackImageInfo(t *testing.T) {
	t.Parallel()
	rec := receive(t, nil)
	_, base := start(t)
	picture := image.NewPaletted(image.Rect(0, 0, 30, 20), color.Palette{color.Black})
	var asPNG, asJPEG, asGIF bytes.Buffer
	for _, err := range []error{png.Encode(&asPNG, picture), jpeg.Encode(&asJPEG, picture, nil), gif.Encode(&asGIF, picture, nil)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	p := callbackspec.Parameter{URLs: []string{rec.url}, BodyType: callbackspec.JSON,
		Body: `{"w":${imageInfo.width},"h":${imageInfo.height},"f":${imageInfo.format},"t":${mimeType}}`}
	for content, want := range map[string]string{
		asPNG.String():  `{"w":30,"h":20,"f":"png","t":"application/octet-stream"}`,
		asJPEG.String(): `{"w":30,"h":20,"f":"jpg","t":"application/octet-stream"}`,
		asGIF.String():  `{"w":30,"h":20,"f":"gif","t":"application/octet-stream"}`,
		"no image":      `{"w":null,"h":null,"f":null,"t":"application/octet-stream"}`,
		"":              `{"w":null,"h":null,"f":null,"t":"application/octet-stream"}`,
	} {
		if got := putWith(t, base, "k", content, p); got.status != 200 {
			t.Errorf("%d %s", got.status, got.body)
		}
		calls := rec.requests()
		if got := calls[len(calls)-1].body; got != want {
			t.Errorf("body %s, want %s", got, want)
		}
	}
	before := len(rec.requests())
	e := wantError(t, putWith(t, base, "broken", asPNG.String()[:20], p), 203, "CallbackFailed")
	if e.Message != "Get image info failed." || len(rec.requests()) != before {
		t.Errorf("broken image: %+v, %d callbacks", e, len(rec.requests())-before)
	}
}

// TestCallbackFailures has every answer that OSS refuses, and what the uploader sees.
func TestCallbackFailures(t *testing.T) {
	t.Parallel()
	answer := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { respond(w, status, body) }
	}
	redirect := func(status int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", status) }
	}
	const unreachable = "Error status : -1. OSS can not connect to your callbackUrl, please check it."
	for name, tc := range map[string]struct {
		answer      http.HandlerFunc
		message, ec string
	}{
		"301": {redirect(301), "Error status : 301.", "0007-00000203"},
		"307": {redirect(307), "Error status : 307.", "0007-00000203"},
		"201": {answer(201, "{}"), "Error status : 201.", "0007-00000203"},
		"404": {answer(404, "{}"), "Error status : 404.", "0007-00000203"},
		"500": {answer(500, "{}"), "Error status : 500.", "0007-00000203"},
		"chunked": {func(w http.ResponseWriter, _ *http.Request) {
			w.(http.Flusher).Flush()
			_, _ = w.Write([]byte("{}"))
		}, "Error Status : 400.User server missing content-length.", ""},
		"empty": {answer(200, ""), "Error Status : 400.User server return invalid conent-length value.", ""},
		"1 MB": {answer(200, `"`+strings.Repeat("a", 1<<20-2)+`"`),
			"Error Status : 400.User server return too long content-length value.", ""},
		"plain OK":   {answer(200, "OK"), "Response body is not valid json format.", "0007-00000205"},
		"BOM":        {answer(200, "\xef\xbb\xbf{}"), "Response body is not valid json format.", "0007-00000205"},
		"two values": {answer(200, "{}{}"), "Response body is not valid json format.", "0007-00000205"},
		"cut short": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "9")
			_, _ = w.Write([]byte("{}"))
		}, unreachable, ""},
		"hung up": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, unreachable, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rec := receive(t, tc.answer)
			_, base := start(t)
			got := putWith(t, base, "k", "hello", callbackspec.Parameter{URLs: []string{rec.url}, Body: "a=b"})
			var ec string
			if tc.ec != "" {
				ec = fmt.Sprintf("  <EC>%s</EC>\n  <RecommendDoc>https://api.aliyun.com/troubleshoot?q=%s</RecommendDoc>\n", tc.ec, tc.ec)
			}
			want := fmt.Sprintf(`<?xml version="1.0" encoding="UTF-8"?>
<Error>
  <Code>CallbackFailed</Code>
  <Message>%s</Message>
  <RequestId>%s</RequestId>
  <HostId>%s</HostId>
%s</Error>
`, tc.message, got.header.Get("x-oss-request-id"), strings.TrimPrefix(base, "http://"), ec)
			if d := cmp.Diff(want, got.body); got.status != 203 || d != "" {
				t.Errorf("status %d, XML (-want +got):\n%s", got.status, d)
			}
			if got.header.Get("ETag") != `"5D41402ABC4B2A76B9719D911017C592"` || got.header.Get("x-oss-ec") != tc.ec {
				t.Errorf("header %v", got.header)
			}
			if n := len(rec.requests()); n != 1 {
				t.Errorf("%d requests: OSS neither retries nor follows", n)
			}
			if o := send(t, newWire("GET", base, "k").presigned(t)); o.status != 200 || o.body != "hello" {
				t.Errorf("the object must stay stored: %d", o.status)
			}
			if d := deliveries(t, base, "k"); len(d) != 1 || d[0].Error != tc.message {
				t.Errorf("recorded %+v", d)
			}
		})
	}
}

func TestCallbackTimeouts(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		answer func(http.ResponseWriter)
		want   func(addr string) string
		ec     string
	}{
		"no answer": {func(http.ResponseWriter) {}, func(addr string) string {
			return "Error status : -1 " + addr + " reply timeout, cost:200ms, timeout:200ms (err -4, errno110)"
		}, ""},
		"half an answer": {func(w http.ResponseWriter) {
			w.Header().Set("Content-Length", "100")
			_, _ = w.Write([]byte("{"))
			w.(http.Flusher).Flush()
		}, func(string) string { return "Cost too long time." }, "0007-00000202"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rec := receive(t, func(w http.ResponseWriter, r *http.Request) { tc.answer(w); <-r.Context().Done() })
			_, base := start(t, func(c *Config) { c.CallbackTimeout = 200 * time.Millisecond })
			e := wantError(t, putWith(t, base, "k", "x", callbackspec.Parameter{URLs: []string{rec.url}, Body: "a=b"}), 203, "CallbackFailed")
			if want := tc.want(strings.TrimPrefix(rec.url, "http://")); e.Message != want || e.EC != tc.ec {
				t.Errorf("%q %s, want %q", e.Message, e.EC, want)
			}
		})
	}
}

func TestCallbackURLsInOrder(t *testing.T) {
	t.Parallel()
	bad := receive(t, func(w http.ResponseWriter, _ *http.Request) { respond(w, 500, "{}") })
	good := receive(t, func(w http.ResponseWriter, _ *http.Request) { respond(w, 200, `{"n":4}`) })
	never := receive(t, nil)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	_, base := start(t)
	// The second has no scheme: it is http.
	urls := []string{"http://" + closed.Addr().String(), strings.TrimPrefix(bad.url, "http://") + "/2", bad.url + "/3",
		good.url + "/4", never.url}
	got := putWith(t, base, "k", "x", callbackspec.Parameter{URLs: urls, Body: "a=b"})
	if got.status != 200 || got.body != `{"n":4}` {
		t.Errorf("uploader got %d %s", got.status, got.body)
	}
	var targets []string
	for _, d := range deliveries(t, base, "") {
		targets = append(targets, d.Target)
	}
	if d := cmp.Diff([]string{"/", "/2", "/3", "/4"}, targets); d != "" {
		t.Error(d)
	}
	if len(never.requests()) != 0 {
		t.Error("called after the first success")
	}
	e := wantError(t, putWith(t, base, "k", "x", callbackspec.Parameter{URLs: urls[:3], Body: "a=b"}), 203, "CallbackFailed")
	if e.Message != "Error status : 500." {
		t.Errorf("the last failure is shown, not %q", e.Message)
	}
}

func TestSigningKeyIsWhole(t *testing.T) {
	t.Parallel()
	_, base := start(t)
	key := publicKey(t, base)
	if key.N.BitLen() != 512 || key.E != 65537 || key.N.Text(16) != testModulus {
		t.Error("the served key is not the signing key")
	}
	for i := range 50 {
		text := string(binary.BigEndian.AppendUint32(nil, uint32(i)))
		signature := sign([]byte(text))
		if !verified(key, signature, text) || verified(key, signature, text+"x") || verified(key, corrupt(signature), text) {
			t.Fatal(i)
		}
	}
}

func TestRingIsBounded(t *testing.T) {
	t.Parallel()
	r := &ring{}
	for i := range ringSize + 5 {
		r.add(r.now(), Delivery{Object: fmt.Sprint(i)})
	}
	if got := r.list(""); len(got) != ringSize || got[0].Object != "5" {
		t.Errorf("%d, first %s", len(got), got[0].Object)
	}
	if !slices.Equal([]string{r.list("7")[0].Object}, []string{"7"}) {
		t.Error("filter")
	}
}
