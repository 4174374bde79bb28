package migrations

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// A right is what somebody may do with a view, or that they own it.
type right struct {
	view string
	oid  uint32 // of the view, another one if it was dropped and made anew
	sql  string // gives the right
}

// rights returns all that were given on views of ours.
func rights(ctx context.Context, conn *pgx.Conn) ([]right, error) {
	rows, err := conn.Query(ctx, `
		SELECT c.relname, c.oid, format('ALTER VIEW upcall.%I OWNER TO %I', c.relname, pg_get_userbyid(c.relowner))
		FROM pg_class c WHERE c.relnamespace = 'upcall'::regnamespace AND c.relkind = 'v'
		UNION ALL
		SELECT c.relname, c.oid, format('GRANT %s %s ON upcall.%I TO %s %s',
			given.privilege_type, '(' || quote_ident(given.attname) || ')', c.relname,
			CASE given.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(given.grantee)) END,
			CASE WHEN given.is_grantable THEN 'WITH GRANT OPTION' END)
		FROM pg_class c CROSS JOIN LATERAL (
			SELECT NULL AS attname, (aclexplode(c.relacl)).*
			UNION ALL
			SELECT attname, (aclexplode(attacl)).* FROM pg_attribute WHERE attrelid = c.oid AND NOT attisdropped
		) given
		WHERE c.relnamespace = 'upcall'::regnamespace AND c.relkind = 'v' AND given.grantee <> c.relowner`)
	if err != nil {
		return nil, fmt.Errorf("read rights on views: %w", err)
	}
	found, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (right, error) {
		var r right
		return r, row.Scan(&r.view, &r.oid, &r.sql)
	})
	if err != nil {
		return nil, fmt.Errorf("read rights on views: %w", err)
	}
	return found, nil
}

// giveBack gives the same rights again on views that were made anew, and no others: what
// default privileges gave meanwhile goes. Rights on columns that are gone are gone.
func giveBack(ctx context.Context, tx pgx.Tx, before []right) error {
	cleared := make(map[string]bool)
	for _, r := range before {
		var remade bool
		if err := tx.QueryRow(ctx, "SELECT coalesce(to_regclass($1)::oid <> $2, false)", inSchema(r.view), r.oid).Scan(&remade); err != nil {
			return fmt.Errorf("look for view %s: %w", r.view, err)
		}
		if !remade {
			continue
		}
		if !cleared[r.view] {
			cleared[r.view] = true
			if err := takeAll(ctx, tx, r.view); err != nil {
				return err
			}
		}
		if err := (viewChange{tx: tx}).try(ctx, r.sql); err != nil && codeOf(err) != undefinedColumn {
			return fmt.Errorf("give rights on view %s again: %w", r.view, err)
		}
	}
	return nil
}

// takeAll takes all rights on a view from all but its owner.
func takeAll(ctx context.Context, tx pgx.Tx, view string) error {
	rows, err := tx.Query(ctx, `
		SELECT DISTINCT format('REVOKE ALL ON upcall.%I FROM %s', c.relname,
			CASE given.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(given.grantee)) END)
		FROM pg_class c CROSS JOIN LATERAL aclexplode(c.relacl) given
		WHERE c.oid = $1::text::regclass AND given.grantee <> c.relowner`, inSchema(view))
	if err != nil {
		return fmt.Errorf("read rights on view %s: %w", view, err)
	}
	statements, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("read rights on view %s: %w", view, err)
	}
	for _, statement := range statements {
		if _, err := tx.Exec(ctx, statement); err != nil {
			return fmt.Errorf("take rights on view %s: %w", view, err)
		}
	}
	return nil
}
