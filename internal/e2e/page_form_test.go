package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/chromedp/chromedp"

	"upcall/internal/dbtest"
	"upcall/internal/eventstore"
	"upcall/internal/testing/browser"
	"upcall/internal/testing/clitest"
	"upcall/internal/testing/ossfake"
	"upcall/internal/testing/toolchain"
)

// objects returns the keys of the recorded uploads that were posted with a form, in the order of their rows.
func (s *site) objects(t *testing.T) (keys []string) {
	t.Helper()
	err := dbtest.Open(t, s.database, eventstore.Open).QueryRow(t.Context(),
		`SELECT coalesce(array_agg(object_key ORDER BY received_at), '{}')
		FROM upcall.upload_log WHERE operation = 'PostObject'`).Scan(&keys)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// TestPageForms sends files with forms through the uploader module, as a page whose back end issues forms.
func TestPageForms(t *testing.T) {
	t.Parallel()
	toolchain.Need(t, "chromium")
	s := newSite(t)
	v := visit(t, s)
	// send sends files with one form, and returns what is told of each.
	send := func(form, files string) string {
		t.Helper()
		script := fmt.Sprintf(`self.told = undefined; import("./upcall-uploader.js").then(async ({ Uploader }) => {
			const uploader = new Uploader({ atOnce: 1, issue: () => self.form, headers: () => ({ Authorization: "Bearer %s" }) });
			self.form = await uploader.ask("POST", "/v1/uploads/form",
				{ content_type: "text/plain", max_size: 5, vars: { uid: "42" }, %s });
			const all = await Promise.all(uploader.add(%s).map(u => u.finished));
			self.told = all.map(u => u.state + " " + (u.error ? u.error.kind + ": " + u.message : u.message)).join("\n");
		}).catch(e => self.told = String(e)); undefined`, s.apiKey, form, files)
		v.do(chromedp.Evaluate[chromedp.Void](script))
		v.until(`self.told !== undefined`)
		told, err := chromedp.Run(v.tab, chromedp.Evaluate[string](`self.told`))
		if err != nil {
			t.Fatal(err)
		}
		return told
	}
	file := func(name, content string) string {
		return fmt.Sprintf(`new File([%q], %q, { type: "text/plain" })`, content, name)
	}
	const unsure = "The row that the issuer shows may be of another file; Retry sends this one again."
	for _, tt := range []struct {
		name, form, files string
		fail              bool // the callbacks
		told, keys        []string
	}{
		{"a fixed key", `key: "inbox/a.txt"`, "[" + file("x.txt", "hello") + "]", false,
			[]string{"done Uploaded and recorded"}, []string{"inbox/a.txt"}},
		{"names behind a prefix", `key_prefix: "inbox/42/"`, "[" + file("é b.txt", "hello") + "," + file("c.txt", "1") + "]", false,
			[]string{"done Uploaded and recorded", "done Uploaded and recorded"}, []string{"inbox/42/é b.txt", "inbox/42/c.txt"}},
		{"too large", `key: "inbox/b.txt"`, "[" + file("x.txt", "123456") + "]", false,
			[]string{"failed refused: OSS refused the upload: "}, nil},
		{"203", `key: "inbox/c.txt"`, "[" + file("x.txt", "hello") + "]", true,
			[]string{"failed unrecorded: Stored, but not recorded"}, nil},
		{"203 behind a prefix", `key_prefix: "inbox/43/"`, "[" + file("d.txt", "hello") + "]", true,
			[]string{"failed unrecorded: Stored, but not recorded"}, nil},
		{"the answer is lost", `key: "inbox/d.txt"`, "[" + file("x.txt", "hello") + "]", false,
			[]string{"done Uploaded and recorded"}, []string{"inbox/d.txt"}},
		{"the answer is lost, behind a prefix", `key_prefix: "inbox/44/"`, "[" + file("e.txt", "hello") + "]", false,
			[]string{"done Uploaded and recorded"}, []string{"inbox/44/e.txt"}},
		// The row of one file says nothing of another under the same form.
		{"203 after a row", `key: "inbox/e.txt"`, "[" + file("x.txt", "hello") + "," + file("y.txt", "world") + "]", false,
			[]string{"done Uploaded and recorded", "failed unrecorded: Stored, but not recorded"}, []string{"inbox/e.txt"}},
		{"203 after a row behind a prefix", `key_prefix: "inbox/45/"`, "[" + file("x.txt", "hello") + "," + file("y.txt", "world") + "]",
			false, []string{"done Uploaded and recorded", "failed unrecorded: Stored, but not recorded"}, []string{"inbox/45/x.txt"}},
	} {
		before := len(s.objects(t))
		s.fail.Store(tt.fail)
		s.failsLate.Store(strings.Contains(tt.name, "lost"))
		s.oss.Open()
		if strings.Contains(tt.name, "after a row") {
			var posts atomic.Int32
			s.oss.Between(func(w http.ResponseWriter, r *http.Request, serve http.Handler) {
				if r.Method == http.MethodPost {
					s.fail.Store(posts.Add(1) > 1)
				}
				serve.ServeHTTP(w, r)
			})
		}
		told := strings.Split(send(tt.form, tt.files), "\n")
		for i := range tt.told {
			if i >= len(told) || !strings.HasPrefix(told[i], tt.told[i]) {
				t.Errorf("%s: told %q, want %q", tt.name, told, tt.told)
			}
		}
		if strings.HasSuffix(told[len(told)-1], unsure) != strings.Contains(tt.name, "after a row") {
			t.Errorf("%s: told %q", tt.name, told)
		}
		if keys := s.objects(t)[before:]; strings.Join(keys, "\n") != strings.Join(tt.keys, "\n") {
			t.Errorf("%s: recorded %q, want %q", tt.name, keys, tt.keys)
		}
	}
}

// TestPlainForm uploads with the page that issuer form prints, which has no script, from another origin.
func TestPlainForm(t *testing.T) {
	t.Parallel()
	toolchain.Need(t, "chromium")
	s := newSite(t)
	env := clitest.Env{
		"OSS_ACCESS_KEY_ID": ossfake.AccessKeyID, "OSS_ACCESS_KEY_SECRET": ossfake.AccessKeySecret, "OSS_REGION": ossfake.Region,
		"OSS_ENDPOINT": s.oss.URL, "UPCALL_TOKEN_KEYS": siteTokens, "UPCALL_CALLBACK_URL": s.hook, "UPCALL_DATABASE_URL": s.database,
		"UPCALL_BUCKET": ossfake.Bucket,
	}
	tab := browser.Start(t)
	for _, tt := range []struct {
		flag, key, name, content, shows, want string
	}{
		{"--key", "inbox/a.txt", "x.txt", "hello", `"durable":"postgres"`, "inbox/a.txt"},
		{"--key-prefix", "inbox/42/", "é b.txt", "hello", `"durable":"postgres"`, "inbox/42/é b.txt"},
		{"--key", "inbox/b.txt", "x.txt", "123456", "EntityTooLarge", ""},
	} {
		page, stderr, status := execute(t, env, "form", tt.flag, tt.key, "--max-size", "5", "--content-type", "text/plain",
			"--var", "uid=42", "--format", "html")
		if status != 0 {
			t.Fatalf("status %d: %s", status, stderr)
		}
		origin := ossfake.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			fmt.Fprint(w, page)
		}))
		path := filepath.Join(t.TempDir(), tt.name)
		if err := os.WriteFile(path, []byte(tt.content), 0o600); err != nil {
			t.Fatal(err)
		}
		before := len(s.objects(t))
		v := visitor{t, s, tab}
		v.do(chromedp.Navigate(origin+"/"), chromedp.SetUploadFiles(chromedp.CSS("[type=file]"), []string{path}),
			chromedp.Click(chromedp.CSS("button")))
		v.until(fmt.Sprintf(`document.readyState === "complete" && document.documentElement.textContent.includes(%q)`, tt.shows))
		if got := strings.Join(s.objects(t)[before:], "\n"); got != tt.want {
			t.Errorf("%s %s: recorded %q, want %q", tt.flag, tt.key, got, tt.want)
		}
	}
}
