package migrations

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"upcall/internal/fault"
)

//go:embed views/*.sql
var viewFiles embed.FS

const (
	// edition numbers the views. Every change to a file in views raises it: the views are
	// made when the database has a lower one, and an older program leaves them alone.
	edition = 1
	// viewsSince is the first version of the schema that has its views from those files.
	viewsSince = 5
	// A query keeps the views that it reads from being changed, and a change that waits
	// blocks all later queries on them: so each try is short.
	viewLockTimeout = "1s"
	viewTries       = 10
	viewPause       = time.Second / 2

	invalidDefinition = "42P16" // SQLSTATE: a view's columns would not just grow
	stillNeeded       = "2BP01"
	lockNotAvailable  = "55P03"
	deadlock          = "40P01"
)

// ErrViews says that the tables are as they should be, and that the views are not.
var ErrViews = errors.New("views were not changed")

// A viewSet is the views of a program.
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

func (s viewSet) names() []string {
	names := make([]string, len(s.views))
	for i, v := range s.views {
		names[i] = v.name
	}
	return names
}

// make makes the views, unless they were made by this program or a newer one and all of them
// are there, and gives rights back on those that it had to drop.
func (s viewSet) make(ctx context.Context, tx pgx.Tx, before rights) error {
	var made, there int
	err := tx.QueryRow(ctx, `SELECT coalesce(max(edition), 0), (SELECT count(*) FROM pg_class
		WHERE relnamespace = 'upcall'::regnamespace AND relkind = 'v' AND relname = ANY ($1)) FROM upcall.schema_views`,
		s.names()).Scan(&made, &there)
	if err != nil {
		return fmt.Errorf("read which views were made: %w", err)
	}
	if made > s.edition || made == s.edition && there == len(s.views) {
		return nil
	}
	// Queries lock a view before those that it reads. In the same order, the change never
	// waits for a query that waits for it. The statement changes nothing; LOCK TABLE would
	// lock the tables that a view reads, too.
	for i := range s.views {
		name := inSchema(s.views[len(s.views)-1-i].name)
		if _, err := tx.Exec(ctx, fmt.Sprintf("ALTER VIEW IF EXISTS %s SET SCHEMA %s", name, schema)); err != nil {
			return fmt.Errorf("lock view %s: %w", name, err)
		}
	}
	for _, v := range s.views {
		if err := s.replace(ctx, tx, v); err != nil {
			return fmt.Errorf("make view %s: %w", v.name, err)
		}
	}
	if err := before.giveBack(ctx, tx); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, "DELETE FROM upcall.schema_views"); err != nil {
		return fmt.Errorf("record views: %w", err)
	}
	if _, err := tx.Exec(ctx, "INSERT INTO upcall.schema_views (edition) VALUES ($1)", s.edition); err != nil {
		return fmt.Errorf("record views: %w", err)
	}
	return nil
}

// forget drops the views, and their number: the program of the version that the schema
// goes back to has a lower one, and is to create its own.
func (s viewSet) forget(ctx context.Context, tx pgx.Tx) error {
	if err := s.drop(ctx, tx, s.names()); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, "DELETE FROM upcall.schema_views"); err != nil {
		return fmt.Errorf("forget views: %w", err)
	}
	return nil
}

// replace makes a view. If its columns do not just grow, it is dropped before, with those of
// ours that read it, which come later in the set.
func (s viewSet) replace(ctx context.Context, tx pgx.Tx, v view) error {
	err := pgx.BeginFunc(ctx, tx, func(nested pgx.Tx) error { // so that tx can go on
		_, err := nested.Exec(ctx, v.definition)
		return err
	})
	if codeOf(err) != invalidDefinition {
		return err
	}
	if err := s.drop(ctx, tx, []string{v.name}); err != nil {
		return err
	}
	_, err = tx.Exec(ctx, v.definition)
	return err
}

// drop drops views, and all of ours that read them.
func (s viewSet) drop(ctx context.Context, tx pgx.Tx, names []string) error {
	var dropped *string
	err := tx.QueryRow(ctx, `
		WITH RECURSIVE reader AS (
			SELECT oid, relname FROM pg_class
			WHERE relnamespace = 'upcall'::regnamespace AND relkind = 'v' AND relname = ANY ($2)
			UNION
			SELECT c.oid, c.relname
			FROM reader
			JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = reader.oid AND d.classid = 'pg_rewrite'::regclass
			JOIN pg_rewrite rule ON rule.oid = d.objid
			JOIN pg_class c ON c.oid = rule.ev_class AND c.relnamespace = 'upcall'::regnamespace AND c.relname = ANY ($1)
		)
		SELECT string_agg(format('upcall.%I', relname), ', ') FROM reader`, s.names(), names).Scan(&dropped)
	if err != nil {
		return fmt.Errorf("look for views: %w", err)
	}
	if dropped == nil {
		return nil
	}
	if _, err := tx.Exec(ctx, "DROP VIEW "+*dropped); err != nil {
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
			return fmt.Errorf("%w: %s: drop those, run this again, and create them again: %w",
				ErrViews, fault.Line(strings.ReplaceAll(pgErr.Detail, "\n", "; ")), err)
		case code != lockNotAvailable && code != deadlock:
			return fmt.Errorf("%w: %w", ErrViews, fault.OneLine(err))
		case tries == 0:
			return fmt.Errorf("%w: long queries are reading them: end the longest, or run this again later: %w", ErrViews, err)
		}
		select {
		case <-time.After(viewPause):
		case <-ctx.Done():
			return fmt.Errorf("%w: queries are reading them: %w", ErrViews, ctx.Err())
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
