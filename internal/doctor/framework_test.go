package doctor

import (
	"slices"
	"strings"
	"testing"
)

// TestFrameworks has further ways in which programs write a body that they have read.
func TestFrameworks(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, sent, got string
		want            []Kind
	}{
		{"PHP: brackets in names of the template",
			"object=a&meta[uid]=7&size=5", `{"object":"a","meta":{"uid":"7"},"size":"5"}`, kinds{BodyFormAsJSON, BodyNames}},
		{"PHP: brackets, encoded again", "object=a&meta[uid]=7&size=5", "object=a&meta%5Buid%5D=7&size=5", kinds{BodyReencoded}},
		{"PHP: var_dump",
			sampleForm, "array(5) {\n  [\"filename\"]=>\n  string(10) \"a/b c+.jpg\"\n  [\"size\"]=>\n  string(4) \"5120\"\n  [\"mimeType\"]=>\n  string(10) \"image/jpeg\"\n  [\"height\"]=>\n  string(0) \"\"\n  [\"width\"]=>\n  string(0) \"\"\n}\n", kinds{BodyPrinted}},
		{"PHP: var_export",
			sampleForm, "array (\n  'filename' => 'a/b c+.jpg',\n  'size' => '5120',\n  'mimeType' => 'image/jpeg',\n  'height' => '',\n  'width' => '',\n)", kinds{BodyPrinted}},
		{"PHP: serialize", "object=a&size=5", `a:2:{s:6:"object";s:1:"a";s:4:"size";s:1:"5";}`, kinds{BodyPrinted}},
		{"WordPress adds slashes", sampleJSON, strings.ReplaceAll(sampleJSON, `"`, `\"`), kinds{BodyQuoted}},
		{"Python: bytes", sampleForm, "b'" + sampleForm + "'", kinds{BodyQuoted}},
		{"Python: bytes of JSON", sampleJSON, "b'" + strings.ReplaceAll(sampleJSON, "文", `\xe6\x96\x87`) + "'", kinds{BodyQuoted}},
		{"Rails",
			sampleForm, `#<ActionController::Parameters {"filename"=>"a/b c+.jpg", "size"=>"5120", "mimeType"=>"image/jpeg", "height"=>"", "width"=>"", "controller"=>"hooks", "action"=>"create"} permitted: false>`, kinds{BodyPrinted, BodyFieldAdded}},
		{"Ruby 3.4",
			sampleForm, `{"filename" => "a/b c+.jpg", "size" => "5120", "mimeType" => "image/jpeg", "height" => "", "width" => ""}`, kinds{BodyPrinted}},
		{"FastAPI prints",
			sampleForm, "FormData([('filename', 'a/b c+.jpg'), ('size', '5120'), ('mimeType', 'image/jpeg'), ('height', ''), ('width', '')])", kinds{BodyPrinted}},
		{"Pascal case",
			sampleForm, `{"Filename":"a/b c+.jpg","Size":"5120","MimeType":"image/jpeg","Height":"","Width":""}`, kinds{BodyFormAsJSON, BodyNames}},
		{"Pascal case JSON",
			sampleJSON, strings.NewReplacer(`"bucket"`, `"Bucket"`, `"object"`, `"Object"`, `"etag"`, `"Etag"`, `"size"`, `"Size"`, `"mimeType"`, `"MimeType"`, `"crc64"`, `"Crc64"`, `"uid"`, `"Uid"`).Replace(sampleJSON), kinds{BodyNames}},
		{"camel case", "object=a&user_id=7&file_size=5", `{"object":"a","userId":"7","fileSize":"5"}`, kinds{BodyFormAsJSON, BodyNames}},
		{"snake case of other names", `{"object":"a","userId":"7"}`, `{"object":"a","user_id":"7"}`, kinds{BodyNames}},
		{"Node: Buffer as JSON",
			"object=a&size=5", `{"type":"Buffer","data":[111,98,106,101,99,116,61,97,38,115,105,122,101,61,53]}`, kinds{BodyBytes}},
		{"Node: Buffer printed", "object=a&size=5", "<Buffer 6f 62 6a 65 63 74 3d 61 26 73 69 7a 65 3d 35>", kinds{BodyBytes}},
		{"hexadecimal", "object=a&size=5", "6f626a6563743d612673697a653d35", kinds{BodyBytes}},
		{"Java: Arrays.toString", "object=a\u00e9", "[111, 98, 106, 101, 99, 116, 61, 97, -61, -87]", kinds{BodyBytes}},
		{"Go: bytes", "object=a&size=5", "[111 98 106 101 99 116 61 97 38 115 105 122 101 61 53]", kinds{BodyBytes}},
		{"JavaScript: keys of an array", "ab=c", `{"0":97,"1":98,"2":61,"3":99}`, kinds{BodyBytes}},
		{"NFC", `{"object":"e` + "\u0301" + `.jpg"}`, `{"object":"` + "\u00e9" + `.jpg"}`, kinds{BodyNormalized}},
		{"NFD", `{"object":"` + "\u00e9" + `.jpg"}`, `{"object":"e` + "\u0301" + `.jpg"}`, kinds{BodyNormalized}},
		{"NFC in a form", "object=e%CC%81.jpg&size=5", "object=%C3%A9.jpg&size=5", kinds{BodyNormalized}},
		{"Big5", `{"object":"文件.jpg"}`, `{"object":"` + "\xa4\xe5\xa5\xf3" + `.jpg"}`, kinds{BodyCharset}},
		{"Shift JIS", `{"object":"文.jpg"}`, `{"object":"` + "\x95\xb6" + `.jpg"}`, kinds{BodyCharset}},
		{"UTF-16",
			`{"object":"a"}`, "\xff\xfe{\x00\"\x00o\x00b\x00j\x00e\x00c\x00t\x00\"\x00:\x00\"\x00a\x00\"\x00}\x00", kinds{BodyCharset}},
		{"the whole form encoded",
			sampleForm, "filename%3Da%252Fb%2520c%252B.jpg%26size%3D5120%26mimeType%3Dimage%252Fjpeg%26height%3D%26width%3D", kinds{BodyReencoded}},
		{"the whole form as one name",
			sampleForm, "filename%3Da%252Fb%2520c%252B.jpg%26size%3D5120%26mimeType%3Dimage%252Fjpeg%26height%3D%26width%3D=", kinds{BodyWrapped}},
		{"form as the value of a field",
			sampleForm, "body=filename%3Da%252Fb%2520c%252B.jpg%26size%3D5120%26mimeType%3Dimage%252Fjpeg%26height%3D%26width%3D", kinds{BodyWrapped}},
		{"form in JSON text", sampleForm, `{"data":"` + sampleForm + `"}`, kinds{BodyWrapped}},
		{"HTML-escaped twice", sampleJSON, strings.ReplaceAll(sampleJSON, `"`, "&amp;quot;"), kinds{BodyEntities}},
		{"GraphQL or SNS envelope",
			sampleJSON, `{"Type":"Notification","Message":` + quoteJSON(sampleJSON, false, "") + `}`, kinds{BodyWrapped}},
		{"numbers as text in JSON",
			sampleJSON, strings.NewReplacer("5120", `"5120"`, "17344829344829344567", `"17344829344829344567"`).Replace(sampleJSON), kinds{BodyJSONRewritten}},
		{"Python: separators and ascii",
			sampleJSON, strings.NewReplacer(`":`, `": `, `,"`, `, "`, "文", `\u6587`).Replace(sampleJSON), kinds{BodyJSONRewritten}},
		{"Koa: qs.stringify of JSON", percentJSON, "bucket=demo&object=h%252F3.jpg&size=5", kinds{BodyJSONAsForm, BodyJSONRewritten}},
	} {
		checkRewritten(t, tt.name, tt.sent, tt.got, tt.want)
	}
}

