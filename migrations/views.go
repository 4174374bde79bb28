package migrations

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"upcall/internal/fault"
)

//go:embed views/*.sql
var viewFiles embed.FS

const (
	// edition numbers the views. Every change to a file in views raises it, so that an
	// older program knows that the views it finds are newer than its own.
	edition = 1
	// viewsSince is the first version of the schema that has its views from those files.
	viewsSince = 5
	// A query keeps the views that it reads from being changed, and a change that waits
	// keeps all later queries from them: so each try is short.
	viewLockTimeout = "1s"
	viewTries       = 10
	viewPause       = time.Second / 2

	undefinedColumn   = "42703" // SQLSTATE
	invalidDefinition = "42P16" // a view's columns would not just grow
	stillNeeded       = "2BP01"
	lockNotAvailable  = "55P03"
	deadlock          = "40P01"
)

// ErrViews says that the tables are as they should be, and that the views are not.
var ErrViews = errors.New("views were not changed")

// A viewSet is the views of this program, or those that another has made.
type viewSet struct {
	edition int
	views   []view // a view stands behind those that it reads
	tries   int
}

type view struct {
	name       string
	definition string // SQL that creates or replaces the view and comments on it
}

// ownViews returns the views that are compiled in.
func ownViews() viewSet {
	set := viewSet{edition: edition, tries: viewTries}
	paths, err := fs.Glob(viewFiles, "views/*.sql") // in the order of their numbers
	if err != nil {
		panic("migrations: " + err.Error()) // the pattern is well-formed
	}
	for _, path := range paths {
		definition, err := viewFiles.ReadFile(path)
		if err != nil {
			panic("migrations: " + err.Error()) // Glob has just found it
		}
		_, name, _ := strings.Cut(strings.TrimSuffix(path, ".sql"), "_")
		set.views = append(set.views, view{name, string(definition)})
	}
	return set
}

// madeViews returns the views that were last made for a version of the schema up to the
// given one, and that version.
func madeViews(ctx context.Context, tx pgx.Tx, version uint) (viewSet, uint, error) {
	var set viewSet
	var made uint
	var v view
	rows, err := tx.Query(ctx, `
		SELECT schema_version, edition, name, definition FROM upcall.schema_views
		WHERE schema_version = (SELECT max(schema_version) FROM upcall.schema_views WHERE schema_version <= $1)
		ORDER BY position`, version)
	if err == nil {
		_, err = pgx.ForEachRow(rows, []any{&made, &set.edition, &v.name, &v.definition}, func() error {
			set.views = append(set.views, v)
			return nil
		})
	}
	if err != nil {
		return viewSet{}, 0, fmt.Errorf("read which views were made: %w", err)
	}
	return set, made, nil
}

func (s viewSet) names() []string {
	names := make([]string, len(s.views))
	for i, v := range s.views {
		names[i] = v.name
	}
	return names
}

// apply makes the views of the set that are not there as they should be, drops those
// that only an earlier set had, and gives rights back on what it had to drop. Where a
// later set was made for this version of the schema, it does nothing.
func (s viewSet) apply(ctx context.Context, tx pgx.Tx, version uint, before []right) error {
	old, made, err := madeViews(ctx, tx, version)
	if err != nil || made == version && old.edition > s.edition {
		return err
	}
	names := s.names()
	gone := slices.DeleteFunc(old.names(), func(name string) bool { return slices.Contains(names, name) })
	c := viewChange{tx, append(names, gone...)}
	stale := gone
	for _, v := range s.views {
		if !slices.Contains(old.views, v) {
			stale = append(stale, v.name)
		}
	}
	if err := c.lock(ctx, stale); err != nil {
		return err
	}
	for _, v := range s.views {
		there, err := c.readers(ctx, v.name)
		if err != nil {
			return err
		}
		if len(there) > 0 && slices.Contains(old.views, v) {
			continue
		}
		if err := c.replace(ctx, v); err != nil {
			return fmt.Errorf("make view %s: %w", v.name, err)
		}
	}
	if err := c.drop(ctx, gone...); err != nil {
		return err
	}
	if err := giveBack(ctx, tx, before); err != nil {
		return err
	}
	return s.record(ctx, tx, version)
}

// record notes what was made.
func (s viewSet) record(ctx context.Context, tx pgx.Tx, version uint) error {
	if _, err := tx.Exec(ctx, "DELETE FROM upcall.schema_views WHERE schema_version = $1", version); err != nil {
		return fmt.Errorf("record views: %w", err)
	}
	for i, v := range s.views {
		if _, err := tx.Exec(ctx, `
			INSERT INTO upcall.schema_views (schema_version, name, position, edition, definition) VALUES ($1, $2, $3, $4, $5)`,
			version, v.name, i, s.edition, v.definition); err != nil {
			return fmt.Errorf("record views: %w", err)
		}
	}
	return nil
}

// dropViews drops all views that were made for a version of the schema.
func dropViews(ctx context.Context, tx pgx.Tx, version uint) error {
	set, _, err := madeViews(ctx, tx, version)
	if err != nil {
		return err
	}
	return viewChange{tx, set.names()}.drop(ctx, set.names()...)
}

