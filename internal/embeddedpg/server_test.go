package embeddedpg

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"upcall/internal/testing/proc"
	"upcall/internal/testing/servetest"
	"upcall/internal/testing/wait"
)

// TestMain lets the test binary act as the owner that is killed.
func TestMain(m *testing.M) {
	proc.Main(map[string]func(){"owner": func() { beOwner(os.Args[1]) }})
	os.Exit(m.Run())
}

func beOwner(dir string) {
	s, err := Start(context.Background(), Config{DataDir: dir, NoFsync: true})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	pid, err := s.postmaster()
	fmt.Println(pid, s.DataDir(), err)
	select {}
}

func start(t *testing.T, config Config) *Server {
	t.Helper()
	config.NoFsync = true
	config.StartTimeout = 2 * time.Minute // for a slow machine that also runs other tests
	s, err := Start(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// reachableDir returns a temporary directory that the server's user can enter. If the test
// runs as root, that user cannot enter t.TempDir.
func reachableDir(t *testing.T) string {
	t.Helper()
	user, err := serverUser()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := makeThrowaway(user)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func query[T any](t *testing.T, url, sql string) T {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	rows, err := conn.Query(t.Context(), sql)
	if err != nil {
		t.Fatal(err)
	}
	v, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[T])
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func ended(pid int) bool { return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }

func TestThrowaway(t *testing.T) {
	t.Parallel()
	s := start(t, Config{MaxConnections: 17})
	if got := query[string](t, s.URL(), "SHOW max_connections"); got != "17" {
		t.Errorf("max_connections = %s, want 17", got)
	}
	if got := query[string](t, s.URL(), "SHOW listen_addresses"); got != "127.0.0.1" {
		t.Errorf("listen_addresses = %q", got)
	}
	pid, err := s.postmaster()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	if !ended(pid) {
		t.Error("the server still runs after Stop")
	}
	if _, err := os.Stat(s.DataDir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("throwaway data is still there: %v", err)
	}
}

func TestDurableByDefault(t *testing.T) {
	t.Parallel()
	s, err := Start(t.Context(), Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	for _, setting := range []string{"fsync", "full_page_writes", "synchronous_commit"} {
		if got := query[string](t, s.URL(), "SHOW "+setting); got != "on" {
			t.Errorf("%s = %s, want on", setting, got)
		}
	}
}

func TestDataStaysBetweenRuns(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(reachableDir(t), "deep", "data")
	s := start(t, Config{DataDir: dir})
	conn, err := pgx.Connect(t.Context(), s.URL())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), "CREATE TABLE t AS SELECT 1 AS n"); err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	s = start(t, Config{DataDir: dir})
	query[int](t, s.URL(), "UPDATE t SET n = 2 RETURNING n")

	// After a crash, on the same port.
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	s = start(t, Config{DataDir: dir, Port: s.Port()})
	if got := query[int](t, s.URL(), "SELECT n FROM t"); got != 2 {
		t.Errorf("n = %d, want 2", got)
	}
	info, err := os.Stat(filepath.Join(s.DataDir(), "password"))
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("password file has mode %v", info.Mode())
	}
}

func TestRefusesStrangers(t *testing.T) {
	t.Parallel()
	s := start(t, Config{})
	for _, password := range []string{"", "wrong"} {
		stranger := strings.Replace(s.URL(), s.password, password, 1)
		_, err := pgx.Connect(t.Context(), stranger)
		var pgErr *pgconn.PgError
		if !errors.As(err, &pgErr) || pgErr.Code != "28P01" {
			t.Errorf("password %q: got %v, want SQLSTATE 28P01", password, err)
		}
	}
}

func TestSecondOwnerIsRefused(t *testing.T) {
	t.Parallel()
	s := start(t, Config{DataDir: reachableDir(t)})
	_, err := Start(t.Context(), Config{DataDir: s.DataDir(), NoFsync: true})
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), fmt.Sprint("process ", os.Getpid())) {
		t.Errorf("got %v, want ErrInUse that names the process", err)
	}
	query[int](t, s.URL(), "SELECT 1")
}

func TestOtherVersionIsRefused(t *testing.T) {
	t.Parallel()
	for content, want := range map[string]error{"12\n": ErrVersion, "junk": ErrVersion} {
		dir := reachableDir(t)
		if err := os.MkdirAll(filepath.Join(dir, "pgdata"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "pgdata", "PG_VERSION"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Start(t.Context(), Config{DataDir: dir}); !errors.Is(err, want) {
			t.Errorf("PG_VERSION %q: got %v, want %v", content, err, want)
		}
	}
}

func TestFailedStartSaysWhy(t *testing.T) {
	t.Parallel()
	taken := servetest.Listen(t)
	dir := reachableDir(t)
	_, err := Start(t.Context(), Config{DataDir: dir, NoFsync: true, Port: taken.Addr().(*net.TCPAddr).Port})
	if err == nil || !strings.Contains(err.Error(), "Address already in use") || strings.Contains(err.Error(), "\n") {
		t.Errorf("got %v, want PostgreSQL's message on one line", err)
	}
	start(t, Config{DataDir: dir}) // the failed start has released everything
}

func TestKilledOwnerLeavesNothing(t *testing.T) {
	t.Parallel()
	for name, dir := range map[string]string{"throwaway": "", "kept": reachableDir(t)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			owner := proc.Start(t, "owner", dir)
			line := owner.FirstLine(t)
			var pid int
			var home string
			if _, err := fmt.Sscan(line, &pid, &home); err != nil {
				t.Fatalf("owner said %q: %v", line, err)
			}
			if ended(pid) {
				t.Fatal("the server is not running")
			}
			owner.Kill(t)
			if dir != "" {
				// Start waits for the old server to end.
				start(t, Config{DataDir: dir})
			}
			wait.Until(t, "the server has ended", func() bool { return ended(pid) })
			if dir == "" {
				wait.Until(t, "the throwaway data is gone", func() bool {
					_, err := os.Stat(home)
					return errors.Is(err, os.ErrNotExist)
				})
			}
		})
	}
}

func TestStartStopsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Start(ctx, Config{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}
