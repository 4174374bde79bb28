package ossemu

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"mime/multipart"
	"net/http"
	"strings"
	"testing"
	"time"

	"upcall/internal/callbackspec"
)

// A form is a PostObject in the making.
type form struct {
	base, conditions, secret string
	expiration, at           time.Time
	fields                   [][2]string
	fileName, content        string
	drop                     string // a signature field to leave out
	version                  string
	noFile                   bool
}

func newForm(base string) *form {
	now := time.Now().UTC()
	return &form{base: base, conditions: `{"bucket":"demo"}`, secret: testSecret, expiration: now.Add(time.Hour), at: now,
		fields: [][2]string{{"key", "k"}}, fileName: "my photo.txt", content: "hello", version: algorithmV4}
}

func (f *form) request(t testing.TB) *http.Request {
	t.Helper()
	policy := base64.StdEncoding.EncodeToString([]byte(fmt.Sprintf(`{"expiration":%q,"conditions":[%s]}`,
		f.expiration.Format("2006-01-02T15:04:05.000Z"), f.conditions)))
	cred := credential{testKeyID, f.at.Format(isoDate), testRegion, productV4, requestV4}
	var body bytes.Buffer
	w := multipart.NewWriter(&body)
	for _, field := range append([][2]string{
		{"policy", policy}, {"x-oss-signature-version", f.version}, {"x-oss-credential", testKeyID + "/" + cred.scope()},
		{"x-oss-date", f.at.Format(isoTime)}, {"x-oss-signature", signV4(f.secret, cred, policy)}}, f.fields...) {
		if field[0] != f.drop {
			_ = w.WriteField(field[0], field[1])
		}
	}
	if !f.noFile {
		part, _ := w.CreateFormFile("file", f.fileName)
		_, _ = part.Write([]byte(f.content))
	}
	_ = w.WriteField("submit", "Upload")
	_ = w.Close()
	r, err := http.NewRequestWithContext(t.Context(), "POST", f.base+"/demo", &body)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", w.FormDataContentType())
	return r
}

func TestPostObject(t *testing.T) {
	t.Parallel()
	rec := receive(t, nil)
	_, base := start(t)
	callback := encode(t, callbackspec.Parameter{URLs: []string{rec.url}, Body: "o=${object}&u=${x:user}&op=${operation}"})

	plain := newForm(base)
	plain.fields = [][2]string{{"key", "dir/${filename}"}, {"x-oss-meta-a", "1"}, {"Content-Type", "text/x"}}
	plain.conditions = `{"bucket":"demo"},["starts-with","$key","dir/"],["content-length-range",5,5],["in","$content-type",["text/x"]],["not-in","$cache-control",["no-cache"]],["eq","$x-oss-meta-a","1"]`
	if got := send(t, plain.request(t)); got.status != 204 || got.header.Get("ETag") != `"5D41402ABC4B2A76B9719D911017C592"` {
		t.Errorf("plain: %+v", got)
	}
	if got := send(t, newWire("GET", base, "dir/my photo.txt").presigned(t)); got.body != "hello" ||
		got.header.Get("Content-Type") != "text/x" || got.header.Get("x-oss-meta-a") != "1" {
		t.Errorf("stored: %+v", got)
	}
	for status, want := range map[string]int{"200": 200, "201": 201, "204": 204, "302": 204} {
		f := newForm(base)
		f.fields = append(f.fields, [2]string{"success_action_status", status})
		got := send(t, f.request(t))
		if got.status != want || want == 201 && !strings.Contains(got.body, "<Location>"+base+"/demo/k</Location>") {
			t.Errorf("success_action_status %s: %d %s", status, got.status, got.body)
		}
	}
	called := newForm(base)
	called.fields = append(called.fields, [2]string{"callback", callback}, [2]string{"x:user", "a&b"},
		[2]string{"success_action_status", "201"})
	if got := send(t, called.request(t)); got.status != 200 || got.body != `{"Status":"OK"}` {
		t.Errorf("callback: %+v", got)
	}
	if calls := rec.requests(); len(calls) != 1 || calls[0].body != "o=k&u=a%26b&op=PostObject" {
		t.Errorf("callbacks: %+v", calls)
	}
}

