package migrations

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"upcall/internal/fault"
)

const (
	// edition numbers the set of views. Every change to a file in views raises it: Up makes the
	// views if the database has a lower edition, and leaves those of a higher edition alone.
	edition = 12
	// viewsSince is the first version of the schema whose views are in those files.
	viewsSince = 5
	// Each try is short because a change that waits for a query blocks all later queries of
	// the same views.
	viewLockTimeout = "1s"
	viewTries       = 10
	viewPause       = time.Second / 2

	invalidDefinition = "42P16" // SQLSTATE: a view's columns would not just grow
	stillNeeded       = "2BP01"
	lockNotAvailable  = "55P03"
	deadlock          = "40P01"
)

// ErrViews says that the tables are up to date but the views are not.
var ErrViews = errors.New("views were not changed")

// A viewSet is the views of a program.
type viewSet struct {
	edition int
	views   []view // each after the views that it reads
	tries   int
}

type view struct {
	name       string
	definition string // SQL that creates or replaces the view and comments on it
}

// ownViews returns the views that are compiled in.
func ownViews() viewSet {
	set := viewSet{edition: edition, tries: viewTries}
	for _, path := range glob("views/*.sql") {
		_, name, _ := strings.Cut(strings.TrimSuffix(path, ".sql"), "_")
		set.views = append(set.views, view{name, read(path)})
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

// make makes the views and restores the rights on those that it drops. It does nothing if the
// database has a newer edition, or this one with all views.
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
	// Queries lock a view before the views that it reads; the same order here prevents
	// deadlocks. The statement changes nothing; LOCK TABLE would also lock the tables that a
	// view reads.
	for _, v := range slices.Backward(s.views) {
		name := pgx.Identifier{schema, v.name}.Sanitize()
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
	const record = "WITH old AS (DELETE FROM upcall.schema_views) INSERT INTO upcall.schema_views (edition) VALUES ($1)"
	if _, err := tx.Exec(ctx, record, s.edition); err != nil {
		return fmt.Errorf("record views: %w", err)
	}
	return nil
}

// forget drops the views and deletes their edition, so that an older program, which has a
// lower edition, makes its own.
func (s viewSet) forget(ctx context.Context, tx pgx.Tx) error {
	if err := s.drop(ctx, tx, s.names()); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, "DELETE FROM upcall.schema_views"); err != nil {
		return fmt.Errorf("forget views: %w", err)
	}
	return nil
}

// replace makes a view. If the view does not only gain columns, it first drops the view and
// those of ours that read it, which come later in the set.
func (s viewSet) replace(ctx context.Context, tx pgx.Tx, v view) error {
	err := pgx.BeginFunc(ctx, tx, func(nested pgx.Tx) error { // so that tx survives an error
		_, err := nested.Exec(ctx, v.definition)
		return err
	})
	if ServerError(err).Code != invalidDefinition {
		return err
	}
	if err := s.drop(ctx, tx, []string{v.name}); err != nil {
		return err
	}
	_, err = tx.Exec(ctx, v.definition)
	return err
}

// drop drops views and all of ours that read them.
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

// changeViews does the work in a transaction, and retries if views are in use.
func changeViews(ctx context.Context, conn *pgx.Conn, tries int, work func(pgx.Tx) error) error {
	for {
		err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			// Without a search path, PostgreSQL's errors name views in full.
			if _, err := tx.Exec(ctx, "SET LOCAL lock_timeout = '"+viewLockTimeout+"'; SET LOCAL search_path = ''"); err != nil {
				return fmt.Errorf("prepare to change views: %w", err)
			}
			return work(tx)
		})
		reported := ServerError(err)
		tries--
		switch {
		case err == nil:
			return nil
		case reported.Code == stillNeeded:
			return fmt.Errorf("%w: %s: drop those, run this again, and create them again: %w",
				ErrViews, fault.Line(strings.ReplaceAll(reported.Detail, "\n", "; ")), err)
		case reported.Code != lockNotAvailable && reported.Code != deadlock:
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
