package migrations

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"upcall/internal/fault"
)

var (
	// ErrVariable says that there can be no index on a variable of that name.
	ErrVariable = errors.New("not a variable that can be indexed")
	// ErrNoIndex says that there is no index on that variable.
	ErrNoIndex = errors.New("there is no index on the variable")
	// ErrNotOwner says that only the owner of the tables can do this.
	ErrNotOwner = errors.New("the role does not own the tables")
)

const (
	// maxVariable is how many bytes the name of an indexed variable may have: PostgreSQL stores
	// it twice in a row of pg_index, which must fit on a page.
	maxVariable = 255
)

// A VariableIndex makes vars->>'NAME' = 'VALUE' quick.
//
// It is of the method spgist, because an upload must be recorded whatever the value: btree
// refuses values above 2,704 bytes, and hash takes the longer for a row, the more rows have the
// same value (for 400,000 equal ones 14 times as long as spgist).
type VariableIndex struct {
	Variable   string
	Name       string // of the index
	Partitions int    // of upload_events
	Missing    int    // partitions that have no such index yet
	Bytes      int64  // on disk
	Scans      int64  // how often queries used it, since PostgreSQL's statistics were reset
}

// plainVariable are names that can be part of an index's.
var plainVariable = regexp.MustCompile(`^[a-z0-9_]{1,24}$`)

// variableIndex returns the index on a variable. The name of it is the variable's if that is
// short and simple, and else a digest, under another prefix.
func variableIndex(variable string) partitionedIndex {
	suffix := "_var_" + variable
	if !plainVariable.MatchString(variable) {
		suffix = fmt.Sprintf("_vars_%.16x", sha256.Sum256([]byte(variable)))
	}
	return partitionedIndex{name: "upload_events" + suffix, suffix: suffix, analyze: true,
		// Rows without the variable are in it, because PostgreSQL has no statistics from an index
		// with a condition, and would plan for 0.5 % of all rows.
		columns: "USING spgist ((" + variableValue(variable) + "))"}
}

// variableValue is the expression that the index on a variable is on.
func variableValue(variable string) string {
	return "vars->>'" + strings.ReplaceAll(variable, "'", "''") + "'"
}

// IndexOf returns the name of the index that a variable has, if it was made, and the expression that it is on.
func IndexOf(variable string) (name, expression string) {
	return variableIndex(variable).name, variableValue(variable)
}

// CheckVariable returns an error that wraps [ErrVariable], with the reason.
func CheckVariable(variable string) error {
	bad := func(problem, fix string) error { return fault.New(ErrVariable, "", fix, "%s", problem) }
	switch {
	case variable == "":
		return bad("the name is empty", "give the name that the variable has in vars, as uid")
	case !utf8.ValidString(variable) || strings.ContainsRune(variable, 0):
		return bad("the name is not UTF-8 text without NUL", "give the name that the variable has in vars, as uid")
	case len(variable) > maxVariable:
		return bad(fmt.Sprintf("the name has %d bytes", len(variable)), fmt.Sprintf("index only names of up to %d bytes", maxVariable))
	}
	return nil
}

// AddVariableIndex makes an index on a variable, or continues what was interrupted. It blocks
// neither recording nor reading for more than a moment. The error wraps [ErrNotOwner] if the
// role does not own the table.
func AddVariableIndex(ctx context.Context, databaseURL, variable string, report Report) (made VariableIndex, err error) {
	err = onVariable(ctx, databaseURL, variable, report, func(ctx context.Context, x indexer) error {
		err := x.brief(ctx, "CREATE INDEX IF NOT EXISTS "+pgx.Identifier{x.index.name}.Sanitize()+
			" ON ONLY upcall.upload_events "+x.index.columns)
		if err != nil {
			return err
		}
		if err := x.run(ctx); err != nil {
			return err
		}
		all, err := variableIndexes(ctx, x.conn)
		if i := slices.IndexFunc(all, func(one VariableIndex) bool { return one.Variable == variable }); i >= 0 {
			made = all[i]
		}
		return err
	})
	return made, err
}

