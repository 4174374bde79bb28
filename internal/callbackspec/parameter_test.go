package callbackspec_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	spec "upcall/internal/callbackspec"
	"upcall/internal/fault"
)

func valid() spec.Parameter {
	return spec.Parameter{
		URLs:     []string{"https://upcall.example.com/oss/callback"},
		SNI:      true,
		Body:     "bucket=${bucket}&object=${object}&uid=${x:uid}",
		BodyType: spec.Form,
	}
}

// mustBreak checks that err matches rule, and that a fault with this rule names the field,
// contains each of texts, and is one line.
func mustBreak(t *testing.T, err error, rule error, field string, texts ...string) {
	t.Helper()
	if !errors.Is(err, rule) {
		t.Fatalf("error is %v, want the rule %q", err, rule)
	}
	faults := fault.Of(err)
	i := slices.IndexFunc(faults, func(f fault.Fault) bool { return f.Rule == rule })
	if i < 0 {
		t.Fatalf("no fault with the rule %q in %v", rule, err)
	}
	found := faults[i]
	if found.Field != field {
		t.Errorf("field is %q, want %q", found.Field, field)
	}
	if found.Problem == "" || found.Fix == "" || found.Fix == found.Problem {
		t.Errorf("%q lacks the problem or the fix", found)
	}
	message := found.Error()
	if strings.ContainsAny(message, "\r\n\x00\x1b") {
		t.Errorf("message %q is not one clean line", message)
	}
	for _, text := range append(texts, field, found.Problem, found.Fix) {
		if !strings.Contains(message, text) {
			t.Errorf("message %q does not say %q", message, text)
		}
	}
}

func headers(n int) map[string]string {
	h := make(map[string]string)
	for i := range n {
		h[fmt.Sprintf("h-%d", i)] = "v"
	}
	return h
}

type change = func(*spec.Parameter)

func urls(urls ...string) change { return func(p *spec.Parameter) { p.URLs = urls } }
func host(host string) change    { return func(p *spec.Parameter) { p.Host = host } }
func body(body string) change    { return func(p *spec.Parameter) { p.Body = body } }
func bodyType(t spec.BodyType) change {
	return func(p *spec.Parameter) { p.BodyType = t }
}
func header(name, value string) change {
	return func(p *spec.Parameter) { p.AdditionalHeaders = map[string]string{name: value} }
}

