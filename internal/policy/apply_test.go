package policy_test

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"upcall/internal/policy"
)

// evening is a time that is on the next day in UTC.
var evening = time.Date(2026, 11, 22, 20, 0, 0, 0, time.FixedZone("", -8*3600))

// goodRequest returns a request that the good file allows.
func goodRequest() policy.Request {
	return policy.Request{
		APIKeyID: "web", Bucket: "demo", Key: "photos/web/cat.jpg", ContentType: "image/jpeg",
		Size: new(int64(1024)), Expires: new(15 * time.Minute), Vars: map[string]string{"uid": "42", "album": "cats"},
	}
}

func TestApply(t *testing.T) {
	t.Parallel()
	photos := parse(t, good).Policy("photos")
	got, violations := photos.Apply(goodRequest(), evening)
	if len(violations) > 0 {
		t.Fatal(violations)
	}
	want := policy.Grant{
		Bucket: "demo", Key: "photos/web/cat.jpg", ContentType: "image/jpeg", Size: 1024, Expires: 15 * time.Minute,
		CallbackURLs: []string{"https://uploads.example.com/oss/callback"}, Vars: map[string]string{"uid": "42", "album": "cats"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("grant (-want +got):\n%s", diff)
	}
}

func TestApplyDefaults(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		old    string
		new    string
		change func(*policy.Request)
		check  func(policy.Grant) bool
	}{
		{"the first bucket", "[demo]", "[first, demo]", func(r *policy.Request) { r.Bucket = "" },
			func(g policy.Grant) bool { return g.Bucket == "first" }},
		{"an hour", "max_expiry: 1h", "max_expiry: 7d", func(r *policy.Request) { r.Expires = nil },
			func(g policy.Grant) bool { return g.Expires == time.Hour }},
		{"less than an hour", "max_expiry: 1h", "max_expiry: 5m", func(r *policy.Request) { r.Expires = nil },
			func(g policy.Grant) bool { return g.Expires == 5*time.Minute }},
		{"the largest size", "", "", func(r *policy.Request) { r.Size = new(int64(20 << 20)) },
			func(g policy.Grant) bool { return g.Size == 20<<20 }},
		{"an empty file", "", "", func(r *policy.Request) { r.Size = new(int64(0)) }, func(g policy.Grant) bool { return g.Size == 0 }},
		{"the longest expiry", "", "", func(r *policy.Request) { r.Expires = new(time.Hour) },
			func(g policy.Grant) bool { return g.Expires == time.Hour }},
		{"a group of types", "image/jpeg", "image/*", func(r *policy.Request) { r.ContentType = "Image/WebP" },
			func(g policy.Grant) bool { return g.ContentType == "Image/WebP" }},
		{"an active type that is named", "image/jpeg", "image/*, image/svg+xml", func(r *policy.Request) { r.ContentType = "image/svg+xml" },
			func(g policy.Grant) bool { return g.ContentType == "image/svg+xml" }},
		{"an active type where any is allowed", "image/jpeg", "'*/*'", func(r *policy.Request) { r.ContentType = "text/html" },
			func(g policy.Grant) bool { return g.ContentType == "text/html" }},
		{"a type with a parameter", "image/jpeg", "text/plain", func(r *policy.Request) { r.ContentType = "text/plain; charset=utf-8" },
			func(g policy.Grant) bool { return g.ContentType == "text/plain; charset=utf-8" }},
		{"any type", "image/jpeg", "'*/*'", func(r *policy.Request) { r.ContentType = "application/zip" },
			func(g policy.Grant) bool { return g.ContentType == "application/zip" }},
		{"no type where any is allowed", "image/jpeg", "'*/*'", func(r *policy.Request) { r.ContentType = "" },
			func(g policy.Grant) bool { return g.ContentType == "" }},
		{"an allowed variable may be missing", "", "", func(r *policy.Request) { delete(r.Vars, "album") },
			func(g policy.Grant) bool { return len(g.Vars) == 1 }},
		{"any key", "photos/${apikey.id}/\"]", "*\"]", func(r *policy.Request) { r.Key = "a b/ä.txt" },
			func(g policy.Grant) bool { return g.Key == "a b/ä.txt" }},
		{"a date in a prefix is UTC's", "photos/${apikey.id}/\"]", "${date}/\"]",
			func(r *policy.Request) { r.Key = "2026-11-23/x" }, func(g policy.Grant) bool { return g.Key == "2026-11-23/x" }},
		{"variables in a key are text", "", "", func(r *policy.Request) { r.Key = "photos/web/${uuid}" },
			func(g policy.Grant) bool { return g.Key == "photos/web/${uuid}" }},
		{"the application's template under a prefix", "", "",
			func(r *policy.Request) { r.Key, r.KeyTemplate = "", "photos/${apikey.id}/x-${date}" },
			func(g policy.Grant) bool { return g.Key == "photos/web/x-2026-11-23" }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			file := strings.Replace(good, tt.old, tt.new, 1)
			r := goodRequest()
			tt.change(&r)
			grant, violations := parse(t, file).Policy("photos").Apply(r, evening)
			if len(violations) > 0 || !tt.check(grant) {
				t.Errorf("grant %+v, violations %v", grant, violations)
			}
		})
	}
}

