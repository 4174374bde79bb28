package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"upcall/internal/dbtest"
	"upcall/internal/eventstore"
	"upcall/internal/testing/browser"
)

// A visitor is a person at the upload page.
type visitor struct {
	t    *testing.T
	site *site
	tab  context.Context
}

// visit opens the page and fills in what the policy needs.
func visit(t *testing.T, s *site) visitor {
	t.Helper()
	v := visitor{t, s, browser.Start(t)}
	v.do(chromedp.EmulateViewport(1000, 900), chromedp.Navigate(s.url+"/"),
		chromedp.Focus(chromedp.CSS("#key")), chromedp.KeyEvent(s.apiKey))
	v.do(fillIn...)
	return v
}

// fillIn fills in the variable that the policy requires, once the page asks for it.
var fillIn = []chromedp.Action[chromedp.Void]{chromedp.WaitVisible(chromedp.CSS("[data-variable=uid] input[required]")),
	chromedp.Focus(chromedp.CSS("[data-variable=uid] input[required]")), chromedp.KeyEvent("42")}

func (v visitor) do(actions ...chromedp.Action[chromedp.Void]) {
	v.t.Helper()
	if err := chromedp.Do(v.tab, actions...); err != nil {
		v.t.Fatal(err)
	}
}

// choose gives the page that many small files.
func (v visitor) choose(files int) {
	v.t.Helper()
	dir := v.t.TempDir()
	paths := make([]string, files)
	for i := range paths {
		paths[i] = filepath.Join(dir, fmt.Sprintf("note-%03d.txt", i))
		if err := os.WriteFile(paths[i], []byte("hello"), 0o600); err != nil {
			v.t.Fatal(err)
		}
	}
	v.do(chromedp.SetUploadFiles(chromedp.CSS("#files"), paths))
}

// states returns what the page says about the files, in the order of its list.
func (v visitor) states() []string {
	v.t.Helper()
	states, err := chromedp.Run(v.tab, chromedp.Evaluate[[]string](
		`[...document.querySelectorAll("#uploads .state")].map(s => s.className.slice("state ".length) + ": " + s.textContent)`))
	if err != nil {
		v.t.Fatal(err)
	}
	return states
}

// waitFor waits until so many files are in a state that begins so.
func (v visitor) waitFor(files int, state string) {
	v.t.Helper()
	v.until(fmt.Sprintf(`[...document.querySelectorAll("#uploads .state")]
		.filter(s => (s.className.slice("state ".length) + ": " + s.textContent).startsWith(%q)).length === %d`, state, files))
}

// until waits until an expression is true. chromedp.Poll would need the page's policy to allow
// scripts made from text.
func (v visitor) until(expression string) {
	v.t.Helper()
	for ctx := v.tab; ; {
		is, err := chromedp.Run(ctx, chromedp.Evaluate[bool](expression))
		if err != nil {
			v.t.Fatalf("%s: %v", expression, err)
		}
		if is {
			return
		}
		select {
		case <-ctx.Done():
			v.t.Fatalf("%s: %v", expression, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (v visitor) text(selector string) string {
	v.t.Helper()
	got, err := chromedp.Run(v.tab, chromedp.Text(chromedp.CSS(selector)))
	if err != nil {
		v.t.Fatal(err)
	}
	return got
}

// rows counts the recorded uploads.
func (s *site) rows(t *testing.T) (rows int) {
	t.Helper()
	pool := dbtest.Open(t, s.database, eventstore.Open)
	if err := pool.QueryRow(t.Context(), "SELECT count(*) FROM upcall.upload_events").Scan(&rows); err != nil {
		t.Fatal(err)
	}
	return rows
}

// screenshotOfView keeps a picture of what is in the window.
func screenshotOfView(t *testing.T, chromium context.Context, name string) {
	t.Helper()
	dir := os.Getenv("UPCALL_TEST_SCREENSHOTS")
	if dir == "" {
		return
	}
	picture, err := chromedp.Run(chromium, chromedp.CaptureScreenshot())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), picture, 0o644); err != nil {
		t.Fatal(err)
	}
}
