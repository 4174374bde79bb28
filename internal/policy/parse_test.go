package policy_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"upcall/internal/callbackspec"
	"upcall/internal/fault"
	"upcall/internal/ossrule"
	"upcall/internal/policy"
)

// good is the file of the package comment.
const good = `policies:
  photos:
    buckets: [demo]
    key_prefixes: ["photos/${apikey.id}/"]
    key_templates: ["photos/${apikey.id}/${date}/${uuid}-${filename}"]
    content_types: [image/jpeg, image/png]
    max_size: 20MiB
    max_expiry: 1h
    callback_urls: ["https://uploads.example.com/oss/callback"]
    required_vars: [uid]
    allowed_vars: [album]
`

func parse(t testing.TB, file string) *policy.Set {
	t.Helper()
	set, err := policy.Parse([]byte(file), callbackspec.PublicHosts)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func TestParse(t *testing.T) {
	t.Parallel()
	set := parse(t, good+`
  # YAML would read these names and texts as other types; they stay as written.
  any-thing_2:
    buckets: [123, "456"]
    key_prefixes: ["*"]
    content_types: ["*/*"]
    max_size: 5368709120
    max_expiry: 7d
    callback_urls:
      - https://a.example.com/
      - https://b.example.com/
    allowed_vars: [no, 1e3, "null"]
`)
	if diff := cmp.Diff([]string{"any-thing_2", "photos"}, set.Names()); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
	if set.Policy("unknown") != nil {
		t.Error("got a policy that is not in the file")
	}
	for _, want := range []*policy.Policy{
		{Name: "photos", Buckets: []string{"demo"}, KeyPrefixes: []string{"photos/${apikey.id}/"},
			KeyTemplates: []string{"photos/${apikey.id}/${date}/${uuid}-${filename}"},
			ContentTypes: []string{"image/jpeg", "image/png"}, MaxSize: 20 << 20, MaxExpiry: time.Hour,
			CallbackURLs: []string{"https://uploads.example.com/oss/callback"},
			RequiredVars: []string{"uid"}, AllowedVars: []string{"album"}},
		{Name: "any-thing_2", Buckets: []string{"123", "456"}, KeyPrefixes: []string{"*"}, ContentTypes: []string{"*/*"},
			MaxSize: 5 << 30, MaxExpiry: 7 * 24 * time.Hour,
			CallbackURLs: []string{"https://a.example.com/", "https://b.example.com/"}, AllowedVars: []string{"no", "1e3", "null"}},
	} {
		if diff := cmp.Diff(want, set.Policy(want.Name)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", want.Name, diff)
		}
	}
}

// TestParseRejections changes one thing in the good file. Each mistake has its place and is one
// line.
func TestParseRejections(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name     string
		old, new string // if old is "", new is the whole file
		want     []string
	}{
		{"empty", "", "", []string{"1:1: the file is empty"}},
		{"comments only", "", "# nothing\n", []string{"1:1: the file is empty"}},
		{"null", "", "~\n", []string{"1:1: is empty"}},
		{"a list", "", "- a\n", []string{"1:1: is a list"}},
		{"a text", "", "policies\n", []string{"1:1: is a single value"}},
		{"no policies", "", "{}\n", []string{"1:1: policies is missing"}},
		{"policies is null", "", "policies:\n", []string{"1:10: policies: is empty"}},
		{"policies is empty", "", "policies: {}\n", []string{"1:11: policies: holds no policy"}},
		{"policies is a list", "", "policies: [photos]\n", []string{"1:11: policies: is a list"}},
		{"not YAML", "", "policies: [\n", []string{"2:1: is not YAML: "}},
		{"tab", "", "\tpolicies: {}\n", []string{"1:1: is not YAML: "}},
		{"not UTF-8", "", "policies: \xff\n", []string{"1:1: is not YAML: "}},
		{"NUL", "", "policies: \x00\n", []string{"1:1: is not YAML: "}},
		{"too large", "", strings.Repeat("#", policy.MaxFile+1), []string{"1:1: the file is larger"}},
		{"second document", "", good + "---\n" + good, []string{"12:1: the file holds a second document"}},
		{"broken second document", "", good + "---\n[", []string{": is not YAML: "}},
		{"unknown at the top", "policies:", "version: 2\npolicies:", []string{`1:1: "version" is not known here`}},
		{"policies twice", "", good + good, []string{`12:1: "policies" is given twice`}},
		{"policy twice", "", good + strings.TrimPrefix(good, "policies:\n"), []string{`12:3: policies: "photos" is given twice`}},
		{"policy is null", "", "policies:\n  photos:\n", []string{"2:10: policies.photos: is empty"}},
		{"policy is a text", "", "policies:\n  photos: all\n", []string{"2:11: policies.photos: is a single value"}},
		{"everything missing", "", "policies:\n  photos: {}\n", []string{
			"2:11: policies.photos.buckets: is required", "content_types: is required", "max_size: is required", "max_expiry: is required",
			"callback_urls: is required", "has neither key_prefixes nor key_templates"}},
		{"name with a space", "photos:", "my photos:", []string{`2:3: policies: "my photos" is not a name`}},
		{"empty name", "photos:", `"":`, []string{`2:3: policies: "" is not a name`}},
		{"long name", "photos:", strings.Repeat("p", 65) + ":", []string{"is not a name"}},
		{"name is a list", "  photos:", "  ? [photos]\n  :", []string{"2:5: policies: has a name that is not text"}},
		{"name is null", "  photos:", "  ~:", []string{"2:3: policies: has a name that is not text"}},
		{"merge", "  photos:", "  <<:", []string{"2:3: policies: has a name that is not text"}},
		{"unknown field", "buckets: [demo]", "buckets: [demo]\n    bucket: demo",
			[]string{"4:5: policies.photos.bucket: is not known here; a policy has buckets, "}},
		{"unknown case", "max_size:", "Max_Size:", []string{"policies.photos.Max_Size: is not known here", "max_size: is required"}},
		{"field twice", "max_size: 20MiB", "max_size: 20MiB\n    max_size: 30MiB", []string{`8:5: policies.photos: "max_size" is given twice`}},
		{"alias", "buckets: [demo]", "buckets: &b [demo]\n    content_types: *b",
			[]string{"4:20: policies.photos.content_types: is an alias", `"content_types" is given twice`}},
		{"alias in a list", "[demo]", "[&b demo, *b]", []string{"3:24: policies.photos.buckets[1]: is an alias"}},

		{"buckets missing", "    buckets: [demo]\n", "", []string{"3:5: policies.photos.buckets: is required"}},
		{"buckets is a text", "[demo]", "demo", []string{"3:14: policies.photos.buckets: is a single value; write a list"}},
		{"buckets is null", "[demo]", "", []string{"policies.photos.buckets: is empty"}},
		{"no bucket", "[demo]", "[]", []string{"3:14: policies.photos.buckets: is an empty list"}},
		{"bucket is null", "[demo]", "[~]", []string{"3:15: policies.photos.buckets[0]: is empty"}},
		{"bucket is empty", "[demo]", `[""]`, []string{"3:15: policies.photos.buckets[0]: is empty"}},
		{"bucket is a list", "[demo]", "[[demo]]", []string{"policies.photos.buckets[0]: is a list"}},
		{"bucket is binary", "[demo]", "[!!binary ZGVtbw==]", []string{`policies.photos.buckets[0]: has the tag "!!binary"`}},
		{"bucket has a custom tag", "[demo]", "[!mine demo]", []string{`policies.photos.buckets[0]: has the tag "!mine"`}},
		{"bucket in capitals", "[demo]", "[demo, Demo]", []string{`3:21: policies.photos.buckets[1]: "Demo" is not a bucket`}},
		{"bucket too short", "[demo]", "[ab]", []string{"is not a bucket"}},
		{"bucket too long", "[demo]", "[" + strings.Repeat("a", 64) + "]", []string{"is not a bucket"}},
		{"bucket with a hyphen first", "[demo]", "[-demo]", []string{"is not a bucket"}},
		{"bucket with a dot", "[demo]", "[demo.oss]", []string{"is not a bucket"}},
		{"any bucket", "[demo]", `["*"]`, []string{"is not a bucket"}},
		{"bucket twice", "[demo]", "[demo, demo]", []string{`3:21: policies.photos.buckets[1]: "demo" is given twice`}},

		{"prefix without a slash", "photos/${apikey.id}/\"]", "photos\"]",
			[]string{`4:20: policies.photos.key_prefixes[0]: "photos" is not a key template: a prefix ends with a slash; write "photos/"`}},
		{"prefix is empty", `["photos/${apikey.id}/"]`, `[""]`, []string{"key_prefixes[0]: is empty"}},
		{"prefix is a slash", `["photos/${apikey.id}/"]`, `["/"]`, []string{"key_prefixes[0]: ", "it is empty"}},
		{"prefix starts with a slash", `["photos/${apikey.id}/"]`, `["/photos/"]`, []string{"starts or ends with a slash"}},
		{"prefix with two slashes", `["photos/${apikey.id}/"]`, `["photos//"]`, []string{"two in a row"}},
		{"prefix that leaves the folder", `["photos/${apikey.id}/"]`, `["photos/../"]`, []string{"holds the segment .."}},
		{"prefix with a star", `["photos/${apikey.id}/"]`, `["photos/*"]`, []string{"a prefix ends with a slash"}},
		{"prefix with a UUID", `["photos/${apikey.id}/"]`, `["${uuid}/"]`, []string{"${uuid} is not known here; use ${date} or ${apikey.id}"}},
		{"prefix with a file name", `["photos/${apikey.id}/"]`, `["${filename}/"]`, []string{"${filename} is not known here"}},

		{"template with an unknown variable", "${date}", "${time}",
			[]string{`5:21: policies.photos.key_templates[0]: `,
				"is not a key template: ${time} is not known here; use ${date} or ${uuid} or ${filename} or ${apikey.id}"}},
		{"template with an environment variable", "${date}", "$HOME", []string{"the $ at byte 20 does not start a variable"}},
		{"template with a dollar at the end", "${filename}", "$", []string{"does not start a variable"}},
		{"template that is not closed", "${filename}", "${filename", []string{"is not closed"}},
		{"template with an empty name", "${date}", "${}", []string{"${} is not known here"}},
		{"template in a template", "${date}", "${${uuid}}", []string{"is not known here"}},
		{"template in capitals", "${date}", "${DATE}", []string{"${DATE} is not known here"}},
		{"template with a space", "${date}", "${ date }", []string{"is not known here"}},
		{"template starts with a slash", `["photos/${apikey.id}/${date}`, `["/${date}`, []string{"starts or ends with a slash"}},
		{"template ends with a slash", "${filename}", "${filename}/", []string{"starts or ends with a slash"}},
		{"template leaves the folder", "${date}", "..", []string{"holds the segment .."}},
		{"template with a backslash", "${date}", `\\`, []string{"holds a backslash"}},
		{"template with a line break", "${date}", `\n`, []string{"holds a control or formatting character"}},
		{"template twice", "${filename}\"]", "${filename}\", \"photos/${apikey.id}/${date}/${uuid}-${filename}\"]",
			[]string{"key_templates[1]: ", "is given twice"}},

		{"content type without a slash", "image/jpeg", "image",
			[]string{`6:21: policies.photos.content_types[0]: "image" is not a content type`}},
		{"content type in capitals", "image/jpeg", "image/JPEG", []string{"is not a content type"}},
		{"content type with a parameter", "image/jpeg", "text/html; charset=utf-8", []string{"is not a content type"}},
		{"content type with a star in the middle", "image/jpeg", "image/j*g", []string{"is not a content type"}},
		{"content type without a group", "image/jpeg", "'*/jpeg'", []string{"is not a content type"}},
		{"content type is a star", "image/jpeg", "'*'", []string{"is not a content type"}},
		{"content type with an empty end", "image/jpeg", "image/", []string{"is not a content type"}},

		{"size in MB", "20MiB", "20MB", []string{`7:15: policies.photos.max_size: "20MB" is not a size; write a number of bytes, or `}},
		{"size with a space", "20MiB", "20 MiB", []string{"is not a size"}},
		{"size is zero", "20MiB", "0", []string{"is not a size"}},
		{"size is negative", "20MiB", "-1", []string{"is not a size"}},
		{"size is a fraction", "20MiB", "1.5GiB", []string{"is not a size"}},
		{"size is too large", "20MiB", "9223372036854775808", []string{"is not a size"}},
		{"size overflows", "20MiB", "9007199254740993TiB", []string{"is not a size"}},
		{"size is a unit", "20MiB", "MiB", []string{"is not a size"}},
		{"size in octal", "20MiB", "0o17", []string{"is not a size"}},
		{"size with a sign", "20MiB", "+1", []string{"is not a size"}},
		{"size is a list", "20MiB", "[20MiB]", []string{"max_size: is a list"}},

		{"expiry without a unit", "1h", "3600", []string{`8:17: policies.photos.max_expiry: "3600" is not a duration`}},
		{"expiry is zero", "1h", "0s", []string{"is not a positive duration"}},
		{"expiry is negative", "1h", "-1h", []string{"is not a positive duration"}},
		{"expiry over 7 days", "1h", "8d", []string{"is out of range; OSS allows whole seconds up to 7d"}},
		{"expiry just over 7 days", "1h", "168h0m1s", []string{"is out of range"}},
		{"expiry in milliseconds", "1h", "1500ms", []string{"is out of range"}},
		{"expiry overflows", "1h", "65536d", []string{"is not a duration"}},
		{"expiry is a mapping", "1h", "{hours: 1}", []string{"max_expiry: is a mapping"}},

		{"no callback URL", `["https://uploads.example.com/oss/callback"]`, "[]",
			[]string{"9:20: policies.photos.callback_urls: is an empty list"}},
		{"callback over FTP", "https://uploads.example.com", "ftp://uploads.example.com", []string{"9:21: policies.photos.callback_urls[0]: "}},
		{"callback to a private address", "https://uploads.example.com", "http://10.0.0.1", []string{"callback_urls[0]: "}},
		{"callback to localhost", "https://uploads.example.com", "http://localhost:8080", []string{"callback_urls[0]: "}},
		{"callback over IPv6", "https://uploads.example.com", "http://[2001:db8::1]", []string{"callback_urls[0]: "}},
		{"six callbacks", `["https://uploads.example.com/oss/callback"]`,
			"[http://a.example.com, http://b.example.com, http://c.example.com, http://d.example.com, http://e.example.com, http://f.example.com]",
			[]string{"callback_urls: has 6 URLs; OSS takes 5"}},

		{"variable in capitals", "[uid]", "[UID]", []string{"10:21: policies.photos.required_vars[0]: "}},
		{"variable with its prefix", "[uid]", "['x:uid']", []string{`required_vars[0]: "x:uid" starts with x:; write "uid"`}},
		{"variable is the token's", "[uid]", "[upcall_token]", []string{"is the upload token's name"}},
		{"variable is the system's", "[album]", "[etag]", []string{"11:20: policies.photos.allowed_vars[0]: ", "already uses"}},
		{"required and allowed", "[album]", "[album, uid]", []string{"the variable uid is both required and allowed"}},

		{"all at once", "", strings.NewReplacer("[demo]", "[Demo]", "20MiB", "20MB", "1h", "1y", "${date}", "$date",
			"image/png", "png", "[uid]", "[UID]").Replace(good),
			[]string{"3:15: ", "5:21: ", "6:33: ", "7:15: ", "8:17: ", "10:21: "}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			file := tt.new
			if tt.old != "" {
				if file = strings.Replace(good, tt.old, tt.new, 1); file == good {
					t.Fatalf("%q is not in the file", tt.old)
				}
			}
			set, err := policy.Parse([]byte(file), callbackspec.PublicHosts)
			if err == nil || set != nil {
				t.Fatalf("accepted:\n%s", file)
			}
			mistakes := fault.Of(err)
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("no %q in:\n%v", want, err)
				}
			}
			if len(mistakes) > len(tt.want) {
				t.Errorf("%d mistakes, want at most %d:\n%v", len(mistakes), len(tt.want), err)
			}
			for _, mistake := range mistakes {
				var line, column int
				if _, err := fmt.Sscanf(mistake.Field, "%d:%d", &line, &column); err != nil || line < 1 || column < 1 {
					t.Errorf("a mistake without a place: %v", mistake)
				}
			}
		})
	}
}

