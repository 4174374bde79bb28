package doctor

import (
	"strings"
	"testing"

	"upcall/internal/admission"
	"upcall/internal/callbackspec"
)

// TestTemplates: the doctor names the kind of mistake in a template, also where the receiver
// takes what comes of it.
func TestTemplates(t *testing.T) {
	t.Parallel()
	const formType, jsonType = string(callbackspec.Form), string(callbackspec.JSON)
	for _, tt := range []struct{ name, typ, body, fix, note string }{ // without a fix it is accepted
		{"line break at the end", formType, "filename=a1%2F1.png&size=70&height=1&width=1\n", "",
			"a line break, tab or space of the template is around field width, and is ignored"},
		{"JSON without its type", formType, `{"bucket":demo,"object":a2%2F1.txt,"mimeType":text%2Fplain,"size":5}`, "",
			"the template is JSON, but callbackBodyType is not, so OSS fills it in as a form: use json"},
		{"form of type JSON", jsonType, `filename="a.png"&size=5`, "", "use form, or write a JSON object"},
		{"quotes around a variable", jsonType, `{"object":""a.png""}`, "write ${object} without quotes around it", ""},
		{"escaped quotes", jsonType, `{\"object\":"a.png"}`, `the quotes are escaped (\"): write them plain`, ""},
		{"percent-encoded", formType, "bucket=%24%7Bbucket%7D", "give OSS the template as it is, not percent-encoded", ""},
		{"unit beside a number", formType, "size=5B", "let the field hold ${size} and nothing else", ""},
		{"a form of the type of JSON", jsonType, "object=a%2Fb&size=5", "have the proxy pass Content-Type on unchanged", ""},
		{"field twice", formType, "object=a&object=b", "name each field once", ""},
	} {
		cfg := testKey
		cfg.Admission.TokenPolicy = admission.TokenOff
		r := examine(t, cfg, signedCallback("/oss/callback", tt.typ, tt.body))
		if tt.note != "" && !strings.Contains(strings.Join(r.Notes, "\n"), tt.note) {
			t.Errorf("%s: notes %q, want %q", tt.name, r.Notes, tt.note)
		}
		if r.Accepted != (tt.fix == "") || !r.Accepted && !strings.Contains(r.Refusals[0].Fix, tt.fix) {
			t.Errorf("%s: accepted %t, refusals %+v, want %q", tt.name, r.Accepted, r.Refusals, tt.fix)
		}
	}
}

// TestCommaForColon has a callback that OSS signed although its template is not JSON.
func TestCommaForColon(t *testing.T) {
	t.Parallel()
	c := &Capture{Format: Raw, Method: "POST", Target: "/temp/oss/index.php", Body: []byte(`{"mimeType":"image/png", "size":1081151, ` +
		`"filename","ipa/demo/4c7ccb26-8495-4f46-be10-df2b3296b7f6.png", "bucket":"oss-mixmedia-com"}`)}
	c.set("Authorization", "MEV0a4eDF4hqB2W1b7Xm9fj8N9NmGHmgKThpMJqFOf+qFoLJsy5AolGPYL/nQqvNhDQQ3MV74/VJT9p0iOg6ng==")
	c.set("Content-Type", "application/json")
	c.set("x-oss-pub-key-url", "aHR0cHM6Ly9nb3NzcHVibGljLmFsaWNkbi5jb20vY2FsbGJhY2tfcHViX2tleV92MS5wZW0=")
	r := examine(t, Config{}, c)
	if r.Verdict != Verifies || r.Accepted || !strings.Contains(r.Refusals[0].Fix, "write a colon between a name and its value") {
		t.Errorf("%s, accepted %t, refusals %+v", r.Verdict, r.Accepted, r.Refusals)
	}
}
