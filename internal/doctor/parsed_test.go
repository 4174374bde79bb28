package doctor

import (
	"encoding/base64"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"upcall/internal/admission"
)

// Bodies of templates as they are in public code, filled in.
const (
	sampleForm  = "filename=a%2Fb%20c%2B.jpg&size=5120&mimeType=image%2Fjpeg&height=&width=" // OSS's own samples
	imageForm   = "bucket=demo&object=a%2Fb.jpg&etag=ABC&size=12&mimeType=image%2Fjpeg&imageInfo.height=34&imageInfo.width=5&imageInfo.format=jpg&my_var=x%3Ay"
	emptiesForm = "bucket=demo&object=i%2Fcat.jpg&etag=ABC&size=5&mimeType=text%2Fplain&imageInfo.height=&imageInfo.width=&imageInfo.format=&uid=42"
	sampleJSON  = `{"bucket":"demo","object":"a/b 文.jpg","etag":"ABC","size":5120,"mimeType":"image/jpeg","crc64":17344829344829344567,"uid":"42"}`
	nullJSON    = `{"object":"a.txt","size":5,"mimeType":"text/plain","imageInfo.height":null,"imageInfo.width":null,"uid":"42"}`
	percentJSON = `{"bucket":"demo","object":"h%2F3.jpg","size":5}`
)

