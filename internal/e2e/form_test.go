package e2e

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"mime/multipart"
	"net/http"
	"slices"
	"strings"
	"testing"

	"upcall/internal/dbtest"
	"upcall/internal/eventstore"
	"upcall/internal/manifest"
)

// ask asks the issuer of a site, and reads its answer into into, if that is not nil.
func (s *site) ask(t *testing.T, path, body string, into any) (status int, text string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+s.apiKey)
	r.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if into != nil {
		if err := json.Unmarshal(answer, into); err != nil || response.StatusCode != http.StatusCreated {
			t.Fatalf("%s: %d %s (%v)", path, response.StatusCode, answer, err)
		}
	}
	return response.StatusCode, string(answer)
}

// formBody returns a form with a file, and its media type.
func formBody(fields map[string]string, name, content string) (body []byte, kind string) {
	var text bytes.Buffer
	w := multipart.NewWriter(&text)
	for _, field := range slices.Sorted(maps.Keys(fields)) {
		_ = w.WriteField(field, fields[field]) // to memory
	}
	part, _ := w.CreateFormFile("file", name)
	_, _ = part.Write([]byte(content))
	_ = w.Close()
	return text.Bytes(), w.FormDataContentType()
}

// postForm sends a form with a file, as a browser does.
func postForm(t *testing.T, address string, fields map[string]string, name, content string) (status int, answer string) {
	t.Helper()
	body, kind := formBody(fields, name, content)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", kind)
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(text)
}

// changed returns fields with one changed, or left out if the value is "".
func changed(fields map[string]string, name, value string) map[string]string {
	fields = maps.Clone(fields)
	if fields[name] = value; value == "" {
		delete(fields, name)
	}
	return fields
}

// TestForm issues forms, posts files with them, and finds the rows. Then it changes each field: OSS stores nothing.
func TestForm(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	pool := dbtest.Open(t, s.database, eventstore.Open)
	var fixed, prefix manifest.Form
	s.ask(t, "/v1/uploads/form", `{"key":"inbox/a.txt","content_type":"text/plain","min_size":1,"max_size":5,"vars":{"uid":"4&2"}}`, &fixed)
	s.ask(t, "/v1/uploads/form", `{"key_prefix":"inbox/42/","content_type":"text/plain","max_size":5,"vars":{"uid":"42"}}`, &prefix)
	if fixed.Key != "inbox/a.txt" || fixed.KeyPrefix != "" || prefix.Key != "" || prefix.KeyPrefix != "inbox/42/" ||
		prefix.Fields["key"] != "inbox/42/${filename}" || fixed.MaxSize != 5 || fixed.Method != http.MethodPost {
		t.Errorf("%+v\n%+v", fixed, prefix)
	}
	for _, f := range []struct {
		form          manifest.Form
		name, content string
		key           string
	}{
		{fixed, "x.txt", "hello", "inbox/a.txt"},
		{prefix, "é b.txt", "hello", "inbox/42/é b.txt"},
		{prefix, "c.txt", "hello", "inbox/42/c.txt"}, // the same content, under the same form
		{prefix, "d.txt", "", "inbox/42/d.txt"},
	} {
		status, answer := postForm(t, f.form.URL, f.form.Fields, f.name, f.content)
		if status != http.StatusOK || !strings.Contains(answer, `"upload_id":"`+f.form.ID.String()) {
			t.Fatalf("%s: %d %s", f.key, status, answer)
		}
		var operation, uid string
		err := pool.QueryRow(t.Context(), `SELECT operation, vars->>'uid' FROM upcall.upload_log WHERE upload_id = $1 AND object_key = $2`,
			f.form.ID, f.key).Scan(&operation, &uid)
		if err != nil || operation != "PostObject" || uid != f.form.Fields["x:uid"] {
			t.Errorf("%s: %s by %s (%v)", f.key, operation, uid, err)
		}
	}
	// The uploader may choose the name, too.
	if status, answer := postForm(t, prefix.URL, changed(prefix.Fields, "key", "inbox/42/e/f.txt"), "x", "1"); status != http.StatusOK {
		t.Errorf("another name under the prefix: %d %s", status, answer)
	}
	var events int
	var object string
	var byPrefix, overwritten bool
	err := pool.QueryRow(t.Context(), `SELECT object_key, by_prefix, events, overwritten FROM upcall.upload_status WHERE upload_id = $1`,
		prefix.ID).Scan(&object, &byPrefix, &events, &overwritten)
	if err != nil || object != "inbox/42/" || !byPrefix || events != 4 || overwritten {
		t.Errorf("the ledger: %s, by prefix %t, %d events, overwritten %t (%v)", object, byPrefix, events, overwritten, err)
	}
	for name, f := range map[string]manifest.Form{"fixed": fixed, "prefix": prefix} {
		refuseChanged(t, s, name, f)
	}
}

