// Package migrations holds the database schema, as golang-migrate files and views that are
// compiled in, and applies them.
//
// Everything is in the schema upcall, the table of applied versions too
// (upcall.schema_migrations). Files are only ever added, and a new one must leave a
// database that the previous program can still work with: programs accept a schema that
// is newer than they are.
//
// Views are in files of their own, which are changed like code, except that each change
// raises the constant edition. After the numbered files, [Up] makes the views that are new
// or have changed: it replaces a view whose columns only grow, and drops and makes anew any
// other, together with what reads it. Rights given on them stay. A view or function of
// somebody else's that needs a view to be dropped is not touched; its name is in the error.
// upcall.schema_views says which views were made, so that those of a newer program stay.
//
// Each file runs as one transaction, so CREATE INDEX CONCURRENTLY and its like cannot be in one.
//
// Migrations hold a lock of the session: connect to PostgreSQL itself, not through a
// pooler in transaction mode.
package migrations

import (
	"cmp"
	"context"
	"embed"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
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
)

//go:embed *.sql
var files embed.FS

const (
	schema       = "upcall"
	versionTable = "schema_migrations"
	// lockTimeout is how long a statement of a migration waits for a table that others
	// use. Longer, and it would hold up all who come after it.
	lockTimeout = "10s"
	undefined   = "42P01" // SQLSTATE undefined_table
)

var (
	// ErrTooOld says that the program needs a newer schema.
	ErrTooOld = errors.New("database schema is too old")
	// ErrDirty says that a migration was cut short and someone must look.
	ErrDirty = errors.New("database schema is dirty")
	// ErrTooNew says that only a newer program can take migrations back.
	ErrTooNew = errors.New("database schema is newer than this program")
	// ErrSteps says that there are not so many migrations to take back.
	ErrSteps = errors.New("wrong number of steps")
	// ErrURL says that the database URL cannot be read. The text never repeats the URL.
	ErrURL = errors.New("database URL is not valid")
)

// A State is how far a database is.
type State struct {
	Version uint     // of the schema; 0 before the first migration
	Dirty   bool     // a migration was cut short
	Latest  uint     // that this program knows
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

// Digest identifies the text of all migrations and views, in 16 hexadecimal digits.
func Digest() string {
	hash := fnv.New64a()
	for _, name := range names() {
		content, err := files.ReadFile(name + ".up.sql")
		if err != nil {
			panic("migrations: " + err.Error()) // names has just found it
		}
		hash.Write(content)
	}
	for _, v := range ownViews().views {
		hash.Write([]byte(v.definition))
	}
	return fmt.Sprintf("%016x", hash.Sum64())
}

// CheckURL returns an error that wraps ErrURL if a database URL cannot be read.
func CheckURL(databaseURL string) error {
	_, err := parse(databaseURL)
	return err
}

// Up applies what is pending, and makes the views; on a schema that is newer than the
// program it does nothing. Many may call it at once, also in different processes: one works
// and the others wait for it until their contexts end. The URL is one of PostgreSQL's,
// postgres://… or key=value. An error wraps [ErrViews] if only views could not be changed.
func Up(ctx context.Context, databaseURL string) error {
	return up(ctx, databaseURL, ownViews())
}

func up(ctx context.Context, databaseURL string, set viewSet) error {
	return run(ctx, databaseURL, func(conn *pgx.Conn, m *migrate.Migrate) error {
		// A program that was rolled back finds a schema that is newer than it is, and
		// works with that.
		if version, dirty, err := m.Version(); err == nil && !dirty && version > Latest() {
			return nil
		}
		before, err := rightsOf(ctx, conn) // a numbered file may drop views
		if err != nil {
			return err
		}
		if err := m.Up(); err != nil && !errors.Is(err, migrate.ErrNoChange) {
			return err
		}
		return changeViews(ctx, conn, set.tries, func(tx pgx.Tx) error { return set.make(ctx, tx, before) })
	})
}

// Down takes back the given number of migrations, at least one, with all the data in
// them. It drops the views first; those of the version that it comes to are made by Up of
// a program that belongs to it. The schema upcall itself stays.
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
			return fmt.Errorf("%w: it is at %d, this program knows %d: take migrations back with the program that made them",
				ErrTooNew, version, Latest())
		}
		if applied := count(version); steps > applied {
			return fmt.Errorf("%w: %d: there are %d to take back", ErrSteps, steps, applied)
		}
		before, err := rightsOf(ctx, conn)
		if err != nil {
			return err
		}
		own := ownViews()
		if version >= viewsSince { // before that they are the numbered files' own
			err = changeViews(ctx, conn, own.tries, func(tx pgx.Tx) error { return own.forget(ctx, tx) })
			if err != nil {
				return err
			}
		}
		if err := m.Steps(-steps); err != nil {
			return err
		}
		return changeViews(ctx, conn, own.tries, func(tx pgx.Tx) error { return before.giveBack(ctx, tx) })
	})
}

