package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"upcall/internal/callbackspec"
	"upcall/internal/cli"
	"upcall/internal/dbtest"
	"upcall/internal/event"
	"upcall/internal/eventstore"
	"upcall/internal/spool"
	"upcall/internal/testing/clitest"
)

// spooled returns a spool directory with one waiting callback for each object key.
func spooled(t *testing.T, objects ...string) string {
	t.Helper()
	dir := t.TempDir()
	queue, err := spool.Open(t.Context(), spool.Config{Dir: dir, MinFreeBytes: -1, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	for n, object := range objects {
		event := &event.Event{ID: uuid.New(), ReceivedAt: time.Date(2026, 11, 22, 12, n, 0, 0, time.UTC),
			Callback: callbackspec.Callback{Bucket: "demo", Object: object}}
		if _, err := queue.Put(t.Context(), event); err != nil {
			t.Fatal(err)
		}
	}
	if err := queue.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestSpool(t *testing.T) {
	t.Parallel()
	url, dir := dbtest.URL(t), spooled(t, "a.jpg", "b\x1b[2J\n.jpg")
	settings := clitest.Env{"UPCALL_SPOOL_DIR": dir, "UPCALL_DATABASE_URL": url}
	output := func(args ...string) string { return program.Output(t, settings, append([]string{"spool"}, args...)...) }
	list := output("list")
	for _, want := range []string{"2026-11-22T12:00:00Z", "a.jpg", `"b\x1b[2J\n.jpg"`, "waiting", "2 waiting, 0 dead"} {
		if !strings.Contains(list, want) {
			t.Errorf("list lacks %s:\n%s", want, list)
		}
	}
	export := strings.Split(strings.TrimSpace(output("export")), "\n")
	if len(export) != 2 {
		t.Fatalf("export: %s", export)
	}
	for _, line := range export {
		var callback struct {
			ID         uuid.UUID
			Bucket     string
			ReceivedAt time.Time `json:"received_at"`
		}
		if err := json.Unmarshal([]byte(line), &callback); err != nil || callback.Bucket != "demo" || callback.ReceivedAt.IsZero() {
			t.Errorf("line %s: %v", line, err)
		}
	}
	if got := output("export", "--file", filepath.Join(dir, "spool.db")); len(strings.Split(strings.TrimSpace(got), "\n")) != 2 {
		t.Errorf("export of a file: %s", got)
	}
	if got := output("drain"); got != "2 moved, 0 waiting, 0 dead\n" {
		t.Errorf("drain: %s", got)
	}
	if got := output("drain"); got != "0 moved, 0 waiting, 0 dead\n" {
		t.Errorf("another drain: %s", got)
	}
	if got := output("export"); got != "" {
		t.Errorf("export after drain: %s", got)
	}
	var got []string
	err := eventstore.Each(t.Context(), dbtest.Open(t, url, eventstore.OpenReader), func(e *event.Event) {
		got = append(got, fmt.Sprintf("%s %q", e.ReceivedAt.UTC().Format(time.RFC3339), e.Callback.Object))
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(got)
	want := []string{`2026-11-22T12:00:00Z "a.jpg"`, `2026-11-22T12:01:00Z "b\x1b[2J\n.jpg"`}
	if strings.Join(got, ";") != strings.Join(want, ";") {
		t.Errorf("rows %v, want %v", got, want)
	}
}

func TestSpoolFailures(t *testing.T) {
	t.Parallel()
	url, held := dbtest.URL(t), spooled(t, "a")
	queue, err := spool.Open(t.Context(), spool.Config{Dir: held, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { queue.Close() })
	broken := spooled(t, "a")
	if err := os.Truncate(filepath.Join(broken, "spool.db"), 5000); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		args []string
		dir  string
		url  string
		want string
	}{
		"no directory":     {[]string{"list"}, "", url, "set UPCALL_SPOOL_DIR"},
		"empty directory":  {[]string{"list"}, t.TempDir(), url, "no such file"},
		"damaged":          {[]string{"list"}, broken, url, "spool is damaged"},
		"no file":          {[]string{"export", "--file", "/nowhere"}, "", url, "/nowhere"},
		"receiver running": {[]string{"drain"}, held, url, "a running receiver drains its spool by itself"},
		"database is away": {[]string{"drain"}, spooled(t, "a"), "postgres://u:hunter2@127.0.0.1:1/x", "127.0.0.1:1"},
		"no schema":        {[]string{"drain"}, spooled(t, "a"), dbtest.Empty(t), "receiver migrate up"},
	} {
		settings := clitest.Env{"UPCALL_SPOOL_DIR": tt.dir, "UPCALL_DATABASE_URL": tt.url}
		err := program.Error(t, settings, append([]string{"spool"}, tt.args...)...)
		if !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: got %v, want one line with %q", name, err, tt.want)
		}
		if usage := errors.Is(err, cli.ErrUsage); usage != (name == "no directory") {
			t.Errorf("%s: usage error %v", name, usage)
		}
	}
	// A spool in use can be listed.
	if got := program.Output(t, nil, "spool", "list", "--spool-dir", held); !strings.Contains(got, "1 waiting") {
		t.Errorf("list of a spool in use: %s", got)
	}
}
