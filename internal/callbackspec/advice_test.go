package callbackspec_test

import (
	"errors"
	"strings"
	"testing"

	spec "upcall/internal/callbackspec"
)

func TestCheckBody(t *testing.T) {
	t.Parallel()
	const form, js = spec.Form, spec.JSON
	for _, tt := range []struct {
		body string
		t    spec.BodyType
		says string // "" if it is accepted
	}{
		{"object=${object}&note=100%", form, ""},
		{`{"object":"${object}"}`, form, ""},
		{`{"object":"${object}","size":${size}}`, form, ""},
		{`{"object":${object},"size":${size},"uid":${x:uid}}`, js, ""},
		{`{"imageInfo":{"height":${imageInfo.height}},"ip":${clientIp}}`, js, ""},
		{"filename=${object}&size=${size}", js, ""},
		{"object=${object}&size=${size}\n", form, ""},
		{"\r\nobject = ${object} &\n clientIp=${clientIp}", form, ""},
		{"bytes=${size}&size=big", form, ""}, // the receiver reads the size in bytes
		{"reqId=${x:id}", form, ""},

		// Each field that a receiver reads by the name of a system variable is checked.
		{"size=big", form, "valid size; let the field hold ${size} and nothing else"},
		{"size=${object}", form, "valid size"},
		{"size=${size} bytes", form, "valid size"},
		{`{"size":"${size}B"}`, js, "valid size"},
		{"imageInfo.height=${imageInfo.height}px", form, "valid imageInfo.height"},
		{`{"imageInfo":{"height":true}}`, js, "holds a JSON boolean"},
		{"crc64=0x${crc64}", form, "valid crc64"},
		{`{"size":"${bucket}${size}"}`, form, "valid size"},
		{"clientIp=${clientIp}:80", form, "valid clientIp"},
		{"object=100%", form, "write a % of the template as %25"},
		{"object=${object}&object=x", form, "name each field once"},
		{`{"object":${object},"object":${bucket}}`, js, "name each field once"},
		{"object=${object", form, "close it with }"},

		// What OSS does not fill in, because it was percent-encoded.
		{"bucket=%24%7Bbucket%7D&object=%24%7Bobject%7D", form,
			"${bucket}: the template was percent-encoded before OSS saw it; give OSS the template as it is"},
		{"bucket=${bucket}&filename=%24%7bobject%7d", form, "${object}: the template was percent-encoded"},
		{"bucket=%24{bucket}", form, "percent-encoded"},
		{"uid=%24%7Bx%3Auid%7D", form, "${x:uid}: the template was percent-encoded"},
		{"bucket%3D%24%7Bbucket%7D%26object%3D%24%7Bobject%7D", form, "percent-encoded"},
		{"bucket=%2524%257Bbucket%257D", form, "percent-encoded"},
		{"%7B%22bucket%22%3A%24%7Bbucket%7D%7D", js, "percent-encoded"},
		{"note=%24%7Bnothing%7D%20100%25", form, ""},

		// JSON without its type.
		{`{"object":${object},"size":${size}}`, form, "the template is JSON, but callbackBodyType is not; use json"},
		{`{"object":${object},"imageInfo":{"height":${imageInfo.height}}}`, "", "the template is JSON, but callbackBodyType is not"},

		// The advice fits the mistake.
		{`{"object":"${object}"}`, js, "write ${object} without quotes around it"},
		{`{"url":"https://h.example/${object}"}`, js, "write ${object} without quotes around it"},
		{`{"a":["${object}"]}`, js, "write ${object} without quotes around it"},
		{`{\"mimeType\":${mimeType},\"size\":${size}}`, js, `the quotes are escaped (\"): write them plain`},
		{`{\"mimeType\":${mimeType}}`, form, `the quotes are escaped (\"): write them plain`},
		{`{"size":${size}, \"mimeType\":${mimeType}}`, js, `the quotes are escaped (\"): write them plain`},
		{`{"mimeType":${mimeType}, "filename",${object}}`, js, "write a colon between a name and its value"},
		{`{"size"=${size}}`, js, "write a colon"},
		{`{"size":${size} "object":${object}}`, js, "write a comma between two fields"},
		{`{"object":${object} "size":${size}}`, js, "write a comma between two fields"},
		{`{"size":${size},}`, js, "leave out the comma before }"},
		{`{'size':${size}}`, js, "put names and text into double quotes"},
		{`{"a":'x'}`, js, "put names and text into double quotes"},
		{`{size:${size}}`, js, "put each name into double quotes"},
		{`{“size”:${size}}`, js, "use the plain characters"},
		{`{"size"：${size}}`, js, "use the plain characters"},
		{`{"size":${size}`, js, "the template with }"},
		{`{"size":${size}}}`, js, "write nothing after the }"},
		{`{"size":}`, js, "give each name a value"},
		{"{\"a\":\"x\ny\"}", js, `write a line break in a text as \n`},
		{`{"a":"C:\dir"}`, js, `write a backslash in a text as \\`},
		{`{"a":[1 2]}`, js, "write a comma between two values"},
		{`{"a":1e9999}`, js, "ordinary size"},
		{`a="${object}"`, js, "write each variable without quotes around it"},
		{"${object}", js, `write a template such as {"object":${object}}`},
		{`{"a":[${size},]}`, js, "leave out the comma before ]"},
		{`{{"size":${size}}}`, js, "write one {, not two"},
		{`{"size":${size}; "object":${object}}`, js, "write a comma between two fields"},
		{`{"object":${object}，"size":${size}}`, js, `'，' after object key:value pair; use the plain characters`},
		{`{"a":“x”}`, js, "use the plain characters"},
		{`{"url":"https://h.example/"${object}}`, js, "without text beside it"},
		{`{"size":${size}, // bytes` + "\n" + `"a":1}`, js, "leave out the comments"},
		{"/* v1 */" + `{"size":${size}}`, js, "leave out the comments"},
		{`{&quot;size&quot;:${size}}`, js, `HTML-escaped: write " in place of &quot;`},
		{`{"a":True,"size":${size}}`, js, "true, false and null, in lower case"},
		{`{"a":undefined}`, js, "true, false and null, in lower case"},
		{"{\"a\":\"x\ty\"}", js, `write a tab in a text as \t`},
		{`'{"size":${size}}'`, js, "leave out the quotes around the template"},
		{`"{\"size\":${size}}"`, js, "leave out the quotes around the template"},
		{`%7B%22size%22%3A${size}%7D`, js, "not percent-encoded"},

		// What looks like a variable, or like the end of a field, and is none.
		{"bucket={bucket}", form, "has {bucket}, which OSS does not fill in; write ${bucket}"},
		{"bucket=#{bucket}", form, "write ${bucket}"},
		{"bucket=＄{bucket}", form, "write ${bucket}"},
		{"uid={x:uid}", form, "write ${x:uid}"},
		{`{"object":"{object}"}`, js, "write ${object}"},
		{"bucket=$｛bucket｝", form, "use the plain characters { and }"},
		{"data={uid}&object=${object}", form, ""},
		{"bucket=${bucket}&amp;object=${object}", form, "write & in place of &amp;"},
		{`{"note":"a &amp; b"}`, js, ""},
		{"bucket=${bucket};object=${object}", form, "has text beside ${bucket}"},
		{"bucket=${bucket}\nobject=${object}", form, "has text beside ${bucket}"},
		{"bucket=${bucket}＆object=${object}", form, "has text beside ${bucket}"},
		{`bucket="${bucket}"`, form, "has text beside ${bucket}"},
		{"object=/${object}", form, "has text beside ${object}"},
		{"size=${size}0", form, "has text beside ${size}"},
		{"object=${bucket}", form, "has a field object that holds something else; let it hold ${object}"},
		{"bucket=demo&object=${object}", form, "has a field bucket that holds something else"},
		{`{"object":${x:name}}`, js, "has a field object that holds something else"},
		{"object=${object}&upcall_token=${x:token}", form, "has a field upcall_token that holds something else; let it hold ${x:upcall_token}"},
		{"object=${object}&upcall_token=t${x:upcall_token}", form, "has a field upcall_token that holds something else"},
		{"filename=${object}&object=photo", form, ""}, // a receiver may read the variable there
		{"object=&bucket=${bucket}", form, ""},
		{`etag="${etag}"`, form, ""}, // the receiver takes these quotes off
		{"url=https://h.example/${object}", form, ""},
		{"object=${object}&url=https://h.example/${object}", form, ""},
		{"bucket＝${bucket}", form, "has ${bucket} where the name of a field belongs"},
		{"bucket: ${bucket}", form, "where the name of a field belongs"},
		{"bucket%3D${bucket}%26size%3D${size}", form, "where the name of a field belongs"},
		{"${object}", form, "where the name of a field belongs"},
		{"?bucket=${bucket}", form, "leave out the ? at the beginning"},
		{"\ufeffbucket=${bucket}", form, "leave out the byte order mark"},
		{"\ufeff" + `{"size":${size}}`, js, "leave out the byte order mark"},

		// Other spellings of variables.
		{"bucket=${Bucket}", form, "write ${bucket}; the system variables are"},
		{"bucket=${ bucket }", form, "write ${bucket}; "},
		{"type=${mimetype}", form, "write ${mimeType}; "},
		{"height=${imageInfo_height}", form, "write ${imageInfo.height}; "},
		{"uid=${X:uid}", form, "write ${x:uid}; "},
		{"uid=${x:UID}", form, "write ${x:uid}; use lower-case letters"},
		{"name=${filename}", form, "unknown variable ${filename}; the system variables are"},
	} {
		err := spec.CheckBody(tt.body, tt.t)
		if tt.says == "" {
			if err != nil {
				t.Errorf("%s as %s: %v", tt.body, tt.t, err)
			}
			continue
		}
		if !errors.Is(err, spec.ErrTemplate) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s as %s: %v, want %s", tt.body, tt.t, err, tt.says)
		}
	}
}

