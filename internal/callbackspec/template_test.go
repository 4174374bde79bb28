package callbackspec_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	spec "upcall/internal/callbackspec"
)

const (
	defaultForm = "bucket=${bucket}&object=${object}&etag=${etag}&size=${size}&mimeType=${mimeType}" +
		"&imageInfo.height=${imageInfo.height}&imageInfo.width=${imageInfo.width}&imageInfo.format=${imageInfo.format}" +
		"&crc64=${crc64}&contentMd5=${contentMd5}&vpcId=${vpcId}&clientIp=${clientIp}&reqId=${reqId}&operation=${operation}"
	defaultJSON = `{"bucket":${bucket},"object":${object},"etag":${etag},"size":${size},"mimeType":${mimeType},` +
		`"imageInfo.height":${imageInfo.height},"imageInfo.width":${imageInfo.width},"imageInfo.format":${imageInfo.format},` +
		`"crc64":${crc64},"contentMd5":${contentMd5},"vpcId":${vpcId},"clientIp":${clientIp},"reqId":${reqId},"operation":${operation}`
)

func TestDefaultBody(t *testing.T) {
	t.Parallel()
	tests := []struct {
		t         spec.BodyType
		vars      []string
		withToken bool
		want      string
	}{
		{spec.Form, nil, false, defaultForm},
		{"", nil, false, defaultForm},
		{spec.Form, []string{"uid", "album"}, true, defaultForm + "&album=${x:album}&uid=${x:uid}&upcall_token=${x:upcall_token}"},
		{spec.JSON, nil, false, defaultJSON + "}"},
		{spec.JSON, []string{"uid", "album"}, true, defaultJSON + `,"album":${x:album},"uid":${x:uid},"upcall_token":${x:upcall_token}}`},
	}
	for _, tt := range tests {
		got, err := spec.DefaultBody(tt.t, tt.vars, tt.withToken)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Error(diff)
		}
		p := spec.Parameter{URLs: []string{"https://h.example/oss/callback"}, Body: got, BodyType: tt.t}
		if err := p.Check(spec.PublicHosts); err != nil {
			t.Errorf("the default body breaks a rule: %v", err)
		}
	}
	for _, names := range [][]string{{"UID"}, {""}, {"a b"}, {"size"}, {"upcall_token"}, {"uid", "uid"}, {"x:uid"}} {
		body, err := spec.DefaultBody(spec.Form, names, true)
		if body != "" {
			t.Errorf("%q gave %s", names, body)
		}
		mustBreak(t, err, spec.ErrVarName, "x:"+names[0])
	}
}

