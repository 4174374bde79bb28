package console

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"upcall/internal/event"
	"upcall/internal/hooks"
	"upcall/internal/testing/browser"
	"upcall/internal/testing/toolchain"
	"upcall/internal/testing/wait"
)

// A keyboard is all that someone has.
type keyboard struct {
	*testing.T
	tab context.Context
}

// to presses Tab until the element with the focus has that text, label or name. Each on the way must show that it has the focus.
func (k keyboard) to(label string) {
	k.Helper()
	for range 90 {
		if err := chromedp.Do(k.tab, chromedp.KeyEvent("\t")); err != nil {
			k.Fatal(err)
		}
		type focus struct {
			Tag, Text, Name string
			Outline         bool
		}
		got := value[focus](k.T, k.tab, `(e => ({Tag: e.tagName, Name: e.name || "",
			Text: (e.tagName === "SELECT" ? "" : e.textContent || "").trim(),
			Outline: getComputedStyle(e).outlineStyle !== "none"}))(document.activeElement)`)
		if !got.Outline && got.Tag != "BODY" {
			k.Errorf("nothing shows that %q has the focus", got.Text+got.Name)
		}
		if got.Text == label || got.Name == label && got.Tag != "BUTTON" {
			return
		}
	}
	k.Fatalf("no press of Tab comes to %q", label)
}

// press goes to something and presses Enter, and waits for the page that comes.
func (k keyboard) press(label string) {
	k.Helper()
	k.to(label)
	k.enter("")
}

// write goes to a field and writes into it.
func (k keyboard) write(field, text string) {
	k.Helper()
	k.to(field)
	if err := chromedp.Do(k.tab, chromedp.KeyEvent(text)); err != nil {
		k.Fatal(err)
	}
}

// enter presses keys and then Enter, and waits for the page that comes.
func (k keyboard) enter(keys string) {
	k.Helper()
	if err := chromedp.Do(k.tab, chromedp.Evaluate[chromedp.Void]("window.former = true"), chromedp.KeyEvent(keys+"\r")); err != nil {
		k.Fatal(err)
	}
	wait.Until(k, "another page is there", func() bool {
		there, err := chromedp.Run(k.tab, chromedp.Evaluate[bool](`!window.former && document.readyState === "complete"`))
		return err == nil && there // while pages change, there is none to ask
	})
}

// shows reports whether there is an element.
func (k keyboard) shows(css string) bool {
	k.Helper()
	return value[bool](k.T, k.tab, fmt.Sprintf("document.querySelector(%q) !== null", css))
}

// TestKeyboard does everything that an operator does without a mouse: it logs in, looks at each page, searches, does every act, says yes
// where it is asked, and logs out.
func TestKeyboard(t *testing.T) {
	t.Parallel()
	toolchain.Need(t, "chromium")
	w := newWorld(t)
	k := keyboard{t, browser.Start(t)}
	logIn(t, k.tab, w, w.operator)
	k.to("Skip to the content")
	if err := chromedp.Do(k.tab, chromedp.KeyEvent("\r"), chromedp.WaitVisible(chromedp.CSS("main:focus"))); err != nil {
		t.Fatal(err)
	}
	for _, page := range []string{"Health", "Losses", "Refusals"} {
		k.press(page)
		if !k.shows(`nav a[aria-current]`) || !strings.Contains(value[string](t, k.tab, "document.title"), page) {
			t.Errorf("%s is not shown", page)
		}
	}
	k.press("verifies after a repair") // the doctor's verdict on a captured callback
	if !k.shows(".cause") {
		t.Error("the capture is not shown")
	}
	k.search(w)
	k.actOnHooks(w)
	k.actOnSpool(w)
	k.press("Log out")
	if !k.shows("#key") {
		t.Error("the page after logging out is another")
	}
	w.console.sessions.mu.Lock()
	defer w.console.sessions.mu.Unlock()
	if n := len(w.console.sessions.all); n != 0 {
		t.Errorf("%d sessions are left", n)
	}
}

// search finds the same upload by everything that there is.
func (k keyboard) search(w *world) {
	k.Helper()
	for _, text := range []string{w.upload.String(), "avatars/<script>alert(1)</script>.jpg", "5B9CDDCC0123456789ABCDEF"} {
		k.press("Events")
		k.write("q", text)
		k.enter("")
		if !k.shows(fmt.Sprintf(`.story a[href="/console/uploads/%s"]`, w.upload)) {
			k.Errorf("%s finds something else", text)
		}
	}
	k.press("Events")
	k.to("Pause") // of the live events
	if err := chromedp.Do(k.tab, chromedp.KeyEvent("\r")); err != nil {
		k.Fatal(err)
	}
	wait.Until(k, "live events pause", func() bool {
		return value[bool](k.T, k.tab, `(s => s.textContent === s.dataset.paused)(document.getElementById("stream-state"))`)
	})
}

// actOnHooks does each act on an endpoint.
func (k keyboard) actOnHooks(w *world) {
	k.Helper()
	shop := func() hooks.Endpoint {
		e, err := w.endpoints.Get(k.Context(), "shop")
		if err != nil {
			k.Fatal(err)
		}
		return e
	}
	k.press("Hooks")
	k.write("url", w.hook.URL+"2")
	k.write("name", "another")
	k.enter("")
	if !k.shows(".secret") {
		k.Error("the secret of another endpoint is not shown")
	}
	k.press("Remove")
	k.press("Remove")
	if n := w.count("SELECT count(*) FROM upcall.hook_endpoints"); n != 1 {
		k.Errorf("%d endpoints are left", n)
	}
	k.press("shop")
	k.press("Pause")
	k.press("Cancel")
	k.press("Pause")
	k.press("Pause")
	if e := shop(); e.State != hooks.Paused {
		k.Errorf("paused: %+v", e)
	}
	k.press("Resume")
	if e := shop(); e.State != hooks.Active {
		k.Errorf("resumed: %+v", e)
	}
	k.press("Send a sample")
	if len(w.sent) != 1 {
		k.Errorf("%d samples were sent", len(w.sent))
	}
	id := ""
	err := w.pool.QueryRow(k.Context(), "SELECT id::text FROM upcall.upload_events WHERE upload_id = $1", w.upload).Scan(&id)
	if err != nil {
		k.Fatal(err)
	}
	k.write("event", id)
	k.press("Send again")
	k.press("Send again")
	if n := w.count("SELECT count(*) FROM upcall.hook_retries"); n != 1 {
		k.Errorf("%d messages are to be sent again", n)
	}
	k.write("keep", "1") // of a list, the first that begins so: 1 h
	k.press("Rotate the secret")
	k.press("Rotate the secret")
	if left := time.Until(shop().RotatedUntil); left < 10*time.Minute || left > time.Hour || !k.shows(".secret") {
		k.Errorf("the former secret signs for %s", left)
	}
}

// actOnSpool does each act on dead letters.
func (k keyboard) actOnSpool(w *world) {
	k.Helper()
	dead := func(want int) {
		k.Helper()
		if got := w.spool.Stats().DeadLetters; got != want {
			k.Errorf("%d dead letters, want %d", got, want)
		}
	}
	k.press("Spool")
	k.press("Retry")
	dead(2)
	k.press("Discard")
	k.press("Discard")
	dead(1)
	k.press("Retry all")
	dead(0)
	for w.spool.Stats().Queued > 0 {
		_, _ = w.spool.Move(k.Context(), func(context.Context, *event.Event) (bool, error) { return false, event.ErrUnstorable }, 100)
	}
	k.press("Spool")
	k.press("Discard all")
	k.press("Discard")
	dead(0)
}
