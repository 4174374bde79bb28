package migrations

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

// AnalystRole may read the views, and nothing else. It belongs to the cluster, so that several
// databases may share it, and no migration drops it.
const AnalystRole = "upcall_analyst"

const (
	// Another database's migration may make the role at this moment, and then changing it, or what
	// depends on it, may fail as an update of the same row of a catalog.
	analystTries = 20
	analystPause = 100 * time.Millisecond

	duplicateObject       = "42710"
	undefinedObject       = "42704"
	uniqueViolation       = "23505"
	internalError         = "XX000" // tuple concurrently updated
	insufficientPrivilege = "42501"
)

// lacking returns the statements that give the role what it lacks, with the names of views as $1. It
// does not grant again what is granted, because a change of a catalog can collide with another.
const lacking = `
	SELECT statement FROM (SELECT (SELECT oid FROM pg_roles WHERE rolname = '` + AnalystRole + `') AS role) AS there
	CROSS JOIN LATERAL (
		SELECT 1 AS step, 'CREATE ROLE ` + AnalystRole + ` NOLOGIN' AS statement WHERE role IS NULL
		UNION ALL
		SELECT 2, 'GRANT USAGE ON SCHEMA upcall TO ` + AnalystRole + `'
		WHERE has_schema_privilege(role, 'upcall', 'USAGE') IS NOT TRUE
		UNION ALL
		SELECT 3, 'GRANT SELECT ON ' || string_agg(format('upcall.%I', relname), ', ' ORDER BY relname) || ' TO ` + AnalystRole + `'
		FROM pg_class WHERE relnamespace = 'upcall'::regnamespace AND relkind = 'v' AND relname = ANY ($1)
			AND has_table_privilege(role, oid, 'SELECT') IS NOT TRUE
		HAVING count(*) > 0
	) AS needed ORDER BY step`

// grantAnalysts makes the role of analysts if it is missing, and lets it read the views. It reports
// the statements that our own role may not run.
func (s viewSet) grantAnalysts(ctx context.Context, conn *pgx.Conn, report func(line string)) error {
	var left []string
	for try := 1; ; try++ {
		err := s.tryGrants(ctx, conn)
		if err == nil {
			left, err = s.lacking(ctx, conn)
		}
		code := ServerError(err).Code
		raced := slices.Contains([]string{duplicateObject, undefinedObject, uniqueViolation, internalError}, code) || lockedOut(err)
		switch {
		case err == nil:
		case raced && try < analystTries:
			select {
			case <-time.After(analystPause):
			case <-ctx.Done():
				return fmt.Errorf("let analysts read the views: %w", ctx.Err())
			}
			continue
		default:
			return fmt.Errorf("let analysts read the views: %w", err)
		}
		break
	}
	if len(left) > 0 {
		report("analysts cannot read the views yet, because this role may not allow it; run this with one that may:")
	}
	for _, statement := range left {
		report("  " + statement + ";")
	}
	return nil
}

// tryGrants runs what is lacking, as far as our role may.
func (s viewSet) tryGrants(ctx context.Context, conn *pgx.Conn) error {
	statements, err := s.lacking(ctx, conn)
	if err != nil {
		return err
	}
	for _, statement := range statements {
		err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, "SET LOCAL lock_timeout = '"+lockTimeout+"'; "+statement)
			return err
		})
		// Without the role, the next statements would fail for that reason.
		if code := ServerError(err).Code; code == insufficientPrivilege {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (s viewSet) lacking(ctx context.Context, conn *pgx.Conn) ([]string, error) {
	rows, err := conn.Query(ctx, lacking, s.names())
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}