func TestCheckRefuses(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		change change
		rule   error
		field  string
		says   string
	}{
		{"no URL", urls(), spec.ErrNoURL, "callbackUrl", "give the URL"},
		{"one empty URL", urls(""), spec.ErrNoURL, "callbackUrl", "give the URL"},
		{"six URLs", urls(strings.Fields(strings.Repeat("http://a.example ", 6))...), spec.ErrURLCount, "callbackUrl", "at most 5"},
		{"an empty URL among others", urls("http://a.example", ""), spec.ErrURL, "callbackUrl", "has no host"},

		{"host header with a line break", host("a.example\r\nX-Admin"), spec.ErrHost, "callbackHost", `\r\n`},
		{"host header with a further header", host("a.example\r\nX-Admin: 1"), spec.ErrPort, "callbackHost", `\r\n`},
		{"host header with a lone LF", host("a.example\n"), spec.ErrHost, "callbackHost", `\n`},
		{"host header with a space", host("a b"), spec.ErrHost, "callbackHost", "host name"},
		{"host header with a path", host("a.example/x"), spec.ErrHost, "callbackHost", "host name"},
		{"host header with a user", host("u@a.example"), spec.ErrHost, "callbackHost", "host name"},
		{"host header with NUL", host("a\x00b"), spec.ErrHost, "callbackHost", "host name"},
		{"host header in another script", host("例え.example"), spec.ErrHost, "callbackHost", "host name"},
		{"host header with a bad port", host("a.example:http"), spec.ErrPort, "callbackHost", "1 to 65535"},
		{"host header with two ports", host("a.example:1:2"), spec.ErrPort, "callbackHost", "1 to 65535"},
		{"host header of IPv6", host("[::1]:80"), spec.ErrIPv6, "callbackHost", "IPv4"},

		{"empty body", body(""), spec.ErrEmptyBody, "callbackBody", "${bucket}"},
		{"body is not UTF-8", body("a=\xff"), spec.ErrTemplate, "callbackBody", "UTF-8"},
		{"body with NUL", body("a=\x00"), spec.ErrTemplate, "callbackBody", "NUL"},
		{"lone dollar", body("price=5$"), spec.ErrTemplate, "callbackBody", "lone $"},
		{"dollar and space before the brace", body("a=$ {bucket}"), spec.ErrTemplate, "callbackBody", "%24"},
		{"two dollars", body("a=$${bucket}"), spec.ErrTemplate, "callbackBody", "lone $"},
		{"parentheses", body("a=$(bucket)"), spec.ErrTemplate, "callbackBody", "${name}"},
		{"unclosed variable", body("a=${bucket"), spec.ErrTemplate, "callbackBody", "close it"},
		{"unclosed variable swallows the next", body("a=${bucket&b=${object}"), spec.ErrTemplate, "callbackBody", "unknown variable"},
		{"empty variable", body("a=${}"), spec.ErrTemplate, "callbackBody", "imageInfo.height"},
		{"unknown system variable", body("a=${filename}"), spec.ErrTemplate, "callbackBody", "${filename}"},
		{"system variable in the wrong case", body("a=${mimetype}"), spec.ErrTemplate, "callbackBody", "mimeType"},
		{"system variable with a space", body("a=${ bucket}"), spec.ErrTemplate, "callbackBody", "unknown"},
		{"custom variable in upper case", body("a=${x:UID}"), spec.ErrTemplate, "callbackBody", "lower-case"},
		{"custom variable with upper-case X", body("a=${X:uid}"), spec.ErrTemplate, "callbackBody", "start with x:"},
		{"custom variable without a name", body("a=${x:}"), spec.ErrTemplate, "callbackBody", "${x:}"},
		{"variable with a line break", body("a=${x:a\nb}"), spec.ErrTemplate, "callbackBody", "x:a?b"},

		{"body type", bodyType("text/plain"), spec.ErrBodyType, "callbackBodyType", "application/json"},
		{"body type with a parameter", bodyType("application/json; charset=utf-8"), spec.ErrBodyType, "callbackBodyType", "use "},
		{"body type in upper case", bodyType("APPLICATION/JSON"), spec.ErrBodyType, "callbackBodyType", "use "},
		{"signature version 2.0", func(p *spec.Parameter) { p.SignatureVersion = "2.0" }, spec.ErrSignatureVersion, "signatureVersion", `"1.0"`},
		{"signature version 1", func(p *spec.Parameter) { p.SignatureVersion = "1" }, spec.ErrSignatureVersion, "signatureVersion", `"1.0"`},

		{"eleven headers", func(p *spec.Parameter) { p.AdditionalHeaders = headers(11) },
			spec.ErrAdditionalHeader, "additionalHeaders", "allows 10"},
		{"header without a name", header("", "v"), spec.ErrAdditionalHeader, "additionalHeaders", "lower-case"},
		{"header in upper case", header("Trace", "v"), spec.ErrAdditionalHeader, "additionalHeaders", "lower-case"},
		{"header with an underscore", header("a_b", "v"), spec.ErrAdditionalHeader, "additionalHeaders", "lower-case"},
		{"header name with a line break", header("a\r\nb", "v"), spec.ErrAdditionalHeader, "additionalHeaders", `\r\n`},
		{"header of OSS", header("x-oss-bucket", "v"), spec.ErrAdditionalHeader, "additionalHeaders", "another name"},
		{"reserved header", header("authorization", "v"), spec.ErrAdditionalHeader, "additionalHeaders", "set by OSS"},
		{"reserved header keep-alive", header("keep-alive", "v"), spec.ErrAdditionalHeader, "additionalHeaders", "set by OSS"},
		{"header value with a line break", header("trace", "1\r\nhost: evil"), spec.ErrAdditionalHeader, "additionalHeaders", "control"},
		{"header value in another script", header("trace", "é"), spec.ErrAdditionalHeader, "additionalHeaders", "percent-encode"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := valid()
			tt.change(&p)
			for _, hosts := range []spec.Hosts{spec.PublicHosts, spec.AnyHost} {
				mustBreak(t, p.Check(hosts), tt.rule, tt.field, tt.says)
				if d, err := p.Document(hosts); d.Base64() != "" || !errors.Is(err, tt.rule) {
					t.Errorf("Document gave %q, %v", d.Base64(), err)
				}
			}
			// Decoding refuses the same mistakes, unless JSON cannot express them.
			if strings.Contains(tt.name, "not UTF-8") {
				return
			}
			want := tt.rule
			if strings.Contains(tt.name, "NUL") {
				want = spec.ErrNotJSON
			}
			encoded := base64.StdEncoding.EncodeToString(p.JSON())
			if decoded, err := spec.DecodeParameter(encoded, spec.AnyHost); !errors.Is(err, want) {
				t.Errorf("DecodeParameter gave %+v, %v", decoded, err)
			}
		})
	}
}

