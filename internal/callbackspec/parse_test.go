package callbackspec_test

import (
	"encoding/json"
	"errors"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	spec "upcall/internal/callbackspec"
)

func everything() spec.Callback {
	return spec.Callback{
		Bucket: "demo", Object: "a/b c+d&e=é\"\\.jpg", ETag: "D8E8FCA2DC0F896FD7CB4CB0031BA249",
		Size: ptr[int64](math.MaxInt64), MimeType: "image/jpeg",
		ImageHeight: ptr[int32](math.MaxInt32), ImageWidth: ptr[int32](1), ImageFormat: "jpg",
		CRC64: ptr[uint64](math.MaxUint64), ContentMD5: "2Oj8otwPiW/Xy0ywAxuiSQ==", VPCID: "vpc-1",
		ClientIP: netip.MustParseAddr("203.0.113.9"), RequestID: "5CF3E7821AB22D0FDB86704D", Operation: "PutObject",
		Token: "k1.abc-_",
	}
}

// valuesOf is what OSS would substitute for c.
func valuesOf(c spec.Callback) spec.Values {
	v := spec.Values{
		"bucket": c.Bucket, "object": c.Object, "etag": c.ETag, "mimeType": c.MimeType, "imageInfo.format": c.ImageFormat,
		"contentMd5": c.ContentMD5, "vpcId": c.VPCID, "reqId": c.RequestID, "operation": c.Operation, spec.TokenVar: c.Token,
	}
	if c.Size != nil {
		v["size"] = strconv.FormatInt(*c.Size, 10)
	}
	if c.ImageHeight != nil {
		v["imageInfo.height"] = strconv.Itoa(int(*c.ImageHeight))
	}
	if c.ImageWidth != nil {
		v["imageInfo.width"] = strconv.Itoa(int(*c.ImageWidth))
	}
	if c.CRC64 != nil {
		v["crc64"] = strconv.FormatUint(*c.CRC64, 10)
	}
	if c.ClientIP.IsValid() {
		v["clientIp"] = c.ClientIP.String()
	}
	return v
}

func diffCallback(want, got spec.Callback) string {
	return cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
		cmp.Transformer("raw", func(raw json.RawMessage) string { return string(raw) }))
}

type rawVars = map[string]json.RawMessage

func raw(s string) json.RawMessage { return json.RawMessage(s) }

func mustFields(t testing.TB, s string) spec.Fields {
	t.Helper()
	fields, err := spec.ParseFields(s)
	if err != nil {
		t.Fatal(err)
	}
	return fields
}

