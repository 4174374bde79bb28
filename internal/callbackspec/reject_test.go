package callbackspec_test

import (
	"errors"
	"strings"
	"testing"

	spec "upcall/internal/callbackspec"
)

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	const form, js = string(spec.Form), string(spec.JSON)
	tests := []struct {
		name, contentType, body string
		says                    string
	}{
		{"broken escape in a value", form, "object=%zz", "field object is not percent-encoded"},
		{"cut escape in a value", form, "object=a%2", "field object is not percent-encoded"},
		{"NUL in a value", form, "object=a%00b", "object is not UTF-8 text without NUL"},
		{"raw NUL", form, "object=a\x00b", "without NUL"},
		{"NUL in a name", form, "a%00=b", "a? is not UTF-8 text without NUL"},
		{"not UTF-8", form, "object=%ff", "object is not UTF-8"},
		{"raw bytes that are not UTF-8", form, "object=\xc3(", "object is not UTF-8"},
		{"surrogate in UTF-8", form, "uid=%ED%A0%80", "uid is not UTF-8"},
		{"name is not UTF-8", form, "%ff=a", "is not UTF-8"},
		{"system field twice", form, "bucket=a&bucket=a", "field bucket appears twice"},
		{"system field twice, first empty", form, "bucket=&bucket=a", "field bucket appears twice"},
		{"system field twice, once encoded", form, "bucket=a&buck%65t=b", "field bucket appears twice"},
		{"token twice", form, "upcall_token=a&upcall_token=b", "field upcall_token appears twice"},
		{"custom field twice", form, "uid=1&uid=2", "field uid appears twice"},
		{"percent-encoded template", form, "bucket=%24%7Bbucket%7D", "template was percent-encoded"},
		{"percent-encoded template, token", form, "upcall_token=%24%7Bx:upcall_token%7D", "template was percent-encoded"},
		{"percent-encoded template, blanks around it", form, "bucket = %24%7Bbucket%7D \r\n", "template was percent-encoded"},
		{"percent-encoded template, number", form, "size=%24%7Bsize%7D", "template was percent-encoded"},
		{"size with a sign", form, "size=-1", "field size does not hold a valid size"},
		{"size with a plus", form, "size=%2B1", "valid size"},
		{"size in hex", form, "size=0x10", "valid size"},
		{"encoded blanks", form, "size=1%0A", "valid size"},
		{"blanks inside", form, "size=1 2", "valid size"},
		{"size with a space", form, "size=+1", "valid size"},
		{"size with a fraction", form, "size=1.0", "valid size"},
		{"size in other digits", form, "size=%D9%A1", "valid size"},
		{"size of 2^63", form, "size=9223372036854775808", "valid size"},
		{"height of 2^31", form, "imageInfo.height=2147483648", "valid imageInfo.height"},
		{"crc64 of 2^64", form, "crc64=18446744073709551616", "valid crc64"},
		{"crc64 of 21 digits", form, "crc64=111111111111111111111", "valid crc64"},
		{"address", form, "clientIp=1.2.3", "valid clientIp"},
		{"address with a port", form, "clientIp=1.2.3.4:5", "valid clientIp"},
		{"address with a zone", form, "clientIp=fe80::1%25eth0", "valid clientIp"},

		{"empty body", js, "", "neither a JSON object"},
		{"text", js, "hello", "neither a JSON object"},
		{"array", js, `["bucket"]`, "neither a JSON object"},
		{"string", js, `"bucket"`, "neither a JSON object"},
		{"form-encoded list of names", js, `&&`, "neither a JSON object"},
		{"cut after the name", js, `{"bucket"`, "unexpected end of JSON"},
		{"cut inside a value", js, `{"bucket":"b`, "unexpected end of JSON"},
		{"cut before the end", js, `{"bucket":"b"`, "unexpected end of JSON"},
		{"extra comma", js, `{"bucket":"b",}`, "not one JSON object"},
		{"empty value", js, `{"vpcId":,"bucket":"b"}`, "not one JSON object"},
		{"quotes in the template", js, `{"bucket":""demo""}`, "not one JSON object"},
		{"single quotes", js, `{'bucket':'b'}`, "not one JSON object"},
		{"line break in text", js, "{\"bucket\":\"a\nb\"}", "not one JSON object"},
		{"bad escape", js, `{"bucket":"\x41"}`, "not one JSON object"},
		{"garbage after the object", js, `{"bucket":"b"}x`, "after top-level value"},
		{"second object after it", js, `{"bucket":"b"}{"bucket":"c"}`, "after top-level value"},
		{"NUL after the object", js, "{\"bucket\":\"b\"}\x00", "after top-level value"},
		{"pairs after the object", js, `{"bucket":"b"}&size=1`, "after top-level value"},
		{"byte order mark", js, "\ufeff{\"bucket\":\"b\"}", "neither a JSON object"},
		{"byte order mark and an equals sign", js, "\ufeff{\"contentMd5\":\"a==\"}", "neither a JSON value nor bare text"},
		{"UTF-16", js, "{\x00\"\x00a\x00\"\x00:\x001\x00}\x00", "not one JSON object"},
		{"not UTF-8", js, "{\"bucket\":\"\xff\"}", "not UTF-8"},
		{"name is not UTF-8", js, "{\"\xff\":1}", "not UTF-8"},
		{"escaped NUL", js, `{"bucket":"a\u0000"}`, "NUL"},
		{"escaped NUL in a name", js, `{"a\u0000":1}`, "NUL"},
		{"escaped NUL in a nested value", js, `{"a":{"b":["\u0000"]}}`, "NUL"},
		{"escaped NUL after a backslash", js, `{"a":"\\\u0000"}`, "NUL"},
		{"high half of a pair", js, `{"object":"\ud800"}`, "surrogate"},
		{"low half of a pair", js, `{"object":"\uDC00"}`, "surrogate"},
		{"halves in the wrong order", js, `{"a":{"b":"\ude00\ud83d"}}`, "surrogate"},
		{"half and another escape", js, `{"a":"\ud83d\n"}`, "surrogate"},
		{"half in a name", js, `{"a":{"\ud83d":1}}`, "surrogate"},
		{"system field twice in JSON", js, `{"bucket":"a","bucket":"b"}`, "field bucket appears twice"},
		{"system field twice, once null", js, `{"bucket":null,"bucket":"b"}`, "field bucket appears twice"},
		{"system field twice, once escaped", js, `{"bucket":"a","b\u0075cket":"b"}`, "field bucket appears twice"},
		{"system field twice, once nested", js, `{"imageInfo.height":1,"imageInfo":{"height":2}}`, "field imageInfo.height appears twice"},
		{"custom field twice in JSON", js, `{"uid":1,"uid":2}`, "field uid appears twice"},
		{"deep field twice", js, `{"a":[{"b":{"c":1,"c":2}}]}`, "field c appears twice"},
		{"object twice", js, `{"imageInfo":{"height":1},"imageInfo":{"width":2}}`, "field imageInfo appears twice"},
		{"array for a text", js, `{"bucket":["b"]}`, "field bucket holds a JSON array"},
		{"object for a text", js, `{"bucket":{"name":"b"}}`, "field bucket holds a JSON object"},
		{"boolean for a number", js, `{"size":true}`, "field size holds a JSON boolean"},
		{"object for a nested number", js, `{"imageInfo":{"height":{}}}`, "imageInfo.height holds a JSON object"},
		{"fraction", js, `{"size":1.5}`, "valid size"},
		{"exponent", js, `{"size":1e3}`, "valid size"},
		{"negative", js, `{"size":-1}`, "valid size"},
		{"huge exponent", js, `{"a":1e400000}`, "a number that is out of range"},
		{"tiny exponent", js, `{"a":[1e-20000]}`, "a number that is out of range"},
		{"exponent beyond int", js, `{"a":1E+99999999999999999999}`, "a number that is out of range"},
		{"huge number", js, `{"a":` + strings.Repeat("9", 140_000) + `}`, "a number that is out of range"},
		{"long fraction", js, `{"a":0.` + strings.Repeat("0", 20_000) + `1}`, "a number that is out of range"},
		{"one level too deep", js, `{"a":` + strings.Repeat("[", 64) + strings.Repeat("]", 64) + `}`, "too deep"},
		{"objects too deep", js, strings.Repeat(`{"a":`, 65) + "1" + strings.Repeat("}", 65), "too deep"},
		{"a million deep", js, `{"a":` + strings.Repeat("[", 1_000_000), "not one JSON object"},
		{"a million deep and closed", js, `{"a":` + strings.Repeat("[", 1_000_000) + strings.Repeat("]", 1_000_000) + `}`, "not one JSON object"},
		{"percent-encoded template in JSON", js, `{"bucket":"${bucket}"}`, "template was percent-encoded"},

		{"pairs: text of OSS inside quotes", js, `filename=""a/b""&size=1`, "field filename is neither"},
		{"pairs: something before the text", js, `path=dir/"a&size=7"&x=1`, "field path is neither"},
		{"pairs: unclosed text", js, `path="a&size=7`, "field path is neither"},
		{"pairs: quotes in a name", js, `"a&size=7"=1`, "is neither"},
		{"pairs: NUL", js, `path="\u0000"`, "NUL"},
		{"pairs: raw NUL", js, "path=\x00", "NUL"},
		{"pairs: half of a pair", js, `o={"a":"\ud800"}`, "surrogate"},
		{"pairs: system field twice", js, `size=1&size=2`, "field size appears twice"},
		{"pairs: custom field twice", js, `a&a=1`, "field a appears twice"},
		{"pairs: too deep", js, `a=` + strings.Repeat("[", 65) + strings.Repeat("]", 65), "too deep"},
		{"pairs: not UTF-8", js, "a=\"\xff\"", "neither"},

		{"JSON of form type: broken escape", form, `{"object":"%zz"}`, "object is not percent-encoded"},
		{"JSON of form type: NUL", form, `{"object":"%00"}`, "without NUL"},
		{"JSON of form type: bare text without an end", form, `{"object":a%2Fb`, "unexpected end of JSON"},
		{"JSON of form type: bare text with quotes", form, `{"object":a"b}`, "not one JSON object"},
		{"JSON of form type: further fields in bare text", form, `{"object":a","size":7,"x":"b}`, "not one JSON object"},
		{"JSON of form type: bare text and an object", form, `{"object":a{"size":7}}`, "not one JSON object"},
		{"JSON of form type: bare text after text", form, `{"object":"a"b}`, "not one JSON object"},
		{"JSON of form type: escaped text", form, `{"object":a\u0022}`, "not one JSON object"},
		{"JSON of form type: bare name", form, `{object:a}`, "not one JSON object"},
		{"JSON of form type: no number", form, `{"size":null}`, "valid size"},
		{"JSON of form type: field twice", form, `{"object":a,"object":b}`, "field object appears twice"},
		{"JSON of form type: bare text that is not UTF-8", form, "{\"object\":\xff}", "not UTF-8"},
		{"JSON of form type: cut", form, `{`, "unexpected end of JSON"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c, err := spec.Parse(tt.contentType, []byte(tt.body), nil)
			if !errors.Is(err, spec.ErrMalformed) || errors.Is(err, spec.ErrUnsupportedType) {
				t.Fatalf("gave %+v, %v", c, err)
			}
			if !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%q does not say %q", err, tt.says)
			}
			if strings.ContainsAny(err.Error(), "\r\n\x00") || len(err.Error()) > 300 {
				t.Errorf("%q is not one short line", err)
			}
			if diff := diffCallback(spec.Callback{}, c); diff != "" {
				t.Errorf("a refused callback is not the zero value: %s", diff)
			}
		})
	}
}