// TestTemplate uses the policy's own template, by default and by name.
func TestTemplate(t *testing.T) {
	t.Parallel()
	// No prefix allows these keys; the policy's own template needs none.
	file := strings.Replace(good, "    key_prefixes: [\"photos/${apikey.id}/\"]\n", "", 1)
	photos := parse(t, file).Policy("photos")
	seen := make(map[string]bool)
	for _, template := range []string{"", "photos/${apikey.id}/${date}/${uuid}-${filename}"} {
		r := goodRequest()
		r.Key, r.KeyTemplate, r.Filename = "", template, "../${apikey.id}/Ä b.jpg"
		grant, violations := photos.Apply(r, evening)
		if len(violations) > 0 {
			t.Fatal(violations)
		}
		rest, ok := strings.CutPrefix(grant.Key, "photos/web/2026-11-23/")
		if len(rest) < 36 || !ok || rest[36:] != "-Ä_b.jpg" || seen[grant.Key] {
			t.Fatalf("key %q", grant.Key)
		}
		if id, err := uuid.Parse(rest[:36]); err != nil || id.Version() != 4 {
			t.Errorf("key %q: version %d, %v", grant.Key, id.Version(), err)
		}
		seen[grant.Key] = true
	}
}

func TestApplyRejections(t *testing.T) {
	t.Parallel()
	type broken struct {
		Rule  string
		Field string
	}
	template := func(s string) func(*policy.Request) {
		return func(r *policy.Request) { r.Key, r.KeyTemplate, r.Filename = "", s, "cat.jpg" }
	}
	key := func(s string) func(*policy.Request) { return func(r *policy.Request) { r.Key = s } }
	contentType := func(s string) func(*policy.Request) { return func(r *policy.Request) { r.ContentType = s } }
	oneKey, onePrefix, oneTemplate := []broken{{"key", "key"}}, []broken{{"key_prefixes", "key"}}, []broken{{"key", "key_template"}}
	oneType := []broken{{"content_types", "content_type"}}
	tests := []struct {
		name   string
		change func(*policy.Request)
		want   []broken
		detail string // part of the first detail
	}{
		{"another bucket", func(r *policy.Request) { r.Bucket = "other" }, []broken{{"buckets", "bucket"}},
			`"other" is not among the policy's: demo`},
		{"bucket in capitals", func(r *policy.Request) { r.Bucket = "DEMO" }, []broken{{"buckets", "bucket"}}, ""},

		{"another prefix", key("docs/cat.jpg"), onePrefix, `"docs/cat.jpg" is under none of the policy's prefixes: photos/${apikey.id}/`},
		{"another key's prefix", key("photos/app/cat.jpg"), onePrefix, ""},
		{"a similar prefix", key("photos/web2/cat.jpg"), onePrefix, ""},
		{"a prefix in capitals", key("Photos/web/cat.jpg"), onePrefix, ""},
		{"a prefix with its variable", key("photos/${apikey.id}/cat.jpg"), onePrefix, ""},
		{"the prefix itself", key("photos/web/"), oneKey, "slash"},
		{"leaving the folder", key("photos/web/../app/cat.jpg"), oneKey, "segment .."},
		{"leaving the folder at the end", key("photos/web/.."), oneKey, "segment .."},
		{"a segment that is a dot", key("photos/web/./cat.jpg"), oneKey, "segment ."},
		{"an empty segment", key("photos/web//cat.jpg"), oneKey, "two in a row"},
		{"a leading slash", key("/photos/web/cat.jpg"), oneKey, "slash"},
		{"a backslash", key(`photos/web/..\..\x`), oneKey, "backslash"},
		{"a line break", key("photos/web/a\nb"), oneKey, "control"},
		{"a NUL", key("photos/web/a\x00b"), oneKey, "control"},
		{"a C1 control character", key("photos/web/a\u0085b"), oneKey, "control"},
		{"a line separator", key("photos/web/a\u2028b"), oneKey, "control"},
		{"reversed writing direction", key("photos/web/a\u202egpj.exe"), oneKey, "control"},
		{"a zero-width character", key("photos/web/a\u200bb"), oneKey, "control"},
		{"not UTF-8", key("photos/web/\xff"), oneKey, "UTF-8"},
		{"a long key is cut in the message", key("docs/" + strings.Repeat("ä", 500)), onePrefix, "…\" is under"},

		{"key and template", func(r *policy.Request) { r.KeyTemplate = "photos/${uuid}" }, oneTemplate, "leave one out"},
		{"no file name", func(r *policy.Request) { r.Key = "" }, []broken{{"key_templates", "filename"}}, "needs it"},
		{"no file name for a template", func(r *policy.Request) {
			r.Key, r.KeyTemplate = "", "photos/${apikey.id}/${filename}"
		}, []broken{{"key_templates", "filename"}}, ""},
		{"another template", template("docs/${uuid}"), []broken{{"key_templates", "key_template"}}, "not among the policy's templates (photos/"},
		{"a template under another key's prefix", template("photos/app/${uuid}"), []broken{{"key_templates", "key_template"}}, ""},
		{"a template with an unknown variable", template("photos/${apikey.id}/${env.HOME}"), oneTemplate, "${env.HOME} is not known here"},
		{"a template with a lone dollar", template("photos/${apikey.id}/$1"), oneTemplate, "does not start a variable"},
		{"a template that leaves the folder", template("photos/${apikey.id}/../${uuid}"), oneTemplate, "segment .."},
		{"a template with a line break", template("photos/${apikey.id}/\n${uuid}"), oneTemplate, "control"},
		{"a template that is not closed", template("photos/${apikey.id}/${uuid"), oneTemplate, "not closed"},

		{"another type", contentType("text/html"), oneType, `"text/html" is not among the policy's: image/jpeg, image/png`},
		{"no type", contentType(""), oneType, "is missing; the policy allows image/jpeg, image/png"},
		{"a type with a star", contentType("image/*"), oneType, "not a media type"},
		{"any type", contentType("*/*"), oneType, "not a media type"},
		{"half a type", contentType("image"), oneType, "not a media type"},
		{"two types", contentType("image/jpeg, text/html"), oneType, "not a media type"},
		{"a type in a parameter", contentType("text/html; image/jpeg"), oneType, ""},
		{"a type with the same beginning", contentType("image/jpeg2000"), oneType, ""},
		{"a type with a line break", contentType("image/jpeg\r\nx-oss-object-acl: public-read-write"), oneType, "not a media type"},

		{"no size", func(r *policy.Request) { r.Size = nil }, []broken{{"max_size", "size"}}, "at most 20971520"},
		{"a size over the largest", func(r *policy.Request) { r.Size = new(int64(20<<20 + 1)) },
			[]broken{{"max_size", "size"}}, "20971521 is over the policy's 20971520 bytes"},
		{"a negative size", func(r *policy.Request) { r.Size = new(int64(-1)) }, []broken{{"max_size", "size"}}, "-1 is not a size"},

		{"an expiry over the longest", func(r *policy.Request) { r.Expires = new(time.Hour + time.Second) },
			[]broken{{"max_expiry", "expires_in"}}, "1h0m1s is over the policy's 1h0m0s"},

		{"a variable missing", func(r *policy.Request) { delete(r.Vars, "uid") }, []broken{{"required_vars", "vars.uid"}}, "is missing or empty"},
		{"a variable empty", func(r *policy.Request) { r.Vars["uid"] = "" }, []broken{{"required_vars", "vars.uid"}}, ""},
		{"a variable in capitals", func(r *policy.Request) { r.Vars = map[string]string{"UID": "42"} },
			[]broken{{"required_vars", "vars.uid"}, {"allowed_vars", "vars.UID"}}, ""},
		{"an unknown variable", func(r *policy.Request) { r.Vars["admin"] = "1" },
			[]broken{{"allowed_vars", "vars.admin"}}, "uid, album"},
		{"the token", func(r *policy.Request) { r.Vars["upcall_token"] = "k1.x" }, []broken{{"allowed_vars", "vars.upcall_token"}}, ""},
		{"no variables", func(r *policy.Request) { r.Vars = nil }, []broken{{"required_vars", "vars.uid"}}, ""},

		{"nothing at all", func(r *policy.Request) { *r = policy.Request{APIKeyID: "web"} },
			[]broken{{"key_templates", "filename"}, {"content_types", "content_type"}, {"max_size", "size"},
				{"required_vars", "vars.uid"}}, ""},
		{"all at once", func(r *policy.Request) {
			*r = policy.Request{APIKeyID: "web", Bucket: "b", Key: "k", ContentType: "text/html", Size: new(int64(1 << 40)),
				Expires: new(8 * time.Hour), Vars: map[string]string{"b": "", "a": ""}}
		}, []broken{{"buckets", "bucket"}, {"key_prefixes", "key"}, {"content_types", "content_type"}, {"max_size", "size"},
			{"max_expiry", "expires_in"},
			{"required_vars", "vars.uid"}, {"allowed_vars", "vars.a"}, {"allowed_vars", "vars.b"}}, ""},
	}
	photos := parse(t, good).Policy("photos")
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := goodRequest()
			r.Vars = maps.Clone(r.Vars)
			tt.change(&r)
			_, violations := photos.Apply(r, evening)
			var got []broken
			for _, v := range violations {
				got = append(got, broken{v.Rule, v.Field})
				if strings.ContainsFunc(v.Detail, func(r rune) bool { return r < ' ' }) || len(v.Detail) > 400 || v.Detail == "" {
					t.Errorf("the detail is not a short line: %q", v.Detail)
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Fatalf("broken rules (-want +got):\n%s", diff)
			}
			if !strings.Contains(violations[0].Detail, tt.detail) {
				t.Errorf("detail %q, want %q in it", violations[0].Detail, tt.detail)
			}
		})
	}
}

