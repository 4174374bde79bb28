package oss_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"upcall/internal/callbackspec"
	"upcall/internal/fault"
	"upcall/internal/oss"
	"upcall/internal/ossrule"
)

func goodForm(t testing.TB) oss.Form {
	t.Helper()
	callback, err := callbackspec.Parameter{URLs: []string{"https://a.example.com/"}, Body: "object=${object}&u=${x:uid}"}.
		Document(callbackspec.PublicHosts)
	if err != nil {
		t.Fatal(err)
	}
	return oss.Form{
		Object: oss.Object{Bucket: "demo", Key: "photos/42/", ContentType: "image/png", Meta: map[string]string{"A": "<1>&"},
			Headers: map[string]string{"Cache-Control": "no-cache"}, ForbidOverwrite: true},
		ByPrefix: true, Expires: time.Hour, MinSize: 1, MaxSize: 5, Callback: callback, Vars: callbackspec.Vars{"x:uid": "4\"2"},
	}
}

func formClient(t testing.TB, change func(*oss.Config)) *oss.Client {
	t.Helper()
	cfg := oss.Config{Region: "cn-hangzhou", AccessKeyID: "ak", AccessKeySecret: "sk"}
	if change != nil {
		change(&cfg)
	}
	client, err := oss.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// TestForm: the policy has a condition on each field that is sent, but for itself and its signature.
func TestForm(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		change func(*oss.Config)
		url    string
	}{
		"OSS":        {nil, "https://demo.oss-cn-hangzhou.aliyuncs.com/"},
		"temporary":  {func(c *oss.Config) { c.SessionToken = "token" }, "https://demo.oss-cn-hangzhou.aliyuncs.com/"},
		"path style": {func(c *oss.Config) { c.Endpoint = "http://127.0.0.1:9000" }, "http://127.0.0.1:9000/demo/"},
		"a domain":   {func(c *oss.Config) { c.Endpoint, c.CName = "https://cdn.example.com", true }, "https://cdn.example.com/"},
	} {
		form := goodForm(t)
		signed, err := formClient(t, tt.change).Form(t.Context(), form)
		if err != nil {
			t.Fatal(err)
		}
		if signed.URL != tt.url || time.Until(signed.ExpiresAt) > time.Hour || time.Until(signed.ExpiresAt) < 59*time.Minute {
			t.Errorf("%s: %s until %s", name, signed.URL, signed.ExpiresAt)
		}
		document, err := base64.StdEncoding.DecodeString(signed.Fields["policy"])
		if err != nil {
			t.Fatal(err)
		}
		var policy struct {
			Expiration time.Time
			Conditions []json.RawMessage
		}
		if err := json.Unmarshal(document, &policy); err != nil || !policy.Expiration.Equal(signed.ExpiresAt) {
			t.Fatalf("%s: %v in %s", name, err, document)
		}
		want := map[string]string{"policy": "", "x-oss-signature": ""}
		for i, raw := range policy.Conditions {
			var list []string
			switch {
			case i == 0 && string(raw) == `{"bucket":"demo"}`, i == 1 && string(raw) == `["content-length-range",1,5]`:
			case json.Unmarshal(raw, &list) == nil && len(list) == 3 && list[0] == "eq":
				want[list[1][1:]] = list[2]
			case string(raw) == `["starts-with","$key","photos/42/"]`:
				want["key"] = "photos/42/${filename}"
			default:
				t.Errorf("%s: condition %s", name, raw)
			}
		}
		got := maps.Clone(signed.Fields)
		got["policy"], got["x-oss-signature"] = "", ""
		if diff := cmp.Diff(want, got); diff != "" || len(got) < 12 {
			t.Errorf("%s (-policy +fields):\n%s", name, diff)
		}
		if (signed.Fields["x-oss-security-token"] != "") != (name == "temporary") || signed.Fields["x:uid"] != `4"2` {
			t.Errorf("%s: %v", name, slices.Sorted(maps.Keys(signed.Fields)))
		}
	}
}

