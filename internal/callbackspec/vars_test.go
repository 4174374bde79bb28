package callbackspec_test

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	spec "upcall/internal/callbackspec"
	"upcall/internal/fault"
)

func TestVarsRefused(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		vars  spec.Vars
		rule  error
		field string
		says  string
	}{
		{"no prefix", spec.Vars{"uid": "1"}, spec.ErrVarName, "uid", "write x:uid"},
		{"upper-case prefix", spec.Vars{"X:uid": "1"}, spec.ErrVarName, "X:uid", "lower case"},
		{"upper-case name", spec.Vars{"x:Uid": "1"}, spec.ErrVarName, "x:Uid", "'U'"},
		{"nothing after the prefix", spec.Vars{"x:": "1"}, spec.ErrVarName, "x:", "no name"},
		{"no name at all", spec.Vars{"": "1"}, spec.ErrVarName, "", "start with x:"},
		{"space", spec.Vars{"x:a b": "1"}, spec.ErrVarName, "x:a b", "' '"},
		{"brace", spec.Vars{"x:a}": "1"}, spec.ErrVarName, "x:a}", "'}'"},
		{"colon", spec.Vars{"x:x:a": "1"}, spec.ErrVarName, "x:x:a", "':'"},
		{"another script", spec.Vars{"x:名": "1"}, spec.ErrVarName, "x:名", "'名'"},
		{"line break and escape", spec.Vars{"x:a\n\x1b[31m": "1"}, spec.ErrVarName, "x:a??[31m", "lower-case"},
		{"value with NUL", spec.Vars{"x:a": "1\x00"}, spec.ErrVarValue, "x:a", "Base64"},
		{"value not UTF-8", spec.Vars{"x:a": "\xc3("}, spec.ErrVarValue, "x:a", "UTF-8"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			mustBreak(t, tt.vars.Check(), tt.rule, tt.field, tt.says)
			document, err := tt.vars.Document()
			if document.Base64() != "" {
				t.Errorf("Document gave %q", document.Base64())
			}
			mustBreak(t, err, tt.rule, tt.field, tt.says)
		})
	}
}

func TestDecodeVarsRefuses(t *testing.T) {
	t.Parallel()
	b64 := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	tests := []struct {
		name, encoded string
		rule          error
		field, says   string
	}{
		{"not Base64", "!", spec.ErrNotBase64, "callback-var", "standard Base64"},
		{"URL-safe Base64", strings.ReplaceAll(b64(`{"x:a":"???>>>"}`), "/", "_"), spec.ErrNotBase64, "callback-var", "+ /"},
		{"line break", "e30=\n", spec.ErrNotBase64, "callback-var", "standard Base64"},
		{"nothing", "", spec.ErrNotJSON, "callback-var", "end of JSON"},
		{"array", b64(`["x:a"]`), spec.ErrNotJSON, "callback-var", "JSON array"},
		{"null", b64(`null`), spec.ErrNotJSON, "callback-var", "JSON null"},
		{"more after the object", b64(`{"x:a":"1"},`), spec.ErrNotJSON, "callback-var", "after top-level value"},
		{"name twice", b64(`{"x:a":"1","x:a":"1"}`), spec.ErrNotJSON, "callback-var", "x:a appears twice"},
		{"number", b64(`{"x:a":1}`), spec.ErrNotJSON, "x:a", "give a string"},
		{"boolean", b64(`{"x:a":true}`), spec.ErrNotJSON, "x:a", "JSON boolean"},
		{"null value", b64(`{"x:a":null}`), spec.ErrNotJSON, "x:a", "JSON null"},
		{"object", b64(`{"x:a":{"b":"c"}}`), spec.ErrNotJSON, "x:a", "JSON object"},
		{"half a surrogate pair", b64(`{"x:a":"\udc00"}`), spec.ErrNotJSON, "callback-var", "surrogate"},
		{"escaped NUL", b64(`{"x:a":"\u0000"}`), spec.ErrNotJSON, "callback-var", "NUL"},
		{"no prefix", b64(`{"a":"1"}`), spec.ErrVarName, "a", "write x:a"},
		{"upper case", b64(`{"x:A":"1"}`), spec.ErrVarName, "x:A", "lower-case"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			vars, err := spec.DecodeVars(tt.encoded)
			mustBreak(t, err, tt.rule, tt.field, tt.says)
			if vars != nil {
				t.Errorf("an error, but also %v", vars)
			}
		})
	}
}

func TestVarsSizeLimit(t *testing.T) {
	t.Parallel()
	vars := spec.Vars{"x:a": strings.Repeat("a", spec.MaxDocument/4*3-len(`{"x:a":""}`))}
	document, err := vars.Document()
	if err != nil || len(document.Base64()) != spec.MaxDocument {
		t.Fatalf("Document of exactly %d bytes gave %d, %v", spec.MaxDocument, len(document.Base64()), err)
	}
	if _, err := spec.DecodeVars(document.Base64()); err != nil {
		t.Errorf("DecodeVars of exactly %d bytes: %v", spec.MaxDocument, err)
	}
	vars["x:a"] += "a"
	mustBreak(t, vars.Check(), spec.ErrTooLarge, "callback-var", "5124", "5120")
	_, err = spec.DecodeVars(base64.StdEncoding.EncodeToString(vars.JSON()))
	mustBreak(t, err, spec.ErrTooLarge, "callback-var", "5124", "5120")
}

func TestVarsRoundTrip(t *testing.T) {
	t.Parallel()
	vars := spec.Vars{"x:uid": "42", "x:note": "a&b <c> \"d\" / 你\n", "x:empty": "", "x:a-b_c.9": "x"}
	const document = `{"x:a-b_c.9":"x","x:empty":"","x:note":"a&b <c> \"d\" / 你\n","x:uid":"42"}`
	if diff := cmp.Diff(document, string(vars.JSON())); diff != "" {
		t.Error(diff)
	}
	if got := string(spec.Vars(nil).JSON()); got != "{}" {
		t.Errorf("nil is %s", got)
	}
	for _, want := range []spec.Vars{vars, {}} {
		document, err := want.Document()
		if err != nil {
			t.Fatal(err)
		}
		got, err := spec.DecodeVars(document.Base64())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
}

func TestCheckReferences(t *testing.T) {
	t.Parallel()
	vars := spec.Vars{"x:uid": "1"}
	if err := vars.CheckReferences("object=${object}&uid=${x:uid}&again=${x:uid}"); err != nil {
		t.Error(err)
	}
	if err := spec.Vars(nil).CheckReferences("object=${object}"); err != nil {
		t.Error(err)
	}
	mustBreak(t, vars.CheckReferences("object=${object}"), spec.ErrTemplate, "x:uid", "add ${x:uid}")
	mustBreak(t, vars.CheckReferences("${x:uid}${x:gid}"), spec.ErrTemplate, "callbackBody", "${x:gid}, which has no value")
	mustBreak(t, vars.CheckReferences("$"), spec.ErrTemplate, "callbackBody", "lone $")
	if got := len(fault.Of(vars.CheckReferences("${x:a}${x:b}${x:a}"))); got != 3 {
		t.Errorf("%d mistakes, want 3: a and b without a value, uid not in the template", got)
	}
}
