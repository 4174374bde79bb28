package issueapi

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"upcall/internal/issue"
)

// A refusal is a bad body and the answer to it.
type refusal struct {
	name   string
	body   string
	status int
	broken []brokenRule
	detail string // part of the answer
}

// with returns the good body with one change.
func with(old, new string) string {
	body := strings.Replace(goodBody, old, new, 1)
	if body == goodBody {
		panic("the good body does not hold " + old)
	}
	return body
}

func one(rule, field string) []brokenRule { return []brokenRule{{rule, field}} }

// badBodies are refused for a single PUT and for a multipart upload alike.
func badBodies() []refusal {
	const bad, policy, oss = http.StatusBadRequest, http.StatusForbidden, http.StatusUnprocessableEntity
	var bodies []refusal
	for _, b := range []refusal{
		{"not JSON", "bucket=demo", bad, one("json", ""), "is not a JSON object"},
		{"null", "null", bad, one("json", ""), ""},
		{"a list", "[]", bad, one("json", ""), ""},
		{"a text", `"demo"`, bad, one("json", ""), ""},
		{"spaces", "   ", bad, one("json", ""), ""},
		{"cut short", goodBody[:40], bad, one("json", ""), "error at byte"},
		{"cut short in an object", with(`"vars":{"uid":"42","album":"cats & dogs"},"expires_in":"15m"}`, `"vars":{"uid":`),
			bad, one("json", ""), "error at byte"},
		{"two documents", goodBody + goodBody, bad, one("json", ""), "continues after"},
		{"text after the object", goodBody + "x", bad, one("json", ""), "continues after"},
		{"comma at the end", with(`"15m"}`, `"15m",}`), bad, one("json", ""), ""},
		{"comment", with(`{`, `{/**/`), bad, one("json", ""), ""},
		{"single quotes", `{'bucket':'demo'}`, bad, one("json", ""), ""},
		{"NaN", with(`11`, `NaN`), bad, one("json", ""), ""},
		{"not UTF-8", with(`cat.jpg`, "\xff"), bad, one("json", ""), "is not UTF-8"},
		{"byte order mark", "\ufeff" + goodBody, bad, one("json", ""), ""},
		{"nested deeply", strings.Repeat("[", 20000), bad, one("json", ""), ""},
		{"field nested deeply", with(`11`, strings.Repeat("[", 15000)+strings.Repeat("]", 15000)), bad, one("json", ""), ""},

		{"unknown field", with(`"size"`, `"length":1,"size"`), bad, one("field", "length"), "is not known here"},
		{"setting that only OSS has", with(`"size"`, `"acl":"public-read-write","size"`), bad, one("field", "acl"), ""},
		{"callback URLs in the request", with(`"size"`, `"callback_urls":["http://evil.example.com"],"size"`), bad,
			one("field", "callback_urls"), ""},
		{"API key id in the request", with(`"size"`, `"api_key_id":"app","size"`), bad, one("field", "api_key_id"), ""},
		{"field in capitals", with(`"size"`, `"Size"`), bad, one("field", "Size"), ""},
		{"field with a long name", with(`"size"`, `"`+strings.Repeat("s", 9000)+`":1,"size"`), bad,
			one("field", strings.Repeat("s", 80)+"…"), ""},
		{"field twice", with(`"size":11`, `"size":11,"size":12`), bad, one("field", "size"), "is given twice"},
		{"field twice in other letters", with(`"size":11`, `"size":11,"\u0073ize":12`), bad, one("field", "size"), "is given twice"},
		{"unknown field twice", with(`"size"`, `"a":1,"a":2,"size"`), bad, []brokenRule{{"field", "a"}, {"field", "a"}}, ""},

		{"bucket is null", with(`"demo"`, `null`), bad, one("field", "bucket"), "is not a string"},
		{"bucket is a number", with(`"demo"`, `1`), bad, one("field", "bucket"), ""},
		{"bucket is a list", with(`"demo"`, `["demo"]`), bad, one("field", "bucket"), ""},
		{"another bucket", with(`"demo"`, `"other"`), policy, one("buckets", "bucket"), "demo"},
		{"bucket that OSS cannot have", with(`"demo"`, `"a_b"`), policy, one("buckets", "bucket"), ""},

		{"key is a number", with(`"photos/web/cat.jpg"`, `7`), bad, one("field", "key"), ""},
		{"key is half a character", with(`cat.jpg`, `\ud800`), bad, one("field", "key"), "text that was lost"},
		{"key is under another prefix", with(`photos/web/`, `docs/`), policy, one("key_prefixes", "key"), "photos/${apikey.id}/"},
		{"key is under the prefix of another API key", with(`photos/web/`, `photos/app/`), policy, one("key_prefixes", "key"), ""},
		{"key with a parent directory", with(`photos/web/cat.jpg`, `photos/web/../app/cat.jpg`), policy, one("key", "key"), ""},
		{"key holds a line break", with(`cat.jpg`, `cat\n.jpg`), policy, one("key", "key"), ""},
		{"key holds NUL", with(`cat.jpg`, `cat\u0000.jpg`), policy, one("key", "key"), ""},
		{"key is too long", with(`cat.jpg`, strings.Repeat("k", 1023)), oss, one("oss", "key"), "1023"},
		{"key and template", with(`"key"`, `"key_template":"photos/${uuid}","key"`), policy, one("key", "key_template"), ""},
		{"template is a number", with(`"key":"photos/web/cat.jpg"`, `"key_template":1`), bad, one("field", "key_template"), ""},
		{"another template", with(`"key":"photos/web/cat.jpg"`, `"key_template":"docs/${uuid}"`), policy,
			one("key_templates", "key_template"), ""},
		{"template is broken", with(`"key":"photos/web/cat.jpg"`, `"key_template":"photos/${nobody}"`), policy,
			one("key", "key_template"), "${nobody}"},
		{"template makes a key too long", with(`"key":"photos/web/cat.jpg"`,
			`"key_template":"photos/web/`+strings.Repeat("k", 1000)+`${uuid}"`), oss, one("oss", "key"), ""},
		{"file name is missing", with(`"key":"photos/web/cat.jpg",`, ``), policy, one("key_templates", "filename"), ""},
		{"file name is a number", with(`"key":"photos/web/cat.jpg"`, `"filename":1`), bad, one("field", "filename"), ""},

		{"content type is null", with(`"image/jpeg"`, `null`), bad, one("field", "content_type"), ""},
		{"content type is missing", with(`"content_type":"image/jpeg",`, ``), policy, one("content_types", "content_type"),
			"image/jpeg, image/png"},
		{"another content type", with(`image/jpeg`, `text/html`), policy, one("content_types", "content_type"), ""},
		{"content type adds a header", with(`image/jpeg`, `image/jpeg\r\nx-oss-object-acl: public-read`), policy,
			one("content_types", "content_type"), ""},
		{"content type with another header in a parameter",
			with(`image/jpeg`, `image/jpeg; a=\"\r\nx-oss-object-acl: public-read\"`), policy, one("content_types", "content_type"), ""},
		{"content type that is not ASCII", with(`image/jpeg`, `image/jpeg; a=\"ä\"`), oss, one("oss", "content_type"), ""},

		{"size is missing", with(`"size":11,`, ``), policy, one("max_size", "size"), ""},
		{"size is null", with(`11`, `null`), bad, one("field", "size"), "is not a whole number"},
		{"size is a text", with(`11`, `"11"`), bad, one("field", "size"), ""},
		{"size is a fraction", with(`11`, `11.5`), bad, one("field", "size"), ""},
		{"size is 11.0", with(`11`, `11.0`), bad, one("field", "size"), ""},
		{"size has an exponent", with(`11`, `1e3`), bad, one("field", "size"), ""},
		{"size is negative", with(`11`, `-1`), policy, one("max_size", "size"), ""},
		{"size is over the largest", with(`11`, `20971521`), policy, one("max_size", "size"), "20971520"},
		{"size overflows", with(`11`, `9223372036854775808`), bad, one("field", "size"), ""},

		{"vars is null", with(`{"uid":"42","album":"cats & dogs"}`, `null`), bad, one("field", "vars"), "is not a JSON object"},
		{"vars is a list", with(`{"uid":"42","album":"cats & dogs"}`, `["uid"]`), bad, one("field", "vars"), ""},
		{"vars are missing", with(`"vars":{"uid":"42","album":"cats & dogs"},`, ``), policy, one("required_vars", "vars.uid"), ""},
		{"variable is a number", with(`"42"`, `42`), bad, one("field", "vars.uid"), "is not a string"},
		{"variable is null", with(`"42"`, `null`), bad, one("field", "vars.uid"), ""},
		{"variable is empty", with(`"42"`, `""`), policy, one("required_vars", "vars.uid"), ""},
		{"variable twice", with(`"uid":"42"`, `"uid":"42","uid":"43"`), bad, one("field", "vars.uid"), "is given twice"},
		{"variable twice, once with x:", with(`"uid":"42"`, `"uid":"42","x:uid":"43"`), bad, one("field", "vars.uid"), "with and without x:"},
		{"variable of the token with x:", with(`"uid"`, `"x:upcall_token":"k1.x","uid"`), policy,
			one("allowed_vars", "vars.upcall_token"), ""},
		{"variable that is not allowed", with(`"uid"`, `"admin":"1","uid"`), policy, one("allowed_vars", "vars.admin"), ""},
		{"variable of the token", with(`"uid"`, `"upcall_token":"k1.x","uid"`), policy, one("allowed_vars", "vars.upcall_token"), ""},
		{"variable in capitals", with(`"album"`, `"Album"`), policy, one("allowed_vars", "vars.Album"), ""},
		{"variable with NUL", with(`"42"`, `"\u0000"`), oss, one("oss", "vars.uid"), ""},
		{"variable is half a character", with(`"42"`, `"\udfff"`), bad, one("field", "vars.uid"), ""},
		{"variable over 5 KB", with(`"42"`, `"`+strings.Repeat("4", 5000)+`"`), oss, one("oss", "vars"), "5120"},

		{"expiry is a number", with(`"15m"`, `900`), bad, one("field", "expires_in"), "write a duration"},
		{"expiry is empty", with(`15m`, ``), bad, one("field", "expires_in"), ""},
		{"expiry has no unit", with(`15m`, `900`), bad, one("field", "expires_in"), ""},
		{"expiry is zero", with(`15m`, `0s`), bad, one("field", "expires_in"), ""},
		{"expiry is negative", with(`15m`, `-15m`), bad, one("field", "expires_in"), ""},
		{"expiry is over the longest", with(`15m`, `61m`), policy, one("max_expiry", "expires_in"), "1h0m0s"},
		{"expiry in milliseconds", with(`15m`, `1500ms`), oss, one("oss", "expires_in"), "whole seconds"},

		{"nothing", "{}", policy, []brokenRule{{"key_templates", "filename"}, {"content_types", "content_type"},
			{"max_size", "size"}, {"required_vars", "vars.uid"}}, "(and 3 more)"},
		{"all wrong types at once", `{"bucket":1,"key":2,"filename":3,"content_type":4,"size":"5","vars":6,"expires_in":7,"x":8}`, bad,
			[]brokenRule{{"field", "bucket"}, {"field", "key"}, {"field", "filename"}, {"field", "content_type"}, {"field", "size"},
				{"field", "vars"}, {"field", "expires_in"}, {"field", "x"}}, ""},
		{"all rules at once, including OSS's",
			`{"bucket":"b","key":"k","content_type":"text/html","size":99999999,` +
				`"vars":{"uid":"\u0000","b":"c"},"expires_in":"99999h"}`, policy,
			[]brokenRule{{"buckets", "bucket"}, {"key_prefixes", "key"}, {"content_types", "content_type"}, {"max_size", "size"},
				{"max_expiry", "expires_in"},
				{"allowed_vars", "vars.b"}, {"oss", "vars.uid"}}, ""},
	} {
		bodies = append(bodies, b)
	}
	return bodies
}

