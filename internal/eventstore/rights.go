package eventstore

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/fault"
	"upcall/migrations"
)

// SQLSTATEs of connections and rights that no waiting changes (PostgreSQL 18 manual, appendix A).
const (
	invalidAuthorization  = "28000" // no such role, or pg_hba.conf has no entry for it
	invalidPassword       = "28P01"
	noSuchDatabase        = "3D000"
	insufficientPrivilege = "42501"
	protocolViolation     = "08P01" // of a pooler, whatever it is
)

// ErrMistake says that a person must change the database URL or the database.
var ErrMistake = errors.New("wrong setting of the database")

// Mistake returns what is to be changed if that is why the database did not work, as an
// error that wraps [ErrMistake]; nil if err may pass, as an outage does.
func Mistake(err error) error {
	server, fix := migrations.ServerError(err), ""
	switch server.Code {
	case invalidPassword, invalidAuthorization:
		fix = fixUser
	case noSuchDatabase:
		fix = fixDatabase
	case insufficientPrivilege:
		fix = "grant the rights that docs/database.md lists under Roles"
	case protocolViolation:
		fix = poolerFix(server.Message)
	}
	if fix == "" {
		return nil
	}
	return fault.New(ErrMistake, "UPCALL_DATABASE_URL", fix, "%s (SQLSTATE %s)", fault.Line(server.Message), server.Code)
}

const (
	fixUser     = "set UPCALL_DATABASE_URL to postgres://USER:PASSWORD@HOST/DATABASE with a user that may log in"
	fixDatabase = "create it, or name another one; then run receiver migrate up"
)

// poolerFix returns what to change if a pooler refuses what the URL says; "" if PostgreSQL may be
// away. PgBouncer has one SQLSTATE for both and passes PostgreSQL's own words on with it, so that
// only the text tells them apart: "server login has been failing, try again later" is an outage.
// Its own texts are not translated. One that is not known here counts as an outage, because a
// receiver that waits with its fallback loses nothing.
func poolerFix(message string) string {
	has := func(texts ...string) bool {
		return slices.ContainsFunc(texts, func(text string) bool { return strings.Contains(message, text) })
	}
	switch {
	case has("password authentication failed", "SASL authentication failed", "no such user"),
		has("role \"") && has("does not exist", "is not permitted to log in"):
		return fixUser + ", which the pooler knows, too"
	case has("no such database"), has("database \"") && has("does not exist"):
		return fixDatabase + "; the pooler must know it, too"
	case has("unsupported startup parameter"):
		return "it is a pooler that says so: leave what it names out of the URL, or add it to the pooler's configuration"
	case has("statement pooling mode"):
		return "set pool_mode = transaction in the pooler's configuration"
	}
	return ""
}

// Rights are what a program's role needs, of each table in the schema upcall.
type Rights map[string][]string