func TestCheckReportsAllMistakes(t *testing.T) {
	t.Parallel()
	err := spec.Parameter{
		URLs: []string{"http://127.0.0.1/", "http://h.example:x/"}, Host: "a b", BodyType: "x",
		SignatureVersion: "9", AdditionalHeaders: map[string]string{"A": "", "host": ""},
	}.Check(spec.PublicHosts)
	for _, rule := range []error{
		spec.ErrPrivateAddress, spec.ErrPort, spec.ErrHost, spec.ErrBodyType,
		spec.ErrEmptyBody, spec.ErrSignatureVersion, spec.ErrAdditionalHeader,
	} {
		if !errors.Is(err, rule) {
			t.Errorf("%q is missing", rule)
		}
	}
	if got := len(fault.Of(err)); got != 8 {
		t.Errorf("%d mistakes, want 8:\n%v", got, err)
	}
}

// The limit is 5 KB of Base64, which has 4 bytes for 3 bytes of the document.
func TestParameterSizeLimit(t *testing.T) {
	t.Parallel()
	p := valid()
	p.Body = ""
	const most = spec.MaxDocument / 4 * 3 // bytes of JSON
	p.Body = strings.Repeat("a", most-len(p.JSON()))
	document, err := p.Document(spec.PublicHosts)
	if err != nil || len(document.Base64()) != spec.MaxDocument {
		t.Fatalf("Document of exactly %d bytes gave %d, %v", spec.MaxDocument, len(document.Base64()), err)
	}
	if _, err := spec.DecodeParameter(document.Base64(), spec.PublicHosts); err != nil {
		t.Errorf("DecodeParameter of exactly %d bytes: %v", spec.MaxDocument, err)
	}
	p.Body += "a"
	mustBreak(t, p.Check(spec.PublicHosts), spec.ErrTooLarge, "callback", "5124", "5120")
	_, err = spec.DecodeParameter(base64.StdEncoding.EncodeToString(p.JSON()), spec.PublicHosts)
	mustBreak(t, err, spec.ErrTooLarge, "callback", "5124", "5120")
}