// Status says how far the database is, and changes nothing.
func Status(ctx context.Context, databaseURL string) (State, error) {
	config, err := parse(databaseURL)
	if err != nil {
		return State{}, err
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return State{}, connectError(config, err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return StatusOf(ctx, conn)
}

// StatusOf is [Status] on a connection or pool.
func StatusOf(ctx context.Context, db Querier) (State, error) {
	status := State{Latest: Latest()}
	err := db.QueryRow(ctx, "SELECT version, dirty FROM upcall.schema_migrations").Scan(&status.Version, &status.Dirty)
	var pgErr *pgconn.PgError
	switch {
	case errors.Is(err, pgx.ErrNoRows), errors.As(err, &pgErr) && pgErr.Code == undefined:
	case err != nil:
		return State{}, fmt.Errorf("read schema version: %w", err)
	}
	for _, name := range names() {
		if number(name) > status.Version {
			status.Pending = append(status.Pending, name)
		}
	}
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
	return fmt.Errorf("%w: migration %d was cut short: if what it makes is there, "+
		"run the SQL `UPDATE upcall.schema_migrations SET dirty = false`, else `%s`, then `receiver migrate up`",
		ErrDirty, version, back)
}

// run does the work while it holds the lock.
func run(ctx context.Context, databaseURL string, work func(*pgx.Conn, *migrate.Migrate) error) error {
	config, err := parse(databaseURL)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return connectError(config, err)
	}
	defer conn.Close(context.WithoutCancel(ctx)) // gives back the lock
	if err := lock(ctx, conn); err != nil {
		return err
	}
	if _, err := conn.Exec(ctx, "CREATE SCHEMA IF NOT EXISTS "+schema); err != nil {
		return fmt.Errorf("create schema %s: %w", schema, err)
	}

	source, err := iofs.New(files, ".")
	if err != nil {
		return fmt.Errorf("read migrations: %w", err)
	}
	defer source.Close()
	// The library knows no context: its connections are cut when ours ends.
	db := stdlib.OpenDB(*config, stdlib.OptionAfterConnect(func(_ context.Context, c *pgx.Conn) error {
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
	var mark migrate.ErrDirty
	switch {
	case err == nil || errors.Is(err, ErrSteps) || errors.Is(err, ErrTooNew) || errors.Is(err, ErrViews):
		return err
	case errors.As(err, &mark):
		return dirty(mark.Version)
	case ctx.Err() != nil:
		return fmt.Errorf("migrate: %w: look at `receiver migrate status`", ctx.Err())
	}
	return fmt.Errorf("migrate: %s", fault.Line(err.Error()))
}

// lock waits for its turn. It polls instead of waiting in the server: a waiter there
// holds a snapshot, and a migration that waits for all snapshots would never end.
func lock(ctx context.Context, conn *pgx.Conn) error {
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		var locked bool
		if err := conn.QueryRow(ctx, "SELECT pg_try_advisory_lock($1)", LockMigrations).Scan(&locked); err != nil {
			return fmt.Errorf("lock the schema for migration: %w", err)
		}
		if locked {
			return nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("wait for another migration: %w", ctx.Err())
		}
	}
}

func parse(databaseURL string) (*pgx.ConnConfig, error) {
	// As a pool's, so that one URL with pool_… settings does for every command.
	config, err := pgxpool.ParseConfig(databaseURL)
	if err != nil {
		// The parser's text may hold part of what was given, and so the password.
		return nil, fmt.Errorf("%w: it should look like postgres://user:password@host:5432/database", ErrURL)
	}
	return config.ConnConfig, nil
}

// connectError keeps the reason, in one line, and drops all but the address.
func connectError(config *pgx.ConnConfig, err error) error {
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) {
		err = pgErr
	}
	return fmt.Errorf("connect to database %s at %s:%d: %w", config.Database, config.Host, config.Port, fault.OneLine(err))
}

// names returns the migrations in order.
func names() []string {
	paths, err := fs.Glob(files, "*.up.sql")
	if err != nil || len(paths) == 0 {
		panic("migrations: no files are compiled in") // cannot happen: go:embed fails first
	}
	for i := range paths {
		paths[i] = strings.TrimSuffix(paths[i], ".up.sql")
	}
	return paths
}

// number returns the version that a migration's name starts with.
func number(name string) uint {
	digits, _, _ := strings.Cut(name, "_")
	n, err := strconv.ParseUint(digits, 10, 32)
	if err != nil {
		panic("migrations: bad name " + name) // a test sees to it that there is none
	}
	return uint(n)
}

// count returns how many migrations lead to a version.
func count(version uint) int {
	n := 0
	for _, name := range names() {
		if number(name) <= version {
			n++
		}
	}
	return n
}
