package e2e

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"upcall/internal/dbtest"
	"upcall/internal/loadgen"
	"upcall/internal/testing/proc"
	"upcall/internal/testing/servetest"
	"upcall/internal/testing/toolchain"
	"upcall/internal/testing/wait"
	"upcall/migrations"
)

// earlier builds the receiver as it was before the latest migration, and returns the directory of that
// program, and its page of the rights that it needs.
func earlier(t *testing.T) (dir, page string) {
	t.Helper()
	toolchain.Need(t, "git")
	git := func(args ...string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), "git", append([]string{"-C", "../.."}, args...)...).Output()
		if err != nil {
			t.Fatalf("git %v: %v", args, err)
		}
		return strings.TrimSpace(string(out))
	}
	added := git("log", "--diff-filter=A", "--format=%H", "-1", "--", fmt.Sprintf("migrations/%04d_*.up.sql", migrations.Latest()))
	if added == "" || git("rev-parse", "--is-shallow-repository") == "true" {
		toolchain.NotRun(t, "not run: an upgrade from the version before (internal/e2e): its commit is not here")
	}
	top, source := t.TempDir(), filepath.Join(t.TempDir(), "source")
	git("worktree", "add", "--detach", source, added+"^")
	defer git("worktree", "remove", "--force", source)
	args := []string{"build", "-o", filepath.Join(top, "receiver")}
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		args = append(args, "-race") // as the tests, whose libraries are built
	}
	build := exec.CommandContext(t.Context(), "go", append(args, "./cmd/receiver")...)
	build.Dir = source
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the version before: %v: %s", err, out)
	}
	text, err := os.ReadFile(filepath.Join(source, "docs/database.md"))
	if err != nil {
		t.Fatal(err)
	}
	page = filepath.Join(top, "database.md")
	if err := os.WriteFile(page, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return top, page
}

// An upgradeWorld has receivers of two versions on one database.
type upgradeWorld struct {
	database, owner string // URLs for the receivers' role and for the owner
	keyURL          string
	messages        [][]byte
	sent            int
}

// serve starts a receiver of the version in dir.
func (w *upgradeWorld) serve(t *testing.T, dir string) (public, admin string) {
	t.Helper()
	public, admin = servetest.FreeAddress(t), servetest.FreeAddress(t)
	receiver := exec.CommandContext(t.Context(), filepath.Join(dir, "receiver"), "serve")
	receiver.Env = []string{proc.QuickExit, "UPCALL_DATABASE_URL=" + w.database, "UPCALL_TOKEN_KEYS=" + loadgen.TokenKeys,
		"UPCALL_LISTEN=" + public, "UPCALL_ADMIN_LISTEN=" + admin, "UPCALL_TRUST_KEY_URLS=" + w.keyURL}
	proc.Program(t, receiver, os.Interrupt)
	wait.Until(t, "the receiver is ready", func() bool {
		response, err := http.Get("http://" + admin + "/readyz")
		if err == nil {
			response.Body.Close()
		}
		return err == nil && response.StatusCode == http.StatusOK
	})
	return public, admin
}

// send sends a callback to each receiver in turn; each must be recorded at once, and known when it comes again to another.
func (w *upgradeWorld) send(t *testing.T, n int, addrs ...string) {
	t.Helper()
	for i := range n {
		message := w.messages[w.sent]
		w.sent++
		for k := range addrs {
			client := loadgen.Client{Addr: addrs[(i+k)%len(addrs)], Closing: true}
			status, body, err := client.Send(message)
			if err != nil || status != http.StatusOK || strings.Contains(string(body), `"duplicate":true`) != (k > 0) {
				t.Fatalf("callback %d, receiver %d: %d, %s, %v", w.sent, k, status, body, err)
			}
		}
	}
}

// run runs a script with the programs of a version first in its path.
func (w *upgradeWorld) run(t *testing.T, dir, admin, script string) string {
	t.Helper()
	out, err := w.try(t.Context(), dir, admin, script)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (w *upgradeWorld) try(ctx context.Context, dir, admin, script string) (string, error) {
	shell := exec.CommandContext(ctx, "sh", "-euc", script)
	shell.Env = []string{proc.QuickExit, "PATH=" + dir + ":" + os.Getenv("PATH"), "UPCALL_DATABASE_URL=" + w.owner, "ADMIN=http://" + admin}
	out, err := shell.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w:\n%s\n%s", err, script, out)
	}
	return string(out), nil
}

