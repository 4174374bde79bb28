package e2e

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"upcall/internal/callbackspec"
	"upcall/internal/dbtest"
	"upcall/internal/event"
	"upcall/internal/spool"
	"upcall/internal/testing/proc"
)

var (
	// A block of commands, and the block with its output, if that follows.
	pageBlock = regexp.MustCompile("(?ms)^```sh run\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?")
	// A command that ends with a status other than 0 has this comment.
	pageStatus = regexp.MustCompile(`# status (\d)\n?$`)
)

// runPage runs the commands of a page, of which there must be at least least, in order in a
// directory. It compares status and output with the page.
func runPage(t *testing.T, path, dir string, least int, env ...string) {
	t.Helper()
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	env = append(env, proc.QuickExit, "PATH="+programs(t)+":"+os.Getenv("PATH"))
	commands := 0
	for _, block := range pageBlock.FindAllStringSubmatch(string(page), -1) {
		commands++
		command, wantOut := block[1], block[2]
		wantStatus := "0"
		if status := pageStatus.FindStringSubmatch(command); status != nil {
			wantStatus = status[1]
		}
		shell := exec.CommandContext(t.Context(), "sh", "-c", command)
		shell.Dir = dir
		shell.Env = env
		out, err := shell.Output()
		status := "0"
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			status = string(rune('0' + exit.ExitCode()))
		} else if err != nil {
			t.Fatal(err)
		}
		if status != wantStatus || string(out) != wantOut {
			t.Errorf("%sstatus %s, want %s; it printed\n%swant\n%s", command, status, wantStatus, out, wantOut)
		}
	}
	if commands < least || strings.Count(string(page), "```sh run") != commands {
		t.Errorf("only %d commands of the page ran", commands)
	}
}

func TestVerificationPage(t *testing.T) {
	t.Parallel()
	runPage(t, "../../docs/verification.md", "../..", 10)
}

// TestOperationsPage runs the page's commands on a spool with one waiting callback and three
// dead letters.
func TestOperationsPage(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	queue, err := spool.Open(t.Context(), spool.Config{Dir: filepath.Join(dir, "spool"), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	for n, object := range []string{"photos/1.jpg", "photos/2.jpg", "photos/3.jpg", "photos/4.jpg"} {
		if n == 3 {
			holdsNothing := func(context.Context, *event.Event) (bool, error) { return false, event.ErrUnstorable }
			if _, err := queue.Move(t.Context(), holdsNothing, 3); err != nil {
				t.Fatal(err)
			}
		}
		event := &event.Event{ID: uuid.NewSHA1(uuid.Nil, []byte(object)), ReceivedAt: time.Date(2026, 11, 22, 12, 30, n, 0, time.UTC),
			Callback: callbackspec.Callback{Bucket: "demo", Object: object}}
		if _, err := queue.Put(t.Context(), event); err != nil {
			t.Fatal(err)
		}
	}
	if err := queue.Close(); err != nil {
		t.Fatal(err)
	}
	runPage(t, "../../docs/operations.md", dir, 5, "UPCALL_SPOOL_DIR=spool", "UPCALL_DATABASE_URL="+dbtest.URL(t))
}
