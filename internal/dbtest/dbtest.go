// Package dbtest gives each test a PostgreSQL database of its own. Only tests import it.
//
// All tests of one process share a server: the one that UPCALL_TEST_DATABASE_URL names
// (its role must be allowed to create databases), or a private one that goes away with
// the process. Databases are clones of a migrated template, so a test waits for one
// about as long as copying a file takes; tests run in parallel.
package dbtest

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/embeddedpg"
	"upcall/internal/testing/pgbouncer"
	"upcall/migrations"
)

// Variable names the server to test on.
const Variable = "UPCALL_TEST_DATABASE_URL"

// setUpTimeout bounds each step here, so that a server that hangs fails the test. It is long
// because machines can be slow and shared with the servers of other processes.
const setUpTimeout = 2 * time.Minute

// URL returns the URL of an empty database with the newest schema, which is dropped at the test's end.
func URL(t testing.TB) string {
	t.Helper()
	name, err := template()
	if err != nil {
		t.Fatalf("set up test database: %v", err)
	}
	return create(t, name)
}

// Empty returns the URL of a database without any schema, which is dropped at the test's end.
func Empty(t testing.TB) string {
	t.Helper()
	return create(t, "template0")
}

// An Opener is a way to open a database: eventstore.Open, OpenReader or OpenRecorder, so
// that a query is tested with the settings that it has in a program.
type Opener func(ctx context.Context, databaseURL string) (*pgxpool.Pool, error)

// Pool returns a pool on a database as [URL] makes one. It is closed at the test's end.
func Pool(t testing.TB, open Opener) *pgxpool.Pool {
	t.Helper()
	return Open(t, URL(t), open)
}

// Open returns a pool with longer timeouts than a program's, because tests may run on a slow,
// busy machine. It is closed at the test's end. With UPCALL_TEST_POOLER=1 it goes through PgBouncer.
func Open(t testing.TB, databaseURL string, open Opener) *pgxpool.Pool {
	t.Helper()
	return openAt(t, pgbouncer.Between(t, patient(t, databaseURL)), open)
}

// Beside returns another pool on the same database.
func Beside(t testing.TB, pool *pgxpool.Pool, open Opener) *pgxpool.Pool {
	t.Helper()
	return Open(t, pool.Config().ConnString(), open)
}

// Direct is [Beside] for tests of what a session keeps, such as the plans of prepared statements:
// it never goes through PgBouncer.
func Direct(t testing.TB, pool *pgxpool.Pool, open Opener) *pgxpool.Pool {
	t.Helper()
	return openAt(t, pgbouncer.Direct(patient(t, pool.Config().ConnString())), open)
}

// closeLimit is generous: connections are closed one after the other.
const closeLimit = time.Minute

// closePool closes a pool. A test that failed before it released a connection would otherwise never end.
func closePool(t testing.TB, pool *pgxpool.Pool) {
	closed := make(chan struct{})
	go func() { pool.Close(); close(closed) }()
	select {
	case <-closed:
	case <-time.After(closeLimit):
		t.Errorf("%d connections of a pool were not released", pool.Stat().AcquiredConns())
	}
}

func openAt(t testing.TB, databaseURL string, open Opener) *pgxpool.Pool {
	t.Helper()
	pool, err := open(context.Background(), databaseURL)
	if err != nil {
		t.Fatalf("open test database: %v", err)
	}
	t.Cleanup(func() { closePool(t, pool) })
	return pool
}

// patient returns a URL with longer timeouts.
func patient(t testing.TB, databaseURL string) string {
	t.Helper()
	u, err := url.Parse(databaseURL)
	if err != nil {
		t.Fatalf("open test database: %v", err)
	}
	query := u.Query()
	query.Set("connect_timeout", "5")
	query.Set("statement_timeout", "60s")
	query.Set("lock_timeout", "30s")
	query.Set("idle_in_transaction_session_timeout", "0")
	u.RawQuery = query.Encode()
	return u.String()
}