func TestUploadRefusals(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	refusals := append(badBodies(),
		refusal{"part size of a single PUT", with(`"size"`, `"part_size":1048576,"size"`), 400, one("field", "part_size"),
			"is not known here"})
	for _, tt := range refusals {
		s.refused(t, "/v1/uploads", s.photos, tt)
	}
	// This policy allows more than one PUT can send.
	s.refused(t, "/v1/uploads", s.films, refusal{"larger than a PUT", `{"key":"a","size":5368709121}`, 422, one("oss", "size"),
		"5368709120"})
	s.refused(t, "/v1/uploads", s.films, refusal{"leading slash", `{"key":"/a","size":1}`, 403, one("key", "key"), ""})
	if n := s.rows(t); n != 0 {
		t.Errorf("%d rows were written for refused requests", n)
	}
}

func TestMultipartRefusals(t *testing.T) {
	t.Parallel()
	var counts multiparts
	s := start(t, func(c *Config) { c.Issuer = newIssuer(t, c.Ledger.(issue.Ledger), &counts) })
	refusals := append(badBodies(),
		refusal{"size is zero", with(`11`, `0`), 422, one("oss", "size"), ""})
	for _, tt := range refusals {
		s.refused(t, "/v1/uploads/multipart", s.photos, tt)
	}
	film := func(size, part string) string { return fmt.Sprintf(`{"key":"a","size":%s,"part_size":%s}`, size, part) }
	for _, tt := range []refusal{
		{"part size is null", film("1", "null"), 400, one("field", "part_size"), ""},
		{"part size is a text", film("1", `"1"`), 400, one("field", "part_size"), ""},
		{"part size is zero", film("1", "0"), 400, one("field", "part_size"), "leave it out"},
		{"part size is negative", film("1", "-1"), 400, one("field", "part_size"), ""},
		{"part size under 100 KiB", film("1048576", "102399"), 422, one("oss", "part_size"), "102400"},
		{"part size over 5 GiB", film("1048576", "5368709121"), 422, one("oss", "part_size"), ""},
		{"10,001 parts", film("1024000001", "102400"), 422, one("oss", "part_size"), "10000"},
		{"size over all parts", `{"key":"a","size":53687091200001}`, 403, one("max_size", "size"), ""},
	} {
		s.refused(t, "/v1/uploads/multipart", s.films, tt)
	}
	if n := s.rows(t); n != 0 || counts.begun.Load() != 0 {
		t.Errorf("%d rows were written and %d uploads begun for refused requests", n, counts.begun.Load())
	}
}

