package e2e

import (
	"encoding/json"
	"encoding/xml"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"upcall/internal/ossemu"
	"upcall/internal/testing/browser"
	"upcall/internal/testing/ossfake"
	"upcall/internal/testing/toolchain"
)

// documentedCORS returns the rule in the documentation for pages of another origin than the
// one there.
func documentedCORS(t *testing.T, origin string) ossemu.CORSRule {
	t.Helper()
	text, err := os.ReadFile(uploadsPage)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "```xml\n")
	document, _, found := strings.Cut(rest, "```")
	var rule struct {
		Origins []string `xml:"CORSRule>AllowedOrigin"`
		Methods []string `xml:"CORSRule>AllowedMethod"`
		Headers []string `xml:"CORSRule>AllowedHeader"`
		Exposed []string `xml:"CORSRule>ExposeHeader"`
		MaxAge  int      `xml:"CORSRule>MaxAgeSeconds"`
	}
	if err := xml.Unmarshal([]byte(document), &rule); err != nil || !found || len(rule.Origins) != 1 || rule.MaxAge == 0 {
		t.Fatalf("%v in %s", err, document)
	}
	return ossemu.CORSRule{Origins: []string{origin}, Methods: rule.Methods, Headers: rule.Headers, Expose: rule.Exposed,
		MaxAge: time.Duration(rule.MaxAge) * time.Second}
}

// TestDocumentedCORSRule checks that OSS takes the rule in the documentation.
func TestDocumentedCORSRule(t *testing.T) {
	t.Parallel()
	rule := documentedCORS(t, "https://app.example.com")
	if !slices.Equal(rule.Headers, []string{"*"}) || slices.Contains(rule.Expose, "*") { // OSS takes no * there
		t.Errorf("headers %v, exposed %v", rule.Headers, rule.Expose)
	}
}

// TestPageCORS uploads from the page to buckets with several CORS rules.
func TestPageCORS(t *testing.T) {
	t.Parallel()
	toolchain.Need(t, "chromium")
	const forbidden = "bad: The bucket's CORS rules do not allow this page to upload."
	for name, tt := range map[string]struct {
		change func(*ossemu.CORSRule) // of the documented rule
		says   string
	}{
		"documented":         {func(*ossemu.CORSRule) {}, recordedState},
		"nothing exposed":    {func(r *ossemu.CORSRule) { r.Expose = nil }, recordedState},
		"no max age":         {func(r *ossemu.CORSRule) { r.MaxAge = 0 }, recordedState},
		"signed headers":     {func(r *ossemu.CORSRule) { r.Headers = []string{"content-type", "x-oss-callback*"} }, recordedState},
		"no rule":            {func(r *ossemu.CORSRule) { *r = ossemu.CORSRule{} }, forbidden},
		"another origin":     {func(r *ossemu.CORSRule) { r.Origins = []string{"https://app.example.com"} }, forbidden},
		"without PUT":        {func(r *ossemu.CORSRule) { r.Methods = []string{"GET", "POST"} }, forbidden},
		"without the header": {func(r *ossemu.CORSRule) { r.Headers = []string{"content-type"} }, forbidden},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, func(origin string) ossemu.CORSRule {
				rule := documentedCORS(t, origin)
				tt.change(&rule)
				return rule
			})
			v := visit(t, s)
			v.choose(1)
			v.waitFor(1, tt.says)
			rows := 1
			if tt.says == forbidden {
				rows = 0
				missing := "One must allow the origin " + s.url + ", the method PUT and the headers content-type, x-oss-callback, x-oss-callback-var."
				if got := v.states()[0]; !strings.HasSuffix(got, missing) {
					t.Errorf("the page says %s", got)
				}
			}
			if got := s.rows(t); got != rows {
				t.Errorf("%d rows", got)
			}
		})
	}
	t.Run("OSS is away", func(t *testing.T) {
		t.Parallel()
		s := newSite(t)
		v := visit(t, s)
		s.oss.Close()
		v.choose(1)
		v.waitFor(1, "bad: OSS could not be reached.")
	})
}

// partsInPage uploads what the manifest m is for, as a page would.
const partsInPage = `
const size = 250000, file = new Blob([new Uint8Array(size)]), notes = [];
const ask = async (r, body) => {
	const headers = Object.fromEntries(Object.entries(r.headers || {}).filter(([name]) => name !== "content-length"));
	const answer = await fetch(r.url, { method: r.method, headers, body });
	notes.push(r.method + " " + answer.status);
	return answer;
};
const upload = async m => {
	const etags = [];
	for (const part of m.parts) {
		const at = (part.number - 1) * m.part_size;
		const etag = (await ask(part, file.slice(at, Math.min(at + m.part_size, size)))).headers.get("ETag");
		if (!etag) throw new Error("the bucket's CORS rule does not expose ETag");
		etags.push("<Part><PartNumber>" + part.number + "</PartNumber><ETag>" + etag + "</ETag></Part>");
	}
	const list = await (await ask(m.list_parts)).text();
	if (list.split("<Part>").length !== m.parts.length + 1) throw new Error(list);
	const said = await (await ask(m.complete, "<CompleteMultipartUpload>" + etags.join("") + "</CompleteMultipartUpload>")).text();
	const head = await ask(m.head);
	await ask(m.abort);
	for (const name of ["x-oss-hash-crc64ecma", "x-oss-request-id"]) if (!head.headers.get(name)) throw new Error(name + " is not exposed");
	return said;
};
upload(manifest).then(said => self.result = said + " " + notes, e => self.result = "failed: " + e.message + " " + notes);`

// TestMultipartInPage sends parts from a page under the documented CORS rule.
func TestMultipartInPage(t *testing.T) {
	t.Parallel()
	toolchain.Need(t, "chromium")
	origin := ossfake.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		io.WriteString(w, "<!doctype html><title>App</title>")
	}))
	for name, tt := range map[string]struct {
		change func(*ossemu.CORSRule)
		says   string
	}{
		"documented":  {func(*ossemu.CORSRule) {}, answer + " PUT 200,PUT 200,PUT 200,GET 200,POST 200,HEAD 200,DELETE 404"},
		"no ETag":     {func(r *ossemu.CORSRule) { r.Expose = []string{"x-oss-request-id"} }, "failed: the bucket's CORS rule does not expose ETag PUT 200"},
		"without GET": {func(r *ossemu.CORSRule) { r.Methods = []string{"PUT", "POST"} }, "failed: Failed to fetch PUT 200,PUT 200,PUT 200"},
		"another origin": {func(r *ossemu.CORSRule) { r.Origins = []string{"https://app.example.com"} },
			"failed: Failed to fetch "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, func(c *ossemu.Config) {
				rule := documentedCORS(t, origin)
				tt.change(&rule)
				c.CORS = &rule
			})
			m, _ := w.create(t, "--size", "250000", "--part-size", "102400")
			text, err := json.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			v := visitor{t, nil, browser.Start(t)}
			v.do(chromedp.Navigate(origin+"/"),
				chromedp.Evaluate[chromedp.Void]("const manifest = "+string(text)+";"+partsInPage+"; undefined"))
			v.until(`self.result !== undefined`)
			got, err := chromedp.Run(v.tab, chromedp.Evaluate[string](`self.result`))
			if err != nil || got != tt.says {
				t.Errorf("%s, want %s (%v)", got, tt.says, err)
			}
		})
	}
}