// refuseChanged changes each field of a form, and takes it out.
func refuseChanged(t *testing.T, s *site, name string, f manifest.Form) {
	t.Helper()
	before := s.rows(t)
	for field, value := range f.Fields {
		for _, other := range []string{"", value + "x", "other"} {
			status, answer := postForm(t, f.URL, changed(f.Fields, field, other), "a.txt", "1")
			if status < 400 && !(field == "key" && f.KeyPrefix != "" && strings.HasPrefix(other, f.KeyPrefix)) {
				t.Errorf("%s: %s for %s is answered with %d %s", name, field, value, status, answer)
			}
		}
	}
	for _, tt := range []struct{ key, content, code string }{
		{"inbox/43/a.txt", "1", "AccessDenied"}, {"inbox/42", "1", "AccessDenied"}, {"other/inbox/42/a.txt", "1", "AccessDenied"},
		{f.Fields["key"], "123456", "EntityTooLarge"},
	} {
		status, answer := postForm(t, f.URL, changed(f.Fields, "key", tt.key), "a.txt", tt.content)
		if status < 400 || !strings.Contains(answer, "<Code>"+tt.code) {
			t.Errorf("%s: %q with %q: %d %s", name, tt.key, tt.content, status, answer)
		}
	}
	if f.MinSize > 0 {
		if status, answer := postForm(t, f.URL, f.Fields, "a.txt", ""); status != 400 || !strings.Contains(answer, "EntityTooSmall") {
			t.Errorf("%s: nothing: %d %s", name, status, answer)
		}
	}
	if rows := s.rows(t) - before; rows > 1 { // keyx under the prefix
		t.Errorf("%s: %d rows of changed forms", name, rows)
	}
}

// TestFormTokenOfAnother: a policy that someone else signs, with a token of ours, makes no row: its callback is genuine, and
// only the token says what was issued.
func TestFormTokenOfAnother(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	var fixed, prefix manifest.Form
	s.ask(t, "/v1/uploads/form", `{"key":"inbox/a","content_type":"text/plain","max_size":5,"vars":{"uid":"42"}}`, &fixed)
	s.ask(t, "/v1/uploads/form", `{"key_prefix":"inbox/","content_type":"text/plain","max_size":5,"vars":{"uid":"42"}}`, &prefix)
	forge := func(f manifest.Form, key string, more ...string) map[string]string {
		fields := map[string]string{"key": key, "callback": f.Fields["callback"], "Content-Type": "text/plain",
			"x:uid": f.Fields["x:uid"], "x:upcall_token": f.Fields["x:upcall_token"]}
		for i := 0; i < len(more); i += 2 {
			fields[more[i]] = more[i+1]
		}
		return sign(fields)
	}
	for _, tt := range []struct {
		name   string
		fields map[string]string
		status int
	}{
		{"as it was issued", forge(fixed, "inbox/a"), 200},
		{"under the prefix", forge(prefix, "inbox/b"), 200},
		{"another key", forge(fixed, "inbox/b"), 203},
		{"a key under the key", forge(fixed, "inbox/a/b"), 203},
		{"another folder", forge(prefix, "other/b"), 203},
		{"the folder as the key", forge(prefix, "inbox/"), 203},
		{"another user", forge(prefix, "inbox/b", "x:uid", "43"), 203},
		{"another type", forge(prefix, "inbox/b", "Content-Type", "text/html"), 203},
		{"the token of the key under the prefix", forge(prefix, "inbox/b", "x:upcall_token", fixed.Fields["x:upcall_token"]), 203},
		{"the token of the prefix for the key", forge(fixed, "inbox/a", "x:upcall_token", prefix.Fields["x:upcall_token"]), 200},
		{"no token", forge(prefix, "inbox/b", "x:upcall_token", "-"), 203},
	} {
		if status, answer := postForm(t, fixed.URL, tt.fields, "x", "1"); status != tt.status {
			t.Errorf("%s: %d %s, want %d", tt.name, status, answer, tt.status)
		}
	}
}

