package issue_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"upcall/internal/callbackspec"
	"upcall/internal/issue"
	"upcall/internal/oss"
	"upcall/internal/testing/ossfake"
	"upcall/internal/uploadtoken"
)

var testID = uuid.MustParse("01936b2e-7a00-7000-8000-000000000001")

func newKeyring(t testing.TB) *uploadtoken.Keyring {
	t.Helper()
	ring, err := uploadtoken.ParseKeys("k1:0123456789abcdef0123456789abcdef")
	if err != nil {
		t.Fatal(err)
	}
	return ring
}

// newIssuer returns an issuer for real OSS with a fixed upload id. change may be nil.
func newIssuer(t testing.TB, change func(*oss.Config, *issue.Config)) *issue.Issuer {
	t.Helper()
	signing := oss.Config{Region: ossfake.Region, AccessKeyID: ossfake.AccessKeyID, AccessKeySecret: ossfake.AccessKeySecret}
	cfg := issue.Config{Tokens: newKeyring(t), NewID: func() (uuid.UUID, error) { return testID, nil }}
	if change != nil {
		change(&signing, &cfg)
	}
	client, err := oss.New(signing)
	if err != nil {
		t.Fatal(err)
	}
	cfg.OSS = client
	issuer, err := issue.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return issuer
}

func goodRequest() issue.Request {
	return issue.Request{
		Object:  oss.Object{Bucket: "demo", Key: "photos/cat.jpg", ContentType: "image/jpeg"},
		Expires: time.Hour,
		Callback: &issue.CallbackSpec{
			URLs: []string{"https://uploads.example.com/oss/callback"},
			Vars: map[string]string{"uid": "42", "album": "cats & dogs"},
		},
	}
}

func TestIssue(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	issuer := newIssuer(t, func(_ *oss.Config, c *issue.Config) { c.Now = func() time.Time { return now } })
	upload, _, err := issuer.Issue(t.Context(), goodRequest())
	if err != nil {
		t.Fatal(err)
	}

	// The headers carry what the result shows, and OSS would accept both.
	parameter, err := callbackspec.DecodeParameter(upload.Headers["x-oss-callback"], callbackspec.PublicHosts)
	if err != nil {
		t.Fatal(err)
	}
	body, err := callbackspec.DefaultBody(callbackspec.Form, []string{"uid", "album"}, true)
	if err != nil {
		t.Fatal(err)
	}
	wantParameter := callbackspec.Parameter{URLs: []string{"https://uploads.example.com/oss/callback"}, SNI: true, Body: body}
	if diff := cmp.Diff(string(wantParameter.JSON()), string(upload.Callback)); diff != "" {
		t.Errorf("callback (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(string(parameter.JSON()), string(upload.Callback)); diff != "" {
		t.Errorf("callback header and callback (-header +shown):\n%s", diff)
	}
	vars, err := callbackspec.DecodeVars(upload.Headers["x-oss-callback-var"])
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(vars.JSON()), string(upload.CallbackVar)); diff != "" {
		t.Errorf("callback-var header and callback_var (-header +shown):\n%s", diff)
	}
	if got, want := slices.Sorted(maps.Keys(vars)), []string{"x:album", "x:uid", "x:upcall_token"}; !slices.Equal(got, want) {
		t.Errorf("variables %v, want %v", got, want)
	}
	if vars["x:album"] != "cats & dogs" {
		t.Errorf("x:album is %q", vars["x:album"])
	}
	want := []string{"content-type", "x-oss-callback", "x-oss-callback-var"}
	if got := slices.Sorted(maps.Keys(upload.Headers)); !slices.Equal(got, want) {
		t.Errorf("headers %v, want %v", got, want)
	}

	// The token is this upload's, and outlives the URL.
	genuine := uploadtoken.Callback{
		Bucket: "demo", Object: "photos/cat.jpg", MimeType: "image/jpeg", Size: new(int64(5)),
		Fields: content(t, "uid=42&album=cats+%26+dogs"),
	}
	claims, err := newKeyring(t).Check(vars["x:upcall_token"], genuine, now.Add(25*time.Hour-time.Second))
	if err != nil {
		t.Fatal(err)
	}
	if claims.UploadID != testID || upload.ID != testID {
		t.Errorf("token for %x, upload %s, want %s", claims.UploadID, upload.ID, testID)
	}
	if want := now.Add(time.Hour + 24*time.Hour); !claims.Expires.Equal(want) {
		t.Errorf("token expires at %s, want %s", claims.Expires, want)
	}
	for _, wrong := range []struct {
		change func(*uploadtoken.Callback)
		at     time.Time
		want   error
	}{
		{func(c *uploadtoken.Callback) { c.Bucket = "other" }, now, uploadtoken.ErrForeignBucket},
		{func(c *uploadtoken.Callback) { c.Object = "photos/dog.jpg" }, now, uploadtoken.ErrForeignKey},
		{func(c *uploadtoken.Callback) { c.MimeType = "text/html" }, now, uploadtoken.ErrForeignType},
		{func(c *uploadtoken.Callback) { c.Fields = content(t, "uid=1&album=cats+%26+dogs") }, now, uploadtoken.ErrForeignVars},
		{func(c *uploadtoken.Callback) { c.Query = []byte("x") }, now, uploadtoken.ErrForeignVars},
		{func(*uploadtoken.Callback) {}, now.Add(25 * time.Hour), uploadtoken.ErrExpired},
	} {
		says := genuine
		wrong.change(&says)
		if _, err := newKeyring(t).Check(vars["x:upcall_token"], says, wrong.at); !errors.Is(err, wrong.want) {
			t.Errorf("%v, want %v", err, wrong.want)
		}
	}
}