func TestFormRefuses(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		change func(*oss.Form)
		rule   error
		field  string
	}{
		"no bucket":                 {func(f *oss.Form) { f.Object.Bucket = "" }, ossrule.ErrBucket, "bucket"},
		"no key":                    {func(f *oss.Form) { f.Object.Key, f.ByPrefix = "", false }, ossrule.ErrKey, "key"},
		"the file's name in a key":  {func(f *oss.Form) { f.Object.Key, f.ByPrefix = "a/${filename}", false }, ossrule.ErrKey, "key"},
		"no prefix":                 {func(f *oss.Form) { f.Object.Key = "" }, ossrule.ErrKey, "key-prefix"},
		"no folder":                 {func(f *oss.Form) { f.Object.Key = "photos/4" }, ossrule.ErrKey, "key-prefix"},
		"a slash":                   {func(f *oss.Form) { f.Object.Key = "/" }, ossrule.ErrKey, "key-prefix"},
		"a backslash":               {func(f *oss.Form) { f.Object.Key = `\a/` }, ossrule.ErrKey, "key-prefix"},
		"the name in a prefix":      {func(f *oss.Form) { f.Object.Key = "${filename}/" }, ossrule.ErrKey, "key-prefix"},
		"a prefix that is no UTF-8": {func(f *oss.Form) { f.Object.Key = "\xff/" }, ossrule.ErrKey, "key-prefix"},
		"a NUL":                     {func(f *oss.Form) { f.Object.Key = "\x00/" }, ossrule.ErrKey, "key-prefix"},
		"a long prefix":             {func(f *oss.Form) { f.Object.Key = strings.Repeat("a", 768) + "/" }, ossrule.ErrKey, "key-prefix"},
		"many folders":              {func(f *oss.Form) { f.Object.Key = strings.Repeat("a/", 17) }, ossrule.ErrKey, "key-prefix"},
		"a tag":                     {func(f *oss.Form) { f.Object.Tags = map[string]string{"a": "1"} }, oss.ErrTag, "tag"},
		"no time":                   {func(f *oss.Form) { f.Expires = 0 }, oss.ErrExpires, "expires"},
		"a long time":               {func(f *oss.Form) { f.Expires = 8 * 24 * time.Hour }, oss.ErrExpires, "expires"},
		"less than nothing":         {func(f *oss.Form) { f.MinSize = -1 }, oss.ErrContentLength, "min-size"},
		"too much at least":         {func(f *oss.Form) { f.MinSize, f.MaxSize = 5<<30+1, 5<<30 }, oss.ErrContentLength, "min-size"},
		"too much":                  {func(f *oss.Form) { f.MaxSize = 5<<30 + 1 }, oss.ErrContentLength, "max-size"},
		"limits the wrong way":      {func(f *oss.Form) { f.MinSize = 6 }, oss.ErrContentLength, "max-size"},
		"variables alone":           {func(f *oss.Form) { f.Callback = callbackspec.Document{} }, oss.ErrCallback, "callback-var"},
		"a type that is none":       {func(f *oss.Form) { f.Object.ContentType = "png" }, oss.ErrContentType, "content-type"},
		"a header of its own":       {func(f *oss.Form) { f.Object.Headers = map[string]string{"x-oss-date": "1"} }, oss.ErrHeader, "header x-oss-date"},
	} {
		form := goodForm(t)
		tt.change(&form)
		_, err := formClient(t, nil).Form(t.Context(), form)
		faults := fault.Of(err)
		if !errors.Is(err, tt.rule) || len(faults) != 1 || faults[0].Field != tt.field {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzForm: whatever is in a form, either it is refused, or the policy says the same as the fields.
func FuzzForm(f *testing.F) {
	f.Add("photos/42/", "x:uid", "42", "image/png", int64(0), int64(5), true)
	f.Add("a", "x:uid", "\"\\\u2028</script>", "text/plain; charset=utf-8", int64(5), int64(5), false)
	f.Add("a\x00/", "x:", "\xff", "", int64(-1), int64(1)<<62, true)
	client := formClient(f, nil)
	f.Fuzz(func(t *testing.T, key, name, value, kind string, least, most int64, byPrefix bool) {
		form := goodForm(t)
		form.Object.Key, form.ByPrefix, form.MinSize, form.MaxSize, form.Object.ContentType = key, byPrefix, least, most, kind
		vars := callbackspec.Vars{name: value}
		if vars.Check() != nil {
			return
		}
		form.Vars = vars
		signed, err := client.Form(t.Context(), form)
		if err != nil {
			if len(fault.Of(err)) == 0 {
				t.Fatalf("no mistake of the form's: %v", err)
			}
			return
		}
		document, _ := base64.StdEncoding.DecodeString(signed.Fields["policy"])
		var policy struct{ Conditions []any }
		if err := json.Unmarshal(document, &policy); err != nil {
			t.Fatal(err)
		}
		for field, value := range signed.Fields {
			if field == "policy" || field == "x-oss-signature" || field == "key" && byPrefix {
				continue
			}
			if !slices.ContainsFunc(policy.Conditions, func(c any) bool { return cmp.Equal(c, []any{"eq", "$" + field, value}) }) {
				t.Errorf("no condition on %s=%q in %s", field, value, document)
			}
		}
	})
}