// TestRewritten has what frameworks and gateways make of a body.
func TestRewritten(t *testing.T) {
	t.Parallel()
	encoded := base64.StdEncoding.EncodeToString
	for _, tt := range []struct {
		name, sent, got string
		want            []Kind
	}{
		// Single keys.
		{"Express: JSON as the name of a field", percentJSON, `{"{\"bucket\":\"demo\",\"object\":\"h%2F3.jpg\",\"size\":5}": ""}`,
			kinds{BodyFormAsJSON}},
		{"the same, decoded", percentJSON, `{"{\"bucket\":\"demo\",\"object\":\"h/3.jpg\",\"size\":5}":""}`, kinds{BodyFormAsJSON}},
		{"the same, with an equals sign in it", `{"object":"a=b","uid":"4"}`, `{"{\"object\":\"a":"b\",\"uid\":\"4\"}"}`, kinds{BodyFormAsJSON}},
		{"the same, with an ampersand in it", `{"object":"a&b=c","uid":"4"}`, `{"{\"object\":\"a":"","b":"c\",\"uid\":\"4\"}"}`, kinds{BodyFormAsJSON}},
		{"the same, with a plus in it", `{"mimeType":"image/svg+xml"}`, `{"{\"mimeType\":\"image/svg xml\"}":""}`, kinds{BodyFormAsJSON}},
		{"Java: lists", `{"object":"a.jpg"}`, `{"{\"object\":\"a.jpg\"}":[""]}`, kinds{BodyFormAsJSON}},
		{"PHP: dots", `{"object":"a_b.jpg","uid":"4"}`, `{"{\"object\":\"a_b_jpg\",\"uid\":\"4\"}":""}`, kinds{BodyFormAsJSON}},
		{"written as a form again", percentJSON, "%7B%22bucket%22%3A%22demo%22%2C%22object%22%3A%22h%252F3.jpg%22%2C%22size%22%3A5%7D=",
			kinds{BodyFormAsJSON}},
		{"Flask: printed", `{"object":"a.jpg"}`, `{'{"object":"a.jpg"}': ''}`, kinds{BodyFormAsJSON}},

		// Names.
		{"PHP: json_encode($_POST)", imageForm, `{"bucket":"demo","object":"a\/b.jpg","etag":"ABC","size":"12","mimeType":"image\/jpeg",` +
			`"imageInfo_height":"34","imageInfo_width":"5","imageInfo_format":"jpg","my_var":"x:y"}`, kinds{BodyFormAsJSON, BodyNames}},
		{"PHP: http_build_query", imageForm, strings.ReplaceAll(imageForm, "imageInfo.", "imageInfo_"), kinds{BodyNames}},
		{"PHP: names of the template", "object=a&my.var=1&my_uid=2&other.one=3", "object=a&my_var=1&my_uid=2&other_one=3", kinds{BodyNames}},
		{"nested by dots", imageForm, `{"bucket":"demo","object":"a/b.jpg","etag":"ABC","size":"12","mimeType":"image/jpeg",` +
			`"imageInfo":{"height":"34","width":"5","format":"jpg"},"my_var":"x:y"}`, kinds{BodyFormAsJSON, BodyNames}},
		{"nested, as a form", imageForm, strings.NewReplacer(".height", "%5Bheight%5D", ".width", "%5Bwidth%5D", ".format", "%5Bformat%5D").
			Replace(imageForm), kinds{BodyNames}},
		{"snake case", imageForm, strings.NewReplacer("mimeType", "mime_type", "imageInfo.", "image_info_").Replace(imageForm), kinds{BodyNames}},

		// Empty values.
		{"Laravel: empty is null", emptiesForm, `{"bucket":"demo","object":"i\/cat.jpg","etag":"ABC","size":"5","mimeType":"text\/plain",` +
			`"imageInfo.height":null,"imageInfo.width":null,"imageInfo.format":null,"uid":"42"}`, kinds{BodyFormAsJSON}},
		{"Laravel and PHP's names", emptiesForm, `{"bucket":"demo","object":"i\/cat.jpg","etag":"ABC","size":"5","mimeType":"text\/plain",` +
			`"imageInfo_height":null,"imageInfo_width":null,"imageInfo_format":null,"uid":"42"}`, kinds{BodyFormAsJSON, BodyNames}},
		{"http_build_query drops null", emptiesForm, "bucket=demo&object=i%2Fcat.jpg&etag=ABC&size=5&mimeType=text%2Fplain&uid=42", kinds{BodyEmpties}},
		{"dropped from OSS's sample", sampleForm, "filename=a%2Fb+c%2B.jpg&size=5120&mimeType=image%2Fjpeg", kinds{BodyEmpties}},
		{"dropped, as JSON", sampleForm, `{"filename":"a/b c+.jpg","size":"5120","mimeType":"image/jpeg"}`, kinds{BodyFormAsJSON, BodyEmpties}},
		{"dropped, one in the middle", "bucket=demo&etag=&size=5&x=1", "bucket=demo&size=5&x=1", kinds{BodyEmpties}},
		{"Jackson drops null", nullJSON, `{"object":"a.txt","size":5,"mimeType":"text/plain","uid":"42"}`, kinds{BodyEmpties}},
		{"null is empty", nullJSON, `{"object":"a.txt","size":5,"mimeType":"text/plain","imageInfo.height":"","imageInfo.width":"","uid":"42"}`,
			kinds{BodyEmpties}},
		{"null is 0", nullJSON, `{"object":"a.txt","size":5,"mimeType":"text/plain","imageInfo.height":0,"imageInfo.width":0,"uid":"42"}`,
			kinds{BodyEmpties}},

		// Numbers.
		{"JavaScript rounds", sampleJSON, strings.Replace(sampleJSON, "17344829344829344567", "17344829344829344000", 1), kinds{BodyRounded}},
		{"PHP and Go round", sampleJSON, strings.Replace(sampleJSON, "17344829344829344567", "1.7344829344829344e+19", 1), kinds{BodyRounded}},
		{"Gson rounds", sampleJSON, strings.NewReplacer("17344829344829344567", "1.7344829344829344E19", "5120", "5120.0").Replace(sampleJSON),
			kinds{BodyRounded}},
		{"Lua rounds", sampleJSON, strings.Replace(sampleJSON, "17344829344829344567", "1.7344829344829e+19", 1), kinds{BodyRounded}},
		{"Python after a float", sampleJSON, strings.Replace(sampleJSON, "17344829344829344567", "17344829344829343744", 1), kinds{BodyRounded}},
		{"the largest number is rounded", `{"object":"a","crc64":18446744073709551615}`, `{"object":"a","crc64":18446744073709552000}`, kinds{BodyRounded}},
		{"a form is rounded", "object=a&crc64=17344829344829344567&uid=4", `{"object":"a","crc64":17344829344829345000,"uid":"4"}`, nil},
		{"a form is rounded by JavaScript", "object=a&crc64=17344829344829344567&uid=4", `{"object":"a","crc64":17344829344829344000,"uid":"4"}`,
			kinds{BodyFormAsJSON, BodyRounded}},
		{"negative", sampleJSON, strings.Replace(sampleJSON, "17344829344829344567", "-1101914728880207049", 1), kinds{BodyNegative}},
		{"a size became text, others were text", sampleJSON, strings.Replace(sampleJSON, "5120", `"5120"`, 1), kinds{BodyJSONRewritten}},

		// Orders of real templates.
		{"six fields sorted", "object=a&bucket=demo&size=5&mimeType=b&reqId=R&etag=E", "bucket=demo&etag=E&mimeType=b&object=a&reqId=R&size=5",
			kinds{BodyReordered}},
		{"nine fields sorted by Go", "object=a%20b&bucket=demo&uid=7&size=5&mimeType=b&reqId=R&vpcId=&etag=E&clientIp=1",
			"bucket=demo&clientIp=1&etag=E&mimeType=b&object=a+b&reqId=R&size=5&uid=7&vpcId=", kinds{BodyReencoded, BodyReordered}},
		{"nine fields as sorted JSON", "object=a%20b&bucket=demo&uid=7&size=5&mimeType=b&reqId=R&vpcId=&etag=E&clientIp=1",
			`{"bucket":["demo"],"clientIp":["1"],"etag":["E"],"mimeType":["b"],"object":["a b"],"reqId":["R"],"size":["5"],"uid":["7"],"vpcId":[""]}`,
			kinds{BodyFormAsJSON, BodyReordered}},
		{"seven members sorted", sampleJSON, `{"bucket":"demo","crc64":17344829344829344567,"etag":"ABC","mimeType":"image/jpeg",` +
			`"object":"a/b 文.jpg","size":5120,"uid":"42"}`, kinds{BodyReordered}},

		// Gateways.
		{"Base64", imageForm, encoded([]byte(imageForm)), kinds{BodyBase64}},
		{"Base64 for URLs, not padded", imageForm, base64.RawURLEncoding.EncodeToString([]byte(imageForm)), kinds{BodyBase64}},
		{"Base64 in quotes", sampleJSON, `"` + encoded([]byte(sampleJSON)) + `"`, kinds{BodyBase64}},
		{"Base64 in lines", sampleJSON, encoded([]byte(sampleJSON))[:76] + "\n" + encoded([]byte(sampleJSON))[76:] + "\n", kinds{BodyBase64}},
		{"Lambda's event", imageForm, fmt.Sprintf(`{"headers":{"x":"y"},"body":%q,"isBase64Encoded":true}`, encoded([]byte(imageForm))),
			kinds{BodyWrapped, BodyBase64}},
		{"event, not in Base64", sampleJSON, fmt.Sprintf(`{"path":"/x","isBase64Encoded":false,"body":%s}`, quoteJSON(sampleJSON, false, "")),
			kinds{BodyWrapped}},
		{"event in Base64 and PHP's names", imageForm, encoded([]byte(strings.ReplaceAll(imageForm, "imageInfo.", "imageInfo_"))),
			kinds{BodyBase64, BodyNames}},
		{"multipart", "object=a%2Fb&size=5", "--X\r\nContent-Disposition: form-data; name=\"object\"\r\n\r\na/b\r\n--X\r\n" +
			"Content-Disposition: form-data; name=\"size\"\r\n\r\n5\r\n--X--\r\n", kinds{BodyMultipart}},

		// Printed and other forms of parsed bodies.
		{"Java prints a map", sampleForm, "{filename=a/b c+.jpg, size=5120, mimeType=image/jpeg, height=, width=}", kinds{BodyPrinted}},
		{"Java prints lists", sampleForm, "{filename=[a/b c+.jpg], size=[5120], mimeType=[image/jpeg], height=[], width=[]}", kinds{BodyPrinted}},
		{"Python prints", sampleForm, "{'filename': 'a/b c+.jpg', 'size': '5120', 'mimeType': 'image/jpeg', 'height': '', 'width': ''}",
			kinds{BodyPrinted}},
		{"Django prints", sampleForm,
			"<QueryDict: {'filename': ['a/b c+.jpg'], 'size': ['5120'], 'mimeType': ['image/jpeg'], 'height': [''], 'width': ['']}>", kinds{BodyPrinted}},
		{"Flask prints", sampleForm, "ImmutableMultiDict([('filename', 'a/b c+.jpg'), ('size', '5120'), ('mimeType', 'image/jpeg'), " +
			"('height', ''), ('width', '')])", kinds{BodyPrinted}},
		{"Rails prints", sampleForm, `{"filename"=>"a/b c+.jpg", "size"=>"5120", "mimeType"=>"image/jpeg", "height"=>"", "width"=>""}`,
			kinds{BodyPrinted}},
		{"Node prints", sampleForm, "[Object: null prototype] {\n  filename: 'a/b c+.jpg',\n  size: '5120',\n  mimeType: 'image/jpeg',\n" +
			"  height: '',\n  width: ''\n}", kinds{BodyPrinted}},
		{"Go prints", "bucket=demo&object=a%2Fb&size=5", "map[bucket:[demo] object:[a/b] size:[5]]", kinds{BodyPrinted}},
		{"PHP prints", sampleForm,
			"Array\n(\n    [filename] => a/b c+.jpg\n    [size] => 5120\n    [mimeType] => image/jpeg\n    [height] => \n    [width] => \n)\n", kinds{BodyPrinted}},
		{"Node prints JSON", nullJSON, "{ object: 'a.txt', size: 5, mimeType: 'text/plain', 'imageInfo.height': null, 'imageInfo.width': null, uid: '42' }",
			kinds{BodyPrinted}},
		{"ASP.NET serializes a form", sampleForm, `[{"Key":"filename","Value":["a/b c+.jpg"]},{"Key":"size","Value":["5120"]},` +
			`{"Key":"mimeType","Value":["image/jpeg"]},{"Key":"height","Value":[""]},{"Key":"width","Value":[""]}]`, kinds{BodyFormAsJSON}},
		{"Rails wraps parameters", sampleJSON, strings.TrimSuffix(sampleJSON, "}") + `,"controller":"hooks","action":"create","hook":{"bucket":"demo"}}`,
			kinds{BodyFieldAdded}},
		{"Spring puts the query first", sampleForm, "id=1&filename=a%2Fb+c%2B.jpg&size=5120&mimeType=image%2Fjpeg&height=&width=",
			kinds{BodyReencoded, BodyFieldAdded}},
	} {
		checkRewritten(t, tt.name, tt.sent, tt.got, tt.want)
	}
}