// TestNoKeyAndNoTemplate checks that a policy without templates needs a key.
func TestNoKeyAndNoTemplate(t *testing.T) {
	t.Parallel()
	file := strings.Replace(good, "    key_templates: [\"photos/${apikey.id}/${date}/${uuid}-${filename}\"]\n", "", 1)
	r := goodRequest()
	r.Key = ""
	_, violations := parse(t, file).Policy("photos").Apply(r, evening)
	if len(violations) != 1 || violations[0].Rule != policy.RuleKey || violations[0].Field != "key" {
		t.Errorf("violations %v", violations)
	}
}

func TestParseDurationRejections(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"", "1", "0", "0s", "-1s", "1y", "d", "-1d", "1.5d", " 1h", "1h ", "1 h", "one hour", "65536d",
		"9999999999999h", "1h\n", "0x10d"} {
		d, err := policy.ParseDuration(s)
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%q is no", s)) || !strings.Contains(err.Error(), "duration") {
			t.Errorf("%q is %s, %v", s, d, err)
		}
	}
	for s, want := range map[string]time.Duration{"1s": time.Second, "90m": 90 * time.Minute, "1h30m": 90 * time.Minute,
		"7d": 168 * time.Hour, "0.5h": 30 * time.Minute} {
		if d, err := policy.ParseDuration(s); err != nil || d != want {
			t.Errorf("%q is %s (%v), want %s", s, d, err, want)
		}
	}
}