// TestTargets has what frameworks and rewrite rules make of a target.
func TestTargets(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		sent, got string
		want      []Kind
	}{
		{"/oss/callback", "/index.php?s=/oss/callback", kinds{PathReplaced, QueryReplaced}}, // ThinkPHP
		{"/oss/callback?id=1", "/index.php?s=oss/callback&id=1", kinds{PathReplaced, QueryReplaced}},
		{"/oss/callback?id=1", "/index.php?_url=%2Foss%2Fcallback&id=1", kinds{PathReplaced, QueryReplaced}}, // Phalcon
		{"/oss/callback", "/index.php/oss/callback", kinds{PathPrefixAdded}},
		{"/oss/callback", "/oss/callback;jsessionid=AB12", kinds{PathParameters}},
		{"/a%20b/cb", "/a+b/cb", kinds{PathPlus}},
		{"/a+b/cb", "/a%20b/cb", kinds{PathPlus}},
		{"/oss//callback", "/oss/callback", kinds{PathSlashes}},
		{"/OSS/callback", "/oss/callback", kinds{PathCase}},
		{"/ossCallback", "/osscallback", kinds{PathCase}},
		{"/oss/callback?b=2&a=1", "/oss/callback?a=1&b=2", kinds{QueryReordered}}, // Cloudflare sorts
		{"/oss/callback?a=", "/oss/callback?a", kinds{QueryEmptyValues}},
		{"/oss/callback?a=x%20y", "/oss/callback?a=x+y", kinds{QueryEncoding}},
		{"/oss/callback", "/oss/callback?ray=1", kinds{QueryAdded}},
		{"/oss/callback?a=1", "/oss/callback/?a=1", kinds{PathTrailingSlash}},
	} {
		c := signedCallback(tt.sent, formType, sampleForm)
		c.Target = tt.got
		r := examine(t, testKey, c)
		if r.Verdict != Repaired || !slices.Equal(kindsOf(r), tt.want) {
			t.Errorf("%s as %s: %s %v, want %v: %s", tt.sent, tt.got, r.Verdict, kindsOf(r), tt.want, r.Summary)
		}
		checkWritten(t, r)
	}
}