// OSS genuinely signed these bodies between 2015 and 2021. They were published in its
// documentation, in repositories and in aliyun-oss-python-sdk#272.
func TestParseGenuine(t *testing.T) {
	t.Parallel()
	const form = "application/x-www-form-urlencoded"
	tests := []struct {
		name, contentType, body string
		want                    spec.Callback
	}{
		{"docs-2015-query", form, "bucket=yonghu-test", spec.Callback{Bucket: "yonghu-test"}},
		{"docs-2018-capture", form, "filename=.snappython.png&size=6014&mimeType=image%2Fpng&height=221&width=396",
			spec.Callback{Object: ".snappython.png", Size: ptr[int64](6014), MimeType: "image/png", ImageHeight: ptr[int32](221),
				ImageWidth: ptr[int32](396)}},
		{"deeplink-2019-capture", form, "filename=headSculpture%2Fjikang2.jpg&size=108904&mimeType=image%2Fjpeg&height=278&width=200",
			spec.Callback{Object: "headSculpture/jikang2.jpg", Size: ptr[int64](108904), MimeType: "image/jpeg",
				ImageHeight: ptr[int32](278), ImageWidth: ptr[int32](200)}},
		{"py-issue-272", form, "filename=zmaplex%2F20210407_14%3A31%3A41_286180%2F20200130021612_pnfqp.jpg&size=112595",
			spec.Callback{Object: "zmaplex/20210407_14:31:41_286180/20200130021612_pnfqp.jpg", Size: ptr[int64](112595)}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := spec.Parse(tt.contentType, []byte(tt.body),
				mustFields(t, "filename=object,height=imageInfo.height,width=imageInfo.width"))
			if err != nil {
				t.Fatal(err)
			}
			if diff := diffCallback(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestParseAccepts(t *testing.T) {
	t.Parallel()
	const form, js = string(spec.Form), string(spec.JSON)
	tests := []struct {
		name, contentType, body string
		want                    spec.Callback
	}{
		{"nothing", form, "", spec.Callback{}},
		{"nothing but &", form, "&&&", spec.Callback{}},
		{"no content type is OSS's default", "", "bucket=b", spec.Callback{Bucket: "b"}},
		{"content type with a parameter", "application/x-www-form-urlencoded; charset=utf-8", "bucket=b", spec.Callback{Bucket: "b"}},
		{"content type in upper case", "APPLICATION/JSON;charset=UTF-8", `{"bucket":"b"}`, spec.Callback{Bucket: "b"}},
		{"both spellings of a space", form, "object=a+b%20c%2Bd", spec.Callback{Object: "a b c+d"}},
		{"lower-case hex", form, "object=a%2fb", spec.Callback{Object: "a/b"}},
		{"equals sign in a value", form, "contentMd5=ab==", spec.Callback{ContentMD5: "ab=="}},
		{"name without a value", form, "flag&=v&bucket=b", spec.Callback{Bucket: "b", Vars: rawVars{"flag": raw(`""`), "": raw(`"v"`)}}},
		{"encoded name", form, "buck%65t=b", spec.Callback{Bucket: "b"}},
		{"unknown fields", form, "uid=4%262&note=%E4%BD%A0+%22%0A&html=%3Cb%3E", spec.Callback{
			Vars: rawVars{"uid": raw(`"4&2"`), "note": raw(`"你 \"\n"`), "html": raw(`"<b>"`)}}},
		{"object key that looks like a variable", form, "object=%24%7Bx%3Afoo%7D.txt", spec.Callback{Object: "${x:foo}.txt"}},
		{"quoted etag", form, "etag=%22AB%22", spec.Callback{ETag: "AB"}},
		{"IPv6 client", form, "clientIp=2001%3Adb8%3A%3A1", spec.Callback{ClientIP: netip.MustParseAddr("2001:db8::1")}},
		{"mapped client", form, "clientIp=::ffff:203.0.113.9", spec.Callback{ClientIP: netip.MustParseAddr("203.0.113.9")}},
		{"crc64 of 20 digits", form, "crc64=18446744073709551615", spec.Callback{CRC64: ptr[uint64](math.MaxUint64)}},
		{"crc64 beyond the precision of a float", js, `{"crc64":16720571837072852001}`, spec.Callback{CRC64: ptr[uint64](16720571837072852001)}},
		{"crc64 as text", js, `{"crc64":"18446744073709551615"}`, spec.Callback{CRC64: ptr[uint64](math.MaxUint64)}},

		{"line break at the end of the template", form, "object=a%2Fb&size=5\n", spec.Callback{Object: "a/b", Size: ptr[int64](5)}},
		{"line break before the template", form, "\r\nobject=a&size=5", spec.Callback{Object: "a", Size: ptr[int64](5)}},
		{"template over several lines", form, "bucket=b&\r\n  object=a%0A&\r\n\tsize = 5 &\nuid=\n", spec.Callback{
			Bucket: "b", Object: "a\n", Size: ptr[int64](5), Vars: rawVars{"uid": raw(`""`)}}},
		{"byte order mark of the template", form, "\ufeffobject=a%EF%BB%BF", spec.Callback{Object: "a\ufeff"}},
		{"byte order mark before JSON without its type", form, "\ufeff{\"object\":a%2Fb}", spec.Callback{Object: "a/b"}},
		{"nothing but blanks", form, " \n& \t&\r\n", spec.Callback{}},
		{"blanks around constants", form, " note = a b \n&object=+a%20", spec.Callback{Object: " a ", Vars: rawVars{"note": raw(`"a b"`)}}},
		{"no image, form", form, "imageInfo.height=&imageInfo.width=&imageInfo.format=", spec.Callback{}},
		{"no image, form, zero", form, "imageInfo.height=0", spec.Callback{ImageHeight: ptr[int32](0)}},
		{"no image, null", js, `{"imageInfo.height":null,"imageInfo.width":null,"imageInfo.format":null,"vpcId":null}`, spec.Callback{}},
		{"no image, empty text", js, `{"imageInfo.height":"","imageInfo.width":"","imageInfo.format":""}`, spec.Callback{}},
		{"no image, absent", js, `{}`, spec.Callback{}},
		{"image, number and numeric text", js, `{"imageInfo.height":539,"imageInfo.width":"810","size":"7"}`,
			spec.Callback{ImageHeight: ptr[int32](539), ImageWidth: ptr[int32](810), Size: ptr[int64](7)}},
		{"image, zero as text", js, `{"imageInfo.height":"0","imageInfo.width":0}`,
			spec.Callback{ImageHeight: ptr[int32](0), ImageWidth: ptr[int32](0)}},
		{"nested imageInfo", js, `{"imageInfo":{"height":1,"width":"2","format":"png"}}`,
			spec.Callback{ImageHeight: ptr[int32](1), ImageWidth: ptr[int32](2), ImageFormat: "png"}},
		{"nested imageInfo with more", js, `{"imageInfo":{"height":1,"a\"b":[2, {"c":3}],"d":null}}`,
			spec.Callback{ImageHeight: ptr[int32](1), Vars: rawVars{"imageInfo": raw(`{"a\"b":[2, {"c":3}],"d":null}`)}}},
		{"nested imageInfo, empty", js, `{"imageInfo":{}}`, spec.Callback{Vars: rawVars{"imageInfo": raw(`{}`)}}},
		{"number for a text", js, `{"bucket":5,"object":"\u00e9\ud83d\ude00\/"}`, spec.Callback{Bucket: "5", Object: "é😀/"}},

		{"space around JSON", js, "\r\n { \"bucket\" : \"b\" , \"a\" : [ 1 , { } ] } \t",
			spec.Callback{Bucket: "b", Vars: rawVars{"a": raw("[ 1 , { } ]")}}},
		{"JSON values are kept", js, `{"a":null,"b":true,"c":-1.5e3,"d":{"e":"\\u0000 \ud83d\ude00"},"f":"<&\u0041/\\u0000"}`,
			spec.Callback{Vars: rawVars{"a": raw("null"), "b": raw("true"), "c": raw("-1.5e3"),
				"d": raw(`{"e":"\\u0000 \ud83d\ude00"}`), "f": raw(`"<&A/\\u0000"`)}}},
		{"numbers in quotes", js, `{"pic_info":"810,539"}`, spec.Callback{Vars: rawVars{"pic_info": raw(`"810,539"`)}}},
		{"the greatest depth", js, `{"a":` + strings.Repeat("[", 63) + strings.Repeat("]", 63) + `}`,
			spec.Callback{Vars: rawVars{"a": raw(strings.Repeat("[", 63) + strings.Repeat("]", 63))}}},

		{"pairs of JSON", js, `object="local/a&b=\"c\\.png"&size=5385&mimeType="application/octet-stream"&height=256`, spec.Callback{
			Object: `local/a&b="c\.png`, Size: ptr[int64](5385), MimeType: "application/octet-stream",
			Vars: rawVars{"height": raw("256")}}},
		{"pairs of JSON with constants", js, `type=avatar&&flag&empty=&wh=810,539&vpcId=null&o={"a":"&="}&imageInfo={"width":3}&`, spec.Callback{
			ImageWidth: ptr[int32](3), Vars: rawVars{"type": raw(`"avatar"`), "flag": raw(`""`), "empty": raw(`""`),
				"wh": raw(`"810,539"`), "o": raw(`{"a":"&="}`)}}},
		{"pairs of JSON over several lines", js, "object=\" a \" &\r\n\tsize = 5385 \n&note= x y \n", spec.Callback{
			Object: " a ", Size: ptr[int64](5385), Vars: rawVars{"note": raw(`"x y"`)}}},
		{"JSON of form type, bare", form, `{"bucket":demo,"object":a2%2F1%2C%22%7D.txt,"mimeType":text%2Fplain,"size":5,` +
			`"vpcId":,"uid":4%262}`, spec.Callback{
			Bucket: "demo", Object: `a2/1,"}.txt`, MimeType: "text/plain", Size: ptr[int64](5), Vars: rawVars{"uid": raw(`"4&2"`)}}},
		{"JSON of form type, bare, over several lines", form,
			"\n{ \"bucket\" : demo ,\r\n\t\"imageInfo\" : { \"height\" : 1 , \"width\" : , \"x\" : a+b } }\n",
			spec.Callback{Bucket: "demo", ImageHeight: ptr[int32](1), Vars: rawVars{"imageInfo": raw(`{"x":"a b"}`)}}},
		{"JSON of form type, bare keys that look like JSON", form,
			`{"object":null,"etag":12,"bucket":true,"uid":1e999999,"v":false}`, spec.Callback{
				Object: "null", ETag: "12", Bucket: "true", Vars: rawVars{"uid": raw(`"1e999999"`), "v": raw(`"false"`)}}},
		{"JSON of form type, bare in arrays and objects", form,
			`{"a":[x%2Cy,,{"b":},[]],"c":{"%61":"%00","d":"%2F"},"e":http://h/a%2Fb}`, spec.Callback{
				Vars: rawVars{"a": raw(`["x,y","",{"b":""},[]]`), "c": raw(`{"%61":"%00","d":"/"}`), "e": raw(`"http://h/a/b"`)}}},
		{"JSON whose type was lost", "", `{"object":"a","vpcId":null,"imageInfo.height":null,"uid":4}`, spec.Callback{
			Object: "a", Vars: rawVars{"uid": raw("4")}}},
		{"JSON of form type", form, `{"object":"a%2Fb+c","size":12,"uid":"4%262"}`, spec.Callback{
			Object: "a/b c", Size: ptr[int64](12), Vars: rawVars{"uid": raw(`"4&2"`)}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := spec.Parse(tt.contentType, []byte(tt.body), nil)
			if err != nil {
				t.Fatal(err)
			}
			if diff := diffCallback(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestParseCopiesTheBody(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ contentType, body string }{
		{string(spec.Form), "bucket=demo&uid=42"},
		{string(spec.JSON), `{"bucket":"demo","uid":42,"o":{"a":1}}`},
		{string(spec.JSON), `bucket="demo"&uid=42`},
	} {
		body := []byte(tt.body)
		got, err := spec.Parse(tt.contentType, body, nil)
		if err != nil {
			t.Fatal(err)
		}
		want, _ := spec.Parse(tt.contentType, []byte(tt.body), nil)
		for i := range body {
			body[i] = '#'
		}
		if diff := diffCallback(want, got); diff != "" {
			t.Errorf("%s: the callback changes with the buffer: %s", tt.body, diff)
		}
	}
}

func TestParseFields(t *testing.T) {
	t.Parallel()
	fields := mustFields(t, " filename=object, height = ${imageInfo.height} ,object=etag,t=upcall_token")
	got, err := spec.Parse("", []byte("filename=f&height=3&object=E&t=tok&imageInfo.height=x&etag=y&upcall_token=z&size=1"), fields)
	if err != nil {
		t.Fatal(err)
	}
	want := spec.Callback{Object: "f", ETag: "E", ImageHeight: ptr[int32](3), Size: ptr[int64](1), Token: "tok",
		Vars: rawVars{"imageInfo.height": raw(`"x"`), "etag": raw(`"y"`), "upcall_token": raw(`"z"`)}}
	if diff := diffCallback(want, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(mustFields(t, ""), mustFields(t, " ")); diff != "" {
		t.Error(diff)
	}
	for _, tt := range []struct{ fields, says string }{
		{"filename", "not name=variable"},
		{"=object", "not name=variable"},
		{"filename=", "not name=variable"},
		{"filename=object,", "not name=variable"},
		{"filename=key", "names no system variable"},
		{"filename=Object", "names no system variable"},
		{"filename=x:upcall_token", "names no system variable"},
		{"a=object,a=object", "a=object is given twice"},
		{"a=object,size=object", "size holds both size and object"},
		{"a=object,a=etag", "a holds both"},
		{"size=object", "size holds both size and object"},
	} {
		fields, err := spec.ParseFields(tt.fields)
		if err == nil || fields != nil || !strings.Contains(err.Error(), tt.says) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q gave %v, %v", tt.fields, fields, err)
		}
	}
}

// TestParseSeveralNames: one receiver takes the templates of several issuers.
func TestParseSeveralNames(t *testing.T) {
	t.Parallel()
	fields := mustFields(t, "object=object,filename=object,key=object,bytes=size,size=size,ip=clientIp,from=clientIp,"+
		"t=upcall_token,token=upcall_token")
	addr := netip.MustParseAddr("203.0.113.9")
	for _, tt := range []struct {
		body, says string // says is "" if it is accepted
		want       spec.Callback
	}{
		{"object=a&size=5", "", spec.Callback{Object: "a", Size: ptr[int64](5)}},
		{"filename=a&bytes=5", "", spec.Callback{Object: "a", Size: ptr[int64](5)}},
		{"key=a&object=a&filename=a&bytes=5&size=05", "", spec.Callback{Object: "a", Size: ptr[int64](5)}},
		{"key=&object=a&filename=", "", spec.Callback{Object: "a"}},
		{"ip=203.0.113.9&from=%3A%3Affff%3A203.0.113.9&t=x&token=x", "", spec.Callback{ClientIP: addr, Token: "x"}},
		{`{"key":"a","object":null,"bytes":5,"size":"5"}`, "", spec.Callback{Object: "a", Size: ptr[int64](5)}},
		{"object=a&key=b", "fields object and key hold different values of object", spec.Callback{}},
		{"object=&key=a&filename=b", "fields object and filename hold different values of object", spec.Callback{}},
		{"bytes=5&size=6", "different values of size", spec.Callback{}},
		{"t=x&token=y", "different values of upcall_token", spec.Callback{}},
		{"ip=203.0.113.9&from=203.0.113.10", "different values of clientIp", spec.Callback{}},
		{"object=a&object=a", "field object appears twice", spec.Callback{}},
		{"object=a&key=a&key=a", "field key appears twice", spec.Callback{}},
		{"size=5&bytes=x", "field bytes does not hold a valid size", spec.Callback{}},
	} {
		contentType := string(spec.Form)
		if strings.HasPrefix(tt.body, "{") {
			contentType = string(spec.JSON)
		}
		got, err := spec.Parse(contentType, []byte(tt.body), fields)
		switch {
		case tt.says != "" && (!errors.Is(err, spec.ErrMalformed) || !strings.Contains(err.Error(), tt.says)), tt.says == "" && err != nil:
			t.Errorf("%s: %v", tt.body, err)
		case diffCallback(tt.want, got) != "":
			t.Errorf("%s: %s", tt.body, diffCallback(tt.want, got))
		}
	}
}
