package eventstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/fault"
	"upcall/migrations"
)

// An Analyst is a role that may log in and reads the views, as a member of
// [migrations.AnalystRole].
type Analyst struct {
	Name     string   `json:"name"`
	Login    bool     `json:"login"`
	Made     bool     `json:"made"`     // by [Analysts.Add]; others became members otherwise
	Sessions int      `json:"sessions"` // of all databases of the cluster, now
	Settings []string `json:"settings"` // that its sessions begin with, as name=value
}

// Analysts are the members of the role of analysts. They belong to the cluster: databases share them.
type Analysts struct {
	pool *pgxpool.Pool
}

// NewAnalysts returns those of the cluster of a pool from [Open], whose role may make roles.
func NewAnalysts(pool *pgxpool.Pool) *Analysts { return &Analysts{pool} }

var (
	// ErrAnalystName says that a name cannot be that of an analyst.
	ErrAnalystName = errors.New("not a name for an analyst")
	// ErrNotOurs says that a role was not made by [Analysts.Add].
	ErrNotOurs = errors.New("the role was not made by receiver analyst add")
	// ErrInUse says that a role owns something, or has rights of its own.
	ErrInUse = errors.New("the role is in use")

	analystName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,62}$`)
)

const (
	// analystMark is the comment of the roles that we made, and may drop.
	analystMark = "An analyst of Upcall, made by receiver analyst add."

	dependentObjects = "2BP01"
	undefinedObject  = "42704"
)

// analystSettings are what an analyst's sessions begin with. They keep from accidents: whoever
// is logged in can change them. Rights are what they cannot change.
var analystSettings = []struct{ name, value string }{
	{"default_transaction_read_only", "on"},
	{"statement_timeout", "60s"},
	{"idle_in_transaction_session_timeout", "60s"},
	{"jit", "off"}, // compiling costs more than these queries take
	{"search_path", "upcall, public"},
}

// CheckAnalystName returns an error that wraps [ErrAnalystName], with the reason.
func CheckAnalystName(name string) error {
	why := ""
	switch {
	case !analystName.MatchString(name):
		why = "give 1 to 63 lowercase letters, digits and underscores, a letter first"
	case strings.HasPrefix(name, "pg_"):
		why = "PostgreSQL reserves names that begin with pg_"
	case name == "public" || name == "none":
		why = "PostgreSQL reserves it"
	case name == migrations.AnalystRole:
		why = "it is the role that all analysts are members of"
	default:
		return nil
	}
	return fault.New(ErrAnalystName, "", why, "%q is %s", name, ErrAnalystName)
}

// Add makes a role that may log in and returns its password, which is stored nowhere. The error
// wraps [ErrExists] if there is a role of that name, whoever made it, and [ErrMistake] if our role
// may not make it, or analysts have no role yet.
func (a *Analysts) Add(ctx context.Context, name string) (password string, err error) {
	if err := CheckAnalystName(name); err != nil {
		return "", err
	}
	password = rand.Text()
	verifier, err := scramVerifier(password)
	if err != nil {
		return "", err
	}
	role := pgx.Identifier{name}.Sanitize()
	statements := []string{
		// The verifier has no quotes in it.
		"CREATE ROLE " + role + " LOGIN PASSWORD '" + verifier + "' IN ROLE " + migrations.AnalystRole,
		"COMMENT ON ROLE " + role + " IS '" + analystMark + "'",
	}
	for _, s := range analystSettings {
		statements = append(statements, "ALTER ROLE "+role+" SET "+s.name+" = "+literal(s))
	}
	err = Transact(ctx, a.pool, func(tx pgx.Tx) error {
		for _, statement := range statements {
			if _, err := tx.Exec(ctx, statement); err != nil {
				return err
			}
		}
		return nil
	})
	switch code := migrations.ServerError(err).Code; {
	case err == nil:
		return password, nil
	case code == duplicateObject || code == uniqueViolation:
		return "", fmt.Errorf("add analyst %s: %w", name, ErrExists)
	case code == undefinedObject:
		return "", fault.New(ErrMistake, "", "run receiver migrate up", "the role %s, which analysts are members of, is missing",
			migrations.AnalystRole)
	case code == insufficientPrivilege:
		return "", a.mistake(ctx, err)
	}
	return "", fmt.Errorf("add analyst: %w", unavailable(err))
}

// literal returns a setting's value in SQL. That of search_path is a list.
func literal(s struct{ name, value string }) string {
	if s.name == "search_path" {
		return s.value
	}
	return "'" + s.value + "'"
}

// mistake says what our role needs to make and drop roles.
func (a *Analysts) mistake(ctx context.Context, err error) error {
	var us string
	if err := a.pool.QueryRow(ctx, "SELECT quote_ident(current_user)").Scan(&us); err != nil {
		return fmt.Errorf("look up role: %w", unavailable(err))
	}
	return fault.New(ErrMistake, "UPCALL_DATABASE_URL", fmt.Sprintf(
		"run this with a superuser, or let one run: ALTER ROLE %s CREATEROLE; GRANT %s TO %[1]s WITH ADMIN OPTION", us, migrations.AnalystRole),
		"the database role may not do this: %s", fault.Line(migrations.ServerError(err).Message))
}

// Members that can neither inherit nor assume the rights of the role have none: since PostgreSQL 16
// whoever makes a role is such a member.
const listAnalysts = `
	SELECT r.rolname::text, r.rolcanlogin, coalesce(shobj_description(r.oid, 'pg_authid') = $2, false),
		(SELECT count(*) FROM pg_stat_activity WHERE usesysid = r.oid),
		coalesce((SELECT setconfig FROM pg_db_role_setting WHERE setrole = r.oid AND setdatabase = 0), '{}')
	FROM pg_roles r WHERE EXISTS (
		SELECT FROM pg_auth_members m WHERE m.member = r.oid AND m.roleid = (SELECT oid FROM pg_roles WHERE rolname = $1)
			AND (coalesce((to_jsonb(m)->>'inherit_option')::boolean, true) OR coalesce((to_jsonb(m)->>'set_option')::boolean, true)))
	ORDER BY r.rolname`

// List returns all members of the role of analysts by name.
func (a *Analysts) List(ctx context.Context) (analysts []Analyst, err error) {
	_, err = execOne(ctx, a.pool, func(rows pgx.Rows) (err error) {
		analysts, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Analyst])
		return err
	}, listAnalysts, migrations.AnalystRole, analystMark)
	if err != nil {
		return nil, fmt.Errorf("list analysts: %w", unavailable(err))
	}
	return analysts, nil
}

// Remove drops a role that Add made, and ends its sessions. It returns how many sessions could not be
// ended. The error wraps [ErrNotFound], [ErrNotOurs], or [ErrInUse] if the role owns something or has
// other rights; then it cannot log in any more.
func (a *Analysts) Remove(ctx context.Context, name string) (sessions int, err error) {
	analysts, err := a.List(ctx)
	if err != nil {
		return 0, err
	}
	var found *Analyst
	for i := range analysts {
		if analysts[i].Name == name {
			found = &analysts[i]
		}
	}
	switch {
	case found == nil:
		return 0, fmt.Errorf("remove analyst %s: %w", name, ErrNotFound)
	case !found.Made:
		return 0, fmt.Errorf("remove analyst %s: %w", name, ErrNotOurs)
	}
	role := pgx.Identifier{name}.Sanitize()
	_, err = execOne(ctx, a.pool, nil, "ALTER ROLE "+role+" NOLOGIN")
	if err == nil {
		sessions, err = a.end(ctx, name)
	}
	if err == nil {
		_, err = execOne(ctx, a.pool, nil, "DROP ROLE "+role)
	}
	switch reported := migrations.ServerError(err); {
	case err == nil:
		return sessions, nil
	case reported.Code == insufficientPrivilege:
		return 0, a.mistake(ctx, err)
	case reported.Code == dependentObjects:
		return 0, fmt.Errorf("%w: %s", ErrInUse, fault.Line(strings.ReplaceAll(reported.Detail, "\n", "; ")))
	}
	return 0, fmt.Errorf("remove analyst: %w", unavailable(err))
}

// end ends the sessions of a role as far as our role may, and returns how many are left.
func (a *Analysts) end(ctx context.Context, name string) (left int, err error) {
	_, err = execOne(ctx, a.pool, nil, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", name)
	if err != nil && migrations.ServerError(err).Code != insufficientPrivilege {
		return 0, err
	}
	for try := 0; ; try++ {
		if err := queryRow(ctx, a.pool, &left, "SELECT count(*) FROM pg_stat_activity WHERE usename = $1", name); err != nil {
			return 0, err
		}
		if left == 0 || try == 20 {
			return left, nil
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return left, err
		}
	}
}