func TestDecodeParameterRefuses(t *testing.T) {
	t.Parallel()
	b64 := func(doc string) string { return base64.StdEncoding.EncodeToString([]byte(doc)) }
	// with is a good document with one more member.
	with := func(member string) string {
		return b64(`{"callbackUrl":"http://a.example","callbackBody":"a",` + member + "}")
	}
	good := `{"callbackUrl":"http://a.example/?a=1>2","callbackBody":"?>?>=${object}"}`
	encoded := b64(good)
	if !strings.ContainsAny(encoded, "+/") {
		t.Fatalf("%s has neither + nor /: the URL-safe case would prove nothing", encoded)
	}
	if _, err := spec.DecodeParameter(encoded, spec.PublicHosts); err != nil {
		t.Fatal(err)
	}
	urlSafe := strings.NewReplacer("+", "-", "/", "_").Replace(encoded)
	tests := []struct {
		name, encoded string
		rule          error
		field, says   string
	}{
		{"not Base64", "{}", spec.ErrNotBase64, "callback", "A-Z a-z 0-9 + /"},
		{"URL-safe Base64", urlSafe, spec.ErrNotBase64, "callback", "in place of - _"},
		{"JSON", good, spec.ErrNotBase64, "callback", "the JSON itself"},
		{"cut off", encoded[:len(encoded)-2], spec.ErrNotBase64, "callback", "was cut off"},
		{"percent-encoded Base64", strings.ReplaceAll(encoded, "=", "%3D") + "%3D", spec.ErrNotBase64, "callback", "+ /"},
		{"line break inside", encoded[:8] + "\n" + encoded[8:], spec.ErrNotBase64, "callback", "base64 -w0"},
		{"line breaks of MIME", encoded[:76] + "\r\n" + encoded[76:], spec.ErrNotBase64, "callback", "NO_WRAP"},
		{"line break at the end", encoded + "\r\n", spec.ErrNotBase64, "callback", "+ /"},
		{"space at the end", encoded + " ", spec.ErrNotBase64, "callback", "+ /"},
		{"without padding", strings.TrimRight(b64(good+" "), "=")[1:], spec.ErrNotBase64, "callback", "padding"},
		{"more after the padding", b64("{}") + "AAAA", spec.ErrNotBase64, "callback", "padding"},
		{"loose bits under the padding", "e31=", spec.ErrNotBase64, "callback", "padding"},
		{"nothing", "", spec.ErrNotJSON, "callback", "end of JSON"},
		{"plain text", b64("callback"), spec.ErrNotJSON, "callback", "JSON object"},
		{"a string", b64(`"{}"`), spec.ErrNotJSON, "callback", "JSON string"},
		{"an array", b64(`[{}]`), spec.ErrNotJSON, "callback", "JSON array"},
		{"null", b64(`null`), spec.ErrNotJSON, "callback", "JSON null"},
		{"cut short", b64(good[:len(good)-2]), spec.ErrNotJSON, "callback", "end of JSON"},
		{"something after the object", b64(good + "{}"), spec.ErrNotJSON, "callback", "after top-level value"},
		{"byte order mark", b64("\ufeff" + good), spec.ErrNotJSON, "callback", "JSON object"},
		{"not UTF-8", b64("{\"callbackBody\":\"\xff\"}"), spec.ErrNotJSON, "callback", "UTF-8"},
		{"half a surrogate pair", b64(`{"callbackBody":"\ud800"}`), spec.ErrNotJSON, "callback", "surrogate"},
		{"key twice", with(`"callbackUrl":"http://b.example"`), spec.ErrNotJSON, "callback", "callbackUrl appears twice"},
		{"key twice, once escaped", b64(`{"callbackUrl":"a","callbackUr\u006c":"b"}`), spec.ErrNotJSON, "callback", "callbackUrl appears twice"},
		{"key twice in an unknown field", b64(`{"f":[{"a":1,"a":2}]}`), spec.ErrNotJSON, "callback", "a appears twice"},
		{"number for the type", with(`"callbackBodyType":123`), spec.ErrNotJSON, "callbackBodyType", "JSON number"},
		{"number for the version", with(`"signatureVersion":123`), spec.ErrNotJSON, "signatureVersion", "give a string"},
		{"string for SNI", with(`"callbackSNI":"true"`), spec.ErrNotJSON, "callbackSNI", "give a boolean"},
		{"array for the URL", b64(`{"callbackUrl":["http://a.example"],"callbackBody":"a"}`), spec.ErrNotJSON, "callbackUrl", "JSON array"},
		{"null for the body", b64(`{"callbackUrl":"http://a.example","callbackBody":null}`), spec.ErrNotJSON, "callbackBody", "JSON null"},
		{"null for SNI", with(`"callbackSNI":null`), spec.ErrNotJSON, "callbackSNI", "JSON null"},
		{"array for the headers", with(`"additionalHeaders":[]`), spec.ErrNotJSON, "additionalHeaders", "object of strings"},
		{"number in the headers", with(`"additionalHeaders":{"a":1}`), spec.ErrNotJSON, "additionalHeaders", "object of strings"},
		{"null in the headers", with(`"additionalHeaders":{"a":null}`), spec.ErrNotJSON, "additionalHeaders", "object of strings"},
		{"empty object", b64(`{}`), spec.ErrNoURL, "callbackUrl", "give the URL"},
		{"empty URL", b64(`{"callbackUrl":"","callbackBody":"a"}`), spec.ErrNoURL, "callbackUrl", "give the URL"},
		{"name of the URL in other case", b64(`{"CallbackURL":"a.example","callbackBody":"a"}`), spec.ErrNoURL, "callbackUrl", "give the URL"},
		{"empty body", b64(`{"callbackUrl":"http://a.example","callbackBody":""}`), spec.ErrEmptyBody, "callbackBody", "give a template"},
		{"no body", b64(`{"callbackUrl":"http://a.example"}`), spec.ErrEmptyBody, "callbackBody", "give a template"},
		{"six URLs", b64(`{"callbackUrl":"a.io;a.io;a.io;a.io;a.io;a.io","callbackBody":"a"}`), spec.ErrURLCount, "callbackUrl", "has 6 URLs"},
		{"semicolon at the end", b64(`{"callbackUrl":"http://a.example;","callbackBody":"a"}`), spec.ErrURL, "callbackUrl", "no host"},
		{"private address", b64(`{"callbackUrl":"http://10.0.0.1","callbackBody":"a"}`), spec.ErrPrivateAddress, "callbackUrl", "10.0.0.1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p, err := spec.DecodeParameter(tt.encoded, spec.PublicHosts)
			mustBreak(t, err, tt.rule, tt.field, tt.says)
			if diff := cmp.Diff(spec.Parameter{}, p); diff != "" {
				t.Errorf("a refused parameter is not the zero value: %s", diff)
			}
		})
	}
}

