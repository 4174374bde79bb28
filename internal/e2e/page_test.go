package e2e

import (
	"bytes"
	"context"
	"image"
	"image/png"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"upcall/internal/admission"
	"upcall/internal/apikey"
	"upcall/internal/dbtest"
	"upcall/internal/eventstore"
	"upcall/internal/hooks"
	"upcall/internal/issuer"
	"upcall/internal/ossemu"
	"upcall/internal/receiver"
	"upcall/internal/testing/browser"
	"upcall/internal/testing/ossfake"
	"upcall/internal/testing/receiverfake"
	"upcall/internal/testing/servetest"
	"upcall/internal/testing/toolchain"
	"upcall/internal/uploadtoken"
)

// A site is an issuer with its page, an emulator, and a receiver that can be made to
// fail.
type site struct {
	url, apiKey string
	largeKey    string // an API key whose policy allows files that go in parts, too
	database    string
	hook        string                       // where OSS calls back
	oss         *ossfake.Gate                // in front of the emulator
	issuer      atomic.Pointer[ossfake.Pass] // in front of the issuer; nil lets everything through
	fail        atomic.Bool                  // callbacks
	failsLate   atomic.Bool                  // callbacks, after the receiver has recorded them
	spools      atomic.Bool                  // callbacks, like a receiver that cannot reach its database
}

// siteTokens are the token keys of every site.
const siteTokens = "k1:0123456789abcdef0123456789abcdef"

// loopback are the addresses that hooks may go to.
var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}

func newSite(t *testing.T, cors ...func(origin string) ossemu.CORSRule) *site {
	t.Helper()
	tokens, err := uploadtoken.ParseKeys(siteTokens)
	if err != nil {
		t.Fatal(err)
	}
	s, database := new(site), dbtest.URL(t)
	var issues atomic.Pointer[httputil.ReverseProxy]
	s.url = ossfake.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if pass := s.issuer.Load(); pass != nil {
			(*pass)(w, r, issues.Load())
			return
		}
		issues.Load().ServeHTTP(w, r)
	}))
	s.database, s.oss = database, ossfake.NewGate(t, ossfake.NewEmulator(t, func(c *ossemu.Config) {
		for _, rule := range cors {
			c.CORS = new(rule(s.url))
		}
	}))
	endpoint := s.oss.URL
	received := servetest.Start(t, func(ctx context.Context, public, admin net.Listener) error {
		return receiver.Run(ctx, receiver.Config{
			DatabaseURL: database, Admission: admission.Config{Tokens: tokens},
			TrustKeyURLs: []string{endpoint + ossemu.PublicKeyPath}, Logger: slog.New(slog.DiscardHandler),
			Hooks: receiver.HooksConfig{Rules: hooks.Rules{AllowHTTP: true, AllowedCIDRs: loopback}},
		}, public, admin)
	})
	target, err := url.Parse(received.Public)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }}
	hook := ossfake.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case s.fail.Load():
			w.WriteHeader(http.StatusInternalServerError)
		case s.failsLate.Load():
			proxy.ServeHTTP(httptest.NewRecorder(), r)
			w.WriteHeader(http.StatusInternalServerError)
		case s.spools.Load():
			receiverfake.Respond(w, http.StatusOK, `{"status":"ok","event_id":"5c3d9175-0000-4000-8000-000000000000",`+
				`"upload_id":null,"duplicate":false,"durable":"spool"}`)
		default:
			proxy.ServeHTTP(w, r)
		}
	}))
	s.hook = hook + "/oss/callback"
	s.apiKey, s.largeKey = addKey(t, database, "web", "people"), addKey(t, database, "large", "large")
	at := startIssuer(t, issuer.Config{DatabaseURL: database, Tokens: tokens, Page: true}, endpoint, `
policies:
  people:
    buckets: [demo]
    key_prefixes: ["inbox/"]
    key_templates: ["inbox/${date}/${uuid}-${filename}"]
    content_types: [image/*, text/plain]
    max_size: 1MiB
    max_expiry: 1h
    callback_urls: ["`+s.hook+`"]
    required_vars: [uid]
    allowed_vars: [album]
  large:
    buckets: [demo]
    key_prefixes: ["inbox/"]
    key_templates: ["inbox/${date}/${uuid}-${filename}"]
    content_types: [text/plain]
    max_size: 1GiB
    max_expiry: 1h
    callback_urls: ["`+s.hook+`"]
    required_vars: [uid]
    allowed_vars: [album]
`)
	issued, err := url.Parse(at)
	if err != nil {
		t.Fatal(err)
	}
	issues.Store(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(issued) }})
	return s
}

