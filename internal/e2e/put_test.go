package e2e

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"upcall/internal/ossemu"
)

// TestURLLife uses one URL for several contents, until it expires by OSS's clock.
func TestURLLife(t *testing.T) {
	t.Parallel()
	var ahead atomic.Int64 // of the emulator's clock
	w := newWorld(t, func(c *ossemu.Config) {
		c.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	})
	u := put(t, w.env, "--bucket", "demo", "--key", "cat.txt", "--expires", "1h")
	upload := func(content string) (int, string) {
		status, body, _ := ask(t, u.Request(), []byte(content))
		return status, body
	}
	for _, content := range []string{"first", "second", "", "fourth, and longer"} {
		if status, body := upload(content); status != http.StatusOK || w.stored(t, "cat.txt") != content {
			t.Errorf("%q: status %d: %s; %q is stored", content, status, body, w.stored(t, "cat.txt"))
		}
	}
	ahead.Store(int64(59 * time.Minute))
	if status, body := upload("in the last minute"); status != http.StatusOK {
		t.Errorf("status %d: %s", status, body)
	}
	ahead.Store(int64(time.Hour + time.Second))
	if status, body := upload("too late"); status != http.StatusForbidden || !strings.Contains(body, "Request has expired.") {
		t.Errorf("status %d: %s", status, body)
	}
	ahead.Store(0)
	if got := w.stored(t, "cat.txt"); got != "in the last minute" {
		t.Errorf("%q is stored", got)
	}
}

// TestURLForbidsOverwrite checks that the first upload is not overwritten.
func TestURLForbidsOverwrite(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	u := put(t, w.env, "--bucket", "demo", "--key", "once.txt", "--forbid-overwrite", "--callback-url", w.receiver.URL+"/oss/callback")
	for i, want := range []int{http.StatusOK, http.StatusConflict, http.StatusConflict} {
		status, body, _ := ask(t, u.Request(), []byte{byte('a' + i)})
		if status != want {
			t.Errorf("upload %d: status %d, want %d: %s", i, status, want, body)
		}
	}
	if got := w.stored(t, "once.txt"); got != "a" || len(w.receiver.Callbacks()) != 1 {
		t.Errorf("%q is stored, %d callbacks came", got, len(w.receiver.Callbacks()))
	}
	// Without the header that forbids it, the signature does not match.
	delete(u.Headers, "x-oss-forbid-overwrite")
	if status, _, _ := ask(t, u.Request(), nil); status != http.StatusForbidden {
		t.Errorf("status %d", status)
	}
}

// TestExactLength checks that OSS accepts only the signed size.
func TestExactLength(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	u := put(t, w.env, "--bucket", "demo", "--key", "exact.txt", "--content-length", "5")
	for content, want := range map[string]int{"": 403, "1234": 403, "12345": 200, "123456": 403, strings.Repeat("1", 100000): 403} {
		if status, body, _ := askAs(t, u.Request(), []byte(content)); status != want {
			t.Errorf("%d bytes: status %d, want %d: %s", len(content), status, want, body)
		}
	}
	if got := w.stored(t, "exact.txt"); got != "12345" {
		t.Errorf("%q is stored", got)
	}
	empty := put(t, w.env, "--bucket", "demo", "--key", "empty.txt", "--content-length", "0")
	for content, want := range map[string]int{"": 200, "1": 403} {
		if status, body, _ := askAs(t, empty.Request(), []byte(content)); status != want {
			t.Errorf("%d bytes of 0: status %d, want %d: %s", len(content), status, want, body)
		}
	}
}
