package e2e

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/chromedp/chromedp"

	"upcall/internal/dbtest"
	"upcall/internal/eventstore"
	"upcall/internal/testing/browser"
	"upcall/internal/testing/ossfake"
	"upcall/internal/testing/toolchain"
	"upcall/internal/testing/wait"
)

const uppyExample = "../../examples/uppy"

// buildUppy copies the example, installs what its package.json names, other packages in place of those if there are any, and
// builds the page. It returns the directory.
func buildUppy(t *testing.T, packages ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"index.html", "package.json", "page.js", "server.js", "upcall.js"} {
		text, err := os.ReadFile(filepath.Join(uppyExample, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	install := exec.CommandContext(t.Context(), "npm", append([]string{"install", "--prefix", dir,
		"--no-audit", "--no-fund", "--ignore-scripts", "--prefer-offline"}, packages...)...)
	if out, err := install.CombinedOutput(); err != nil {
		toolchain.NotRun(t, fmt.Sprintf("npm install: %v: %s", err, out))
	}
	if out, err := exec.CommandContext(t.Context(), "npm", "run", "build", "--prefix", dir).CombinedOutput(); err != nil {
		t.Fatalf("npm run build: %v: %s", err, out)
	}
	return dir
}

// TestUppy uploads with the example in a browser, through the major versions of Uppy that it is for.
func TestUppy(t *testing.T) {
	t.Parallel()
	toolchain.Need(t, "chromium")
	toolchain.Need(t, "node")
	toolchain.Need(t, "npm")
	for name, packages := range map[string][]string{"5": nil, "6": {"@uppy/core@6.3.1", "@uppy/aws-s3@6.3.1"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			s.apiKey = s.largeKey
			app := startExample(t, exec.CommandContext(t.Context(), "node", filepath.Join(buildUppy(t, packages...), "server.js")), s, "")
			u := uppyPage{visitor{t, s, browser.Start(t)}, t.TempDir()}
			u.do(chromedp.EmulateViewport(1000, 600), chromedp.Navigate(app+"/"))
			u.single(name)
			if name == "5" {
				u.inParts()
			}
			screenshot(t, u.tab, "uppy-"+name+".png")
		})
	}
}

// A uppyPage is the example's page.
type uppyPage struct {
	visitor
	dir string // of the files
}

// choose gives the page a file of that size.
func (u uppyPage) choose(name string, size int64) {
	u.t.Helper()
	path := filepath.Join(u.dir, name)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		u.t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		u.t.Fatal(err)
	}
	u.do(chromedp.SetUploadFiles(chromedp.CSS("#choose"), []string{path}))
}

// says waits until the page says that the file is recorded, or failed for a reason that begins so, and then holds that so many
// rows are recorded.
func (u uppyPage) says(name, class, begins string, rows int) {
	u.t.Helper()
	u.until(fmt.Sprintf(`[...document.querySelectorAll("#files li.%s")].some(line => line.textContent.startsWith(%q))`,
		class, name+": "+begins))
	if got := u.site.rows(u.t); got != rows {
		u.t.Errorf("%s: %d rows, want %d", name, got, rows)
	}
}

// row compares the latest row with what was uploaded.
func (u uppyPage) row(name, operation string, size int64) {
	u.t.Helper()
	var key, kind, did, vars string
	var got int64
	err := dbtest.Open(u.t, u.site.database, eventstore.Open).QueryRow(u.t.Context(),
		`SELECT object_key, mime_type, operation, vars::text, size
		FROM upcall.upload_log ORDER BY received_at DESC LIMIT 1`).Scan(&key, &kind, &did, &vars, &got)
	if err != nil || !strings.HasPrefix(key, "inbox/") || !strings.HasSuffix(key, "-"+name) || kind != "text/plain" || did != operation ||
		got != size || !strings.Contains(vars, `"uid": "42"`) || !strings.Contains(vars, `"album": "7"`) {
		u.t.Errorf("%s: the row has %s, %s, %s, %d bytes, %s (%v)", name, key, kind, did, got, vars, err)
	}
}

