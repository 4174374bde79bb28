// Package pgbouncer runs Debian's PgBouncer before a PostgreSQL within a test.
package pgbouncer

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"upcall/internal/testing/proc"
	"upcall/internal/testing/toolchain"
	"upcall/internal/testing/wait"
)

// Variable is set to 1 to have the tests of many packages go through a PgBouncer in transaction mode,
// and to session for one in session mode.
const Variable = "UPCALL_TEST_POOLER"

// poolers has the addresses of those that Start has started, each with that of its PostgreSQL.
var poolers sync.Map

// Direct returns a URL that leads to PostgreSQL itself instead of through one of this process's
// poolers.
func Direct(databaseURL string) string {
	u, err := url.Parse(databaseURL)
	if err != nil {
		return databaseURL
	}
	if direct, pooled := poolers.Load(u.Host); pooled {
		u.Host = direct.(string)
	}
	return u.String()
}

// Between returns a database's URL as it is, or with [Variable] one that leads there through a
// PgBouncer, in transaction mode with a server session that changes from one transaction to the
// next. It leaves alone what a pooler cannot stand before: several servers, and nobody's.
func Between(t testing.TB, databaseURL string) string {
	t.Helper()
	mode := map[string]string{"1": "transaction", "session": "session"}[os.Getenv(Variable)]
	if mode == "" {
		return databaseURL
	}
	u, err := url.Parse(databaseURL)
	if err != nil {
		return databaseURL
	}
	if _, hasPassword := u.User.Password(); !hasPassword || strings.Contains(u.Host, ",") {
		return databaseURL
	}
	if _, pooled := poolers.Load(u.Host); pooled {
		return databaseURL
	}
	// By default PgBouncer waits 15 s after a failed login before it tries again. In session mode each
	// connection of a receiver's pools has one of PostgreSQL.
	return Start(t, databaseURL, mode, "server_round_robin = 1", "server_login_retry = 1", "default_pool_size = 60")
}

// Start starts a PgBouncer that pools in a mode, "session" or "transaction", until the test's
// end, and returns the URL that leads through it to the database of databaseURL. Settings are
// further lines of its configuration.
func Start(t testing.TB, databaseURL, mode string, settings ...string) string {
	t.Helper()
	u, err := url.Parse(databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	return Run(t, u, func(address *net.TCPAddr, users string) string {
		return strings.Join(append([]string{
			"[databases]", fmt.Sprintf("* = host=%s port=%s", u.Hostname(), u.Port()),
			"[pgbouncer]", "listen_addr = 127.0.0.1", fmt.Sprintf("listen_port = %d", address.Port), "unix_socket_dir =",
			"auth_type = scram-sha-256", "auth_file = " + users, "pool_mode = " + mode, "default_pool_size = 20",
		}, settings...), "\n") + "\n"
	})
}

// Run starts a PgBouncer before the PostgreSQL of a URL, until the test's end, and returns the URL
// that leads through it. Its configuration is made of the address on which it is to listen and
// the path of a file with the user of the URL.
func Run(t testing.TB, u *url.URL, configure func(address *net.TCPAddr, users string) string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "upcall-pgbouncer-") // that of t.TempDir is closed to the user that it runs as
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().(*net.TCPAddr)
	listener.Close()
	password, _ := u.User.Password()
	users := filepath.Join(dir, "users.txt")
	for path, text := range map[string]string{
		users: fmt.Sprintf("%q %q\n", u.User.Username(), password), filepath.Join(dir, "pgbouncer.ini"): configure(address, users),
	} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	args := []string{filepath.Join(dir, "pgbouncer.ini")}
	if os.Getuid() == 0 {
		args = append(args, "-u", "nobody")
	}
	proc.Program(t, exec.Command(toolchain.Path("pgbouncer"), args...), os.Kill)
	through := *u
	through.Host = address.String()
	poolers.Store(through.Host, u.Host)
	wait.Until(t, "pgbouncer listens", func() bool {
		conn, err := net.DialTimeout("tcp", through.Host, time.Second)
		if err != nil {
			return false
		}
		return conn.Close() == nil
	})
	return through.String()
}
