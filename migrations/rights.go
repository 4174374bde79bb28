package migrations

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// rights are the owners of our views and the rights on them, as statements that restore them,
// each with its view, the view's oid, and the column if the right is on one.
type rights struct {
	views, statements []string
	oids              []uint32
	columns           []*string
}

// readRights returns the rights on all of our views. Its statements first revoke what default
// privileges grant on a new view.
const readRights = `
	WITH ours AS (
		SELECT oid, relname, relowner, relacl FROM pg_class WHERE relnamespace = 'upcall'::regnamespace AND relkind = 'v'
	), given AS (
		SELECT oid, NULL AS attname, (aclexplode(relacl)).* FROM ours
		UNION ALL
		SELECT ours.oid, attname, (aclexplode(attacl)).* FROM pg_attribute JOIN ours ON attrelid = ours.oid WHERE NOT attisdropped
	), statement AS (
		SELECT 0 AS step, oid, relname, NULL AS attname, format($sql$DO $do$ DECLARE grantee text; BEGIN
			FOR grantee IN SELECT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END
				FROM pg_class c, aclexplode(c.relacl) a WHERE c.oid = 'upcall.%1$I'::regclass AND a.grantee <> c.relowner
			LOOP EXECUTE 'REVOKE ALL ON upcall.%1$I FROM ' || grantee; END LOOP; END $do$ $sql$, relname) AS sql
		FROM ours
		UNION ALL
		SELECT 1, oid, relname, NULL, format('ALTER VIEW upcall.%I OWNER TO %I', relname, pg_get_userbyid(relowner)) FROM ours
		UNION ALL
		SELECT 2, oid, relname, attname, format('GRANT %s %s ON upcall.%I TO %s %s',
			privilege_type, '(' || quote_ident(attname) || ')', relname,
			CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END,
			CASE WHEN is_grantable THEN 'WITH GRANT OPTION' END)
		FROM given JOIN ours USING (oid) WHERE grantee <> relowner
	)
	SELECT coalesce(array_agg(relname::text ORDER BY step), '{}'), coalesce(array_agg(sql ORDER BY step), '{}'),
		coalesce(array_agg(oid ORDER BY step), '{}'), coalesce(array_agg(attname::text ORDER BY step), '{}')
	FROM statement`

func rightsOf(ctx context.Context, conn *pgx.Conn) (rights, error) {
	var r rights
	if err := conn.QueryRow(ctx, readRights).Scan(&r.views, &r.statements, &r.oids, &r.columns); err != nil {
		return rights{}, fmt.Errorf("read rights on views: %w", err)
	}
	return r, nil
}

// giveBack restores the rights on views that were recreated. Rights on removed columns are lost.
func (r rights) giveBack(ctx context.Context, tx pgx.Tx) error {
	rows, _ := tx.Query(ctx, `
		SELECT sql FROM unnest($1::text[], $2::text[], $3::oid[], $4::text[]) WITH ORDINALITY AS given (name, sql, was, attname, n)
		JOIN pg_class c ON c.relnamespace = 'upcall'::regnamespace AND c.relname = given.name AND c.oid <> given.was
		WHERE attname IS NULL OR EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = given.attname)
		ORDER BY n`, r.views, r.statements, r.oids, r.columns)
	statements, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("look for recreated views: %w", err)
	}
	for _, statement := range statements {
		if _, err := tx.Exec(ctx, statement); err != nil {
			return fmt.Errorf("restore rights on views: %w", err)
		}
	}
	return nil
}