// checkRewritten examines a callback with that body, without and with the MD5 of what was sent.
func checkRewritten(t *testing.T, name, sent, got string, want []Kind) {
	t.Helper()
	for _, withMD5 := range []bool{true, false} {
		t.Run(fmt.Sprintf("%s/%t", name, withMD5), func(t *testing.T) {
			t.Parallel()
			c := signedCallback("/oss/callback?id=1", formType, sent)
			if withMD5 {
				c.set("Content-MD5", contentMD5([]byte(sent)))
			}
			c.Body = []byte(got)
			r := examine(t, testKey, c)
			if want == nil {
				if r.Verdict != Refused || len(r.Oddities) == 0 {
					t.Errorf("%s %v, oddities %v", r.Verdict, kindsOf(r), r.Oddities)
				}
				return
			}
			if r.Verdict != Repaired || !slices.Equal(kindsOf(r), want) {
				t.Errorf("%s %v, want %v: %s", r.Verdict, kindsOf(r), want, r.Summary)
			}
			checkWritten(t, r)
		})
	}
}

// TestOddities has requests that cannot be repaired: what is odd about them is told all the same.
func TestOddities(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		change damage
		want   []Kind
	}{
		"redirect":                       {damage{setBody(""), func(c *Capture) { c.Method = "GET" }}, kinds{MethodChanged, BodyEmpty}},
		"body gone":                      {damage{setBody("")}, kinds{BodyEmpty}},
		"body gone, no MD5":              {damage{setBody(""), setHeader("Content-MD5", ""), setHeader("Content-Length", "70")}, kinds{BodyEmpty}},
		"body gone, no headers":          {damage{setBody(""), setHeader("Content-MD5", "")}, kinds{BodyMissing}},
		"parser not asked":               {damage{setBody("{}")}, kinds{BodyNoBody}},
		"object as text":                 {damage{setBody("[object Object]")}, kinds{BodyNoBody}},
		"length":                         {damage{setBody("bucket=demo"), setHeader("Content-Length", "70")}, kinds{BodyLength}},
		"type changed":                   {damage{setBody("bucket=demo"), setHeader("Content-Type", "text/plain")}, kinds{TypeChanged}},
		"type of a form, other JSON":     {damage{setBody(`{"a":"other"}`)}, kinds{TypeUnlike}},
		"sent by hand":                   {damage{setBody("bucket=demo"), setHeader("User-Agent", "curl/8.5.0")}, kinds{NotFromOSS}},
		"compressed":                     {damage{setBody("bucket=demo"), setHeader("Content-Encoding", "br")}, kinds{Encoded}},
		"Base64 of another":              {damage{setBody("YnVja2V0PWRlbW8mb2JqZWN0PXg=")}, kinds{BodyLooks}},
		"another, in PHP's names":        {damage{setBody("bucket=demo&imageInfo_height=1")}, kinds{BodyLooks}},
		"single key of another":          {damage{setBody(`{"{\"object\":\"other\"}":""}`)}, kinds{TypeUnlike, BodyLooks}},
		"rounded, and otherwise another": {damage{setBody("a=b&crc64=17344829344829344000")}, kinds{BodyLooks}},
	} {
		c := signedCallback("/oss/callback", formType, aForm)
		c.set("Content-MD5", contentMD5([]byte(aForm)))
		for _, change := range tt.change {
			change(c)
		}
		r := examine(t, testKey, c)
		var got []Kind
		for _, odd := range r.Oddities {
			got = append(got, odd.Kind)
			if odd.What == "" || odd.Fix == "" || strings.Contains(odd.What, "%!") {
				t.Errorf("%s: %+v", name, odd)
			}
		}
		if r.Verdict != Refused || !slices.Equal(got, tt.want) {
			t.Errorf("%s: %s, oddities %v, want %v", name, r.Verdict, got, tt.want)
		}
		checkWritten(t, r)
	}
}

