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

// mustBreak asserts that err holds rule, and that one fault with it names the
// field, says each of texts and stays on one line.
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

func TestCheckRefuses(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		change func(*spec.Parameter)
		rule   error
		field  string
		says   string
	}{
		{"no URL", func(p *spec.Parameter) { p.URLs = nil }, spec.ErrNoURL, "callbackUrl", "give the URL"},
		{"one empty URL", func(p *spec.Parameter) { p.URLs = []string{""} }, spec.ErrNoURL, "callbackUrl", "give the URL"},
		{"six URLs", func(p *spec.Parameter) { p.URLs = strings.Fields(strings.Repeat("http://a.example ", 6)) }, spec.ErrURLCount, "callbackUrl", "at most 5"},
		{"an empty URL among others", func(p *spec.Parameter) { p.URLs = []string{"http://a.example", ""} }, spec.ErrURL, "callbackUrl", "has no host"},

		{"host header with a line break", func(p *spec.Parameter) { p.Host = "a.example\r\nX-Admin" }, spec.ErrHost, "callbackHost", `\r\n`},
		{"host header with a further header", func(p *spec.Parameter) { p.Host = "a.example\r\nX-Admin: 1" }, spec.ErrPort, "callbackHost", `\r\n`},
		{"host header with a lone LF", func(p *spec.Parameter) { p.Host = "a.example\n" }, spec.ErrHost, "callbackHost", `\n`},
		{"host header with a space", func(p *spec.Parameter) { p.Host = "a b" }, spec.ErrHost, "callbackHost", "host name"},
		{"host header with a path", func(p *spec.Parameter) { p.Host = "a.example/x" }, spec.ErrHost, "callbackHost", "host name"},
		{"host header with a user", func(p *spec.Parameter) { p.Host = "u@a.example" }, spec.ErrHost, "callbackHost", "host name"},
		{"host header with NUL", func(p *spec.Parameter) { p.Host = "a\x00b" }, spec.ErrHost, "callbackHost", "host name"},
		{"host header in another script", func(p *spec.Parameter) { p.Host = "例え.example" }, spec.ErrHost, "callbackHost", "host name"},
		{"host header with a bad port", func(p *spec.Parameter) { p.Host = "a.example:http" }, spec.ErrPort, "callbackHost", "1 to 65535"},
		{"host header with two ports", func(p *spec.Parameter) { p.Host = "a.example:1:2" }, spec.ErrPort, "callbackHost", "1 to 65535"},
		{"host header of IPv6", func(p *spec.Parameter) { p.Host = "[::1]:80" }, spec.ErrIPv6, "callbackHost", "IPv4"},

		{"empty body", func(p *spec.Parameter) { p.Body = "" }, spec.ErrEmptyBody, "callbackBody", "${bucket}"},
		{"body is not UTF-8", func(p *spec.Parameter) { p.Body = "a=\xff" }, spec.ErrTemplate, "callbackBody", "UTF-8"},
		{"body with NUL", func(p *spec.Parameter) { p.Body = "a=\x00" }, spec.ErrTemplate, "callbackBody", "NUL"},
		{"lone dollar", func(p *spec.Parameter) { p.Body = "price=5$" }, spec.ErrTemplate, "callbackBody", "lone $"},
		{"dollar and space before the brace", func(p *spec.Parameter) { p.Body = "a=$ {bucket}" }, spec.ErrTemplate, "callbackBody", "%24"},
		{"two dollars", func(p *spec.Parameter) { p.Body = "a=$${bucket}" }, spec.ErrTemplate, "callbackBody", "lone $"},
		{"parentheses", func(p *spec.Parameter) { p.Body = "a=$(bucket)" }, spec.ErrTemplate, "callbackBody", "${name}"},
		{"unclosed variable", func(p *spec.Parameter) { p.Body = "a=${bucket" }, spec.ErrTemplate, "callbackBody", "close it"},
		{"unclosed variable swallows the next", func(p *spec.Parameter) { p.Body = "a=${bucket&b=${object}" }, spec.ErrTemplate, "callbackBody", "unknown variable"},
		{"empty variable", func(p *spec.Parameter) { p.Body = "a=${}" }, spec.ErrTemplate, "callbackBody", "imageInfo.height"},
		{"unknown system variable", func(p *spec.Parameter) { p.Body = "a=${filename}" }, spec.ErrTemplate, "callbackBody", "${filename}"},
		{"system variable in the wrong case", func(p *spec.Parameter) { p.Body = "a=${mimetype}" }, spec.ErrTemplate, "callbackBody", "mimeType"},
		{"system variable with a space", func(p *spec.Parameter) { p.Body = "a=${ bucket}" }, spec.ErrTemplate, "callbackBody", "unknown"},
		{"custom variable in upper case", func(p *spec.Parameter) { p.Body = "a=${x:UID}" }, spec.ErrTemplate, "callbackBody", "lower-case"},
		{"custom variable with upper-case X", func(p *spec.Parameter) { p.Body = "a=${X:uid}" }, spec.ErrTemplate, "callbackBody", "start with x:"},
		{"custom variable without a name", func(p *spec.Parameter) { p.Body = "a=${x:}" }, spec.ErrTemplate, "callbackBody", "${x:}"},
		{"variable with a line break", func(p *spec.Parameter) { p.Body = "a=${x:a\nb}" }, spec.ErrTemplate, "callbackBody", "x:a?b"},

		{"body type", func(p *spec.Parameter) { p.BodyType = "text/plain" }, spec.ErrBodyType, "callbackBodyType", "application/json"},
		{"body type with a parameter", func(p *spec.Parameter) { p.BodyType = "application/json; charset=utf-8" }, spec.ErrBodyType, "callbackBodyType", "use "},
		{"body type in upper case", func(p *spec.Parameter) { p.BodyType = "APPLICATION/JSON" }, spec.ErrBodyType, "callbackBodyType", "use "},
		{"signature version 2.0", func(p *spec.Parameter) { p.SignatureVersion = "2.0" }, spec.ErrSignatureVersion, "signatureVersion", `"1.0"`},
		{"signature version 1", func(p *spec.Parameter) { p.SignatureVersion = "1" }, spec.ErrSignatureVersion, "signatureVersion", `"1.0"`},

		{"eleven headers", func(p *spec.Parameter) { p.AdditionalHeaders = headers(11) }, spec.ErrAdditionalHeader, "additionalHeaders", "allows 10"},
		{"header without a name", func(p *spec.Parameter) { p.AdditionalHeaders = map[string]string{"": "v"} }, spec.ErrAdditionalHeader, "additionalHeaders", "lower-case"},
		{"header in upper case", func(p *spec.Parameter) { p.AdditionalHeaders = map[string]string{"Trace": "v"} }, spec.ErrAdditionalHeader, "additionalHeaders", "lower-case"},
		{"header with an underscore", func(p *spec.Parameter) { p.AdditionalHeaders = map[string]string{"a_b": "v"} }, spec.ErrAdditionalHeader, "additionalHeaders", "lower-case"},
		{"header name with a line break", func(p *spec.Parameter) { p.AdditionalHeaders = map[string]string{"a\r\nb": "v"} }, spec.ErrAdditionalHeader, "additionalHeaders", `\r\n`},
		{"header of OSS", func(p *spec.Parameter) { p.AdditionalHeaders = map[string]string{"x-oss-bucket": "v"} }, spec.ErrAdditionalHeader, "additionalHeaders", "another name"},
		{"reserved header", func(p *spec.Parameter) { p.AdditionalHeaders = map[string]string{"authorization": "v"} }, spec.ErrAdditionalHeader, "additionalHeaders", "set by OSS"},
		{"reserved header keep-alive", func(p *spec.Parameter) { p.AdditionalHeaders = map[string]string{"keep-alive": "v"} }, spec.ErrAdditionalHeader, "additionalHeaders", "set by OSS"},
		{"header value with a line break", func(p *spec.Parameter) { p.AdditionalHeaders = map[string]string{"trace": "1\r\nhost: evil"} }, spec.ErrAdditionalHeader, "additionalHeaders", "control"},
		{"header value in another script", func(p *spec.Parameter) { p.AdditionalHeaders = map[string]string{"trace": "é"} }, spec.ErrAdditionalHeader, "additionalHeaders", "percent-encode"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := valid()
			tt.change(&p)
			for _, hosts := range []spec.Hosts{spec.PublicHosts, spec.AnyHost} {
				mustBreak(t, p.Check(hosts), tt.rule, tt.field, tt.says)
				if encoded, err := p.Encode(hosts); encoded != "" || !errors.Is(err, tt.rule) {
					t.Errorf("Encode gave %q, %v", encoded, err)
				}
			}
			// Whoever decodes must refuse the same, but where the document cannot say it.
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

// The limit is 5 KB of Base64, which grows by 4 bytes for 3 of the document.
func TestParameterSizeLimit(t *testing.T) {
	t.Parallel()
	p := valid()
	p.Body = ""
	const most = spec.MaxDocument / 4 * 3 // bytes of JSON
	p.Body = strings.Repeat("a", most-len(p.JSON()))
	encoded, err := p.Encode(spec.PublicHosts)
	if err != nil || len(encoded) != spec.MaxDocument {
		t.Fatalf("Encode of exactly %d bytes gave %d, %v", spec.MaxDocument, len(encoded), err)
	}
	if _, err := spec.DecodeParameter(encoded, spec.PublicHosts); err != nil {
		t.Errorf("DecodeParameter of exactly %d bytes: %v", spec.MaxDocument, err)
	}
	p.Body += "a"
	_, err = p.Encode(spec.PublicHosts)
	mustBreak(t, err, spec.ErrTooLarge, "callback", "5124", "5120")
	_, err = spec.DecodeParameter(base64.StdEncoding.EncodeToString(p.JSON()), spec.PublicHosts)
	mustBreak(t, err, spec.ErrTooLarge, "callback", "5124", "5120")
}

func TestDecodeParameterRefuses(t *testing.T) {
	t.Parallel()
	b64 := base64.StdEncoding.EncodeToString
	good := `{"callbackUrl":"http://a.example/?a=1>2","callbackBody":"?>?>=${object}"}`
	encoded := b64([]byte(good))
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
		{"URL-safe Base64", urlSafe, spec.ErrNotBase64, "callback", "+ /"},
		{"percent-encoded Base64", strings.ReplaceAll(encoded, "=", "%3D") + "%3D", spec.ErrNotBase64, "callback", "+ /"},
		{"line break inside", encoded[:8] + "\n" + encoded[8:], spec.ErrNotBase64, "callback", "+ /"},
		{"line break behind", encoded + "\r\n", spec.ErrNotBase64, "callback", "+ /"},
		{"space behind", encoded + " ", spec.ErrNotBase64, "callback", "+ /"},
		{"without padding", strings.TrimRight(b64([]byte(good+" ")), "=")[1:], spec.ErrNotBase64, "callback", "padding"},
		{"more behind the padding", b64([]byte("{}")) + "AAAA", spec.ErrNotBase64, "callback", "padding"},
		{"loose bits under the padding", "e31=", spec.ErrNotBase64, "callback", "padding"},
		{"nothing", "", spec.ErrNotJSON, "callback", "end of JSON"},
		{"plain text", b64([]byte("callback")), spec.ErrNotJSON, "callback", "JSON object"},
		{"a string", b64([]byte(`"{}"`)), spec.ErrNotJSON, "callback", "JSON string"},
		{"an array", b64([]byte(`[{}]`)), spec.ErrNotJSON, "callback", "JSON array"},
		{"null", b64([]byte(`null`)), spec.ErrNotJSON, "callback", "JSON null"},
		{"cut short", b64([]byte(good[:len(good)-2])), spec.ErrNotJSON, "callback", "end of JSON"},
		{"something behind", b64([]byte(good + "{}")), spec.ErrNotJSON, "callback", "after top-level value"},
		{"byte order mark", b64([]byte("\ufeff" + good)), spec.ErrNotJSON, "callback", "JSON object"},
		{"not UTF-8", b64([]byte("{\"callbackBody\":\"\xff\"}")), spec.ErrNotJSON, "callback", "UTF-8"},
		{"half a surrogate pair", b64([]byte(`{"callbackBody":"\ud800"}`)), spec.ErrNotJSON, "callback", "surrogate"},
		{"key twice", b64([]byte(`{"callbackUrl":"http://a.example","callbackUrl":"http://b.example","callbackBody":"a"}`)), spec.ErrNotJSON, "callback", "callbackUrl stands twice"},
		{"key twice, once escaped", b64([]byte(`{"callbackUrl":"a","callbackUr\u006c":"b"}`)), spec.ErrNotJSON, "callback", "callbackUrl stands twice"},
		{"key twice in an unknown field", b64([]byte(`{"f":[{"a":1,"a":2}]}`)), spec.ErrNotJSON, "callback", "a stands twice"},
		{"number for the type", b64([]byte(`{"callbackUrl":"http://a.example","callbackBody":"a","callbackBodyType":123}`)), spec.ErrNotJSON, "callbackBodyType", "JSON number"},
		{"number for the version", b64([]byte(`{"callbackUrl":"http://a.example","callbackBody":"a","signatureVersion":123}`)), spec.ErrNotJSON, "signatureVersion", "give a string"},
		{"string for SNI", b64([]byte(`{"callbackUrl":"http://a.example","callbackBody":"a","callbackSNI":"true"}`)), spec.ErrNotJSON, "callbackSNI", "give a boolean"},
		{"array for the URL", b64([]byte(`{"callbackUrl":["http://a.example"],"callbackBody":"a"}`)), spec.ErrNotJSON, "callbackUrl", "JSON array"},
		{"null for the body", b64([]byte(`{"callbackUrl":"http://a.example","callbackBody":null}`)), spec.ErrNotJSON, "callbackBody", "JSON null"},
		{"null for SNI", b64([]byte(`{"callbackUrl":"http://a.example","callbackBody":"a","callbackSNI":null}`)), spec.ErrNotJSON, "callbackSNI", "JSON null"},
		{"array for the headers", b64([]byte(`{"callbackUrl":"http://a.example","callbackBody":"a","additionalHeaders":[]}`)), spec.ErrNotJSON, "additionalHeaders", "object of strings"},
		{"number in the headers", b64([]byte(`{"callbackUrl":"http://a.example","callbackBody":"a","additionalHeaders":{"a":1}}`)), spec.ErrNotJSON, "additionalHeaders", "object of strings"},
		{"null in the headers", b64([]byte(`{"callbackUrl":"http://a.example","callbackBody":"a","additionalHeaders":{"a":null}}`)), spec.ErrNotJSON, "additionalHeaders", "object of strings"},
		{"empty object", b64([]byte(`{}`)), spec.ErrNoURL, "callbackUrl", "give the URL"},
		{"empty URL", b64([]byte(`{"callbackUrl":"","callbackBody":"a"}`)), spec.ErrNoURL, "callbackUrl", "give the URL"},
		{"URL in another case of letters", b64([]byte(`{"CallbackURL":"http://a.example","callbackBody":"a"}`)), spec.ErrNoURL, "callbackUrl", "give the URL"},
		{"empty body", b64([]byte(`{"callbackUrl":"http://a.example","callbackBody":""}`)), spec.ErrEmptyBody, "callbackBody", "give a template"},
		{"no body", b64([]byte(`{"callbackUrl":"http://a.example"}`)), spec.ErrEmptyBody, "callbackBody", "give a template"},
		{"six URLs", b64([]byte(`{"callbackUrl":"a.io;a.io;a.io;a.io;a.io;a.io","callbackBody":"a"}`)), spec.ErrURLCount, "callbackUrl", "has 6 URLs"},
		{"semicolon at the end", b64([]byte(`{"callbackUrl":"http://a.example;","callbackBody":"a"}`)), spec.ErrURL, "callbackUrl", "no host"},
		{"private address", b64([]byte(`{"callbackUrl":"http://10.0.0.1","callbackBody":"a"}`)), spec.ErrPrivateAddress, "callbackUrl", "10.0.0.1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p, err := spec.DecodeParameter(tt.encoded, spec.PublicHosts)
			mustBreak(t, err, tt.rule, tt.field, tt.says)
			if diff := cmp.Diff(spec.Parameter{}, p); diff != "" {
				t.Errorf("a refused parameter is not zero: %s", diff)
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
	const document = `{"callbackUrl":"https://a.example/cb?k=1&l=%E4%B8%AD;http://b.example:8080;c.example;121.43.113.8:23456/index.html;d.example",` +
		`"callbackHost":"upcall.example.com:8443","callbackBody":"{\"bucket\":${bucket},\"note\":\"ünï & <b>\",\"uid\":${x:uid}}",` +
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
		encoded, err := want.Encode(spec.PublicHosts)
		if err != nil {
			t.Fatal(err)
		}
		got, err := spec.DecodeParameter(encoded, spec.PublicHosts)
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
	doc := ` {"callbackType":"text/plain", "callbackUrl":"a.example","callbackBody":"a","callbackSNI":false,"additionalHeaders":{},"z":{"y":[1,null,"\ud83d\ude00"]}}` + "\n"
	got, err := spec.DecodeParameter(base64.StdEncoding.EncodeToString([]byte(doc)), spec.PublicHosts)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(spec.Parameter{URLs: []string{"a.example"}, Body: "a"}, got); diff != "" {
		t.Error(diff)
	}
}