// addKey adds an API key of that name with a policy to a database, and returns its text.
func addKey(t *testing.T, database, name, policy string) string {
	t.Helper()
	pool, err := eventstore.Open(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	text, hash, err := apikey.New(name)
	if err != nil {
		t.Fatal(err)
	}
	key := eventstore.APIKey{ID: name, Hash: hash[:], Policy: policy, CreatedAt: time.Now()}
	if err := eventstore.NewAPIKeys(pool).Add(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	return text
}

// TestPage uploads through the page as a person would.
func TestPage(t *testing.T) {
	t.Parallel()
	toolchain.Need(t, "chromium")
	s, chromium := newSite(t), browser.Start(t)
	dir := t.TempDir()
	var picture bytes.Buffer
	if err := png.Encode(&picture, image.NewRGBA(image.Rect(0, 0, 64, 48))); err != nil {
		t.Fatal(err)
	}
	file := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	do := func(actions ...chromedp.Action[chromedp.Void]) {
		t.Helper()
		if err := chromedp.Do(chromium, actions...); err != nil {
			t.Fatal(err)
		}
	}
	text := func(selector string) string {
		t.Helper()
		got, err := chromedp.Run(chromium, chromedp.Text(chromedp.CSS(selector)))
		if err != nil {
			t.Fatalf("%s: %v", selector, err)
		}
		return got
	}
	// upload gives the page a file, and returns the entry in its list.
	upload := func(path, outcome string) string {
		t.Helper()
		do(chromedp.Evaluate[chromedp.Void](`document.getElementById("uploads").replaceChildren()`),
			chromedp.SetUploadFiles(chromedp.CSS("#files"), []string{path}),
			chromedp.WaitVisible(chromedp.CSS("#uploads li ."+outcome)))
		return text("#uploads li")
	}

	do(chromedp.EmulateViewport(1000, 900), chromedp.Navigate(s.url+"/"),
		chromedp.Evaluate[chromedp.Void](`addEventListener("securitypolicyviolation",
			e => (self.violations ??= []).push(e.violatedDirective + " " + e.blockedURI))`))
	// Without an API key nothing is sent.
	do(chromedp.SetUploadFiles(chromedp.CSS("#files"), []string{file("early.txt", []byte("x"))}))
	if got := text("#none"); got != "No files yet." {
		t.Errorf("the page took a file without an API key: %s", got)
	}
	// Type the API key, then the variables.
	do(chromedp.Focus(chromedp.CSS("#key")), chromedp.KeyEvent(s.apiKey), chromedp.WaitVisible(chromedp.CSS("[data-variable=uid] input[required]")))
	// What the policy requires is asked before the first file, and what it allows is offered.
	do(chromedp.SetUploadFiles(chromedp.CSS("#files"), []string{file("early.txt", []byte("x"))}))
	if got := text("#none"); got != "No files yet." {
		t.Errorf("the page took a file without a variable that is required: %s", got)
	}
	offered, err := chromedp.Run(chromium, chromedp.Evaluate[string](`const $ = id => document.getElementById(id); JSON.stringify([$("policy"), ...document.querySelectorAll("#vars .pair")]
		.map(e => e.dataset.variable || e.textContent).concat($("files").accept, [...$("prefixes").options].map(o => o.value)))`))
	if want := `["Allowed: image/*, text/plain, up to 1.0 MB a file.","uid","album","image/*,text/plain","inbox/"]`; err != nil || offered != want {
		t.Errorf("the page offers %s, want %s (%v)", offered, want, err)
	}
	do(chromedp.Focus(chromedp.CSS("[data-variable=uid] input[required]")), chromedp.KeyEvent("42"))

	uploaded := upload(file("holiday <b>é.png", picture.Bytes()), "good")
	for _, want := range []string{"holiday <b>é.png", "Uploaded and recorded", `"durable": "postgres"`, `"duplicate": false`} {
		if !strings.Contains(uploaded, want) {
			t.Errorf("the page does not say %s: %s", want, uploaded)
		}
	}
	do(chromedp.WaitReady(chromedp.CSS("#uploads table")), // it appears after the outcome, closed
		chromedp.Evaluate[chromedp.Void](`for (const d of document.querySelectorAll("#uploads details")) d.open = true`),
		chromedp.WaitVisible(chromedp.CSS("#uploads table")))
	if row := text("#uploads table"); !strings.Contains(row, "image/png") || !strings.Contains(row, `{"uid":"42"}`) ||
		!strings.Contains(row, "64") {
		t.Errorf("the recorded row: %s", row)
	}
	screenshot(t, chromium, "page.png")

	// Try a file that the policy does not allow.
	if got := upload(file("large.txt", make([]byte, 2<<20)), "bad"); !strings.Contains(got, "1048576") &&
		!strings.Contains(got, "1MiB") && !strings.Contains(got, "bytes") {
		t.Errorf("a file that is too large: %s", got)
	}
	// Drop a file.
	do(chromedp.Evaluate[chromedp.Void](`
		document.getElementById("uploads").replaceChildren();
		const dropped = new DataTransfer();
		dropped.items.add(new File(["hello"], "dropped.txt", { type: "text/plain" }));
		const over = new DragEvent("dragover", { dataTransfer: dropped, bubbles: true, cancelable: true });
		document.getElementById("drop").dispatchEvent(over)`))
	over, err := chromedp.Run(chromium, chromedp.Evaluate[bool](`document.getElementById("drop").classList.contains("over")`))
	if err != nil || !over {
		t.Errorf("the page does not show that a file may be dropped (%v)", err)
	}
	taken, err := chromedp.Run(chromium, chromedp.Evaluate[bool](
		`!document.getElementById("drop")
			.dispatchEvent(new DragEvent("drop", { dataTransfer: dropped, bubbles: true, cancelable: true }))`))
	if err != nil || !taken {
		t.Errorf("the browser would open the file that is dropped (%v)", err)
	}
	do(chromedp.WaitVisible(chromedp.CSS("#uploads li .good")))
	if got := text("#uploads li"); !strings.Contains(got, "dropped.txt") || !strings.Contains(got, "Uploaded and recorded") {
		t.Errorf("a file was dropped: %s", got)
	}
	// A callback that the receiver only spools is not recorded yet.
	s.spools.Store(true)
	if got := upload(file("note.txt", []byte("hello")), "good"); !strings.Contains(got, "Uploaded; it will be recorded shortly") ||
		strings.Contains(got, "and recorded") {
		t.Errorf("a spooled callback: %s", got)
	}
	s.spools.Store(false)
	// 203 is not a success.
	s.fail.Store(true)
	if got := upload(file("note.txt", []byte("hello")), "bad"); !strings.Contains(got, "Stored, but not recorded") ||
		!strings.Contains(got, "the upload will be recorded by a notification within minutes, or by the next run") {
		t.Errorf("a failed callback: %s", got)
	}
	s.fail.Store(false)
	// On a phone, nothing is wider than the screen.
	do(chromedp.EmulateViewport(360, 740, chromedp.EmulateMobile))
	upload(file("note.txt", []byte("hello")), "good")
	wide, err := chromedp.Run(chromium, chromedp.Evaluate[int](`document.documentElement.scrollWidth`))
	if err != nil || wide > 360 {
		t.Errorf("the page is %d pixels wide on a phone of 360 (%v)", wide, err)
	}
	screenshot(t, chromium, "page-phone.png")
	violations, err := chromedp.Run(chromium, chromedp.Evaluate[string](`JSON.stringify(self.violations ?? [])`))
	if err != nil || violations != "[]" {
		t.Errorf("the page violates its content security policy: %s (%v)", violations, err)
	}
}

// screenshot keeps a picture of the page in the directory that UPCALL_TEST_SCREENSHOTS
// names, for people to look at.
func screenshot(t *testing.T, chromium context.Context, name string) {
	t.Helper()
	dir := os.Getenv("UPCALL_TEST_SCREENSHOTS")
	if dir == "" {
		return
	}
	picture, err := chromedp.Run(chromium, chromedp.FullScreenshot(100))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), picture, 0o644); err != nil {
		t.Fatal(err)
	}
}
