package admission

import (
	"encoding/json"
	"maps"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"upcall/internal/callbackspec"
	"upcall/internal/ossemu"
	"upcall/internal/uploadtoken"
)

// An upload is one that was issued, and what OSS knows of it.
type upload struct {
	template    string // "" is the default one
	bodyType    callbackspec.BodyType
	vars        map[string]string // without x:
	urls        []string
	contentType string
	size        *int64
	fields      string // UPCALL_FIELDS
}

// filled is what OSS fills in.
var filled = callbackspec.Values{
	"bucket": "demo", "object": "photos/a b+é~.jpg", "etag": "D8E8FCA2DC0F896FD7CB4CB0031BA249", "size": "5",
	"mimeType": "image/jpeg", "imageInfo.height": "3", "imageInfo.width": "4", "imageInfo.format": "jpg",
	"crc64": "18446744073709551615", "contentMd5": "2Oj8otwPiW/Xy0ywAxuiSQ==", "clientIp": "203.0.113.7",
	"reqId": "R1", "operation": "PutObject",
}

// issue returns the body of the upload's callback.
func (u upload) issue(t *testing.T, keys *uploadtoken.Keyring) string {
	t.Helper()
	vars := make(callbackspec.Vars)
	var names []string
	for name, value := range u.vars {
		vars[callbackspec.VarPrefix+name] = value
		names = append(names, name)
	}
	body, err := u.template, error(nil)
	if body == "" {
		body, err = callbackspec.DefaultBody(u.bodyType, names, true)
	} else {
		body, err = callbackspec.WithToken(body, u.bodyType)
	}
	if err != nil {
		t.Fatal(err)
	}
	known := callbackspec.Values{"bucket": filled["bucket"], "object": filled["object"]}
	if u.size != nil {
		known["size"] = strconv.FormatInt(*u.size, 10)
	}
	terms, err := callbackspec.Parameter{Body: body, BodyType: u.bodyType, URLs: u.urls}.Terms(vars, known)
	if err != nil {
		t.Fatal(err)
	}
	token, err := keys.Mint(uploadtoken.Claims{
		UploadID: uuid.New(), Expires: noon.Add(time.Hour), Bucket: "demo", Object: filled["object"],
		ContentType: u.contentType, Size: u.size, Terms: uploadtoken.Terms(terms),
	})
	if err != nil {
		t.Fatal(err)
	}
	values := maps.Clone(filled)
	maps.Copy(values, callbackspec.Values(vars))
	values[callbackspec.TokenVar] = token
	text, err := callbackspec.Expand(body, u.bodyType, values)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// admit is what becomes of a body that OSS has signed for the upload's receiver.
func (u upload) admit(t *testing.T, contentType, target, body string) (vars map[string]json.RawMessage, reason Reason) {
	t.Helper()
	fields, err := callbackspec.ParseFields(u.fields)
	if err != nil {
		t.Fatal(err)
	}
	r := request(contentType, body)
	r.Target, r.Authorization = target, ossemu.SignCallback(target, []byte(body))
	e, refusal := newPolicy(t, Config{Fields: fields}).Admit(t.Context(), r, noon)
	if refusal == nil {
		return e.Callback.Vars, ""
	}
	if refusal.Code != BadToken {
		t.Fatalf("%+v", refusal)
	}
	return nil, refusal.Reason
}

// TestContent: a token is good for what was issued, and for nothing else. Whoever knows it
// can have OSS sign any other body for our URL. Each change is one of the genuine body,
// which is admitted.
func TestContent(t *testing.T) {
	t.Parallel()
	const form, js = callbackspec.Form, callbackspec.JSON
	five := int64(5)
	uid := map[string]string{"uid": "42", "album": "été & co/1"}
	const (
		vars, key, typ, size        = ReasonTokenForeignVars, ReasonTokenForeignKey, ReasonTokenForeignType, ReasonTokenForeignSize
		asIs                 Reason = ""
	)
	type change struct {
		name     string
		old, new string // of the body; a space in front means: at its end
		reason   Reason
	}
	for _, tt := range []struct {
		name    string
		upload  upload
		changes []change
	}{
		{"default form", upload{vars: uid}, []change{
			{"another value", "uid=42", "uid=1", vars},
			{"longer value", "uid=42", "uid=421", vars},
			{"empty value", "uid=42", "uid=", vars},
			{"value gone", "&uid=42", "", vars},
			{"name in another case", "uid=42", "Uid=42", vars},
			{"value under another name", "uid=42", "uix=42", vars},
			{"values swapped", "uid=42", "uid=%C3%A9t%C3%A9%20%26%20co%2F1", vars},
			{"a further field", " ", "&admin=true", vars},
			{"a further field without a value", " ", "&admin", vars},
			{"a field like a nested one", " ", "&imageInfo=x", vars},
			{"the token twice, under another name", " ", "&token=x", vars},
			{"another system variable's name in another case", " ", "&Size=7", vars},
			{"space as a plus", "%20%26%20co", "+%26+co", asIs},
			{"spelled otherwise", "uid=42", "uid=%34%32", asIs},
			{"etag, the uploader's word", "D8E8FCA2DC0F896FD7CB4CB0031BA249", "FORGED", asIs},
			{"size, which is open", "size=5", "size=123456789", asIs},
			{"type, which is open", "image%2Fjpeg", "text%2Fhtml", asIs},
			{"no size", "&size=5", "", asIs},
			{"no bucket", "bucket=demo&", "", asIs},
			{"no object", "object=photos%2Fa%20b%2B%C3%A9~.jpg&", "", asIs},
			{"another key", "a%20b", "a%20c", key},
			{"another order", "bucket=demo&object=", "operation2=&object=", vars},
			{"another request id", "reqId=R1", "reqId=R2", asIs},
		}},
		{"default form without variables", upload{}, []change{
			{"a further field", " ", "&uid=1", vars},
			{"an empty field, which is none", " ", "&=", asIs},
			{"nothing", " ", "&", asIs},
		}},
		{"default JSON", upload{vars: uid, bodyType: js}, []change{
			{"another value", `"uid":"42"`, `"uid":"1"`, vars},
			{"a number", `"uid":"42"`, `"uid":42`, vars},
			{"null", `"uid":"42"`, `"uid":null`, vars},
			{"an object", `"uid":"42"`, `"uid":{"x":"42"}`, vars},
			{"a list", `"uid":"42"`, `"uid":["42"]`, vars},
			{"gone", `,"uid":"42"`, ``, vars},
			{"a further field", `"uid":"42"`, `"uid":"42","admin":true`, vars},
			{"a further empty object", `"uid":"42"`, `"uid":"42","x":{}`, vars},
			{"a further empty list", `"uid":"42"`, `"uid":"42","x":[]`, vars},
			{"a system variable's object with more in it", `"imageInfo.height":3`, `"imageInfo":{"height":3,"uid":1}`, vars},
			{"a system variable's object", `"imageInfo.height":3`, `"imageInfo":{"height":3}`, asIs},
			{"spelled otherwise", `"uid":"42"`, ` "u\u0069d" : "4\u0032" `, asIs},
			{"a size of null", `"size":5`, `"size":null`, asIs},
		}},
		{"fixed type and size", upload{contentType: "Image/JPEG; charset=x", size: &five, vars: uid}, []change{
			{"another type", "image%2Fjpeg", "text%2Fhtml", typ},
			{"the type's beginning", "image%2Fjpeg", "image%2Fjpe", typ},
			{"another parameter, another case", "image%2Fjpeg", "IMAGE%2Fjpeg%3B%20q%3D1", asIs},
			{"no type", "&mimeType=image%2Fjpeg", "", asIs},
			{"parameters alone", "image%2Fjpeg", "%3B%20text%2Fhtml", typ},
			{"a space", "image%2Fjpeg", "%20", typ},
			{"like it to Unicode alone", "image%2Fjpeg", "%C4%B0mage%2Fjpeg", typ},
			{"like it but for a space of Unicode", "image%2Fjpeg", "%C2%A0image%2Fjpeg", typ},
			{"another size", "size=5", "size=6", size},
			{"no size", "&size=5", "", asIs},
			{"an empty size", "size=5", "size=", asIs},
			{"another value", "uid=42", "uid=1", vars},
		}},
		{"aliases", upload{template: "filename=${object}&len=${size}&user=${x:uid}&app=7", vars: map[string]string{"uid": "42"},
			fields: "filename=object,len=size"}, []change{
			{"another value", "user=42", "user=1", vars},
			{"another constant", "app=7", "app=8", vars},
			{"no constant", "&app=7", "", vars},
			{"no alias", "&len=5", "", vars},
			{"another size", "len=5", "len=6", asIs},
			{"another key", "a%20b", "a%20c", key},
			{"a variable's name as a field", " ", "&size=9", vars},
			{"an alias' name as a field", " ", "&object=x", vars},
			{"another system variable", " ", "&etag=E", asIs},
			{"names swapped", "filename=photos%2Fa%20b%2B%C3%A9~.jpg&len=5&user=42", "filename=photos%2Fa%20b%2B%C3%A9~.jpg&user=5&len=42", vars},
		}},
		{"aliases that the receiver does not know", upload{template: "filename=${object}&where=${bucket}/${object}&uid=${x:uid}",
			vars: map[string]string{"uid": "42"}}, []change{
			{"the key", "filename=photos", "filename=elsewhere", vars},
			{"the bucket", "where=demo/", "where=", vars},
			{"the key spelled otherwise", "filename=photos%2Fa%20b%2B", "filename=photos/a+b%2b", asIs},
			{"another value", "uid=42", "uid=1", vars},
			{"open field gone", "filename=", "filenam=", vars},
			{"a further field", " ", "&a=1", vars},
			{"a further field at the end", " ", "&zz=1", vars},
		}},
		{"aliases of a fixed size and type", upload{template: "len=${size}&also=${size}B&kind=${mimeType}&etag2=${etag}", size: &five,
			contentType: "image/jpeg", fields: "kind=mimeType"}, []change{
			{"another size", "len=5", "len=6", vars},
			{"another size, with text", "also=5B", "also=6B", vars},
			{"another type", "image%2Fjpeg", "text%2Fhtml", typ},
			{"another case of the type", "image%2Fjpeg", "IMAGE%2Fjpeg", asIs},
			{"what OSS alone knows", "etag2=D8E8", "etag2=FFFF", asIs},
		}},
		{"an alias of a fixed size that the receiver knows", upload{template: "len=${size}", size: &five, fields: "len=size"}, []change{
			{"another size", "len=5", "len=6", size},
		}},
		{"a receiver that reads names elsewhere", upload{template: "object=${object}&filename=${object}&size=${size}", fields: "filename=object"},
			[]change{
				{"the template's own field", "&object=", "&object=", asIs},
				{"one that it reads elsewhere and the template has", "object=photos", "object=elsewhere", asIs},
			}},
		{"fixed fields under system names", upload{template: "object=${object}&size=7&mimeType=${x:type}&etag=${bucket}",
			vars: map[string]string{"type": "a/b"}}, []change{
			{"another size", "size=7", "size=8", vars},
			{"no size", "&size=7", "", vars},
			{"another type", "mimeType=a%2Fb", "mimeType=a%2Fc", vars},
			{"OSS's value", "etag=demo", "etag=x", asIs},
		}},
		{"token under another name", upload{template: "o=${object}&t=${x:upcall_token}&uid=${x:uid}", vars: map[string]string{"uid": "42"},
			fields: "o=object,t=upcall_token"}, []change{
			{"another value", "uid=42", "uid=1", vars},
			{"a field of the token's usual name", " ", "&upcall_token=x", vars},
		}},
		{"one variable in several places", upload{template: "uid=${x:uid}&path=/users/${x:uid}/&n=${x:uid}-${size}",
			vars: map[string]string{"uid": "42"}}, []change{
			{"in the first", "uid=42", "uid=1", vars},
			{"in the second", "users/42", "users/1", vars},
			{"in the third, which OSS fills in too", "n=42-5", "n=1-5", asIs},
		}},
		{"nested JSON", upload{
			template: `{"object":${object},"meta":{"uid":${x:uid},"list":[1,${x:uid},${size},{}],"deep":{"size":${size},"c":true,"e":{}}},"n":1.50}`,
			bodyType: js, vars: map[string]string{"uid": "42"}}, []change{
			{"a variable", `{"uid":"42"`, `{"uid":"1"`, vars},
			{"a number in a list", `[1,`, `[2,`, vars},
			{"a variable in a list", `,"42",`, `,"1",`, vars},
			{"the list in another order", `[1,"42"`, `["42",1`, vars},
			{"a longer list", `,{}]`, `,{},{}]`, vars},
			{"a shorter list", `,{}]`, `]`, vars},
			{"open in a list", `"42",5`, `"42",6`, asIs},
			{"open, deep", `"size":5`, `"size":"x"`, asIs},
			{"an object where a value was open", `"size":5`, `"size":{"admin":1}`, vars},
			{"a constant", `"c":true`, `"c":false`, vars},
			{"text for a constant", `"c":true`, `"c":"true"`, vars},
			{"a further member", `"c":true`, `"c":true,"admin":true`, vars},
			{"a member less", `"c":true,`, ``, vars},
			{"flat for nested", `"deep":{"size":5,"c":true,"e":{}}`, `"deep.size":5,"deep.c":true,"deep.e":{}`, vars},
			{"a list for an object", `"e":{}`, `"e":[]`, vars},
			{"a number written otherwise", `1.50`, `1.5`, vars},
			{"blanks", `"c":true`, ` "c" : true `, asIs},
		}},
		{"JSON in a form", upload{template: `{"object":"${object}","uid":"${x:uid}","meta":{"album":"${x:album}"},"info":"${bucket}/${size}"}`,
			vars: uid}, []change{
			{"another value", `"uid":"42"`, `"uid":"1"`, vars},
			{"a nested value", `%C3%A9t%C3%A9%20`, `%C3%A9t%C3%A8%20`, vars},
			{"a nested value spelled otherwise", `%C3%A9t%C3%A9%20%26%20`, `%c3%a9t%c3%a9+%26+`, asIs},
			{"the bucket, and a size that is open", "demo/5", "x", asIs},
		}},
		{"pairs of JSON", upload{template: `filename=${object}&uid=${x:uid}&size=${size}&app=7&note=x`, bodyType: js,
			vars: map[string]string{"uid": "42"}, fields: "filename=object"}, []change{
			{"another value", `uid="42"`, `uid="1"`, vars},
			{"a number", `uid="42"`, `uid=42`, vars},
			{"another constant", "app=7", "app=8", vars},
			{"another text", "note=x", "note=y", vars},
			{"a further field", " ", "&a=1", vars},
			{"another size", "size=5", "size=6", asIs},
		}},
		{"JSON whose type was forgotten", upload{template: `{"object":${object},"uid":${x:uid},"size":${size},"meta":{"album":${x:album}},"app":7}`,
			vars: uid}, []change{
			{"another value", `"uid":42`, `"uid":1`, vars},
			{"no value", `"uid":42`, `"uid":`, vars},
			{"text in quotes", `"uid":42`, `"uid":"42"`, asIs},
			{"a nested value", `%C3%A9t%C3%A9%20`, `%C3%A9t%C3%A8%20`, vars},
			{"another constant", `"app":7`, `"app":8`, vars},
			{"a further field", `"app":7`, `"app":7,"admin":true`, vars},
			{"another size", `"size":5`, `"size":6`, asIs},
			{"another key", "a%20b", "a%20c", key},
		}},
		{"blanks of the template", upload{template: "object=${object}\n&uid = ${x:uid}\r\n&app=7\n", vars: map[string]string{"uid": "42"}}, []change{
			{"another value", "42", "1", vars},
			{"without them", "\n&uid = ", "&uid=", asIs},
			{"one inside the value", "uid = 42", "uid = 4%202", vars},
		}},
		{"names with dots, and all that need escapes", upload{template: "a.b=${x:uid}&%C3%A9=1&a b=2&100%=3", vars: map[string]string{"uid": "42"}}, []change{
			{"nested for flat", "a.b=42", "a=42", vars},
			{"the name spelled otherwise", "%C3%A9=1", "é=1", asIs},
			{"another name", "100%=3", "101%=3", vars},
		}},
	} {
		body := tt.upload.issue(t, keyring(t))
		contentType := string(form)
		if tt.upload.bodyType != "" {
			contentType = string(tt.upload.bodyType)
		}
		if _, reason := tt.upload.admit(t, contentType, path, body); reason != "" {
			t.Errorf("%s: the genuine one is refused, %s: %s", tt.name, reason, body)
			continue
		}
		if _, reason := tt.upload.admit(t, contentType, path+"?admin=1", body); reason != vars {
			t.Errorf("%s: with a query the answer is %q", tt.name, reason)
		}
		for _, c := range tt.changes {
			changed := body + c.new
			if c.old != " " {
				if changed = strings.Replace(body, c.old, c.new, 1); changed == body && c.old != c.new {
					t.Fatalf("%s, %s: %q is not in %s", tt.name, c.name, c.old, body)
				}
			}
			if got, reason := tt.upload.admit(t, contentType, path, changed); reason != c.reason {
				t.Errorf("%s, %s: %q %s, want %q, in %s", tt.name, c.name, reason, got, c.reason, changed)
			}
		}
	}
}

// TestForeignQuery: what a callback URL says is fixed, too.
func TestForeignQuery(t *testing.T) {
	t.Parallel()
	const foreign = ReasonTokenForeignVars
	five := int64(5)
	url := func(queries ...string) (urls []string) {
		for _, query := range queries {
			urls = append(urls, "https://example.com"+path+query)
		}
		return urls
	}
	for _, tt := range []struct {
		urls []string
		want map[string]Reason // by the query that OSS calls with
	}{
		{url(""), map[string]Reason{"": "", "?id=1": foreign}},
		{url("?id=1&b=%2F+x"), map[string]Reason{"?id=1&b=%2F+x": "", "?b=/%20x&id=1": "", "": foreign, "?id=2&b=%2F+x": foreign, "?id=1": foreign,
			"?id=1&b=%2F+x&id=1": foreign, "?ID=1&b=%2F+x": foreign}},
		{url("?a=1&b=2&a=3"), map[string]Reason{"?a=1&b=2&a=3": "", "?b=2&a=1&a=3": "", "?a=3&b=2&a=1": foreign}},
		{url("?id=1", "?id=1"), map[string]Reason{"?id=1": "", "": foreign}},
		{url("?id=1", "?a=%20x&id=2", ""), map[string]Reason{"?id=1": "", "?id=2&a=+x": "", "": "", "?id=3": foreign, "?id=1&id=1": foreign,
			"?id": foreign, "?id=2": foreign}},
		{url("?a", "?b", "?c"), map[string]Reason{"?a": "", "?b": "", "?c": "", "?a=": "", "?d": foreign, "": foreign, "?a&b": foreign}},
	} {
		u := upload{urls: tt.urls, contentType: "image/jpeg", size: &five, vars: map[string]string{"uid": "42"}}
		body := u.issue(t, keyring(t))
		for query, want := range tt.want {
			if _, reason := u.admit(t, string(callbackspec.Form), path+query, body); reason != want {
				t.Errorf("%q, called with %q: %q, want %q", tt.urls, query, reason, want)
			}
		}
	}
}

// TestContentType: the header is not signed, so a replay of a callback can change how
// its body is read.
func TestContentType(t *testing.T) {
	t.Parallel()
	const form, js = callbackspec.Form, callbackspec.JSON
	uid := map[string]string{"uid": "a b"}
	for _, tt := range []struct {
		name   string
		upload upload
		as     string
		reason Reason
	}{
		{"form", upload{vars: uid}, string(form), ""},
		{"form with parameters", upload{vars: uid}, "application/x-www-form-urlencoded; charset=utf-8", ""},
		{"no type is a form", upload{vars: uid}, "", ""},
		{"JSON", upload{vars: uid, bodyType: js}, string(js), ""},
		{"JSON as a form, the key's plus a space", upload{vars: uid, bodyType: js}, string(form), ReasonTokenForeignKey},
		{"JSON as a form", upload{template: `{"size":${size}}`, bodyType: js}, string(form), ReasonTokenForeignVars},
		{"JSON without a type", upload{template: `{"size":${size}}`, bodyType: js}, "", ReasonTokenForeignVars},
		{"JSON in a form as JSON", upload{template: `{"bucket":"${bucket}","size":"${size}"}`}, string(js), ReasonTokenForeignVars},
		{"form as JSON, nothing in it encoded", upload{template: "bucket=${bucket}&size=${size}&note=x"}, string(js), ReasonTokenForeignVars},
		{"pairs of JSON as a form", upload{template: "size=${size}&uid=${x:uid}", vars: uid, bodyType: js}, string(form), ReasonTokenForged},
	} {
		body := tt.upload.issue(t, keyring(t))
		if _, reason := tt.upload.admit(t, tt.as, path, body); reason != tt.reason {
			t.Errorf("%s: %q, want %q, for %s", tt.name, reason, tt.reason, body)
		}
	}
	// Without tokens, a form still does not pass for JSON with its values encoded; and no
	// spelling of the token's name hides the token.
	optional := newPolicy(t, Config{TokenPolicy: TokenOptional})
	_, token := mint(t, "demo", "a.txt", noon.Add(time.Hour))
	for body, want := range map[string]Code{
		"bucket=demo&object=a%20b":                     Malformed,
		"bucket=demo&uid=a+b":                          Malformed,
		"bucket=demo&%75pcall_token=" + token:          BadToken,
		`bucket="demo"&%75pcall_token="` + token + `"`: BadToken,
	} {
		if e, refusal := optional.Admit(t.Context(), request(string(js), body), noon); refusal == nil || refusal.Code != want {
			t.Errorf("%s as JSON: %+v, %+v, want %s", body, refusal, e.Callback, want)
		}
	}
}
