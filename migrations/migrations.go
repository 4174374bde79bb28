// Package migrations holds the database schema, as compiled-in golang-migrate files and views,
// and applies it.
//
// Everything is in the schema upcall, including the table of applied versions
// (upcall.schema_migrations). Files are only ever added, and the previous program must still
// work with the database after a new file: programs accept a schema that is newer than they
// are.
//
// Views are in separate files, which are changed like code, except that each change raises the
// constant edition. After the numbered files, [Up] makes the views that are new or have
// changed: it replaces a view that only gains columns, and drops and recreates any other view,
// together with the views that read it. Rights on them are kept. If someone else's view or
// function depends on a view that must be dropped, Up fails and names it in the error.
// upcall.schema_views says which views were made, so that those of a newer program stay. The role
// [AnalystRole] may read the views; Up makes it if it is missing.
//
// Each file runs as one transaction, so it cannot contain CREATE INDEX CONCURRENTLY and the
// like. The index of the log is made after them; see log.go and index.go.
//
// Migrations hold a session lock: connect to PostgreSQL directly, not through a pooler in
// transaction mode.
package migrations

import (
	"cmp"
	"context"
	"embed"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/golang-migrate/migrate/v4"
	pgxdriver "github.com/golang-migrate/migrate/v4/database/pgx/v5"
	"github.com/golang-migrate/migrate/v4/source/iofs"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"upcall/internal/fault"
	"upcall/internal/pgdial"
)

//go:embed *.sql views/*.sql
var files embed.FS

const (
	schema       = "upcall"
	versionTable = "schema_migrations"
	undefined    = "42P01" // SQLSTATE undefined_table
)

var (
	// ErrTooOld says that the program needs a newer schema.
	ErrTooOld = errors.New("database schema is too old")
	// ErrDirty says that a migration was interrupted and must be repaired by hand.
	ErrDirty = errors.New("database schema is dirty")
	// ErrTooNew says that only a newer program can roll back the migrations.
	ErrTooNew = errors.New("database schema is newer than this program")
	// ErrSteps says that fewer migrations can be rolled back.
	ErrSteps = errors.New("wrong number of steps")
	// ErrURL says that the database URL cannot be read. The text never repeats the URL.
	ErrURL = errors.New("database URL is not valid")
)

// A State is the state of a database's schema.
type State struct {
	Version uint     // of the schema; 0 before the first migration
	Dirty   bool     // a migration was interrupted
	Latest  uint     // the version that this program needs
	Pending []string // migrations that Up would apply, as "0001_upload_events"
}

// Querier is a pool or a connection.
type Querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// Latest returns the version that this program needs.
func Latest() uint {
	names := names()
	return number(names[len(names)-1])
}

// pending returns the migrations after a version.
func pending(version uint) []string {
	return slices.DeleteFunc(names(), func(name string) bool { return number(name) <= version })
}

// Digest identifies the text of all migrations and views, in 16 hexadecimal digits.
func Digest() string {
	hash := fnv.New64a()
	for _, name := range names() {
		io.WriteString(hash, read(name+".up.sql"))
	}
	for _, v := range ownViews().views {
		io.WriteString(hash, v.definition)
	}
	return fmt.Sprintf("%016x", hash.Sum64())
}

// ParseURL reads a database URL, postgres://… or key=value. Its statements work through a
// pooler, its connections end when the server is silent, and of several servers it means the one
// that accepts writes. The error wraps ErrURL.
func ParseURL(databaseURL string) (*pgxpool.Config, error) {
	// As a pool's, so that one URL with pool_… settings works for every command.
	config, err := pgxpool.ParseConfig(databaseURL)
	if err != nil {
		// The parser's text may contain part of the URL, and so the password.
		return nil, fmt.Errorf("%w: it should look like postgres://user:password@host:5432/database", ErrURL)
	}
	if config.ConnConfig.DefaultQueryExecMode == pgx.QueryExecModeCacheStatement {
		// A statement with a name may be in another session than the one that is to run it.
		config.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
	}
	config.ConnConfig.DialFunc = pgdial.Dial
	if config.ConnConfig.ValidateConnect == nil && pgdial.Several(config.ConnConfig) {
		// Without target_session_attrs, a standby that comes first would be asked again and again.
		config.ConnConfig.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	}
	return config, nil
}

// Up applies pending migrations and makes the views; if the schema is newer than the program,
// it does nothing. Many may call it at once, also in different processes: one works and the
// others wait until their contexts end. The URL is as for [ParseURL]. An error wraps
// [ErrViews] if only views could not be changed.
func Up(ctx context.Context, databaseURL string) error {
	return UpReporting(ctx, databaseURL, func(string) {})
}

