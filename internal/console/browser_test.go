package console

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
	"github.com/google/uuid"

	"upcall/internal/testing/browser"
	"upcall/internal/testing/toolchain"
	"upcall/internal/testing/wait"
)

// axe returns the source of axe-core, which finds what people with disabilities cannot use.
func axe(t *testing.T) string {
	t.Helper()
	toolchain.Need(t, "npm")
	dir := t.TempDir()
	install := exec.CommandContext(t.Context(), "npm", "install", "--prefix", dir, "--no-audit", "--no-fund", "--ignore-scripts",
		"--prefer-offline", "axe-core@4.14.1")
	if out, err := install.CombinedOutput(); err != nil {
		toolchain.NotRun(t, fmt.Sprintf("npm install: %v: %s", err, out))
	}
	source, err := os.ReadFile(filepath.Join(dir, "node_modules/axe-core/axe.min.js"))
	if err != nil {
		t.Fatal(err)
	}
	return string(source)
}

// logIn logs in by keyboard alone.
func logIn(t *testing.T, tab context.Context, w *world, key string) {
	t.Helper()
	err := chromedp.Do(tab, chromedp.Navigate(w.url+Prefix), chromedp.WaitVisible(chromedp.CSS("#key")), chromedp.KeyEvent(key+"\r"),
		chromedp.WaitVisible(chromedp.CSS("nav")))
	if err != nil {
		t.Fatal(err)
	}
}

// look sets the size of the screen, whether it is dark, and the language of the browser.
func look(tab context.Context, on screen) error {
	prefer := func(ctx context.Context, target *chromedp.Target) (chromedp.Void, error) {
		_, err := cdp.Call(ctx, target, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: on.scheme}}})
		if err == nil {
			_, err = cdp.Call(ctx, target, network.SetExtraHTTPHeaders, network.SetExtraHTTPHeadersParams{
				Headers: network.Headers{"Accept-Language": on.language}})
		}
		return chromedp.Void{}, err
	}
	return chromedp.Do(tab, chromedp.EmulateViewport(on.width, on.height), prefer)
}

// value evaluates an expression in the page.
func value[T any](t *testing.T, tab context.Context, expression string) T {
	t.Helper()
	got, err := chromedp.Run(tab, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// A screen is what someone looks at pages with.
type screen struct {
	name          string
	width, height int64
	scheme        string
	language      string
}

var screens = []screen{
	{"desktop", 1280, 900, "light", "en"}, {"desktop-dark", 1280, 900, "dark", "en"}, {"phone", 390, 844, "light", "en"},
	{"phone-dark", 390, 844, "dark", "en"}, {"desktop-zh", 1280, 900, "light", "zh-CN"}, {"phone-dark-zh", 390, 844, "dark", "zh-CN"},
}

// TestAccessible looks at every page on a desktop and on a phone, light and dark, in English and Chinese: axe-core finds no violation,
// nothing is cut off, the browser loads nothing from elsewhere and refuses nothing of the page's own. With UPCALL_TEST_SCREENSHOTS,
// pictures go to that directory.
func TestAccessible(t *testing.T) {
	t.Parallel()
	toolchain.Need(t, "chromium")
	source, w := axe(t), newWorld(t)
	ctx := browser.Start(t)
	logIn(t, ctx, w, w.operator)
	watch(t, ctx, w)
	pages := map[string]string{"login": "login", "404": "nothing", "missing": "uploads/" + uuid.NewString()}
	named := strings.NewReplacer("/", "-", "?", "-", "=", "-", "%", "-",
		w.upload.String(), "one", w.hook.ID.String(), "one", w.captured, "one")
	for path := range w.paths() {
		pages[named.Replace("page-"+path)] = path
	}
	for _, screen := range screens {
		if err := look(ctx, screen); err != nil {
			t.Fatal(err)
		}
		for name, path := range pages {
			if err := chromedp.Do(ctx, chromedp.Navigate(w.url+Prefix+path), chromedp.WaitVisible(chromedp.CSS("main"))); err != nil {
				t.Fatal(err)
			}
			examine(t, ctx, source, name, screen)
		}
		// The question before an act is the answer to a form.
		err := chromedp.Do(ctx, chromedp.Navigate(w.url+Prefix+"hooks/"+w.hook.ID.String()),
			chromedp.Click(chromedp.CSS(`form[action$="/pause"] button`)), chromedp.WaitVisible(chromedp.CSS("button[name=confirm]")))
		if err != nil {
			t.Fatal(err)
		}
		examine(t, ctx, source, "confirm", screen)
	}
}

// examine has axe-core look at the page that is shown.
func examine(t *testing.T, ctx context.Context, source, name string, on screen) {
	t.Helper()
	if err := chromedp.Do(ctx, chromedp.Evaluate[chromedp.Void](source)); err != nil {
		t.Fatal(err)
	}
	found := value[string](t, ctx, `axe.run({resultTypes: ["violations"]}).then(r => JSON.stringify(r.violations.map(v =>
		({id: v.id, help: v.help, nodes: v.nodes.map(n => n.html + " " + n.failureSummary)}))))`)
	overflow := value[bool](t, ctx, `document.documentElement.scrollWidth > window.innerWidth`)
	language := value[string](t, ctx, `document.documentElement.lang`)
	if found != "[]" || overflow || language != on.language {
		t.Errorf("%s on %s: in %s; wider than the screen: %v; axe found %s", name, on.name, language, overflow, found)
	}
	if dir := os.Getenv("UPCALL_TEST_SCREENSHOTS"); dir != "" {
		picture, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name+"-"+on.name+".png"), picture, 0o600)
		}
		if err != nil {
			t.Error(err)
		}
	}
}

