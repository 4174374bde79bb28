package ossemu

import (
	"context"
	"crypto/md5"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"upcall/internal/callbackspec"
)

// TestCallbackParameterRefused: nothing is stored.
func TestCallbackParameterRefused(t *testing.T) {
	t.Parallel()
	_, base := start(t)
	b64 := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	doc := func(fields string) string {
		return b64(`{"callbackUrl":"r.example/cb","callbackBody":"a=b"` + fields + `}`)
	}
	for name, tc := range map[string]struct{ callback, vars, query, argument, value, message, ec string }{
		"not base64":         {callback: "x123-*&", argument: "callback", ec: "0007-00000002"},
		"not json":           {callback: b64("x"), argument: "callback", message: "The callback configuration is not json format.", ec: "0007-00000003", value: "x"},
		"six URLs":           {callback: b64(`{"callbackUrl":"a.x;b.x;c.x;d.x;e.x;f.x","callbackBody":"a"}`), argument: "callbackUrl", ec: "0007-00000005"},
		"bad port":           {callback: b64(`{"callbackUrl":"www.example.com:test","callbackBody":"a"}`), argument: "callbackUrl", ec: "0007-00000004"},
		"IPv6":               {callback: b64(`{"callbackUrl":"http://[::1]/","callbackBody":"a"}`), argument: "callbackUrl", ec: "0007-00000004"},
		"not ASCII":          {callback: b64(`{"callbackUrl":"r.example/ü","callbackBody":"a"}`), argument: "callbackUrl", ec: "0007-00000004"},
		"empty body":         {callback: b64(`{"callbackUrl":"r.example","callbackBody":""}`), argument: "callbackBody", ec: "0007-00000011"},
		"body type":          {callback: doc(`,"callbackBodyType":"text/xml"`), argument: "callbackBodyType", ec: "0007-00000012"},
		"lone dollar":        {callback: b64(`{"callbackUrl":"r.example","callbackBody":"a=$b"}`), argument: "ReplaceKeyPrefix", value: "a=$b", message: "Left brace must be adjacent to dollar sign.", ec: "0007-00000105"},
		"additional header":  {callback: doc(`,"additionalHeaders":{"x-oss-test":"1"}`), argument: "additionalHeaders", ec: "0007-00000026"},
		"a name twice":       {callback: doc(`,"callbackUrl":1`), argument: "callback", ec: "0007-00000003"},
		"URL is a number":    {callback: b64(`{"callbackUrl":1,"callbackBody":"a=b"}`), argument: "callbackUrl", ec: "0007-00000004"},
		"host is a list":     {callback: doc(`,"callbackHost":[1,2,3]`), argument: "callbackHost", ec: "0007-00000009"},
		"host is a URL":      {callback: doc(`,"callbackHost":"http://cb.example.com"`), argument: "callbackHost", ec: "0007-00000009"},
		"body is a list":     {callback: b64(`{"callbackUrl":"r.example","callbackBody":[1]}`), argument: "callbackBody"},
		"type is a number":   {callback: doc(`,"callbackBodyType":123`), argument: "callbackBodyType", ec: "0007-00000012"},
		"SNI is a string":    {callback: doc(`,"callbackSNI":"true"`), argument: "callback", message: "The callback sni is invalid.", value: `{"callbackUrl":"r.example/cb","callbackBody":"a=b","callbackSNI":"true"}`},
		"headers are a list": {callback: doc(`,"additionalHeaders":["a"]`), argument: "additionalHeaders", ec: "0007-00000026"},
		"unclosed":           {callback: b64(`{"callbackUrl":"r.example","callbackBody":"size=${size}&my_var=${x:my_var"}`), argument: "ReplaceKeyPrefix", value: "size=${size}&my_var=${x:my_var", ec: "0007-00000105"},
		"no such variable":   {callback: b64(`{"callbackUrl":"r.example","callbackBody":"a=${file.name}"}`), argument: "ReplaceKeyPrefix", value: "a=${file.name}", ec: "0007-00000105"},
		"vars not base64":    {callback: doc(""), vars: "x123-*&", argument: "callback-var", value: "x123-*&", ec: "0007-00000102"},
		"vars too large":     {callback: doc(""), vars: b64(`{"x:a":"` + strings.Repeat("a", 5000) + `"}`), argument: "callback-var", ec: "0007-00000101"},
		"vars no strings":    {callback: doc(""), vars: b64(`{"x:a":{"a":"b"}}`), argument: "callback-var", ec: "0007-00000104"},
		"signature 2.0":      {callback: doc(`,"signatureVersion":"2.0"`), argument: "signatureVersion"},
		"too large":          {callback: doc(`,"callbackHost":"` + strings.Repeat("a", 5000) + `"`), argument: "callback", ec: "0007-00000001"},
		"vars not json":      {callback: doc(""), vars: b64("x"), argument: "callback-var", ec: "0007-00000103"},
		"vars upper case":    {callback: doc(""), vars: b64(`{"x:Foo":"1"}`), argument: "callback-var"},
		"vars without x":     {callback: doc(""), vars: b64(`{"foo":"1"}`), argument: "callback-var"},
		"two carriers":       {callback: doc(""), query: "callback", argument: "callback", ec: "0007-00000027"},
		"two carriers, vars": {callback: doc(""), vars: b64(`{"x:a":"1"}`), query: "callback-var", argument: "callback-var", ec: "0007-00000027"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWire("PUT", base, "refused/"+name)
			w.body = strings.NewReader("x")
			w.header.Set("x-oss-callback", tc.callback)
			if tc.vars != "" {
				w.header.Set("x-oss-callback-var", tc.vars)
			}
			if tc.query != "" {
				w.query.Set(tc.query, doc(""))
			}
			e := wantError(t, send(t, w.presigned(t)), 400, "InvalidArgument")
			if e.ArgumentName != tc.argument || e.EC != tc.ec || tc.message != "" && e.Message != tc.message || tc.value != "" && e.ArgumentValue != tc.value {
				t.Errorf("%s = %s, EC %s, %q", e.ArgumentName, e.ArgumentValue, e.EC, e.Message)
			}
			wantError(t, send(t, newWire("GET", base, "refused/"+name).presigned(t)), 404, "NoSuchKey")
		})
	}
}