// TestOddities are notes about bodies that are accepted.
func TestOddities(t *testing.T) {
	t.Parallel()
	const form, js = string(spec.Form), string(spec.JSON)
	for _, tt := range []struct{ contentType, body, says string }{
		{form, "object=a&size=5", ""},
		{js, `{"object":"a"}` + "\n", ""},
		{form, `{"object":"a"}`, ""},
		{"text/plain", "object=a\n", ""},
		{form, "height=1&width=1\n", "a line break, tab or space of the template is around field width"},
		{form, `{"object":a,"size":5}`, "the template is JSON, but callbackBodyType is not"},
		{form, "\ufeffheight=1&width=1", "a byte order mark of the template is at the beginning"},
		{form, "bucket={bucket}&size=5", "field bucket holds {bucket}: the template lacks the $"},
		{form, `uid={"id":1}&object=%7Bobject%7D`, ""},
		{form, `object="a"&size=5`, "quotes around field object"},
		{form, "object=%22a%22&size=5", ""},
		{form, "object=a&amp;size=5", "writes &amp; for the & before size"},
		{js, `object="a"&size=5`, "name=value pairs, but callbackBodyType is application/json"},
	} {
		got := strings.Join(spec.Oddities(tt.contentType, []byte(tt.body)), "; ")
		if (got == "") != (tt.says == "") || !strings.Contains(got, tt.says) {
			t.Errorf("%s %q: %q, want %q", tt.contentType, tt.body, got, tt.says)
		}
	}
}
