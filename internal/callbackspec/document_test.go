package callbackspec_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	spec "upcall/internal/callbackspec"
)

func TestReadDocumentRefuses(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, text string
		rule       error
		says       string
	}{
		{"nothing", "", spec.ErrNotJSON, "end of JSON"},
		{"null", "null", spec.ErrNotJSON, "JSON null"},
		{"string", `"{}"`, spec.ErrNotJSON, "JSON string"},
		{"two objects", "{}{}", spec.ErrNotJSON, "after top-level value"},
		{"name twice", `{"a":1,"a":2}`, spec.ErrNotJSON, "appears twice"},
		{"not UTF-8", "{\"a\":\"\xff\"}", spec.ErrNotJSON, "UTF-8"},
		{"one byte too long", `{"a":"` + strings.Repeat("a", spec.MaxDocument/4*3-7) + `"}`, spec.ErrTooLarge, "5124"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d, err := spec.ReadDocument("callback", []byte(tt.text))
			mustBreak(t, err, tt.rule, "callback", tt.says)
			if d.JSON() != nil || d.Base64() != "" {
				t.Errorf("document %s", d.JSON())
			}
		})
	}
}

// TestDocumentIsItsBase64 tries the lengths around multiples of the pieces that are encoded
// one after the other.
func TestDocumentIsItsBase64(t *testing.T) {
	t.Parallel()
	const longest = spec.MaxDocument / 4 * 3
	for n := 8; n <= longest; n++ {
		if n > 1600 && n < longest-10 {
			continue
		}
		text := `{"a":"` + strings.Repeat("~?>", longest)[:n-8] + `"}`
		d, err := spec.ReadDocument("callback", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if want := base64.StdEncoding.EncodeToString([]byte(text)); d.Base64() != want || string(d.JSON()) != text {
			t.Fatalf("%d bytes become %s, %s", n, d.JSON(), d.Base64())
		}
	}
	var none spec.Document
	if none.JSON() != nil || none.Base64() != "" {
		t.Error("the zero value has a document")
	}
}

// TestTemplateInJSON: templates that begin like the default ones are written into the
// document as encoding/json would write them.
func TestTemplateInJSON(t *testing.T) {
	t.Parallel()
	var templates []string
	for _, bodyType := range []spec.BodyType{spec.Form, spec.JSON} {
		for _, names := range [][]string{nil, {"uid"}, {"uid", "album"}} {
			body, err := spec.DefaultBody(bodyType, names, true)
			if err != nil {
				t.Fatal(err)
			}
			templates = append(templates, body, body+`&a="b\c"é<>&`+"\u2028", body[:len(body)/2], strings.ToUpper(body), " "+body)
		}
	}
	for _, body := range slices.Concat(templates, []string{"", `"`, `a\`}) {
		var want bytes.Buffer
		enc := json.NewEncoder(&want)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(struct {
			URL  string `json:"callbackUrl"`
			Body string `json:"callbackBody"`
		}{"https://h.example/", body}); err != nil {
			t.Fatal(err)
		}
		got := spec.Parameter{URLs: []string{"https://h.example/"}, Body: body}.JSON()
		if diff := cmp.Diff(strings.TrimSuffix(want.String(), "\n"), string(got)); diff != "" {
			t.Errorf("%q (-want +got):\n%s", body, diff)
		}
	}
}

// TestTemplateAfterTheBeginning: what follows the beginning of a default template is checked
// like any other text.
func TestTemplateAfterTheBeginning(t *testing.T) {
	t.Parallel()
	for _, bodyType := range []spec.BodyType{spec.Form, spec.JSON} {
		body, err := spec.DefaultBody(bodyType, nil, false)
		if err != nil {
			t.Fatal(err)
		}
		for rest, says := range map[string]string{"&a=$b": "lone $", "&a=${x:A}": "${x:A}", "&a=${x:a": "without an end",
			"&a=${Bucket}": "unknown variable"} {
			p := spec.Parameter{URLs: []string{"https://h.example/"}, Body: body + rest, BodyType: bodyType}
			_, err := p.Document(spec.PublicHosts)
			mustBreak(t, err, spec.ErrTemplate, "callbackBody", says)
		}
	}
}