// grant gives the receivers' role what a page says.
func (w *upgradeWorld) grant(t *testing.T, page string) {
	t.Helper()
	for _, grant := range dbtest.Grants(t, page, "upcall_receiver") {
		dbtest.Execute(t, w.owner, strings.ReplaceAll(grant, "ROLE", regexp.MustCompile(`//([^:]+):`).FindStringSubmatch(w.database)[1]))
	}
}

// TestUpgradePage runs the commands of docs/upgrade.md with the receiver as it was before the latest migration and
// the one of now: while callbacks go on, the schema is changed under the old one, then both serve, then the old one alone,
// and at last the schema is rolled back under it.
func TestUpgradePage(t *testing.T) {
	t.Parallel()
	toolchain.Need(t, "curl")
	text, err := os.ReadFile("../../docs/upgrade.md")
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string
	for _, parts := range strings.Split(string(text), "```sh\n")[1:] {
		block, _, _ := strings.Cut(parts, "```\n")
		blocks = append(blocks, block)
	}
	if len(blocks) != 3 {
		t.Fatalf("the page has %d blocks of commands", len(blocks))
	}
	old, rights := earlier(t)
	keys := loadgen.NewKeyServer()
	t.Cleanup(keys.Close)
	w := &upgradeWorld{owner: dbtest.Empty(t), keyURL: keys.KeyURL}
	generator, err := loadgen.New(keys.KeyURL)
	if err != nil {
		t.Fatal(err)
	}
	if w.messages, err = generator.Wire(10000, true); err != nil {
		t.Fatal(err)
	}
	w.run(t, old, "", "receiver migrate up; receiver maintain")
	w.database = dbtest.Role(t, w.owner)
	w.grant(t, rights)
	before := migrations.Latest() - 1
	oldPublic, _ := w.serve(t, old)
	w.send(t, 20, oldPublic)

	var out string
	migrated := make(chan error, 1)
	bin := programs(t)
	go func() {
		var err error
		out, err = w.try(t.Context(), bin, "", blocks[0])
		migrated <- err
	}()
	for waiting := true; waiting; {
		select {
		case err := <-migrated:
			if waiting = false; err != nil {
				t.Fatal(err)
			}
		default:
			w.send(t, 1, oldPublic)
		}
	}
	for _, want := range []string{fmt.Sprintf("schema is at version %d of %d\npending", before, before+1),
		fmt.Sprintf("schema is at version %[1]d of %[1]d\n", before+1)} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in %s", want, out)
		}
	}
	w.send(t, 20, oldPublic)
	w.grant(t, "../../docs/database.md")
	newPublic, newAdmin := w.serve(t, programs(t))
	w.send(t, 20, oldPublic, newPublic)
	if out := w.run(t, bin, newAdmin, blocks[1]); !strings.Contains(out, `upcall_build_info{commit=`) || !strings.Contains(out, "rollup") {
		t.Errorf("printed %s", out)
	}
	w.goBack(t, old, blocks[2], oldPublic)
}

// goBack rolls the schema back under the old receiver.
func (w *upgradeWorld) goBack(t *testing.T, old, command, public string) {
	t.Helper()
	latest := migrations.Latest()
	if out := w.run(t, old, "", "receiver migrate status"); out != fmt.Sprintf("schema is at version %d of %d\n", latest, latest-1) {
		t.Errorf("the old program says %s", out)
	}
	w.run(t, programs(t), "", command)
	if out := w.run(t, old, "", "receiver migrate up"); out != fmt.Sprintf("schema is at version %[1]d of %[1]d\n", latest-1) {
		t.Errorf("the old program says %s", out)
	}
	w.send(t, 20, public)
	conn, err := pgx.Connect(t.Context(), w.owner)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	var rows int
	const query = "SELECT count(*) FROM upcall.upload_events"
	if err := conn.QueryRow(t.Context(), query).Scan(&rows); err != nil || rows != w.sent {
		t.Errorf("%d callbacks were acknowledged, and the table has %d, %v", w.sent, rows, err)
	}
}