// content reads a form.
func content(t *testing.T, body string) *callbackspec.Content {
	t.Helper()
	_, content, err := callbackspec.Read(string(callbackspec.Form), []byte(body), nil)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func TestIssueJSON(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name          string
		change        func(*issue.Request)
		tokens        bool
		callback, cbv string // "null" or "object"
	}{
		{"everything", func(*issue.Request) {}, true, "object", "object"},
		{"variables without a token", func(*issue.Request) {}, false, "object", "object"},
		{"token without variables", func(r *issue.Request) { r.Callback.Vars = nil }, true, "object", "object"},
		{"neither", func(r *issue.Request) { r.Callback.Vars = nil }, false, "object", "null"},
		{"no callback", func(r *issue.Request) { r.Callback = nil }, true, "null", "null"},
		{"neither callback nor content type", func(r *issue.Request) { r.Callback, r.Object.ContentType = nil, "" }, false, "null", "null"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			issuer := newIssuer(t, func(_ *oss.Config, c *issue.Config) {
				if !tt.tokens {
					c.Tokens = nil
				}
			})
			r := goodRequest()
			tt.change(&r)
			upload, _, err := issuer.Issue(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			text, err := json.Marshal(upload)
			if err != nil {
				t.Fatal(err)
			}
			var got map[string]any
			if err := json.Unmarshal(text, &got); err != nil {
				t.Fatal(err)
			}
			kinds := make(map[string]string)
			for name, value := range got {
				switch value.(type) {
				case nil:
					kinds[name] = "null"
				case string:
					kinds[name] = "string"
				case map[string]any:
					kinds[name] = "object"
				default:
					kinds[name] = "something else"
				}
			}
			want := map[string]string{"upload_id": "string", "bucket": "string", "key": "string", "method": "string", "url": "string",
				"expires_at": "string", "headers": "object", "callback": tt.callback, "callback_var": tt.cbv}
			if diff := cmp.Diff(want, kinds); diff != "" {
				t.Errorf("document (-want +got):\n%s", diff)
			}
			expires := got["expires_at"].(string)
			if at, err := time.Parse(time.RFC3339, expires); err != nil || !strings.HasSuffix(expires, "Z") ||
				len(expires) != len("2026-11-22T10:00:00Z") || !at.Equal(upload.ExpiresAt) {
				t.Errorf("expires_at %q, want whole seconds in UTC", expires)
			}
			if got["bucket"] != "demo" || got["key"] != "photos/cat.jpg" ||
				got["upload_id"] != testID.String() || got["method"] != "PUT" || got["url"] != upload.URL {
				t.Errorf("document %s", text)
			}
		})
	}
}