// TestReach checks that an emulator may call back to its own machine.
func TestReach(t *testing.T) {
	t.Parallel()
	file := strings.Replace(good, "https://uploads.example.com", "http://127.0.0.1:8080", 1)
	if _, err := policy.Parse([]byte(file), callbackspec.AnyHost); err != nil {
		t.Error(err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(good)
	f.Add("policies: {a: {buckets: [abc], key_prefixes: ['*'], content_types: ['*/*'], max_size: 1, max_expiry: 1s, " +
		"callback_urls: [http://a.example.com]}}")
	f.Add("a: &a [*a]")
	f.Add("policies:\n  <<: {a: b}\n---\n")
	f.Fuzz(func(t *testing.T, file string) {
		set, err := policy.Parse([]byte(file), callbackspec.PublicHosts)
		if err != nil {
			for line := range strings.Lines(err.Error()) {
				if !strings.Contains(line, ": ") {
					t.Errorf("a mistake without its place: %q", line)
				}
			}
			return
		}
		// An accepted policy is complete: no empty field means "anything".
		for _, name := range set.Names() {
			p := set.Policy(name)
			if p.Name != name || len(p.Buckets) == 0 || len(p.KeyPrefixes)+len(p.KeyTemplates) == 0 || len(p.ContentTypes) == 0 ||
				p.MaxSize <= 0 || p.MaxExpiry <= 0 || p.MaxExpiry > ossrule.MaxExpiry || len(p.CallbackURLs) == 0 ||
				len(p.CallbackURLs) > callbackspec.MaxURLs {
				t.Errorf("accepted %+v", p)
			}
		}
	})
}
