package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"image"
	"image/png"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"upcall/internal/admission"
	"upcall/internal/cli"
	"upcall/internal/dbtest"
	"upcall/internal/ossemu"
	"upcall/internal/receiver"
	"upcall/internal/testing/toolchain"
	"upcall/internal/uploadtoken"
)

// A site is an issuer with its page, an emulator, and a receiver that can be made to
// fail.
type site struct {
	url, apiKey string
	database    string
	fail        atomic.Bool // callbacks
	spools      atomic.Bool // callbacks, as a receiver whose database is away does
}

func newSite(t *testing.T) *site {
	t.Helper()
	const keys = "k1:0123456789abcdef0123456789abcdef"
	s := &site{database: dbtest.URL(t)}

	emulator, err := ossemu.New(ossemu.Config{AccessKeyID: "ossemu", AccessKeySecret: "ossemu-secret", Region: "cn-hangzhou", Buckets: []string{"demo"}})
	if err != nil {
		t.Fatal(err)
	}
	oss := httptest.NewServer(emulator)
	t.Cleanup(oss.Close)
	t.Cleanup(emulator.Close)

	ctx, cancel := context.WithCancel(context.Background())
	public, admin := listener(t), listener(t)
	tokens, err := uploadtoken.ParseKeys(keys)
	if err != nil {
		t.Fatal(err)
	}
	received := make(chan error, 1)
	go func() {
		received <- receiver.Run(ctx, receiver.Config{DatabaseURL: s.database, Admission: admission.Config{Tokens: tokens},
			Logger:       slog.New(slog.DiscardHandler),
			TrustKeyURLs: []string{oss.URL + ossemu.PublicKeyPath}}, public, admin)
	}()
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.fail.Load() {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		if s.spools.Load() {
			const kept = `{"status":"ok","event_id":"5c3d9175-0000-4000-8000-000000000000","upload_id":null,"duplicate":false,"durable":"spool"}`
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Content-Length", fmt.Sprint(len(kept)))
			io.WriteString(w, kept)
			return
		}
		forward(w, r, "http://"+public.Addr().String())
	}))
	t.Cleanup(hook.Close)

	policies := filepath.Join(t.TempDir(), "policies.yaml")
	if err := os.WriteFile(policies, []byte(`
policies:
  people:
    buckets: [demo]
    key_prefixes: ["inbox/"]
    key_templates: ["inbox/${date}/${uuid}-${filename}"]
    content_types: [image/*, text/plain]
    max_size: 1MiB
    max_expiry: 1h
    callback_urls: ["`+hook.URL+`/oss/callback"]
    required_vars: [uid]
    allowed_vars: [album]
`), 0o600); err != nil {
		t.Fatal(err)
	}
	settings := map[string]string{
		"UPCALL_DATABASE_URL": s.database, "UPCALL_TOKEN_KEYS": keys, "UPCALL_POLICIES": policies, "UPCALL_PAGE": "true",
		"UPCALL_API_LISTEN": "127.0.0.1:0", "UPCALL_API_ADMIN_LISTEN": "127.0.0.1:0",
		"OSS_ENDPOINT": oss.URL, "OSS_REGION": "cn-hangzhou", "OSS_ACCESS_KEY_ID": "ossemu", "OSS_ACCESS_KEY_SECRET": "ossemu-secret",
	}
	env := func(name string) string { return settings[name] }
	var made bytes.Buffer
	if err := run(ctx, []string{"keys", "add", "--policy", "people"}, env, cli.Stdio{Out: &made, Err: io.Discard}); err != nil {
		t.Fatal(err)
	}
	s.apiKey = strings.TrimSpace(made.String())

	logged, log := io.Pipe()
	served := make(chan error, 1)
	go func() {
		err := run(ctx, []string{"serve"}, env, cli.Stdio{Out: io.Discard, Err: log})
		log.CloseWithError(io.EOF)
		served <- err
	}()
	t.Cleanup(func() {
		cancel()
		for what, ended := range map[string]chan error{"issuer": served, "receiver": received} {
			if err := <-ended; err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
	})
	lines := bufio.NewScanner(logged)
	for s.url == "" {
		if !lines.Scan() {
			t.Fatalf("the issuer did not start: %v", <-served)
		}
		var event struct {
			Listen string `json:"api_listen"`
		}
		if json.Unmarshal(lines.Bytes(), &event) == nil && event.Listen != "" {
			s.url = "http://" + event.Listen
		}
	}
	go io.Copy(io.Discard, logged)
	return s
}