func TestCallbackCarriers(t *testing.T) {
	t.Parallel()
	rec := receive(t, nil)
	_, base := start(t)
	callback := encode(t, callbackspec.Parameter{URLs: []string{rec.url}, Body: "v=${x:v}"})
	vars, _ := callbackspec.Vars{"x:v": "1+1=2"}.Document()
	inQuery := newWire("PUT", base, "k")
	inQuery.query = url.Values{"callback": {callback}, "callback-var": {vars.Base64()}}
	inHeader := newWire("PUT", base, "k")
	inHeader.header.Set("x-oss-callback", callback)
	inHeader.header.Set("x-oss-callback-var", vars.Base64())
	noURL := newWire("PUT", base, "k")
	noURL.header.Set("x-oss-callback", base64.StdEncoding.EncodeToString([]byte(`{"callbackUrl":"","callbackBody":"a"}`)))
	for _, r := range []*http.Request{inQuery.presigned(t), inHeader.presigned(t), inQuery.headerSigned(t),
		inHeader.headerSigned(t), noURL.presigned(t)} {
		if got := send(t, r); got.status != 200 {
			t.Errorf("%d %s", got.status, got.body)
		}
	}
	calls := rec.requests()
	if len(calls) != 4 {
		t.Fatalf("%d callbacks, want 4: none without a URL", len(calls))
	}
	for _, c := range calls {
		if c.body != "v=1%2B1%3D2" {
			t.Errorf("body %s", c.body)
		}
	}
}

func TestCallbackTLS(t *testing.T) {
	t.Parallel()
	names := make(chan string, 10)
	rec := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		names <- r.TLS.ServerName
		respond(w, 200, "{}")
	}))
	rec.StartTLS()
	t.Cleanup(rec.Close)
	roots := x509.NewCertPool()
	roots.AddCert(rec.Certificate())
	dial := func(c *Config) {
		c.CallbackDial = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, rec.Listener.Addr().String())
		}
	}
	_, trusting := start(t, dial, func(c *Config) { c.CallbackRootCAs = roots })
	_, doubting := start(t, dial)
	param := func(host string, sni bool) callbackspec.Parameter {
		return callbackspec.Parameter{URLs: []string{"https://" + host + "/cb"}, Body: "a=b", SNI: sni}
	}
	// httptest's certificate is for example.com.
	for _, sni := range []bool{true, false} {
		if got := putWith(t, trusting, "k", "x", param("example.com", sni)); got.status != 200 {
			t.Fatalf("SNI %v: %d %s", sni, got.status, got.body)
		}
		want := map[bool]string{true: "example.com", false: ""}[sni]
		if got := <-names; got != want {
			t.Errorf("SNI %v: server name %q, want %q", sni, got, want)
		}
		wantError(t, putWith(t, trusting, "k", "x", param("other.test", sni)), 203, "CallbackFailed")
		wantError(t, putWith(t, doubting, "k", "x", param("example.com", sni)), 203, "CallbackFailed")
	}
}

func TestCompleteMultipartCallback(t *testing.T) {
	t.Parallel()
	rec := receive(t, nil)
	_, base := start(t)
	id := initiate(t, base, "k")
	if got := uploadPart(t, base, "k", id, "1", "hello"); got.status != 200 {
		t.Fatal(got)
	}
	got := complete(t, base, "k", id, "", "x-oss-complete-all", "yes", "x-oss-callback",
		encode(t, callbackspec.Parameter{URLs: []string{rec.url},
			Body: `{"e":${etag},"s":${size},"m":${contentMd5},"o":${operation}}`, BodyType: callbackspec.JSON}))
	if got.status != 200 || got.body != `{"Status":"OK"}` || got.header.Get("Content-MD5") != "" {
		t.Errorf("the answer must replace the XML: %+v", got)
	}
	calls := rec.requests()
	again := md5.Sum(fmt.Appendf(nil, "%X", md5.Sum([]byte("hello"))))
	want := fmt.Sprintf(`{"e":"%X-1","s":5,"m":null,"o":"CompleteMultipartUpload"}`, again)
	if len(calls) != 1 || calls[0].body != want {
		t.Errorf("callbacks %+v, want %s", calls, want)
	}
}