// TestFormPolicy checks what the policy of an API key allows of forms.
func TestFormPolicy(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	const rest = `"content_type":"text/plain","vars":{"uid":"42"}`
	for name, tt := range map[string]struct {
		body   string
		status int
		want   string // in the answer
	}{
		"a size":                        {`{"key":"inbox/a","size":1,` + rest + `}`, 400, `"field":"size"`},
		"a part size":                   {`{"key":"inbox/a","part_size":1,` + rest + `}`, 400, `"field":"part_size"`},
		"a limit in words":              {`{"key":"inbox/a","max_size":"5",` + rest + `}`, 400, `"field":"max_size"`},
		"over the policy's limit":       {`{"key":"inbox/a","max_size":1048577,` + rest + `}`, 403, `"field":"max_size"`},
		"a limit below zero":            {`{"key":"inbox/a","max_size":-1,` + rest + `}`, 403, `"field":"max_size"`},
		"limits the wrong way round":    {`{"key":"inbox/a","min_size":6,"max_size":5,` + rest + `}`, 403, `is less than min_size`},
		"a least size over the limit":   {`{"key":"inbox/a","min_size":1048577,` + rest + `}`, 403, `"field":"min_size"`},
		"a least size below zero":       {`{"key":"inbox/a","min_size":-1,` + rest + `}`, 403, `"field":"min_size"`},
		"no type":                       {`{"key":"inbox/a","vars":{"uid":"42"}}`, 403, `"rule":"content_types"`},
		"no variable":                   {`{"key":"inbox/a","content_type":"text/plain"}`, 403, `"field":"vars.uid"`},
		"a prefix that is no folder":    {`{"key_prefix":"inbox",` + rest + `}`, 403, `does not end with a slash`},
		"a prefix that is a neighbor":   {`{"key_prefix":"inbox2/",` + rest + `}`, 403, `"rule":"key_prefixes"`},
		"no folder but a slash":         {`{"key_prefix":"/",` + rest + `}`, 403, `"field":"key_prefix"`},
		"a prefix that leaves another":  {`{"key_prefix":"inbox/../",` + rest + `}`, 403, `"rule":"key"`},
		"the same, percent-encoded":     {`{"key_prefix":"inbox/%2e%2e/",` + rest + `}`, 403, `"rule":"key"`},
		"a prefix with the file's name": {`{"key_prefix":"inbox/${filename}/",` + rest + `}`, 403, `holds ${`},
		"a prefix and a key":            {`{"key_prefix":"inbox/","key":"inbox/a",` + rest + `}`, 403, `leave one out`},
		"a prefix and a template":       {`{"key_prefix":"inbox/","key_template":"inbox/${uuid}",` + rest + `}`, 403, `leave one out`},
		"seventeen folders":             {`{"key_prefix":"inbox/` + strings.Repeat("a/", 16) + `",` + rest + `}`, 403, `has 17 folders`},
		"a long prefix":                 {`{"key_prefix":"inbox/` + strings.Repeat("a", 800) + `/",` + rest + `}`, 403, `807 bytes`},
		"a key with the file's name":    {`{"key":"inbox/${filename}",` + rest + `}`, 422, `holds ${filename}`},
		"a prefix for a PUT":            {`{"key_prefix":"inbox/","size":1,` + rest + `}`, 0, ""},
	} {
		path := "/v1/uploads/form"
		if tt.status == 0 {
			path, tt.status, tt.want = "/v1/uploads", 400, `"field":"key_prefix"`
		}
		if status, answer := s.ask(t, path, tt.body, nil); status != tt.status || !strings.Contains(answer, tt.want) {
			t.Errorf("%s: %d %s", name, status, answer)
		}
	}
	// A template makes the key, and the policy's limit is the default.
	var f manifest.Form
	s.ask(t, "/v1/uploads/form", `{"filename":"a b.txt",`+rest+`}`, &f)
	policy, err := base64.StdEncoding.DecodeString(f.Fields["policy"])
	if err != nil || !strings.HasSuffix(f.Key, "-a_b.txt") || f.MaxSize != 1<<20 ||
		!strings.Contains(string(policy), `["content-length-range",0,1048576]`) ||
		!strings.Contains(string(policy), fmt.Sprintf(`["eq","$key",%q]`, f.Key)) {
		t.Errorf("%s %d %s (%v)", f.Key, f.MaxSize, policy, err)
	}
}