// TestRounded: what a number may have been includes what it was.
func TestRounded(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]uint64{
		"18446744073709552000": math.MaxUint64, "1.8446744073709552e+19": math.MaxUint64, "9007199254740992": 1<<53 + 1,
		"17344829344829344000": 17344829344829344567, "1.734482934483e+19": 17344829344829544567,
	} {
		lowest, highest, ok := rounded(text)
		if !ok || want < lowest || want > highest || highest-lowest > 2e6 {
			t.Errorf("%s: %d to %d, %t; want %d in it", text, lowest, highest, ok, want)
		}
	}
	for _, text := range []string{"17344829344829344567", "5", "9007199254740991", "1e300", "", "x", "-9007199254740994"} {
		if lowest, highest, ok := rounded(text); ok {
			t.Errorf("%s: %d to %d", text, lowest, highest)
		}
	}
}

// TestReportedCaptures has captures as they were made for the reports on OSS's SDKs and on gateways.
func TestReportedCaptures(t *testing.T) {
	t.Parallel()
	for file, want := range map[string]expectation{
		"h11-express-json-key.http": repaired(BodyFormAsJSON),
		"h5-base64-body.http":       repaired(BodyBase64),
		"h7-body-gone.http":         refused,
		"b02-multimedia.http":       refused,
		"b03-webmis.http":           refused,
	} {
		text, err := os.ReadFile("testdata/" + file)
		if err != nil {
			t.Fatal(err)
		}
		c, err := Parse(text, Auto, 0)
		if err != nil {
			t.Fatal(err)
		}
		cfg := Config{Admission: admission.Config{TokenPolicy: admission.TokenOff}}
		if strings.HasPrefix(file, "h") {
			cfg.Key = testKey.Key
		}
		r := examine(t, cfg, c)
		if r.Verdict != want.verdict || !slices.Equal(kindsOf(r), want.kinds) {
			t.Errorf("%s: %s %v", file, r.Verdict, kindsOf(r))
		}
		if strings.HasPrefix(file, "b") && (!strings.Contains(r.Key, "OSS's own key") || !strings.Contains(r.Fix, "--callback-url")) {
			t.Errorf("%s: key %q, fix %q", file, r.Key, r.Fix)
		}
	}
}
