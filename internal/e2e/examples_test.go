package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"upcall/internal/manifest"
	"upcall/internal/testing/browser"
	"upcall/internal/testing/clitest"
	"upcall/internal/testing/proc"
	"upcall/internal/testing/toolchain"
	"upcall/internal/testing/wait"
	"upcall/internal/webhook"
)

// TestExamples runs each application of examples: it issues an upload, is told of it, and shows
// it.
func TestExamples(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(*testing.T) *exec.Cmd{
		"go-app": func(t *testing.T) *exec.Cmd {
			return exec.CommandContext(t.Context(), filepath.Join(programs(t), "go-app"))
		},
		"node-app": func(t *testing.T) *exec.Cmd {
			toolchain.Need(t, "node")
			return exec.CommandContext(t.Context(), "node", "../../examples/node-app/app.js")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			command := start(t)
			s := newSite(t)
			secret := webhook.NewSecret().Reveal()
			app := startExample(t, command, s, secret)
			receiver := receiverOf(t, s)
			receiver("hooks", "add", "--url", app+"/hooks", "--name", "app", "--secret-file", clitest.WriteFile(t, "secret", secret))
			receiver("hooks", "test", "app") // of which it shows nothing

			issued := requestUpload(t, app, `{"name":"é <b>.txt","type":"text/plain","size":11}`)
			if all := shown(t, app); len(all) != 1 || all[0].ReceivedAt != nil || all[0].ObjectKey != issued.Key {
				t.Errorf("before the upload: %+v", all)
			}
			if status, answer := send(t, manifest.PresignedRequest{Method: issued.Method, URL: issued.URL, Headers: issued.Headers}); status != http.StatusOK {
				t.Fatalf("upload: %d %s", status, answer)
			}
			recorded := func() bool { all := shown(t, app); return len(all) == 1 && all[0].ReceivedAt != nil }
			wait.Until(t, "the upload is shown", recorded)
			got := shown(t, app)[0]
			if got.UploadID != issued.ID.String() || got.ObjectKey != issued.Key || got.Size != 11 || got.MimeType != "text/plain" {
				t.Errorf("shows %+v of %+v", got, issued)
			}
			// It is told again, and by one who has not the secret.
			receiver("hooks", "redeliver", "--since", "2020-01-01T00:00:00Z")
			wait.Until(t, "it was told twice", func() bool {
				return strings.Contains(receiver("hooks", "show", "app"), "redelivery")
			})
			if all := shown(t, app); len(all) != 1 || *all[0].ReceivedAt != *got.ReceivedAt {
				t.Errorf("after a second delivery: %+v", all)
			}
			if status, _ := post(t, app+"/hooks", `{"id":"1","type":"upcall.upload.recorded.v1","data":{}}`); status != http.StatusUnauthorized {
				t.Errorf("a forged hook: %d", status)
			}
			if status, problem := post(t, app+"/uploads", `{"name":"a.exe","type":"application/x-msdownload","size":1}`); status != 403 ||
				!strings.Contains(problem, `"detail":"content_type `) {
				t.Errorf("an upload that the policy does not allow: %d %s", status, problem)
			}
			t.Run("page", func(t *testing.T) { usePage(t, app, name) })
		})
	}
}

// startExample starts an application on a free port and returns its URL.
func startExample(t *testing.T, command *exec.Cmd, s *site, secret string) string {
	t.Helper()
	command.Env = []string{"PORT=0", "ISSUER_URL=" + s.url, "ISSUER_KEY=" + s.apiKey, "HOOK_SECRET=" + secret, proc.QuickExit}
	command.Stderr = os.Stderr
	stdout, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = command.Process.Kill(); _ = command.Wait() }) // which says so
	line, err := bufio.NewReader(stdout).ReadString('\n')
	url, found := strings.CutPrefix(strings.TrimSpace(line), "open ")
	if err != nil || !found {
		t.Fatalf("it printed %q, %v", line, err)
	}
	return strings.TrimSuffix(url, "/")
}

// receiverOf returns what runs the receiver's commands on the database of the site.
func receiverOf(t *testing.T, s *site) func(args ...string) string {
	return func(args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), filepath.Join(programs(t), "receiver"), args...)
		cmd.Env = []string{"UPCALL_DATABASE_URL=" + s.database, "UPCALL_HOOKS_ALLOW_HTTP=true",
			"UPCALL_HOOKS_ALLOW_CIDRS=127.0.0.0/8", proc.QuickExit}
		stdout, stderr, status := output(t, cmd)
		if status != 0 {
			t.Fatalf("%v: %s%s", args, stdout, stderr)
		}
		return stdout
	}
}

// requestUpload has the application issue an upload.
func requestUpload(t *testing.T, app, file string) (issued manifest.Upload) {
	t.Helper()
	status, answer := post(t, app+"/uploads", file)
	if err := json.Unmarshal([]byte(answer), &issued); status != http.StatusCreated || err != nil {
		t.Fatalf("%d %s, %v", status, answer, err)
	}
	return issued
}

type shownUpload struct {
	UploadID   string     `json:"upload_id"`
	ObjectKey  string     `json:"object_key"`
	Size       int64      `json:"size"`
	MimeType   string     `json:"mime_type"`
	ReceivedAt *time.Time `json:"received_at"`
}

// shown returns the uploads that the application shows.
func shown(t *testing.T, app string) (all []shownUpload) {
	t.Helper()
	status, answer, _ := ask(t, manifest.PresignedRequest{Method: http.MethodGet, URL: app + "/uploads"}, nil)
	if err := json.Unmarshal([]byte(answer), &all); status != http.StatusOK || err != nil {
		t.Fatalf("%d %s, %v", status, answer, err)
	}
	return all
}

func post(t *testing.T, url, body string) (status int, answer string) {
	t.Helper()
	headers := map[string]string{"Content-Type": "application/json"}
	status, answer, _ = ask(t, manifest.PresignedRequest{Method: http.MethodPost, URL: url, Headers: headers}, []byte(body))
	return status, answer
}

// usePage uploads through the application's page, as a person would.
func usePage(t *testing.T, app, name string) {
	toolchain.Need(t, "chromium")
	chromium := browser.Start(t)
	path := filepath.Join(t.TempDir(), "holiday <b>é.txt")
	if err := os.WriteFile(path, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := chromedp.Do(chromium, chromedp.EmulateViewport(1000, 500), chromedp.Navigate(app+"/"),
		chromedp.SetUploadFiles(chromedp.CSS("[type=file]"), []string{path}), chromedp.Click(chromedp.CSS("button")),
		chromedp.WaitVisible(chromedp.CSS(".recorded + .recorded"))); err != nil {
		t.Fatal(err)
	}
	row, err := chromedp.Run(chromium, chromedp.Text(chromedp.CSS("tbody tr")))
	if err != nil || !strings.Contains(row, "holiday <b>é.txt") || !strings.Contains(row, "text/plain") || !strings.Contains(row, "5") {
		t.Errorf("the page shows %q, %v", row, err)
	}
	screenshot(t, chromium, name+".png")
}

// TestExamplePages holds that the applications have the same page.
func TestExamplePages(t *testing.T) {
	t.Parallel()
	var pages [2][]byte
	for i, name := range []string{"go-app", "node-app"} {
		var err error
		if pages[i], err = os.ReadFile(filepath.Join("../../examples", name, "page.html")); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(pages[0], pages[1]) {
		t.Error("page.html of go-app and node-app differ")
	}
}