// RemoveVariableIndex drops the index on a variable, with what an interrupted run left of it. It
// blocks recording for no longer than a second at a time. The error wraps [ErrNoIndex] if there
// is none, and [ErrNotOwner].
func RemoveVariableIndex(ctx context.Context, databaseURL, variable string, report Report) error {
	return onVariable(ctx, databaseURL, variable, report, func(ctx context.Context, x indexer) error {
		var there bool
		err := x.conn.QueryRow(ctx, "SELECT to_regclass($1) IS NOT NULL", pgx.Identifier{schema, x.index.name}.Sanitize()).Scan(&there)
		if err != nil {
			return fmt.Errorf("look for the index: %w", err)
		}
		if !there {
			return ErrNoIndex
		}
		partitions, err := x.missing(ctx)
		if err != nil {
			return err
		}
		for _, p := range partitions {
			if _, err := x.drop(ctx, p.table, false); err != nil {
				return err
			}
		}
		// The index goes last, so that what an interruption leaves is found again.
		return x.brief(ctx, "DROP INDEX "+pgx.Identifier{schema, x.index.name}.Sanitize())
	})
}

// VariableIndexes returns the indexes on variables, by the names of these.
func VariableIndexes(ctx context.Context, databaseURL string) ([]VariableIndex, error) {
	conn, err := connect(ctx, databaseURL)
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if err := Check(ctx, conn); err != nil {
		return nil, err
	}
	return variableIndexes(ctx, conn)
}

// variableIndexes reads the names of variables in what PostgreSQL says of an index's expression,
// where a quote is doubled.
func variableIndexes(ctx context.Context, conn *pgx.Conn) ([]VariableIndex, error) {
	if _, err := conn.Exec(ctx, "SET standard_conforming_strings = on"); err != nil {
		return nil, fmt.Errorf("list indexes: %w", err)
	}
	rows, _ := conn.Query(ctx, `
		SELECT variable, c.relname, partitions, partitions - count(part.inhrelid),
			coalesce(sum(pg_relation_size(part.inhrelid)), 0)::bigint, coalesce(sum(s.idx_scan), 0)::bigint
		FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
		CROSS JOIN LATERAL (SELECT replace(substring(pg_get_expr(i.indexprs, i.indrelid) from '^\(vars ->> ''(.*)''::text\)$'),
			'''''', '''') AS variable) AS named
		CROSS JOIN (SELECT count(*) AS partitions FROM pg_inherits p
			WHERE inhparent = 'upcall.upload_events'::regclass AND (to_jsonb(p)->>'inhdetachpending')::boolean IS NOT TRUE) AS of
		LEFT JOIN pg_inherits part ON part.inhparent = i.indexrelid
		LEFT JOIN pg_stat_user_indexes s ON s.indexrelid = part.inhrelid
		WHERE i.indrelid = 'upcall.upload_events'::regclass AND c.relname ~ '^upload_events_vars?_' AND variable IS NOT NULL
		GROUP BY variable, c.relname, partitions ORDER BY variable COLLATE "C"`)
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (v VariableIndex, err error) {
		return v, row.Scan(&v.Variable, &v.Name, &v.Partitions, &v.Missing, &v.Bytes, &v.Scans)
	})
	if err != nil {
		return nil, fmt.Errorf("list indexes: %w", err)
	}
	return all, nil
}

// onVariable does the work on an index while it holds the lock of migrations.
func onVariable(ctx context.Context, databaseURL, variable string, report Report, work func(context.Context, indexer) error) error {
	if err := CheckVariable(variable); err != nil {
		return err
	}
	err := locked(ctx, databaseURL, func(ctx context.Context, conn *pgx.Conn) error {
		if err := Check(ctx, conn); err != nil {
			return err
		}
		if _, err := conn.Exec(ctx, "SET standard_conforming_strings = on"); err != nil {
			return fmt.Errorf("prepare to change indexes: %w", err)
		}
		return work(ctx, indexer{conn, variableIndex(variable), report})
	})
	if ServerError(err).Code == insufficientPrivilege {
		return fault.New(ErrNotOwner, "", "run this with the role that owns the tables", "%s", fault.Line(err.Error()))
	}
	return err
}