// ReceiverRights returns those of receiver serve. To make partitions and to drop old rows,
// the role must own the tables, too.
func ReceiverRights() Rights {
	return Rights{
		"schema_migrations": {"SELECT"},
		"upload_events":     {"SELECT", "INSERT"},
		"callback_ids":      {"SELECT", "INSERT"},
		"revoked_uploads":   {"SELECT"},
		"refused_callbacks": {"SELECT", "INSERT", "DELETE"},
		"erasures":          {"SELECT"},
		"feed_log":          {"SELECT"},
		"feed_moved":        {"SELECT"},
		"feed_timelines":    {"SELECT", "INSERT", "UPDATE"},
		"feed_consumers":    {"SELECT", "INSERT", "UPDATE", "DELETE"},
		"hook_changes":      {"SELECT", "UPDATE"},
		"hook_endpoints":    {"SELECT", "INSERT", "UPDATE", "DELETE"},
		"hook_retries":      {"SELECT", "INSERT", "UPDATE", "DELETE"},
		"hook_attempts":     {"SELECT", "INSERT", "DELETE"},
		"hook_counts":       {"SELECT", "INSERT", "UPDATE", "DELETE"},
		"api_keys":          {"SELECT"},

		"findings":        {"SELECT", "INSERT"},
		"confirmations":   {"SELECT", "INSERT"},
		"confirm_retries": {"SELECT", "INSERT", "UPDATE", "DELETE"},
		"removals":        {"SELECT", "INSERT", "UPDATE"},

		"rollup_generations":  {"SELECT", "UPDATE"},
		"rollup_hourly":       {"SELECT", "INSERT", "UPDATE", "DELETE"},
		"rollup_objects":      {"SELECT", "INSERT", "UPDATE", "DELETE"},
		"rollup_versions":     {"SELECT", "INSERT", "DELETE"},
		"rollup_superseded":   {"SELECT", "INSERT", "DELETE"},
		"rollup_days":         {"SELECT", "INSERT", "UPDATE"},
		"rollup_funnel":       {"SELECT", "INSERT", "DELETE"},
		"rollup_overwritten":  {"SELECT", "INSERT", "UPDATE"},
		"issued_uploads":      {"SELECT"},
		"rollup_dead_letters": {"SELECT", "INSERT"},
		"notifications":       {"SELECT", "INSERT", "UPDATE", "DELETE"},
		"recovered_uploads":   {"SELECT", "INSERT"},
		"reconcile_runs":      {"SELECT", "INSERT", "UPDATE", "DELETE"},
		"reconcile_objects":   {"SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE"},
	}
}

// IssuerRights returns those of issuer serve and of the commands that issue uploads.
func IssuerRights() Rights {
	return Rights{
		"schema_migrations":   {"SELECT"},
		"issued_uploads":      {"SELECT", "INSERT"},
		"revoked_uploads":     {"SELECT", "INSERT"},
		"api_keys":            {"SELECT"},
		"upload_events":       {"SELECT"},
		"upload_status":       {"SELECT"},
		"repeatable_requests": {"SELECT", "INSERT", "UPDATE", "DELETE"},
	}
}

// Check returns an error that wraps [ErrMistake] and says what to grant if the pool's role
// lacks a right. Tables that are not there yet count as none.
func (r Rights) Check(ctx context.Context, pool *pgxpool.Pool) error {
	var tables, rights []string
	for _, table := range slices.Sorted(maps.Keys(r)) {
		for _, right := range r[table] {
			tables, rights = append(tables, table), append(rights, right)
		}
	}
	rows, err := pool.Query(ctx, `
		SELECT 'GRANT USAGE ON SCHEMA upcall TO ' || quote_ident(current_user), current_user::text, 0 AS place
		FROM pg_namespace WHERE nspname = 'upcall' AND NOT has_schema_privilege(oid, 'USAGE')
		UNION ALL
		SELECT 'GRANT ' || string_agg("right", ', ' ORDER BY place) || ' ON upcall.' || relname || ' TO ' || quote_ident(current_user),
			current_user, min(place)
		FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS needed ("table", "right", place)
		JOIN pg_class c ON relname = "table" JOIN pg_namespace n ON n.oid = relnamespace AND nspname = 'upcall'
		WHERE NOT has_table_privilege(c.oid, "right") GROUP BY relname ORDER BY place`, tables, rights)
	if err != nil {
		return fmt.Errorf("look up rights: %w", err)
	}
	var grants []string
	var grant, role string
	var place int
	_, err = pgx.ForEachRow(rows, []any{&grant, &role, &place}, func() error { grants = append(grants, grant); return nil })
	if err != nil {
		return fmt.Errorf("look up rights: %w", err)
	}
	if len(grants) == 0 {
		return nil
	}
	return fault.New(ErrMistake, "UPCALL_DATABASE_URL", "as the owner of the tables, run: "+strings.Join(grants, "; "),
		"the database role %q lacks rights", role)
}