// TestLive sees an event come, pauses, and goes on without losing one.
func TestLive(t *testing.T) {
	t.Parallel()
	toolchain.Need(t, "chromium")
	w := newWorld(t)
	ctx := browser.Start(t)
	record := func(key string) {
		w.exec(t, `INSERT INTO upcall.upload_events (id, received_at, bucket, object_key, vars, source)
			VALUES (gen_random_uuid(), now(), 'photos', $1, '{}', 'callback')`, key)
	}
	keys := func() string {
		return value[string](t, ctx, `[...document.querySelectorAll("#stream tbody a")].map(a => a.textContent).join(" ")`)
	}
	logIn(t, ctx, w, w.viewer)
	if err := chromedp.Do(ctx, chromedp.Navigate(w.url+Prefix+"events?bucket=photos")); err != nil {
		t.Fatal(err)
	}
	wait.Until(t, "the stream is open", func() bool {
		return value[bool](t, ctx, `document.getElementById("stream-state").textContent === document.getElementById("stream-state").dataset.open`)
	})
	record("<i>one</i>")
	wait.Until(t, "the event is shown as text", func() bool { return keys() == "<i>one</i>" })
	if err := chromedp.Do(ctx, chromedp.Click(chromedp.CSS("#stream-pause"))); err != nil {
		t.Fatal(err)
	}
	record("two")
	if err := chromedp.Do(ctx, chromedp.Click(chromedp.CSS("#stream-pause"))); err != nil {
		t.Fatal(err)
	}
	wait.Until(t, "what came during the pause is shown", func() bool { return keys() == "two <i>one</i>" })
}

// watch fails the test if a page loads something from elsewhere, or something of it is refused.
func watch(t *testing.T, ctx context.Context, w *world) {
	t.Helper()
	err := chromedp.Do(ctx, func(ctx context.Context, target *chromedp.Target) (chromedp.Void, error) {
		_, err := cdp.Call(ctx, target, network.Enable, network.EnableParams{})
		return chromedp.Void{}, err
	})
	if err != nil {
		t.Fatal(err)
	}
	err = chromedp.Listen(ctx, func(e any) {
		switch e := e.(type) {
		case *network.EventRequestWillBeSent:
			if !strings.HasPrefix(e.Request.URL, w.url) && !strings.HasPrefix(e.Request.URL, "data:") {
				t.Errorf("a page loads %s", e.Request.URL)
			}
		case *network.EventLoadingFailed:
			if e.BlockedReason != "" {
				t.Errorf("the browser blocked something: %s", e.BlockedReason)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}