func listener(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// forward passes a callback on, as it is.
func forward(w http.ResponseWriter, r *http.Request, to string) {
	out, err := http.NewRequestWithContext(r.Context(), r.Method, to+r.RequestURI, r.Body)
	if err != nil {
		panic(err)
	}
	out.Header, out.ContentLength = r.Header, r.ContentLength
	response, err := http.DefaultTransport.RoundTrip(out)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	w.Header().Set("Content-Length", fmt.Sprint(len(body)))
	w.WriteHeader(response.StatusCode)
	w.Write(body)
}

// TestPage uploads through the page as a person does.
func TestPage(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	browser := startBrowser(t)
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
		if err := chromedp.Do(browser, actions...); err != nil {
			t.Fatal(err)
		}
	}
	text := func(selector string) string {
		t.Helper()
		got, err := chromedp.Run(browser, chromedp.Text(chromedp.CSS(selector)))
		if err != nil {
			t.Fatalf("%s: %v", selector, err)
		}
		return got
	}
	// upload has the page take a file, and returns the entry of the list that it makes.
	upload := func(path, outcome string) string {
		t.Helper()
		do(chromedp.Evaluate[chromedp.Void](`document.getElementById("uploads").replaceChildren()`),
			chromedp.SetUploadFiles(chromedp.CSS("#files"), []string{path}),
			chromedp.WaitVisible(chromedp.CSS("#uploads li ."+outcome)))
		return text("#uploads li")
	}

	do(chromedp.EmulateViewport(1000, 900), chromedp.Navigate(s.url+"/"),
		chromedp.Evaluate[chromedp.Void](`addEventListener("securitypolicyviolation", e => (self.violations ??= []).push(e.violatedDirective + " " + e.blockedURI))`))
	// Without an API key nothing is sent.
	do(chromedp.SetUploadFiles(chromedp.CSS("#files"), []string{file("early.txt", []byte("x"))}))
	if got := text("#none"); got != "No file yet." {
		t.Errorf("a file was taken without an API key: %s", got)
	}
	// By keyboard: the key, then on to the variables.
	do(chromedp.Focus(chromedp.CSS("#key")), chromedp.KeyEvent(s.apiKey), chromedp.Focus(chromedp.CSS("#name1")),
		chromedp.KeyEvent("uid\t42"))

	uploaded := upload(file("holiday <b>é.png", picture.Bytes()), "good")
	for _, want := range []string{"holiday <b>é.png", "Uploaded and recorded", `"durable": "postgres"`, `"duplicate": false`} {
		if !strings.Contains(uploaded, want) {
			t.Errorf("the page does not say %s: %s", want, uploaded)
		}
	}
	do(chromedp.WaitReady(chromedp.CSS("#uploads table")), // it comes after the outcome, and closed
		chromedp.Evaluate[chromedp.Void](`for (const d of document.querySelectorAll("#uploads details")) d.open = true`),
		chromedp.WaitVisible(chromedp.CSS("#uploads table")))
	if row := text("#uploads table"); !strings.Contains(row, "image/png") || !strings.Contains(row, `{"uid":"42"}`) || !strings.Contains(row, "64") {
		t.Errorf("the recorded row: %s", row)
	}
	screenshot(t, browser, "page.png")

	// A variable that the policy does not allow, and a file that it does not.
	do(chromedp.Click(chromedp.CSS("#add")), chromedp.KeyEvent("secret\t1"))
	if got := upload(file("note.txt", []byte("hello")), "bad"); !strings.Contains(got, "secret") {
		t.Errorf("a variable that is not allowed: %s", got)
	}
	do(chromedp.Click(chromedp.CSS("#vars > :last-child button")))
	if got := upload(file("large.txt", make([]byte, 2<<20)), "bad"); !strings.Contains(got, "1048576") && !strings.Contains(got, "1MiB") && !strings.Contains(got, "bytes") {
		t.Errorf("a file that is too large: %s", got)
	}
	// Files that are dropped go the same way.
	do(chromedp.Evaluate[chromedp.Void](`
		document.getElementById("uploads").replaceChildren();
		const dropped = new DataTransfer();
		dropped.items.add(new File(["hello"], "dropped.txt", { type: "text/plain" }));
		document.getElementById("drop").dispatchEvent(new DragEvent("dragover", { dataTransfer: dropped, bubbles: true, cancelable: true }))`))
	if over, err := chromedp.Run(browser, chromedp.Evaluate[bool](`document.getElementById("drop").classList.contains("over")`)); err != nil || !over {
		t.Errorf("the page does not show that a file may be dropped (%v)", err)
	}
	taken, err := chromedp.Run(browser, chromedp.Evaluate[bool](
		`!document.getElementById("drop").dispatchEvent(new DragEvent("drop", { dataTransfer: dropped, bubbles: true, cancelable: true }))`))
	if err != nil || !taken {
		t.Errorf("the browser would open the file that is dropped (%v)", err)
	}
	do(chromedp.WaitVisible(chromedp.CSS("#uploads li .good")))
	if got := text("#uploads li"); !strings.Contains(got, "dropped.txt") || !strings.Contains(got, "Uploaded and recorded") {
		t.Errorf("a file was dropped: %s", got)
	}
	// What the receiver only keeps is not recorded yet.
	s.spools.Store(true)
	if got := upload(file("note.txt", []byte("hello")), "good"); !strings.Contains(got, "Uploaded, and kept to be recorded") || strings.Contains(got, "and recorded") {
		t.Errorf("a callback in the spool: %s", got)
	}
	s.spools.Store(false)
	// 203 is no success.
	s.fail.Store(true)
	if got := upload(file("note.txt", []byte("hello")), "bad"); !strings.Contains(got, "Stored, but not recorded") {
		t.Errorf("a failed callback: %s", got)
	}
	s.fail.Store(false)
	// On a phone nothing is wider than the screen.
	do(chromedp.EmulateViewport(360, 740, chromedp.EmulateMobile))
	upload(file("note.txt", []byte("hello")), "good")
	wide, err := chromedp.Run(browser, chromedp.Evaluate[int](`document.documentElement.scrollWidth`))
	if err != nil || wide > 360 {
		t.Errorf("the page is %d pixels wide on a phone of 360 (%v)", wide, err)
	}
	screenshot(t, browser, "page-phone.png")
	if violations, err := chromedp.Run(browser, chromedp.Evaluate[string](`JSON.stringify(self.violations ?? [])`)); err != nil || violations != "[]" {
		t.Errorf("the page does what its content security policy forbids: %s (%v)", violations, err)
	}
}

func startBrowser(t *testing.T) context.Context {
	t.Helper()
	toolchain.Need(t, "chromium")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewExecAllocator(ctx, append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath("chromium"), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.UserDataDir(t.TempDir()),
		chromedp.Flag("disable-background-networking", true))...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx, chromedp.WithErrorf(t.Logf))
	t.Cleanup(cancel)
	return ctx
}

// screenshot keeps a picture of the page in the directory that UPCALL_SCREENSHOTS
// names, for people to look at.
func screenshot(t *testing.T, browser context.Context, name string) {
	t.Helper()
	dir := os.Getenv("UPCALL_SCREENSHOTS")
	if dir == "" {
		return
	}
	picture, err := chromedp.Run(browser, chromedp.FullScreenshot(100))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), picture, 0o644); err != nil {
		t.Fatal(err)
	}
}