// UpReporting is Up, and calls report with a line for each step that can take long.
func UpReporting(ctx context.Context, databaseURL string, report func(line string)) error {
	return up(ctx, databaseURL, ownViews(), report)
}

func up(ctx context.Context, databaseURL string, set viewSet, report func(string)) error {
	return run(ctx, databaseURL, func(conn *pgx.Conn, m *migrate.Migrate) error {
		// A program that was rolled back works with the newer schema.
		if version, dirty, err := m.Version(); err == nil && !dirty && version > Latest() {
			return nil
		}
		before, err := rightsOf(ctx, conn) // a numbered file may drop views
		if err != nil {
			return err
		}
		version, isDirty, err := m.Version()
		switch {
		case err != nil && !errors.Is(err, migrate.ErrNilVersion):
			return err
		case isDirty:
			return migrate.ErrDirty{Version: int(version)}
		}
		for range pending(version) {
			if err := step(ctx, m, 1); err != nil {
				return err
			}
		}
		err = changeViews(ctx, conn, set.tries, func(tx pgx.Tx) error { return set.make(ctx, tx, before) })
		if err != nil {
			return err
		}
		if err := set.grantAnalysts(ctx, conn, report); err != nil {
			return err
		}
		return indexer{conn, theLog, Report{Line: report}}.run(ctx)
	})
}

// Down rolls back the given number of migrations, at least one, and deletes their data. It drops
// the views first; Up of a program of the older version makes its own. The schema upcall itself
// stays.
func Down(ctx context.Context, databaseURL string, steps int) error {
	if steps < 1 {
		return fmt.Errorf("%w: %d: give at least 1", ErrSteps, steps)
	}
	return run(ctx, databaseURL, func(conn *pgx.Conn, m *migrate.Migrate) error {
		version, isDirty, err := m.Version()
		switch {
		case err != nil && !errors.Is(err, migrate.ErrNilVersion):
			return err
		case isDirty:
			return migrate.ErrDirty{Version: int(version)}
		case version > Latest():
			return fmt.Errorf("%w: it is at %d, this program knows %d: roll back with the program that migrated",
				ErrTooNew, version, Latest())
		}
		if applied := len(names()) - len(pending(version)); steps > applied {
			return fmt.Errorf("%w: %d: only %d can be rolled back", ErrSteps, steps, applied)
		}
		before, err := rightsOf(ctx, conn)
		if err != nil {
			return err
		}
		own := ownViews()
		if version >= viewsSince { // earlier views are in the numbered files
			err = changeViews(ctx, conn, own.tries, func(tx pgx.Tx) error { return own.forget(ctx, tx) })
			if err != nil {
				return err
			}
		}
		for range steps {
			if err := step(ctx, m, -1); err != nil {
				return err
			}
		}
		return changeViews(ctx, conn, own.tries, func(tx pgx.Tx) error { return before.giveBack(ctx, tx) })
	})
}

// Status returns the state of the database's schema.
func Status(ctx context.Context, databaseURL string) (State, error) {
	conn, err := connect(ctx, databaseURL)
	if err != nil {
		return State{}, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return StatusOf(ctx, conn)
}

// StatusOf is [Status] on a connection or pool.
func StatusOf(ctx context.Context, db Querier) (State, error) {
	status := State{Latest: Latest()}
	err := db.QueryRow(ctx, "SELECT version, dirty FROM upcall.schema_migrations").Scan(&status.Version, &status.Dirty)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) && ServerError(err).Code != undefined {
		return State{}, fmt.Errorf("read schema version: %w", err)
	}
	status.Pending = pending(status.Version)
	return status, nil
}

// Check returns nil if the program can work with the database's schema, an error that
// wraps [ErrTooOld] or [ErrDirty] if it cannot, and another if it cannot tell.
func Check(ctx context.Context, db Querier) error {
	status, err := StatusOf(ctx, db)
	switch {
	case err != nil:
		return err
	case status.Dirty:
		return dirty(int(status.Version))
	case status.Version < status.Latest:
		return fmt.Errorf("%w: it is at %d, this program needs %d: run `receiver migrate up`", ErrTooOld, status.Version, status.Latest)
	}
	return nil
}

func dirty(version int) error {
	back := fmt.Sprintf("UPDATE upcall.schema_migrations SET version = %d, dirty = false", version-1)
	if version <= 1 {
		back = "DELETE FROM upcall.schema_migrations"
	}
	return fmt.Errorf("%w: migration %d was interrupted: if what it makes exists, "+
		"run the SQL `UPDATE upcall.schema_migrations SET dirty = false`, else `%s`, then `receiver migrate up`",
		ErrDirty, version, back)
}