// bringBackViews makes the views that were made for the version that the schema has now,
// and forgets those of later ones.
func bringBackViews(ctx context.Context, conn *pgx.Conn, before []right) error {
	state, err := StatusOf(ctx, conn)
	if err != nil {
		return err
	}
	if state.Dirty {
		state.Version++ // the migration that failed has changed nothing
	}
	return changeViews(ctx, conn, viewTries, func(tx pgx.Tx) error {
		if state.Version < viewsSince {
			return giveBack(ctx, tx, before) // the migration has made them
		}
		if _, err := tx.Exec(ctx, "DELETE FROM upcall.schema_views WHERE schema_version > $1", state.Version); err != nil {
			return fmt.Errorf("forget views: %w", err)
		}
		set, made, err := madeViews(ctx, tx, state.Version)
		if err != nil || made != state.Version {
			return err
		}
		return set.apply(ctx, tx, state.Version, before)
	})
}

// A viewChange changes views in a transaction.
type viewChange struct {
	tx   pgx.Tx
	ours []string // all views that are ours, those that were too; each behind those that it reads
}

// readers returns which of these views are there, and all of ours that read one of them.
// Each comes before those that it reads: in this order queries lock them, so whoever
// locks them in the same order never waits for a query that waits for them.
func (c viewChange) readers(ctx context.Context, names ...string) ([]string, error) {
	rows, err := c.tx.Query(ctx, `
		WITH RECURSIVE ours AS (
			SELECT oid, relname FROM pg_class
			WHERE relnamespace = 'upcall'::regnamespace AND relkind = 'v' AND relname = ANY ($1::text[])
		), reader AS (
			SELECT oid, relname FROM ours WHERE relname = ANY ($2::text[])
			UNION
			SELECT ours.oid, ours.relname
			FROM reader
			JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = reader.oid AND d.classid = 'pg_rewrite'::regclass
			JOIN pg_rewrite rule ON rule.oid = d.objid
			JOIN ours ON ours.oid = rule.ev_class
		)
		SELECT relname FROM reader ORDER BY array_position($1::text[], relname::text) DESC`, c.ours, names)
	if err != nil {
		return nil, fmt.Errorf("look for views: %w", err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("look for views: %w", err)
	}
	return found, nil
}

// lock locks views before one of them is changed.
func (c viewChange) lock(ctx context.Context, names []string) error {
	names, err := c.readers(ctx, names...)
	if err != nil {
		return err
	}
	for _, name := range names {
		// Changes nothing. LOCK TABLE would lock the tables, too, that the view reads.
		if _, err := c.tx.Exec(ctx, fmt.Sprintf("ALTER VIEW %s SET SCHEMA %s", inSchema(name), schema)); err != nil {
			return fmt.Errorf("lock view %s: %w", name, err)
		}
	}
	return nil
}

// replace makes a view. If its columns did not just grow, it and what reads it is dropped before.
func (c viewChange) replace(ctx context.Context, v view) error {
	err := c.try(ctx, v.definition)
	if codeOf(err) != invalidDefinition {
		return err
	}
	if err := c.drop(ctx, v.name); err != nil {
		return err
	}
	_, err = c.tx.Exec(ctx, v.definition)
	return err
}

// try executes SQL so that the transaction can go on if it fails.
func (c viewChange) try(ctx context.Context, sql string) error {
	return pgx.BeginFunc(ctx, c.tx, func(nested pgx.Tx) error {
		_, err := nested.Exec(ctx, sql)
		return err
	})
}

// drop drops views, and those of ours that read them.
func (c viewChange) drop(ctx context.Context, names ...string) error {
	names, err := c.readers(ctx, names...)
	if err != nil || len(names) == 0 {
		return err
	}
	for i := range names {
		names[i] = inSchema(names[i])
	}
	if _, err := c.tx.Exec(ctx, "DROP VIEW "+strings.Join(names, ", ")); err != nil {
		return fmt.Errorf("drop views: %w", err)
	}
	return nil
}

func inSchema(name string) string { return pgx.Identifier{schema, name}.Sanitize() }

// changeViews does the work in a transaction, and again if views are in use.
func changeViews(ctx context.Context, conn *pgx.Conn, tries int, work func(pgx.Tx) error) error {
	for {
		err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			// Without schemas to search, PostgreSQL's errors name views in full.
			if _, err := tx.Exec(ctx, "SET LOCAL lock_timeout = '"+viewLockTimeout+"'; SET LOCAL search_path = ''"); err != nil {
				return fmt.Errorf("prepare to change views: %w", err)
			}
			return work(tx)
		})
		code := codeOf(err)
		tries--
		switch {
		case err == nil:
			return nil
		case code == stillNeeded:
			var pgErr *pgconn.PgError
			errors.As(err, &pgErr)
			return fmt.Errorf("%w: %s: drop that, do this again, and make it anew: %w",
				ErrViews, fault.Line(strings.ReplaceAll(pgErr.Detail, "\n", "; ")), err)
		case code != lockNotAvailable && code != deadlock:
			return fmt.Errorf("%w: %w", ErrViews, fault.OneLine(err))
		case tries == 0:
			return fmt.Errorf("%w: queries read them all the time: end the longest, or do this again later: %w", ErrViews, err)
		}
		select {
		case <-time.After(viewPause):
		case <-ctx.Done():
			return fmt.Errorf("%w: queries read them: %w", ErrViews, ctx.Err())
		}
	}
}

func codeOf(err error) string {
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) {
		return pgErr.Code
	}
	return ""
}