// single uploads files in one piece.
func (u uppyPage) single(version string) {
	u.t.Helper()
	s := u.site
	u.choose("first.txt", 5)
	u.says("first.txt", "recorded", "recorded", 1)
	u.row("first.txt", "PutObject", 5)

	u.choose("program.exe", 5)
	u.says("program.exe", "failed", "content_type", 1)

	// 203 is no success, and the file is not sent again if it was recorded since.
	s.fail.Store(true)
	u.choose("second.txt", 6)
	u.says("second.txt", "failed", "Stored, but not recorded", 1)
	s.fail.Store(false)
	u.do(chromedp.Click(chromedp.CSS("#retry")))
	u.says("second.txt", "recorded", "recorded", 2)
	u.row("second.txt", "PutObject", 6)
	u.says("program.exe", "failed", "content_type", 2)
	s.failsLate.Store(true)
	u.choose("third.txt", 7)
	u.says("third.txt", "recorded", "recorded", 3)

	// While nobody says whether it was recorded, it is neither success nor sent again.
	lookUpFails := ossfake.Pass(func(w http.ResponseWriter, r *http.Request, serve http.Handler) {
		if r.Method == http.MethodGet {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		serve.ServeHTTP(w, r)
	})
	s.issuer.Store(&lookUpFails)
	u.choose("late.txt", 7)
	u.says("late.txt", "failed", "Stored", 4)
	s.failsLate.Store(false)
	u.do(chromedp.Click(chromedp.CSS("#retry")))
	u.says("late.txt", "failed", "The back end does not say whether it was recorded", 4)
	s.issuer.Store(nil)
	u.do(chromedp.Click(chromedp.CSS("#retry")))
	u.says("late.txt", "recorded", "recorded", 4)

	// What is removed and chosen again is another upload.
	u.do(chromedp.Click(chromedp.CSS("#cancel")),
		chromedp.SetUploadFiles(chromedp.CSS("#choose"), []string{filepath.Join(u.dir, "first.txt")}))
	u.says("first.txt", "recorded", "recorded", 5)
	u.row("first.txt", "PutObject", 5)

	if version != "5" { // 6 sends a file again if the connection breaks
		return
	}
	s.oss.Between(loseAnswer)
	u.choose("fourth.txt", 8)
	u.says("fourth.txt", "recorded", "recorded", 6)
	s.oss.Open()
}

// inParts uploads files in parts.
func (u uppyPage) inParts() {
	u.t.Helper()
	const size = 33 << 20
	s := u.site
	before := s.rows(u.t)
	var failed atomic.Bool
	s.oss.Between(func(w http.ResponseWriter, r *http.Request, serve http.Handler) {
		if r.Method == http.MethodPut && r.URL.Query().Get("partNumber") == "2" && failed.CompareAndSwap(false, true) {
			_, _ = io.Copy(io.Discard, r.Body)
			w.Header().Set("Access-Control-Allow-Origin", "*")
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		serve.ServeHTTP(w, r)
	})
	u.choose("large.txt", size)
	u.says("large.txt", "recorded", "recorded", before+1)
	u.row("large.txt", "CompleteMultipartUpload", size)
	if got := s.oss.Count("PUT 2"); got < 2 {
		u.t.Errorf("part 2 was sent %d times", got)
	}

	s.fail.Store(true)
	u.choose("unheard.txt", size+1)
	u.says("unheard.txt", "failed", "Stored, but not recorded", before+1)
	s.fail.Store(false)
	// Uppy aborts what failed, and does not wait for that.
	aborted := func() bool { return s.oss.Count("DELETE") == 1 }
	wait.Until(u.t, "the upload that failed is aborted", aborted)
	u.do(chromedp.Click(chromedp.CSS("#retry")))
	u.says("unheard.txt", "recorded", "recorded", before+2)

	// Cancelled in the middle, it is aborted in OSS.
	arrived := make(chan struct{}, 10)
	s.oss.Between(func(w http.ResponseWriter, r *http.Request, serve http.Handler) {
		if r.Method == http.MethodPut && r.URL.Query().Get("partNumber") == "3" {
			arrived <- struct{}{}
			_, _ = io.Copy(io.Discard, r.Body)
			<-r.Context().Done()
			return
		}
		serve.ServeHTTP(w, r)
	})
	u.choose("cancelled.txt", size+2)
	<-arrived
	u.do(chromedp.Click(chromedp.CSS("#cancel")))
	wait.Until(u.t, "the upload is aborted", aborted)

	// Cancelled while it is issued, too.
	s.oss.Open()
	issuing, cancelled := make(chan struct{}), make(chan struct{})
	pass := ossfake.Pass(func(w http.ResponseWriter, r *http.Request, serve http.Handler) {
		if r.Method == http.MethodPost {
			close(issuing)
			<-cancelled
		}
		serve.ServeHTTP(w, r)
	})
	s.issuer.Store(&pass)
	u.choose("early.txt", size+3)
	<-issuing
	u.do(chromedp.Click(chromedp.CSS("#cancel")))
	close(cancelled)
	wait.Until(u.t, "the upload that was not begun is aborted", aborted)
	s.issuer.Store(nil)
	if got := s.rows(u.t); got != before+2 {
		u.t.Errorf("%d rows", got)
	}
}
