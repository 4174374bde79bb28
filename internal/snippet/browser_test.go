package snippet_test

import (
	"context"
	"crypto/md5"
	"encoding/base64"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"upcall/internal/issue"
	"upcall/internal/manifest"
	"upcall/internal/oss"
	"upcall/internal/snippet"
	"upcall/internal/testing/browser"
	"upcall/internal/testing/toolchain"
)

// TestBrowser runs the page in Chromium, from another origin than the emulator's.
func TestBrowser(t *testing.T) {
	t.Parallel()
	toolchain.Need(t, "chromium")
	chromium := browser.Start(t)
	content := strings.Repeat("\x00\r\n\xff\x1a é", 30000)
	sum := md5.Sum([]byte(content))
	upload := awkward(content, base64.StdEncoding.EncodeToString(sum[:]))
	dir := t.TempDir()
	file := write(t, dir, "it's & é.png", content) // a browser would call it image/png

	w := newWorld(t)
	page := w.open(chromium, upload)
	page.want(file, "done", "Uploaded.\n"+answer)
	if w.oss.Count(http.MethodOptions) == 0 {
		t.Error("the browser did not ask before it sent")
	}
	w.wantCallback(upload.Object.Key, int64(len(content)))
	w.wantObject(upload.Object, content)

	w.refused(func() {
		page.want(file, "failed", "203 CallbackFailed: the file is stored", "<Code>CallbackFailed</Code>")
	})
	page.want(write(t, dir, "other size", "x"), "failed", "403", "<Code>SignatureDoesNotMatch</Code>")
	w.late.Store(true)
	page.want(file, "failed", "403", "<Code>AccessDenied</Code>")
	w.oss.Close()
	page.want(file, "failed", "no answer")
	if len(w.receiver.Callbacks()) != 0 {
		t.Error("a refused upload was called back")
	}

	// A file without content, to a bucket that allows this one origin, and to one that
	// does not allow it.
	plain := issue.Request{Object: oss.Object{Key: "plain", ContentType: "application/octet-stream"}}
	empty := write(t, dir, "empty.txt", "")
	w = newWorld(t)
	w.open(chromium, plain).want(empty, "done", "Uploaded.\n"+answer)
	w.wantCallback("plain", 0)
	w.wantObject(plain.Object, "")
	w = newWorld(t, "https://elsewhere.example.com")
	w.open(chromium, plain).want(empty, "failed", "CORS")
}

// TestUnsignedType: a browser names a type even where none was signed, so the page
// would always fail. The tool that makes the URL says so, not the browser.
func TestUnsignedType(t *testing.T) {
	t.Parallel()
	for _, language := range snippet.Languages() {
		want := language == "browser" || language == "android"
		u := manifest.PresignedRequest{Method: "PUT", URL: "https://demo.oss-cn-hangzhou.aliyuncs.com/k?x=y"}
		_, err := snippet.Render(language, u)
		if checked := snippet.Check(language, "k", ""); errors.Is(err, snippet.ErrContentType) != want ||
			errors.Is(checked, snippet.ErrContentType) != want {
			t.Errorf("%s without a type: %v and %v", language, err, checked)
		}
		u.Headers = map[string]string{"content-type": "image/png"}
		if _, err := snippet.Render(language, u); err != nil {
			t.Errorf("%s with a type: %v", language, err)
		}
	}
}

// A page is one that is open in the browser.
type page struct {
	t   *testing.T
	ctx context.Context
}

func (w *world) open(chromium context.Context, r issue.Request) page {
	w.t.Helper()
	program := w.render("browser", r)
	site := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", "text/html")
		rw.Write([]byte(program))
	}))
	w.t.Cleanup(site.Close)
	if err := chromedp.Do(chromium, chromedp.Navigate(site.URL)); err != nil {
		w.t.Fatal(err)
	}
	return page{w.t, chromium}
}

// want uploads a file as a person does, and reads what the page says of it.
func (p page) want(file, class string, says ...string) {
	p.t.Helper()
	err := chromedp.Do(p.ctx,
		chromedp.SetUploadFiles(chromedp.CSS("input"), []string{file}),
		chromedp.SetAttributeValue(chromedp.CSS("output"), "class", ""),
		chromedp.Click(chromedp.CSS("button")),
		chromedp.WaitVisible(chromedp.CSS("output.done, output.failed")))
	if err != nil {
		p.t.Fatalf("%s: %v", file, err)
	}
	result, err := chromedp.Run(p.ctx, chromedp.Text(chromedp.CSS("output")))
	if err != nil {
		p.t.Fatalf("%s: %v", file, err)
	}
	got, err := chromedp.Run(p.ctx, chromedp.AttributeValue(chromedp.CSS("output"), "class"))
	if err != nil || got.Value != class {
		p.t.Errorf("%s: %s, want %s (%v): %s", file, got.Value, class, err, result)
	}
	for _, text := range says {
		if !strings.Contains(result, text) {
			p.t.Errorf("%s: the page does not say %q: %s", file, text, result)
		}
	}
}