func TestCallbackInQuery(t *testing.T) {
	t.Parallel()
	r := goodRequest()
	r.Callback.InQuery = true
	upload, _, err := newIssuer(t, nil).Issue(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(upload.URL)
	if err != nil {
		t.Fatal(err)
	}
	if got := u.Query().Get("callback"); got != base64.StdEncoding.EncodeToString(upload.Callback) {
		t.Errorf("callback %q", got)
	}
	if got := u.Query().Get("callback-var"); got != base64.StdEncoding.EncodeToString(upload.CallbackVar) {
		t.Errorf("callback-var %q", got)
	}
	if diff := cmp.Diff(map[string]string{"content-type": "image/jpeg"}, upload.Headers); diff != "" {
		t.Errorf("headers (-want +got):\n%s", diff)
	}
}

func TestCallbackDocuments(t *testing.T) {
	t.Parallel()
	no := false
	tests := []struct {
		name   string
		change func(*issue.CallbackSpec)
		tokens bool
		check  func(callbackspec.Parameter) bool
	}{
		{"SNI for https", func(*issue.CallbackSpec) {}, true, func(p callbackspec.Parameter) bool { return p.SNI }},
		{"SNI for HTTPS", func(c *issue.CallbackSpec) { c.URLs = []string{"HTTPS://example.com/"} }, true,
			func(p callbackspec.Parameter) bool { return p.SNI }},
		{"SNI if any URL is https",
			func(c *issue.CallbackSpec) { c.URLs = []string{"http://example.com/", "https://example.com/"} }, true,
			func(p callbackspec.Parameter) bool { return p.SNI && len(p.URLs) == 2 }},
		{"no SNI for http", func(c *issue.CallbackSpec) { c.URLs = []string{"http://example.com/"} }, true,
			func(p callbackspec.Parameter) bool { return !p.SNI }},
		{"no SNI without a scheme", func(c *issue.CallbackSpec) { c.URLs = []string{"example.com/cb"} }, true,
			func(p callbackspec.Parameter) bool { return !p.SNI }},
		{"SNI turned off", func(c *issue.CallbackSpec) { c.SNI = &no }, true, func(p callbackspec.Parameter) bool { return !p.SNI }},
		{"host", func(c *issue.CallbackSpec) { c.Host = "receiver.example.com" }, true,
			func(p callbackspec.Parameter) bool { return p.Host == "receiver.example.com" }},
		{"token added to a form", func(c *issue.CallbackSpec) { c.Body = "o=${object}&u=${x:uid}&a=${x:album}" }, true,
			func(p callbackspec.Parameter) bool {
				return p.Body == "o=${object}&u=${x:uid}&a=${x:album}&reqId=${reqId}&upcall_token=${x:upcall_token}"
			}},
		{"token added to JSON", func(c *issue.CallbackSpec) {
			c.Body, c.BodyType = `{"o":${object},"u":${x:uid},"a":${x:album}}`, callbackspec.JSON
		}, true, func(p callbackspec.Parameter) bool {
			return p.Body == `{"o":${object},"u":${x:uid},"a":${x:album},"reqId":${reqId},"upcall_token":${x:upcall_token}}` &&
				p.BodyType == callbackspec.JSON
		}},
		{"token that is there stays", func(c *issue.CallbackSpec) { c.Body = "t=${x:upcall_token}&u=${x:uid}&a=${x:album}&r=${reqId}" }, true,
			func(p callbackspec.Parameter) bool {
				return p.Body == "t=${x:upcall_token}&u=${x:uid}&a=${x:album}&r=${reqId}"
			}},
		{"reqId of the template's own stays", func(c *issue.CallbackSpec) { c.Body = "reqId=${x:uid}&a=${x:album}" }, true,
			func(p callbackspec.Parameter) bool {
				return p.Body == "reqId=${x:uid}&a=${x:album}&upcall_token=${x:upcall_token}"
			}},
		{"template as it is without tokens", func(c *issue.CallbackSpec) { c.Body = "o=${object}&u=${x:uid}&a=${x:album}" }, false,
			func(p callbackspec.Parameter) bool { return p.Body == "o=${object}&u=${x:uid}&a=${x:album}" }},
		{"default without tokens", func(*issue.CallbackSpec) {}, false,
			func(p callbackspec.Parameter) bool { return !strings.Contains(p.Body, "upcall_token") }},
		{"default in JSON", func(c *issue.CallbackSpec) { c.BodyType = callbackspec.JSON }, true,
			func(p callbackspec.Parameter) bool {
				return strings.HasPrefix(p.Body, "{") && strings.Contains(p.Body, `"uid":${x:uid}`) && p.BodyType == callbackspec.JSON
			}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			issuer := newIssuer(t, func(_ *oss.Config, c *issue.Config) {
				if !tt.tokens {
					c.Tokens = nil
				}
			})
			r := goodRequest()
			tt.change(r.Callback)
			upload, _, err := issuer.Issue(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			parameter, err := callbackspec.DecodeParameter(upload.Headers["x-oss-callback"], callbackspec.PublicHosts)
			if err != nil {
				t.Fatal(err)
			}
			if !tt.check(parameter) {
				t.Errorf("callback %s", upload.Callback)
			}
		})
	}
}

// TestReach checks which endpoints allow private callback addresses.
func TestReach(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		endpoint string
		want     callbackspec.Hosts
	}{
		{"", callbackspec.PublicHosts},
		{"oss-cn-hangzhou.aliyuncs.com", callbackspec.PublicHosts},
		{"files.example.com", callbackspec.PublicHosts},
		{"localhost.example.com", callbackspec.PublicHosts},
		{"203.0.113.7", callbackspec.PublicHosts},
		{"localhost", callbackspec.AnyHost},
		{"ossemu", callbackspec.AnyHost},
		{"127.0.0.1", callbackspec.AnyHost},
		{"192.168.1.7", callbackspec.AnyHost},
		{"::1", callbackspec.AnyHost},
	} {
		if got := issue.CallbackHosts(tt.endpoint); got != tt.want {
			t.Errorf("hosts of %q is %d, want %d", tt.endpoint, got, tt.want)
		}
	}
	r := goodRequest()
	r.Callback.URLs = []string{"http://127.0.0.1:8080/oss/callback"}
	emulator := newIssuer(t, func(c *oss.Config, _ *issue.Config) { c.Endpoint = "http://127.0.0.1:9000" })
	if _, _, err := emulator.Issue(t.Context(), r); err != nil {
		t.Errorf("private callback for an emulator: %v", err)
	}
}

