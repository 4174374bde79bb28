package callbackspec_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	spec "upcall/internal/callbackspec"
)

// TestDefaultTerms: the short way to the terms of a default template is the same as the
// long one.
func TestDefaultTerms(t *testing.T) {
	t.Parallel()
	for _, bodyType := range []spec.BodyType{"", spec.Form, spec.JSON} {
		for _, vars := range []spec.Vars{nil, {"x:uid": "4 2"}, {"x:uid": "42", "x:album": "", "x:a.b": "é"}} {
			var names []string
			for _, name := range []string{"a.b", "album", "uid"} {
				if _, ok := vars["x:"+name]; ok {
					names = append(names, name)
				}
			}
			body, err := spec.DefaultBody(bodyType, names, true)
			if err != nil {
				t.Fatal(err)
			}
			urls := []string{"https://a.example/?x=1", "b.example?x=2", "https://c.example/"}
			long, err := spec.Parameter{Body: body, BodyType: bodyType, URLs: urls}.Terms(vars, nil)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(long, spec.DefaultTerms(bodyType, urls, names, vars)); diff != "" {
				t.Errorf("%s, %v: %s", bodyType, vars, diff)
			}
			if len(long.Queries) != 3 || long.Shape != nil {
				t.Errorf("%+v", long)
			}
		}
	}
}

func TestTermsRefuses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		t          spec.BodyType
		body, says string
	}{
		{spec.Form, "object=${object}&${bucket}=1", "in the name of a field"},
		{spec.Form, "object=${object}&${bucket}", "in the name of a field"},
		{spec.Form, `{"a":{"${bucket}":1}}`, "in the name of a field"},
		{spec.JSON, `{${bucket}:1}`, "in the name of a field"},
		{spec.JSON, `{"a":{${bucket}:1}}`, "in the name of a field"},
		{spec.JSON, `{"a":"${bucket}"}`, "cannot be read"},
		{spec.Form, "object=${object", "without an end"},
	} {
		terms, err := spec.Parameter{Body: tt.body, BodyType: tt.t}.Terms(nil, nil)
		if terms.Rest != nil {
			t.Errorf("%s gave %+v", tt.body, terms)
		}
		mustBreak(t, err, spec.ErrTemplate, "callbackBody", tt.says)
	}
	// What the issuer fills in is known.
	if _, err := (spec.Parameter{Body: "object=${object}&${x:n}=1"}).Terms(spec.Vars{"x:n": "uid"}, nil); err != nil {
		t.Error(err)
	}
}

// FuzzTerms: whatever OSS fills in, the receiver finds the terms that the issuer found, if
// it can read the body at all.
func FuzzTerms(f *testing.F) {
	for _, template := range []string{
		"object=${object}&uid=${x:uid}&filename=${object}&info=${bucket}/${object}&n=7&${x:uid}=1&upcall_token=${x:upcall_token}",
		`{"object":${object},"m":{"uid":${x:uid},"l":[${size},${x:uid},null,{}],"i":{"h":${imageInfo.height}}},"n":1.50}`,
		`{"object":"${object}","m":{"u":"${x:uid}","s":["${size}"]},"b":"${bucket}/${x:uid}"}`,
		"filename=${object}&uid=${x:uid}&size=${size}&app=7", "size=7&mimeType=${x:uid}&etag=${bucket}", "a.b=1&a=2&=3&%41=4",
	} {
		f.Add(template, "a/b &=+é\"\\.jpg", "4 2", "5", false)
		f.Add(template, "", "", "", true)
	}
	foreign := mustFields(f, "filename=object,m.u=etag,size=size,t=upcall_token")
	f.Fuzz(func(t *testing.T, template, object, uid, size string, asJSON bool) {
		bodyType := spec.Form
		if asJSON {
			bodyType = spec.JSON
		}
		vars := spec.Vars{"x:uid": uid}
		terms, err := spec.Parameter{Body: template, BodyType: bodyType}.Terms(vars, nil)
		if err != nil {
			return
		}
		values := spec.Values{"x:uid": uid, "object": object, "bucket": "demo", spec.TokenVar: "k1.2.a-_Z"}
		if size != "" {
			values["size"], values["imageInfo.height"] = "5", "6"
		}
		body, err := spec.Expand(template, bodyType, values)
		if err != nil {
			t.Fatal(err)
		}
		for _, fields := range []spec.Fields{nil, foreign} {
			_, content, err := spec.Read(string(bodyType), []byte(body), fields)
			if err != nil {
				continue
			}
			vars, rest := content.Terms(terms.Shape)
			if !bytes.Equal(vars, terms.Vars) || !bytes.Equal(rest, terms.Rest) {
				t.Errorf("%s: terms\n%q\n%q, issued\n%q\n%q", body, vars, rest, terms.Vars, terms.Rest)
			}
		}
	})
}

// TestVarsTerms checks that variables alone have the terms that they have in the body of the
// default template, of either type and with the upload token.
func TestVarsTerms(t *testing.T) {
	t.Parallel()
	for _, vars := range []spec.Vars{{}, {"x:uid": "7"}, {"x:b": "", "x:a": `ü "&=<>`, "x:a.b": "1", "x:a-b": "2"}} {
		var names []string
		values := spec.Values{spec.TokenVar: "k.2.x"}
		for name, value := range vars {
			names = append(names, strings.TrimPrefix(name, spec.VarPrefix))
			values[name] = value
		}
		for _, kind := range []spec.BodyType{spec.Form, spec.JSON} {
			template, err := spec.DefaultBody(kind, names, true)
			if err != nil {
				t.Fatal(err)
			}
			body, err := spec.Expand(template, kind, values)
			if err != nil {
				t.Fatal(err)
			}
			_, content, err := spec.Read(string(kind), []byte(body), nil)
			if err != nil {
				t.Fatal(err)
			}
			want, _ := content.Terms(nil)
			if got, rest := vars.Terms(nil); !bytes.Equal(got, want) || rest != nil {
				t.Errorf("%v as %s: got %q and %q, want %q", vars, kind, got, rest, want)
			}
		}
	}
}