// refused sends a bad body and checks the answer.
func (s *service) refused(t *testing.T, path, key string, want refusal) {
	t.Helper()
	t.Run(want.name, func(t *testing.T) {
		got := s.call(t, http.MethodPost, path, key, want.body)
		if got.status != want.status || got.header.Get("Content-Type") != "application/problem+json" {
			t.Fatalf("%d %s: %s", got.status, got.header.Get("Content-Type"), got.raw)
		}
		if diff := cmp.Diff(want.broken, got.broken(t)); diff != "" {
			t.Errorf("broken rules (-want +got):\n%s\n%s", diff, got.raw)
		}
		if !strings.Contains(got.raw, want.detail) {
			t.Errorf("%q is missing in %s", want.detail, got.raw)
		}
		if got.text("rule") != want.broken[0].Rule || got.text("field") != want.broken[0].Field ||
			int(got.json["status"].(float64)) != want.status {
			t.Errorf("the problem does not name its first rule: %s", got.raw)
		}
		for _, detail := range append(details(got), got.text("detail")) {
			if strings.ContainsFunc(detail, func(r rune) bool { return r < ' ' }) || len(detail) > 500 {
				t.Errorf("the detail is not a short line: %q", detail)
			}
		}
	})
}

func details(a answer) []string {
	var all []string
	for _, entry := range a.json["errors"].([]any) {
		all = append(all, entry.(map[string]any)["detail"].(string))
	}
	return all
}