func TestIssuerFailures(t *testing.T) {
	t.Parallel()
	if _, err := issue.New(issue.Config{}); err == nil || !strings.Contains(err.Error(), "no OSS") {
		t.Errorf("an issuer was made without OSS: %v", err)
	}
	dry := errors.New("no randomness")
	issuer := newIssuer(t, func(_ *oss.Config, c *issue.Config) {
		c.NewID = func() (uuid.UUID, error) { return uuid.Nil, dry }
	})
	if _, _, err := issuer.Issue(t.Context(), goodRequest()); !errors.Is(err, dry) {
		t.Errorf("error %v, want %v", err, dry)
	}
	issuer = newIssuer(t, func(_ *oss.Config, c *issue.Config) {
		c.NewID = func() (uuid.UUID, error) { return uuid.Nil, nil }
	})
	if _, _, err := issuer.Issue(t.Context(), goodRequest()); err == nil || !strings.Contains(err.Error(), "no upload id") {
		t.Errorf("an upload without an id was issued: %v", err)
	}
}

// TestIDs checks that ids are UUIDs of version 7 and differ.
func TestIDs(t *testing.T) {
	t.Parallel()
	issuer := newIssuer(t, func(_ *oss.Config, c *issue.Config) { c.NewID = nil })
	seen := make(map[uuid.UUID]bool)
	for range 100 {
		upload, _, err := issuer.Issue(t.Context(), goodRequest())
		if err != nil {
			t.Fatal(err)
		}
		if upload.ID.Version() != 7 || seen[upload.ID] {
			t.Fatalf("id %s of version %d, seen before: %t", upload.ID, upload.ID.Version(), seen[upload.ID])
		}
		seen[upload.ID] = true
	}
}
