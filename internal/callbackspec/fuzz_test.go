package callbackspec_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	spec "upcall/internal/callbackspec"
	"upcall/internal/fault"
)

// FuzzParse: every accepted callback can be stored, and every refusal has one of the two
// reasons.
func FuzzParse(f *testing.F) {
	for _, body := range []string{
		"bucket=demo&object=a%2Fb.jpg&size=5&imageInfo.height=&crc64=18446744073709551615&clientIp=203.0.113.9&uid=1",
		`{"bucket":"demo","object":"a/b \ud83d\ude00","size":5,"imageInfo":{"height":1,"x":[{}]},"vpcId":null,"uid":"1"}`,
		`filename="a&b"&size=5&mimeType="x"&wh=1,2&o={"a":"&"}`,
		`{"object":"a%2Fb","n":1e10}`, "{", "&", "=", "%", `{"a":"\u0000"}`, `"=`, `a="\`, `a={"b":[`,
		strings.Repeat(`{"a":`, 80) + "1" + strings.Repeat("}", 80),
	} {
		f.Add(string(spec.Form), []byte(body), false)
		f.Add(string(spec.JSON), []byte(body), true)
	}
	f.Add("text/plain; charset=\x00", []byte("x"), false)
	foreign := mustFields(f, "filename=object,o.a=size,o.a.b=etag,t=upcall_token")
	f.Fuzz(func(t *testing.T, contentType string, body []byte, useForeign bool) {
		var fields spec.Fields
		if useForeign {
			fields = foreign
		}
		c, err := spec.Parse(contentType, body, fields)
		if err != nil {
			if errors.Is(err, spec.ErrMalformed) == errors.Is(err, spec.ErrUnsupportedType) {
				t.Fatalf("error %v is not one of the two", err)
			}
			if strings.ContainsAny(err.Error(), "\r\n\x00\x1b") || !utf8.ValidString(err.Error()) {
				t.Fatalf("error %q is not one clean line", err)
			}
			return
		}
		for _, s := range []string{c.Bucket, c.Object, c.ETag, c.MimeType, c.ImageFormat, c.ContentMD5, c.VPCID, c.RequestID, c.Operation,
			c.Token} {
			mustStore(t, s)
		}
		if c.ClientIP.Zone() != "" || c.Size != nil && *c.Size < 0 || c.ImageHeight != nil && *c.ImageHeight < 0 {
			t.Fatalf("%+v does not fit the columns", c)
		}
		for name, raw := range c.Vars {
			mustStore(t, name)
			var value any
			if err := json.Unmarshal(raw, &value); err != nil {
				t.Fatalf("%s is %q: %v", name, raw, err)
			}
			if !utf8.Valid(raw) {
				t.Fatalf("%s is %q, which is not UTF-8", name, raw)
			}
			mustStoreAll(t, value, 0)
		}
	})
}

func mustStore(t *testing.T, s string) {
	t.Helper()
	if !utf8.ValidString(s) || strings.ContainsRune(s, 0) {
		t.Fatalf("%q cannot be stored", s)
	}
}

func mustStoreAll(t *testing.T, value any, depth int) {
	t.Helper()
	if depth > 64 {
		t.Fatal("too deep")
	}
	switch v := value.(type) {
	case string:
		mustStore(t, v)
	case []any:
		for _, inner := range v {
			mustStoreAll(t, inner, depth+1)
		}
	case map[string]any:
		for name, inner := range v {
			mustStore(t, name)
			mustStoreAll(t, inner, depth+1)
		}
	}
}

// FuzzDecodeParameter: a decoded document encodes to one with the same meaning.
func FuzzDecodeParameter(f *testing.F) {
	for _, doc := range []string{
		`{"callbackUrl":"http://a.example;b.example:80/?a=1","callbackBody":"a=${bucket}"}`,
		`{"callbackUrl":"a.example","callbackHost":"h:1","callbackBody":"{\"a\":${x:a}}",` +
			`"callbackBodyType":"application/json","callbackSNI":true,"signatureVersion":"1.0","additionalHeaders":{"a":"b"}}`,
		`{"callbackUrl":"a.example/\u00e9","callbackBody":"\ud83d\ude00","z":[1e9,{"a":{}}]}`,
	} {
		f.Add(base64.StdEncoding.EncodeToString([]byte(doc)))
	}
	f.Add("e30=")
	f.Fuzz(func(t *testing.T, encoded string) {
		for _, hosts := range []spec.Hosts{spec.PublicHosts, spec.AnyHost} {
			// The mutator rarely writes valid Base64, so the input is also used as the document itself.
			for _, encoded := range []string{encoded, base64.StdEncoding.EncodeToString([]byte(encoded))} {
				p, err := spec.DecodeParameter(encoded, hosts)
				if err != nil {
					mustBeFaults(t, err)
					continue
				}
				again, err := p.Document(hosts)
				if err != nil {
					t.Fatalf("%+v decodes but does not encode: %v", p, err)
				}
				q, err := spec.DecodeParameter(again.Base64(), hosts)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(p, q); diff != "" {
					t.Fatal(diff)
				}
			}
		}
	})
}

// FuzzDecodeVars: as FuzzDecodeParameter.
func FuzzDecodeVars(f *testing.F) {
	for _, doc := range []string{`{}`, `{"x:a":"1","x:b":"\ud83d\ude00&<>\u2028"}`, `{"x:a":null}`, `{"x:A":"1"}`} {
		f.Add(doc)
	}
	f.Add("e30=")
	f.Fuzz(func(t *testing.T, encoded string) {
		for _, encoded := range []string{encoded, base64.StdEncoding.EncodeToString([]byte(encoded))} {
			v, err := spec.DecodeVars(encoded)
			if err != nil {
				mustBeFaults(t, err)
				continue
			}
			again, err := v.Document()
			if err != nil {
				t.Fatalf("%v decodes but does not encode: %v", v, err)
			}
			w, err := spec.DecodeVars(again.Base64())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(v, w); diff != "" {
				t.Fatal(diff)
			}
		}
	})
}

func mustBeFaults(t *testing.T, err error) {
	t.Helper()
	for _, e := range fault.Of(err) {
		if e.Field == "" || e.Rule == nil || e.Problem == "" || e.Fix == "" {
			t.Fatalf("%#v is not a complete fault", e)
		}
		if strings.ContainsAny(e.Error(), "\r\n\x00\x1b") || !utf8.ValidString(e.Error()) {
			t.Fatalf("error %q is not one clean line", e)
		}
	}
}

// FuzzExpandParse: Parse recovers the values from what OSS would send for the default
// template of either type, for one over several lines, and for JSON whose type was forgotten.
// So no value becomes another field, whatever the uploader chooses.
func FuzzExpandParse(f *testing.F) {
	f.Add("demo", "a/b c&d.jpg", "AB", "image/png", "tok", "42", int64(5), int32(3), uint64(1<<63), []byte{1, 2, 3, 4}, true)
	f.Add("", "a${x}\"\\\u2028😀", "", "", "", "", int64(0), int32(0), uint64(0), []byte{}, false)
	f.Fuzz(func(t *testing.T, bucket, object, etag, mimeType, token, uid string, size int64, height int32, crc uint64, ip []byte,
		image bool) {
		for _, s := range []string{bucket, object, etag, mimeType, token, uid} {
			if !utf8.ValidString(s) || strings.ContainsRune(s, 0) || strings.HasPrefix(s, "${") {
				return // OSS cannot send it
			}
		}
		want := spec.Callback{
			Bucket: bucket, Object: object, ETag: strings.Trim(etag, `"`), MimeType: mimeType, Token: token, CRC64: &crc,
			RequestID: object, VPCID: bucket, Operation: mimeType, ContentMD5: etag, ImageFormat: uid,
		}
		if size >= 0 {
			want.Size = &size
		}
		if image && height >= 0 {
			want.ImageHeight, want.ImageWidth = &height, &height
		}
		if addr, ok := netip.AddrFromSlice(ip); ok {
			want.ClientIP = addr.Unmap()
		}
		values := valuesOf(want)
		values["x:uid"] = uid
		text, err := spec.DefaultBody(spec.Form, []string{"uid"}, true)
		if err != nil {
			t.Fatal(err)
		}
		braces, err := spec.DefaultBody(spec.JSON, []string{"uid"}, true)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.NewReplacer("=", "\t= ", "&", " &\r\n").Replace(text) + "\n"
		for _, tt := range []struct {
			template string
			bodyType spec.BodyType
		}{{text, spec.Form}, {lines, spec.Form}, {braces, spec.JSON}, {braces, spec.Form}} {
			bodyType := tt.bodyType
			body, err := spec.Expand(tt.template, bodyType, values)
			if err != nil {
				t.Fatal(err)
			}
			got, err := spec.Parse(string(bodyType), []byte(body), nil)
			if err != nil {
				t.Fatalf("%q: %v", body, err)
			}
			var gotUID string
			if err := json.Unmarshal(got.Vars["uid"], &gotUID); err != nil || gotUID != uid || len(got.Vars) != 1 {
				t.Fatalf("variables %s, want uid %q (%v)", got.Vars, uid, err)
			}
			got.Vars = nil
			if diff := diffCallback(want, got); diff != "" {
				t.Fatalf("%q: %s", body, diff)
			}
		}
	})
}