func TestPostObjectRefuses(t *testing.T) {
	t.Parallel()
	_, base := start(t, func(c *Config) { c.MaxObjectSize = 1000 })
	add := func(name, value string) func(*form) {
		return func(f *form) { f.fields = append(f.fields, [2]string{name, value}) }
	}
	condition := func(s string) func(*form) { return func(f *form) { f.conditions = s } }
	for name, tc := range map[string]struct {
		change func(*form)
		status int
		code   string
	}{
		"wrong secret":         {func(f *form) { f.secret = "x" }, 403, "SignatureDoesNotMatch"},
		"anonymous":            {func(f *form) { f.drop = "policy"; f.secret = "" }, 403, "SignatureDoesNotMatch"},
		"no signature":         {func(f *form) { f.drop = "x-oss-signature" }, 403, "SignatureDoesNotMatch"},
		"no credential":        {func(f *form) { f.drop = "x-oss-credential" }, 400, "InvalidArgument"},
		"no date":              {func(f *form) { f.drop = "x-oss-date" }, 400, "InvalidArgument"},
		"version 1":            {func(f *form) { f.version = "OSS" }, 400, "InvalidArgument"},
		"expired policy":       {func(f *form) { f.expiration = f.at.Add(-time.Second) }, 403, "AccessDenied"},
		"signed in the future": {func(f *form) { f.at = f.at.Add(time.Hour) }, 403, "AccessDenied"},
		"other bucket":         {condition(`{"bucket":"other"}`), 403, "AccessDenied"},
		"other key":            {condition(`["eq","$key","x"]`), 403, "AccessDenied"},
		"key prefix":           {condition(`["starts-with","$key","x/"]`), 403, "AccessDenied"},
		"not in list":          {condition(`["in","$key",["x","y"]]`), 403, "AccessDenied"},
		"in forbidden list":    {condition(`["not-in","$key",["k"]]`), 403, "AccessDenied"},
		"callback condition":   {condition(`["eq","$callback","e30="]`), 403, "AccessDenied"},
		"too small":            {condition(`["content-length-range",6,10]`), 400, "EntityTooSmall"},
		"too large":            {condition(`["content-length-range",0,4]`), 400, "EntityTooLarge"},
		"larger than server":   {func(f *form) { f.content = strings.Repeat("x", 1001) }, 400, "EntityTooLarge"},
		"no conditions":        {condition(``), 400, "InvalidPolicyDocument"},
		"unknown operator":     {condition(`["regex","$key","k"]`), 400, "InvalidPolicyDocument"},
		"field without dollar": {condition(`["eq","key","k"]`), 400, "InvalidPolicyDocument"},
		"two properties":       {condition(`{"a":"1","b":"2"}`), 400, "InvalidPolicyDocument"},
		"range backwards":      {condition(`["content-length-range",5,4]`), 400, "InvalidPolicyDocument"},
		"list of numbers":      {condition(`["in","$key",[1]]`), 400, "InvalidPolicyDocument"},
		"no key":               {func(f *form) { f.fields = nil }, 400, "InvalidObjectName"},
		"key with slash":       {func(f *form) { f.fields[0][1] = "/k" }, 400, "InvalidObjectName"},
		"field twice":          {add("KEY", "k2"), 400, "InvalidArgument"},
		"no file":              {func(f *form) { f.noFile = true }, 400, "InvalidArgument"},
		"fields too large":     {add("x-oss-meta-a", strings.Repeat("x", maxFormBytes)), 400, "MalformedPOSTRequest"},
		"redirect":             {add("success_action_redirect", "http://evil.example"), 501, "NotImplemented"},
		"bad callback":         {add("callback", "x"), 400, "InvalidArgument"},
		"upper-case variable":  {func(f *form) { add("callback", callbackTo("http://r.example"))(f); add("x:User", "a")(f) }, 400, "InvalidArgument"},
		"acl":                  {add("x-oss-object-acl", "mine"), 400, "InvalidArgument"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newForm(base)
			tc.change(f)
			wantError(t, send(t, f.request(t)), tc.status, tc.code)
		})
	}
	t.Run("not a form", func(t *testing.T) {
		t.Parallel()
		r := newForm(base).request(t)
		r.Header.Set("Content-Type", "application/json")
		wantError(t, send(t, r), 400, "MalformedPOSTRequest")
	})
	t.Run("callback in the query too", func(t *testing.T) {
		t.Parallel()
		r := newForm(base).request(t)
		r.URL.RawQuery = "callback=e30%3D"
		if e := wantError(t, send(t, r), 400, "InvalidArgument"); e.EC != "0007-00000027" {
			t.Errorf("EC %s", e.EC)
		}
	})
}

func callbackTo(u string) string {
	document, _ := callbackspec.Parameter{URLs: []string{u}, Body: "a=b"}.Document(callbackspec.AnyHost)
	return document.Base64()
}