func TestParameterRoundTrip(t *testing.T) {
	t.Parallel()
	full := spec.Parameter{
		URLs: []string{"https://a.example/cb?k=1&l=%E4%B8%AD", "http://b.example:8080", "c.example",
			"121.43.113.8:23456/index.html", "d.example"},
		Host:              "upcall.example.com:8443",
		SNI:               true,
		Body:              `{"bucket":${bucket},"note":"ünï & <b>","uid":${x:uid}}`,
		BodyType:          spec.JSON,
		SignatureVersion:  "1.0",
		AdditionalHeaders: map[string]string{"trace": "a b", "tenant-1": ""},
	}
	const document = `{"callbackUrl":"https://a.example/cb?k=1&l=%E4%B8%AD;http://b.example:8080;c.example;` +
		`121.43.113.8:23456/index.html;d.example","callbackHost":"upcall.example.com:8443",` +
		`"callbackBody":"{\"bucket\":${bucket},\"note\":\"ünï & <b>\",\"uid\":${x:uid}}",` +
		`"callbackBodyType":"application/json","callbackSNI":true,"signatureVersion":"1.0","additionalHeaders":{"tenant-1":"","trace":"a b"}}`
	if diff := cmp.Diff(document, string(full.JSON())); diff != "" {
		t.Error(diff)
	}
	least := spec.Parameter{URLs: []string{"a.example"}, Body: "a"}
	if diff := cmp.Diff(`{"callbackUrl":"a.example","callbackBody":"a"}`, string(least.JSON())); diff != "" {
		t.Error(diff)
	}
	ten := valid()
	ten.AdditionalHeaders = headers(10)
	for _, want := range []spec.Parameter{full, least, valid(), ten} {
		document, err := want.Document(spec.PublicHosts)
		if err != nil {
			t.Fatal(err)
		}
		got, err := spec.DecodeParameter(document.Base64(), spec.PublicHosts)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
}

func TestDecodeParameterIgnoresUnknownFields(t *testing.T) {
	t.Parallel()
	doc := ` {"callbackType":"text/plain", "callbackUrl":"a.example","callbackBody":"a","callbackSNI":false,` +
		`"additionalHeaders":{},"z":{"y":[1,null,"\ud83d\ude00"]}}` + "\n"
	got, err := spec.DecodeParameter(base64.StdEncoding.EncodeToString([]byte(doc)), spec.PublicHosts)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(spec.Parameter{URLs: []string{"a.example"}, Body: "a"}, got); diff != "" {
		t.Error(diff)
	}
}