// shared is the server that all tests of this process share.
type shared struct {
	url string
	// A private server stops when nothing refers to it.
	private *embeddedpg.Server
}

var server = sync.OnceValues(func() (shared, error) {
	if given := os.Getenv(Variable); given != "" {
		if u, err := url.Parse(given); err != nil || !strings.HasPrefix(u.Scheme, "postgres") {
			return shared{}, fmt.Errorf("%s is not a URL like postgres://user:password@host:5432/database", Variable)
		}
		return shared{url: given}, nil
	}
	// It stops, and its data is removed, when this process ends.
	s, err := embeddedpg.Start(context.Background(), embeddedpg.Config{NoFsync: true, MaxConnections: 400, StartTimeout: setUpTimeout})
	if err != nil {
		return shared{}, fmt.Errorf("no PostgreSQL to test on: install it (Debian: apt install postgresql), or set %s: %w", Variable, err)
	}
	return shared{s.URL(), s}, nil
})

// template returns the name of the migrated database that others are cloned from. It
// stays on the server, for later runs with the same migrations.
var template = sync.OnceValues(func() (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), setUpTimeout)
	defer cancel()
	base, err := server()
	if err != nil {
		return "", err
	}
	conn, err := pgx.Connect(ctx, base.url)
	if err != nil {
		return "", fmt.Errorf("connect: %w", err)
	}
	defer conn.Close(ctx)

	name := "upcall_template_" + migrations.Digest()
	// Other test processes may be making it, too.
	if _, err := conn.Exec(ctx, "SELECT pg_advisory_lock(hashtextextended($1, 0))", name); err != nil {
		return "", fmt.Errorf("lock template: %w", err)
	}
	var there bool
	if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", name).Scan(&there); err != nil {
		return "", fmt.Errorf("look for template: %w", err)
	}
	if there {
		return name, nil
	}
	// It is renamed when it is complete.
	fresh := name + "_new"
	for _, statement := range []string{
		"DROP DATABASE IF EXISTS " + quote(fresh) + " WITH (FORCE)",
		"CREATE DATABASE " + quote(fresh) + " TEMPLATE template0",
	} {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return "", fmt.Errorf("make template: %w", err)
		}
	}
	if err := migrations.Up(ctx, onDatabase(base.url, fresh)); err != nil {
		return "", fmt.Errorf("make template: %w", err)
	}
	if _, err := conn.Exec(ctx, "ALTER DATABASE "+quote(fresh)+" RENAME TO "+quote(name)); err != nil {
		return "", fmt.Errorf("make template: %w", err)
	}
	return name, nil
})

// create makes a database and drops it at the test's end.
func create(t testing.TB, template string) string {
	t.Helper()
	base, err := server()
	if err != nil {
		t.Fatalf("set up test database: %v", err)
	}
	name := "upcall_test_" + strings.ToLower(rand.Text())
	if err := execute(base.url, "CREATE DATABASE "+quote(name)+" TEMPLATE "+quote(template)); err != nil {
		t.Fatalf("create test database: %v", err)
	}
	t.Cleanup(func() {
		// By force, because a failed test may leave connections open.
		if err := execute(base.url, "DROP DATABASE "+quote(name)+" WITH (FORCE)"); err != nil {
			t.Errorf("drop test database: %v", err)
		}
	})
	return onDatabase(base.url, name)
}

func execute(base, statement string) error {
	ctx, cancel := context.WithTimeout(context.Background(), setUpTimeout)
	defer cancel()
	conn, err := pgx.Connect(ctx, pgbouncer.Direct(base))
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, statement); err != nil {
		return fmt.Errorf("execute: %w", err)
	}
	return nil
}

func quote(name string) string { return pgx.Identifier{name}.Sanitize() }

// onDatabase returns the URL with another database in it.
func onDatabase(base, name string) string {
	u, err := url.Parse(base)
	if err != nil {
		panic("dbtest: server has checked " + Variable) // cannot happen
	}
	u.Path = "/" + name
	return u.String()
}