// locked does the work on a connection that holds the lock of migrations.
func locked(ctx context.Context, databaseURL string, work func(context.Context, *pgx.Conn) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	conn, err := connect(ctx, databaseURL)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx)) // releases the lock
	if err := CheckPooler(ctx, conn); err != nil {
		return err
	}
	if err := lock(ctx, conn); err != nil {
		return err
	}
	return work(ctx, conn)
}

// run does the work with the library while it holds the lock.
func run(ctx context.Context, databaseURL string, work func(*pgx.Conn, *migrate.Migrate) error) error {
	return locked(ctx, databaseURL, func(ctx context.Context, conn *pgx.Conn) error { return migrateOn(ctx, conn, work) })
}

func migrateOn(ctx context.Context, conn *pgx.Conn, work func(*pgx.Conn, *migrate.Migrate) error) error {
	if _, err := conn.Exec(ctx, "CREATE SCHEMA IF NOT EXISTS "+schema); err != nil {
		return fmt.Errorf("create schema %s: %w", schema, err)
	}

	source, err := iofs.New(files, ".")
	if err != nil {
		return fmt.Errorf("read migrations: %w", err)
	}
	defer source.Close()
	// The library has no contexts: its connections are closed when ours ends.
	db := stdlib.OpenDB(*conn.Config(), stdlib.OptionAfterConnect(func(_ context.Context, c *pgx.Conn) error {
		context.AfterFunc(ctx, func() { c.PgConn().Conn().Close() })
		_, err := c.Exec(ctx, "SET lock_timeout = '"+lockTimeout+"'")
		return err
	}))
	defer db.Close()
	driver, err := pgxdriver.WithInstance(db, &pgxdriver.Config{SchemaName: schema, MigrationsTable: versionTable})
	if err != nil {
		return fmt.Errorf("prepare migrations: %w", cmp.Or(ctx.Err(), err))
	}
	defer driver.Close()
	m, err := migrate.NewWithInstance("iofs", source, "pgx5", driver)
	if err != nil {
		return fmt.Errorf("prepare migrations: %w", err)
	}
	m.LockTimeout = time.Hour // bounded by the connection
	err = work(conn, m)
	if mark, ok := errors.AsType[migrate.ErrDirty](err); ok {
		return dirty(mark.Version)
	}
	switch {
	case err == nil || errors.Is(err, ErrSteps) || errors.Is(err, ErrTooNew) || errors.Is(err, ErrViews):
		return err
	case ctx.Err() != nil:
		return fmt.Errorf("migrate: %w: look at `receiver migrate status`", ctx.Err())
	}
	return fmt.Errorf("migrate: %s", fault.Line(err.Error()))
}

// connect connects. Its error has one line: the address without the password, and the reason.
func connect(ctx context.Context, databaseURL string) (*pgx.Conn, error) {
	pool, err := ParseURL(databaseURL)
	if err != nil {
		return nil, err
	}
	config := pool.ConnConfig
	conn, err := pgdial.Connect(ctx, config)
	if err == nil {
		return conn, nil
	}
	if reported := ServerError(err); reported.Code != "" {
		err = reported
	}
	return nil, fmt.Errorf("connect to database %s at %s:%d: %w", config.Database, config.Host, config.Port, fault.OneLine(err))
}

// ServerError returns what PostgreSQL reported, or an empty error if it did not.
func ServerError(err error) *pgconn.PgError {
	reported, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return &pgconn.PgError{}
	}
	return reported
}

// names returns the migrations in order.
func names() []string {
	paths := glob("*.up.sql")
	for i := range paths {
		paths[i] = strings.TrimSuffix(paths[i], ".up.sql")
	}
	return paths
}

// glob returns the compiled-in files that match the pattern, in the order of their numbers.
func glob(pattern string) []string {
	paths, err := fs.Glob(files, pattern)
	if err != nil || len(paths) == 0 {
		panic("migrations: no files are compiled in") // cannot happen: go:embed fails first
	}
	return paths
}

func read(path string) string {
	content, err := files.ReadFile(path)
	if err != nil {
		panic("migrations: " + err.Error()) // cannot happen: glob has found it
	}
	return string(content)
}

// number returns the version that a migration's name starts with.
func number(name string) uint {
	digits, _, _ := strings.Cut(name, "_")
	n, err := strconv.ParseUint(digits, 10, 32)
	if err != nil {
		panic("migrations: bad name " + name) // a test checks the names
	}
	return uint(n)
}