func TestParseRefusesOtherTypes(t *testing.T) {
	t.Parallel()
	for _, contentType := range []string{
		"text/plain", "text/json", "application/xml", "application/json-patch+json", "multipart/form-data; boundary=x",
		"application/jsonx", "application/json/x", "application/json; charset", "json", ";", " ",
		"application/x-www-form-urlencoded, application/json",
	} {
		c, err := spec.Parse(contentType, []byte("bucket=b"), nil)
		if !errors.Is(err, spec.ErrUnsupportedType) || errors.Is(err, spec.ErrMalformed) {
			t.Errorf("%q gave %+v, %v", contentType, c, err)
		}
	}
}

// Otherwise a sender could write lines into the error log.
func TestParseErrorShowsNoValues(t *testing.T) {
	t.Parallel()
	for _, body := range []string{"size=s3cret", "clientIp=s3cret", "uid=s3cret%ff", "object=s3cret%zz"} {
		if _, err := spec.Parse("", []byte(body), nil); !errors.Is(err, spec.ErrMalformed) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", body, err)
		}
	}
	_, err := spec.Parse("", []byte("a%0Alevel%3DERROR%1B"+strings.Repeat("b", 1000)+"=%ff"), nil)
	if !errors.Is(err, spec.ErrMalformed) || strings.ContainsAny(err.Error(), "\n\x1b") || len(err.Error()) > 200 {
		t.Errorf("%q", err)
	}
}