// TestPolicyGone checks that a key whose policy was removed from the file allows nothing.
func TestPolicyGone(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	gone := s.addKey(t, "old", "archive")
	for _, path := range []string{"/v1/uploads", "/v1/uploads/multipart"} {
		s.refused(t, path, gone, refusal{path, goodBody, 403, one("policy", ""), "archive"})
	}
	if n := s.rows(t); n != 0 {
		t.Errorf("%d rows", n)
	}
}

func FuzzDecodeUpload(f *testing.F) {
	f.Add([]byte(goodBody))
	for _, b := range badBodies() {
		if len(b.body) < 1000 {
			f.Add([]byte(b.body))
		}
	}
	set := parsePolicies(f, policies)
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, of := range []form{atOnce, inParts, asForm} {
			r, err := decodeUpload(body, of)
			if err != nil {
				p := asProblem(err)
				if p.kind != kindMalformed || len(p.errors) == 0 || p.cause != nil {
					t.Errorf("%q: %+v", body, p)
				}
				continue
			}
			if strings.ContainsRune(r.Key+r.Bucket+r.ContentType, '\ufffd') || r.Expires != nil && *r.Expires <= 0 ||
				r.PartSize != nil && *r.PartSize < 1 || r.Form != (of == asForm) {
				t.Errorf("%q: %+v", body, r)
			}
			r.APIKeyID = "web"
			grant, violations := set.Policy("photos").Apply(r.Request, noon)
			if len(violations) == 0 && !strings.HasPrefix(grant.Key, "photos/web/") && !strings.HasPrefix(grant.Key, "made/web/") {
				t.Errorf("%q: granted %q", body, grant.Key)
			}
		}
	})
}