// FuzzApply looks for names and templates whose key leaves the allowed folder.
func FuzzApply(f *testing.F) {
	f.Add("photos/web/cat.jpg", "", "")
	f.Add("", "photos/${apikey.id}/${date}/${uuid}-${filename}", "../../x")
	f.Add("", "photos/web/${filename}", "..")
	f.Add("", "${filename}/${filename}", "a/b")
	f.Add("photos/web/..", "photos/${apikey.id}/.${filename}", ".")
	photos := parse(f, good).Policy("photos")
	f.Fuzz(func(t *testing.T, key, template, filename string) {
		r := goodRequest()
		r.Key, r.KeyTemplate, r.Filename = key, template, filename
		grant, violations := photos.Apply(r, evening)
		if len(violations) > 0 {
			return
		}
		rest, ok := strings.CutPrefix(grant.Key, "photos/web/")
		if !ok || rest == "" || strings.ContainsAny(grant.Key, "\\\x00\n\r\u202e") {
			t.Errorf("granted %q", grant.Key)
		}
		for segment := range strings.SplitSeq(rest, "/") {
			if segment == "" || segment == "." || segment == ".." {
				t.Errorf("granted %q", grant.Key)
			}
		}
	})
}

// TestApplyActiveTypes checks that a group of types does not allow those that a browser runs as
// a page of the bucket's domain.
func TestApplyActiveTypes(t *testing.T) {
	t.Parallel()
	groups := parse(t, strings.Replace(good, "image/jpeg", "image/*, text/*, application/*", 1)).Policy("photos")
	for _, kind := range []string{
		"image/svg+xml", "Image/SVG+XML; charset=utf-8", "text/html", "text/xml", "application/xhtml+xml", "application/xml",
		"application/atom+xml", "text/javascript", "application/javascript",
	} {
		r := goodRequest()
		r.ContentType = kind
		_, violations := groups.Apply(r, evening)
		if len(violations) != 1 || violations[0].Rule != policy.RuleContentTypes || !strings.Contains(violations[0].Detail, "can run scripts") {
			t.Errorf("%s: %v", kind, violations)
		}
	}
	for _, kind := range []string{"image/png", "text/plain", "text/csv", "application/pdf", "application/zip"} {
		r := goodRequest()
		r.ContentType = kind
		if _, violations := groups.Apply(r, evening); len(violations) > 0 {
			t.Errorf("%s: %v", kind, violations)
		}
	}
}