func TestWithToken(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		t    spec.BodyType
		body string
		want string
	}{
		{"form", spec.Form, "filename=${object}", "filename=${object}&upcall_token=${x:upcall_token}"},
		{"form by default", "", "filename=${object}", "filename=${object}&upcall_token=${x:upcall_token}"},
		{"empty form", spec.Form, "", "upcall_token=${x:upcall_token}"},
		{"form with a line break at the end", spec.Form, "\no=${object}&s=${size}\r\n", "o=${object}&s=${size}&upcall_token=${x:upcall_token}"},
		{"form that has it", spec.Form, "t=${x:upcall_token}&o=${object}", "t=${x:upcall_token}&o=${object}"},
		{"JSON", spec.JSON, `{"o":${object}}`, `{"o":${object},"upcall_token":${x:upcall_token}}`},
		{"empty JSON", spec.JSON, `{ }`, `{"upcall_token":${x:upcall_token}}`},
		{"JSON over several lines", spec.JSON, "{\n \"o\": ${object}\n}\n", "{\n \"o\": ${object},\"upcall_token\":${x:upcall_token}}"},
		{"JSON that ends in an object", spec.JSON, `{"a":{"o":${object}}}`, `{"a":{"o":${object}},"upcall_token":${x:upcall_token}}`},
		{"JSON that has it", spec.JSON, `{"t":${x:upcall_token}}`, `{"t":${x:upcall_token}}`},
		{"pairs of JSON", spec.JSON, `o=${object}&s=${size}`, `o=${object}&s=${size}&upcall_token=${x:upcall_token}`},
		{"JSON in a form", spec.Form, `{"o":"${object}"}`, `{"o":"${object}","upcall_token":"${x:upcall_token}"}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := spec.WithToken(tt.body, tt.t)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Fatal(diff)
			}
			if again, err := spec.WithToken(got, tt.t); err != nil || again != got {
				t.Errorf("the second call gave %q, %v", again, err)
			}
			// The token arrives in every shape of template.
			body, err := spec.Expand(got, tt.t, spec.Values{"object": "a/b", "size": "1", spec.TokenVar: "k1.tok-en_1"})
			if err != nil {
				t.Fatal(err)
			}
			fields, err := spec.ParseFields("t=upcall_token")
			if err != nil {
				t.Fatal(err)
			}
			if tt.want != tt.body {
				fields = nil
			}
			c, err := spec.Parse(string(tt.t), []byte(body), fields)
			if err != nil || c.Token != "k1.tok-en_1" {
				t.Errorf("%s parses to the token %q, %v", body, c.Token, err)
			}
		})
	}
}

func TestWithTokenRefuses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		t          spec.BodyType
		body, says string
	}{
		{spec.JSON, "", "no place"},
		{spec.JSON, "[${object}]", "no place"},
		{spec.JSON, `"a=b"`, "no place"},
		{spec.JSON, "${object}", "no place"},
		{spec.JSON, `{"o":${object}`, "no place"},
		{spec.Form, `{"o":"${object}"`, "no place"},
		{spec.Form, "upcall_token=${x:token}", "names upcall_token"},
		{spec.JSON, `{"upcall_token":"constant"}`, "names upcall_token"},
		{spec.Form, "a=$", "lone $"},
	} {
		body, err := spec.WithToken(tt.body, tt.t)
		if body != "" {
			t.Errorf("%s gave %s", tt.body, body)
		}
		mustBreak(t, err, spec.ErrTemplate, "callbackBody", tt.says)
	}
}

// The expected substitutions come from genuinely signed callbacks, except where the name of
// the case says otherwise.
func TestExpand(t *testing.T) {
	t.Parallel()
	values := spec.Values{
		"bucket": "demo", "object": `zmaplex/2021_14:31/a.b-c_d~"é +*.jpg`, "size": "5385", "mimeType": "image/jpeg",
		"imageInfo.width": "810", "imageInfo.height": "539", "crc64": "18446744073709551615", "x:uid": "4&2", "x:empty": "", "vpcId": "",
	}
	tests := []struct {
		name string
		t    spec.BodyType
		body string
		want string
	}{
		{"form", spec.Form, "o=${object}&m=${mimeType}&s=${size}",
			"o=zmaplex%2F2021_14%3A31%2Fa.b-c_d~%22%C3%A9%20%2B%2A.jpg&m=image%2Fjpeg&s=5385"},
		{"form by default", "", "m=${mimeType}", "m=image%2Fjpeg"},
		{"constants of a form stay", spec.Form, "a b/ü=<&>&m=${mimeType}", "a b/ü=<&>&m=image%2Fjpeg"},
		{"no value in a form", spec.Form, "height=${imageInfo.format}&v=${vpcId}&x=${x:none}", "height=&v=&x="},
		{"custom in a form", spec.Form, "uid=${x:uid}", "uid=4%262"},
		{"JSON: quotes come from OSS, slashes stay, numbers are bare", spec.JSON,
			`{"o":${object},"s":${size},"h":${imageInfo.height},"c":${crc64}}`,
			`{"o":"zmaplex/2021_14:31/a.b-c_d~\"é +*.jpg","s":5385,"h":539,"c":18446744073709551615}`},
		{"JSON: a custom variable is text", spec.JSON, `{"uid":${x:uid},"e":${x:empty}}`, `{"uid":"4&2","e":""}`},
		{"JSON: no value (undocumented)", spec.JSON, `{"f":${imageInfo.format},"v":${vpcId},"x":${x:none}}`, `{"f":null,"v":null,"x":null}`},
		{"JSON: textual inside quotes", spec.JSON, `{"pic_info":"${imageInfo.width},${imageInfo.height}"}`, `{"pic_info":"810,539"}`},
		{"JSON: textual inside quotes breaks text", spec.JSON, `{"b":"${bucket}"}`, `{"b":""demo""}`},
		{"JSON: template of form shape", spec.JSON, "filename=${bucket}&size=${size}&mimeType=${mimeType}",
			`filename="demo"&size=5385&mimeType="image/jpeg"`},
		{"no variable", spec.JSON, "constant", "constant"},
		{"variables only", spec.Form, "${bucket}${size}", "demo5385"},
		{"empty", spec.Form, "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := spec.Expand(tt.body, tt.t, values)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	for _, body := range []string{"$", "${object", "${nope}", "$(object)", "${x:A}"} {
		got, err := spec.Expand(body, spec.Form, values)
		if got != "" {
			t.Errorf("%s gave %s", body, got)
		}
		mustBreak(t, err, spec.ErrTemplate, "callbackBody")
	}
}

func ptr[T any](v T) *T { return &v }

// TestExpandedDefaultParsesBack: the default template has the same meaning in both types.
func TestExpandedDefaultParsesBack(t *testing.T) {
	t.Parallel()
	text := everything()
	text.Vars = map[string]json.RawMessage{"album": json.RawMessage(`"été & \"co\"/1"`), "uid": json.RawMessage(`"42"`)}
	for _, want := range []spec.Callback{text, {Bucket: "b", Object: "o", Size: ptr[int64](0), Vars: text.Vars}} {
		for _, bodyType := range []spec.BodyType{spec.Form, spec.JSON} {
			template, err := spec.DefaultBody(bodyType, []string{"uid", "album"}, true)
			if err != nil {
				t.Fatal(err)
			}
			values := valuesOf(want)
			values["x:uid"], values["x:album"] = "42", `été & "co"/1`
			body, err := spec.Expand(template, bodyType, values)
			if err != nil {
				t.Fatal(err)
			}
			got, err := spec.Parse(string(bodyType), []byte(body), nil)
			if err != nil {
				t.Fatalf("%s: %v", body, err)
			}
			if diff := diffCallback(want, got); diff != "" {
				t.Errorf("%s: %s", bodyType, diff)
			}
		}
	}
}

// TestSystemFields compares the beginnings of the default templates with the list of
// variables.
func TestSystemFields(t *testing.T) {
	t.Parallel()
	var form, object []string
	for _, name := range spec.SystemVariables {
		form = append(form, name+"=${"+name+"}")
		object = append(object, `"`+name+`":${`+name+`}`)
	}
	for bodyType, want := range map[spec.BodyType]string{
		spec.Form: strings.Join(form, "&"),
		spec.JSON: "{" + strings.Join(object, ",") + "}",
	} {
		if got, err := spec.DefaultBody(bodyType, nil, false); err != nil || got != want {
			t.Errorf("%s: %s, want %s (%v)", bodyType, got, want, err)
		}
	}
}

// TestConstantsStayAsWritten: OSS encodes what it fills in and nothing else.
func TestConstantsStayAsWritten(t *testing.T) {
	t.Parallel()
	for contentType, body := range map[string]string{
		string(spec.Form): "object=a%2Fb&note=100%&a%=b",
		"":                `{"object":"a%2Fb","note":"100%","a%":"b"}`,
	} {
		got, err := spec.Parse(contentType, []byte(body), nil)
		if err != nil {
			t.Errorf("%s: %v", body, err)
			continue
		}
		if got.Object != "a/b" || string(got.Vars["note"]) != `"100%"` || string(got.Vars["a%"]) != `"b"` {
			t.Errorf("%s: got %q, %s", body, got.Object, got.Vars)
		}
	}
	if _, err := spec.Parse("", []byte("object=a%2"), nil); !errors.Is(err, spec.ErrMalformed) {
		t.Errorf("a system field that is not percent-encoded: %v", err)
	}
}
