package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"upcall/internal/cli"
	"upcall/internal/dbtest"
	"upcall/internal/event"
	"upcall/internal/eventstore"
	"upcall/internal/kept"
	"upcall/internal/spool"
	"upcall/internal/testing/clitest"
	"upcall/internal/testing/wait"
)

// holdsNothing is a PostgreSQL that can hold no event.
type holdsNothing struct{}

func (holdsNothing) Record(context.Context, *event.Event) (bool, error) {
	return false, event.ErrUnstorable
}

// deadLetters returns a spool directory in which callbacks with these object keys are dead
// letters, and their event IDs.
func deadLetters(t *testing.T, objects ...string) (string, []uuid.UUID) {
	t.Helper()
	dir := spooled(t, objects...)
	queue, err := spool.Open(t.Context(), spool.Config{Dir: dir, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	var ids []uuid.UUID
	err = spool.Read(t.Context(), dir, func(e kept.Entry) error { ids = append(ids, e.ID); return nil })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := queue.Move(t.Context(), holdsNothing{}.Record, len(objects)); err != nil {
		t.Fatal(err)
	}
	if err := queue.Close(); err != nil {
		t.Fatal(err)
	}
	return dir, ids
}

func countSpooled(t *testing.T, dir string) (waiting, dead int) {
	t.Helper()
	err := spool.Read(t.Context(), dir, func(e kept.Entry) error {
		if e.Reason == "" {
			waiting++
		} else {
			dead++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return waiting, dead
}

// TestRetryAndDiscard has three dead letters: it discards one, and retries the others before
// and after the cause is fixed.
func TestRetryAndDiscard(t *testing.T) {
	t.Parallel()
	url, dir := dbtest.URL(t), spooled(t, "a.jpg", "bad/1.jpg", "bad/\x1b[2J.jpg", "bad/3.jpg")
	pool, err := eventstore.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	const constraint = "ALTER TABLE upcall.upload_events ADD CONSTRAINT nothing_bad CHECK (object_key NOT LIKE 'bad/%')"
	if _, err := pool.Exec(t.Context(), constraint); err != nil {
		t.Fatal(err)
	}
	ids := make(map[string]string)
	if err := spool.Read(t.Context(), dir, func(e kept.Entry) error { ids[e.Object] = e.ID.String(); return nil }); err != nil {
		t.Fatal(err)
	}
	settings := clitest.Env{"UPCALL_SPOOL_DIR": dir, "UPCALL_DATABASE_URL": url}
	output := func(args ...string) string { return program.Output(t, settings, append([]string{"spool"}, args...)...) }
	if got := output("drain"); got != "1 moved, 0 waiting, 3 dead\n" {
		t.Fatalf("drain: %s", got)
	}
	got := output("discard", ids["bad/\x1b[2J.jpg"])
	if !strings.Contains(got, ids["bad/\x1b[2J.jpg"]) || !strings.Contains(got, `"bad/\x1b[2J.jpg"`) ||
		!strings.Contains(got, "nothing_bad") ||
		strings.Count(got, "dead:") != 1 || !strings.HasSuffix(got, "\n1 discarded, 0 waiting, 2 dead\n") {
		t.Errorf("discard: %s", got)
	}
	got = output("retry", ids["bad/1.jpg"], ids["bad/1.jpg"])
	if !strings.Contains(got, "bad/1.jpg") || strings.Contains(got, "bad/3.jpg") ||
		!strings.HasSuffix(got, "\n1 to be retried, 1 waiting, 1 dead\n") {
		t.Errorf("retry: %s", got)
	}
	if got := output("drain"); got != "0 moved, 0 waiting, 2 dead\n" {
		t.Errorf("drain before the fix: %s", got)
	}
	if _, err := pool.Exec(t.Context(), "ALTER TABLE upcall.upload_events DROP CONSTRAINT nothing_bad"); err != nil {
		t.Fatal(err)
	}
	output("retry", ids["bad/1.jpg"])
	if got := output("drain"); got != "1 moved, 0 waiting, 1 dead\n" {
		t.Errorf("drain: %s", got)
	}
	if got := output("retry", "--all"); !strings.HasSuffix(got, "1 to be retried, 1 waiting, 0 dead\n") {
		t.Errorf("retry all: %s", got)
	}
	if got := output("discard", "--all"); !strings.HasSuffix(got, "0 discarded, 1 waiting, 0 dead\n") {
		t.Errorf("discard all, without dead letters: %s", got)
	}
	var rows int
	const query = "SELECT count(*) FROM upcall.upload_events WHERE object_key IN ('a.jpg', 'bad/1.jpg')"
	if err := pool.QueryRow(t.Context(), query).Scan(&rows); err != nil || rows != 2 {
		t.Errorf("%d rows, %v", rows, err)
	}
}

// TestRetryAndDiscardWhileRunning does it in the spool of a running receiver, which has made
// them dead letters itself. A second receiver cannot start there.
func TestRetryAndDiscardWhileRunning(t *testing.T) {
	t.Parallel()
	url, dir := dbtest.URL(t), spooled(t, "a.jpg", "bad/1.jpg", "bad/2.jpg", "bad/3.jpg", "bad/4.jpg")
	pool := dbtest.Open(t, url, eventstore.Open)
	execute := func(sql string) {
		t.Helper()
		if _, err := pool.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	execute("ALTER TABLE upcall.upload_events ADD CONSTRAINT nothing_bad CHECK (object_key NOT LIKE 'bad/%')")
	ids := make(map[string]string)
	if err := spool.Read(t.Context(), dir, func(e kept.Entry) error { ids[e.Object] = e.ID.String(); return nil }); err != nil {
		t.Fatal(err)
	}
	settings := clitest.Env{"UPCALL_SPOOL_DIR": dir, "UPCALL_DATABASE_URL": url, "UPCALL_TOKEN": "off"}
	serve := []string{"serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"}
	running := program.Start(t, settings, serve...)
	output := func(args ...string) string { return program.Output(t, settings, append([]string{"spool"}, args...)...) }
	listed := func(summary string) {
		t.Helper()
		wait.Until(t, summary, func() bool {
			got, _, err := program.Execute(t, settings, "spool", "list")
			return err == nil && strings.HasSuffix(got, "\n"+summary+"\n")
		})
	}
	listed("0 waiting, 4 dead")
	if got := output("list"); strings.Count(got, "nothing_bad") != 4 || strings.Contains(got, "a.jpg") {
		t.Errorf("list: %s", got)
	}
	if err := program.Error(t, settings, serve...); !errors.Is(err, spool.ErrInUse) {
		t.Errorf("a second receiver: %v", err)
	}
	unknown := uuid.NewString()
	for _, command := range []string{"retry", "discard"} {
		err := program.Error(t, settings, "spool", command, ids["bad/1.jpg"], unknown)
		if !strings.Contains(err.Error(), "no such dead letter: "+unknown) || errors.Is(err, cli.ErrUsage) {
			t.Errorf("%s of an unknown one: %v", command, err)
		}
	}
	listed("0 waiting, 4 dead")
	if got := output("discard", ids["bad/4.jpg"]); !strings.Contains(got, "bad/4.jpg") || !strings.Contains(got, "nothing_bad") ||
		!strings.HasSuffix(got, "\n1 discarded, 0 waiting, 3 dead\n") {
		t.Errorf("discard: %s", got)
	}
	if got := output("retry", ids["bad/1.jpg"]); !strings.Contains(got, "bad/1.jpg") || strings.Contains(got, "bad/2.jpg") ||
		!strings.Contains(got, "\n1 to be retried, ") {
		t.Errorf("retry before the fix: %s", got)
	}
	listed("0 waiting, 3 dead") // PostgreSQL cannot hold it yet
	execute("ALTER TABLE upcall.upload_events DROP CONSTRAINT nothing_bad")
	output("retry", ids["bad/1.jpg"])
	listed("0 waiting, 2 dead")
	if got := output("retry", "--all"); strings.Count(got, "dead: ") != 2 || !strings.Contains(got, "\n2 to be retried, ") {
		t.Errorf("retry all: %s", got)
	}
	listed("0 waiting, 0 dead")
	if got := output("discard", "--all"); !strings.HasSuffix(got, "\n0 discarded, 0 waiting, 0 dead\n") {
		t.Errorf("discard all of none: %s", got)
	}
	if err := running.Stop(); err != nil {
		t.Error(err)
	}
	var recorded []string
	err := eventstore.Each(t.Context(), dbtest.Open(t, url, eventstore.OpenReader), func(e *event.Event) {
		recorded = append(recorded, e.Callback.Object)
	})
	slices.Sort(recorded)
	if diff := cmp.Diff([]string{"a.jpg", "bad/1.jpg", "bad/2.jpg", "bad/3.jpg"}, recorded); diff != "" || err != nil {
		t.Errorf("rows (-want +got), %v:\n%s", err, diff)
	}
	if got := output("list"); !strings.HasSuffix(got, "0 waiting, 0 dead\n") { // now by itself
		t.Errorf("list after the end: %s", got)
	}
}

// TestDeadLetterMistakes checks that no mistake changes anything.
func TestDeadLetterMistakes(t *testing.T) {
	t.Parallel()
	dir, ids := deadLetters(t, "a", "b")
	one, unknown := ids[0].String(), uuid.NewString()
	waits := spooled(t, "a")
	var waiting string
	if err := spool.Read(t.Context(), waits, func(e kept.Entry) error { waiting = e.ID.String(); return nil }); err != nil {
		t.Fatal(err)
	}
	held, _ := deadLetters(t, "a")
	queue, err := spool.Open(t.Context(), spool.Config{Dir: held, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { queue.Close() })
	broken, _ := deadLetters(t, "a")
	if err := os.Truncate(filepath.Join(broken, "spool.db"), 5000); err != nil {
		t.Fatal(err)
	}
	nowhere := filepath.Join(t.TempDir(), "none")
	for name, tt := range map[string]struct {
		args  []string
		dir   string
		want  string
		usage bool
	}{
		"no directory":       {[]string{"--all"}, "", "set UPCALL_SPOOL_DIR", true},
		"nothing chosen":     {nil, dir, "or --all", true},
		"some and all":       {[]string{one, "--all"}, dir, "or --all", true},
		"not an ID":          {[]string{"a.jpg"}, dir, `"a.jpg" is not an event ID`, true},
		"part of an ID":      {[]string{one[:8]}, dir, "is not an event ID", true},
		"unknown":            {[]string{one, unknown}, dir, "no such dead letter: " + unknown, false},
		"waiting":            {[]string{waiting}, waits, "no such dead letter: " + waiting, false},
		"missing directory":  {[]string{"--all"}, nowhere, "no such file", false},
		"damaged":            {[]string{"--all"}, broken, "spool is damaged", false},
		"no socket":          {[]string{"--all"}, held, "stop the receiver first", false},
		"of another command": {[]string{one, "--file", "x"}, dir, "unknown flag --file", true},
	} {
		for _, command := range []string{"retry", "discard"} {
			err := program.Error(t, clitest.Env{"UPCALL_SPOOL_DIR": tt.dir}, append([]string{"spool", command}, tt.args...)...)
			if !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s, %s: got %v, want one line with %q", command, name, err, tt.want)
			}
			if usage := errors.Is(err, cli.ErrUsage); usage != tt.usage {
				t.Errorf("%s, %s: usage error %v", command, name, usage)
			}
		}
	}
	for dir, want := range map[string][2]int{dir: {0, 2}, waits: {1, 0}, held: {0, 1}} {
		if waiting, dead := countSpooled(t, dir); waiting != want[0] || dead != want[1] {
			t.Errorf("%d waiting, %d dead, want %v", waiting, dead, want)
		}
	}
	if _, err := os.Stat(nowhere); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a spool was created: %v", err)
	}
}
