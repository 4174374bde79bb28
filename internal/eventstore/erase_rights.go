package eventstore

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"upcall/internal/fault"
)

// mayErase returns an error that wraps [ErrMistake] unless our role has the rights of the owner of all
// tables: partitions are read and locked by their own names, and what was begun could not be finished.
func (x *Eraser) mayErase(ctx context.Context) error {
	var role, owners string
	_, err := execOne(ctx, x.pool, func(rows pgx.Rows) error {
		if !rows.Next() {
			return rows.Err()
		}
		return rows.Scan(&role, &owners)
	}, `SELECT quote_ident(current_user), string_agg(DISTINCT quote_ident(pg_get_userbyid(relowner)), ', ')
		FROM pg_class WHERE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = 'upcall') AND relkind IN ('r', 'p')
			AND NOT pg_has_role(relowner, 'USAGE')
		HAVING count(*) > 0`)
	if err != nil {
		return fmt.Errorf("erase: look up rights: %w", unavailable(err))
	}
	if owners == "" {
		return nil
	}
	return fault.New(ErrMistake, "UPCALL_DATABASE_URL",
		fmt.Sprintf("run this with that role, or let a superuser run: GRANT %s TO %s", owners, role),
		"the tables belong to the role %s, and the role %s may not erase in them", owners, role)
}
