package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"upcall/internal/event"
	"upcall/internal/fault"
	"upcall/internal/hooks"
)

// checkFaults checks that each mistake has a name, is one line and is a problem of the caller's.
func checkFaults(t *testing.T, faults error) {
	t.Helper()
	for _, f := range fault.Of(faults) {
		if f.Field == "" || strings.ContainsAny(f.Error(), "\r\n\x00") {
			t.Errorf("%+q", f)
		}
	}
	if p := asProblem(faults); p.kind != kindMalformed || len(p.errors) != len(fault.Of(faults)) || p.detail == "" {
		t.Errorf("%+v of %q", p, faults)
	}
}

// FuzzQuery checks that a query is refused with reasons, or is read as what it says.
func FuzzQuery(f *testing.F) {
	cursor := strings.Repeat("A", 64)
	for _, seed := range []string{
		"", "after=now&limit=10&wait=1s", "after=" + cursor, "bucket=bbb&key_prefix=a/&var.user=42", "var.a=1&var.b=2", "limit=1e3",
		"wait=1h", "wait=-0s", "limit=+5", "a;b", "%zz", "var.=", "bucket=a&bucket=b", "key_prefix=%00%ff", "after=%20now", "=", "&&",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p := parseQuery(text, "after", "limit", "wait", "bucket", "key_prefix", varParameter)
		at, limit, wait, matches := p.place("after", p.text("after")), p.number("limit", someEvents, 1, mostEvents), p.wait(), p.filter()
		if err := p.faults.Err(); err != nil {
			checkFaults(t, err)
			return
		}
		if limit < 1 || limit > mostEvents || wait < 0 || wait > longestWait {
			t.Errorf("%q: limit %d, wait %v", text, limit, wait)
		}
		values, err := url.ParseQuery(text)
		if err != nil {
			t.Fatalf("%q is read, and cannot be: %v", text, err)
		}
		if after := values.Get("after"); at.oldest != (after == "") || at.now != (after == "now") || !at.oldest && !at.now && at.cursor.String() != after {
			t.Errorf("%q: begins at %+v", text, at)
		}
		filtered := false
		one := &event.Event{}
		one.Callback.Bucket, one.Callback.Object, one.Callback.Vars = values.Get("bucket"), values.Get("key_prefix")+"z", map[string]json.RawMessage{}
		for name, all := range values {
			if len(all) != 1 {
				t.Errorf("%q: %s is given %d times", text, name, len(all))
			}
			variable, isVar := strings.CutPrefix(name, varParameter)
			filtered = filtered || isVar || name == "bucket" || name == "key_prefix"
			if isVar {
				if one.Callback.Vars[variable], err = json.Marshal(all[0]); err != nil {
					t.Fatal(err)
				}
			}
		}
		if (matches != nil) != filtered || filtered && !matches(one) {
			t.Errorf("%q: the filter does not match what it asks for", text)
		}
	})
}

// FuzzChange checks that a body is refused with reasons, or is read as encoding/json reads it.
func FuzzChange(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"name":"a","url":"https://example.com/"}`, `{"on":["gone"],"buckets":[],"key_prefixes":["a/"],"key_globs":["*"]}`,
		`{"vars":{"a":"b"},"headers":{"X-A":"b"},"max_in_flight":3}`, `{"vars":{"a":"1","a":"2"}}`, `{"name":null}`, `{"max_in_flight":1e1}`,
		`{"name":"\ud800"}`, "{\"name\":\"\xff\"}", `{"NAME":"a"}`, `[]`, `{"a":`, `{} {}`, `{"buckets":[null]}`, `{"":""}`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r := httptest.NewRequest("PATCH", "/", strings.NewReader(text))
		r.Header.Set("Content-Type", "application/json")
		var got, want hooks.Change
		err := changeMembers(&got).read(r)
		if p, ok := errors.AsType[*problem](err); ok {
			if p.kind != kindTooLarge || len(text) <= mostBody {
				t.Errorf("%+v", p)
			}
			return
		}
		if err != nil {
			checkFaults(t, err)
			return
		}
		decoder := json.NewDecoder(bytes.NewReader([]byte(text)))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&want); err != nil {
			t.Fatalf("%q is read, and is %v", text, err)
		}
		if diff := cmp.Diff(want.Apply(hooks.Settings{}), got.Apply(hooks.Settings{})); diff != "" {
			t.Errorf("%q (-encoding/json +read):\n%s", text, diff)
		}
	})
}
