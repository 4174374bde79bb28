package eventstore

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/fault"
	"upcall/internal/pgdial"
	"upcall/migrations"
)

const isolation = "default_transaction_isolation"

// held are the settings that a session can keep, and perTransaction those of them that each
// transaction can be given instead. They do not travel in the start-up message: a pooler such
// as PgBouncer refuses them there or, told to ignore them, drops them without a word.
var (
	perTransaction = []string{"synchronous_commit", "client_min_messages", "statement_timeout", "lock_timeout",
		planCacheMode, "enable_seqscan", "enable_bitmapscan", "enable_sort", "jit"}
	held = append([]string{isolation, "default_transaction_read_only", "idle_in_transaction_session_timeout"}, perTransaction...)
)

// pooled is where a connection through a pooler has the statement that each of its
// transactions begins with.
const pooled = "upcall_pooled"

// split takes the settings of sessions out of a configuration and returns them.
func split(config *pgx.ConnConfig) map[string]string {
	settings := make(map[string]string)
	for _, name := range held {
		if value := config.RuntimeParams[name]; value != "" {
			settings[name] = value
			delete(config.RuntimeParams, name)
		}
	}
	return settings
}

// connect opens a connection beside the pool's, with its settings and some others.
func connect(ctx context.Context, pool *pgxpool.Pool, others map[string]string) (*pgx.Conn, error) {
	config := pool.Config().ConnConfig
	maps.Copy(config.RuntimeParams, others)
	settings := split(config)
	conn, err := pgdial.Connect(ctx, config)
	if err != nil {
		return nil, err
	}
	if err := settle(ctx, conn, settings); err != nil {
		conn.Close(ctx)
		return nil, err
	}
	return conn, nil
}

// settle gives a new connection its settings.
//
// If a pooler stands in between, the next transaction may run in another session, so that
// nothing can be set that lasts: each transaction gets the settings that it can be given, and
// its isolation, which no query can change, must be right already. A pooler is known by the
// process that PostgreSQL names and that does not answer.
func settle(ctx context.Context, conn *pgx.Conn, settings map[string]string) error {
	names := slices.Sorted(maps.Keys(settings))
	values := make([]string, len(names))
	for i, name := range names {
		values[i] = settings[name]
	}
	rows, err := conn.Query(ctx, `
		SELECT current_user::text, pg_backend_pid() = $1::bigint, name,
			CASE WHEN pg_backend_pid() = $1::bigint THEN set_config(name, value, false) ELSE current_setting(name) END
		FROM unnest($2::text[], $3::text[]) AS wanted (name, value)`, pgx.QueryExecModeExec, int64(conn.PgConn().PID()), names, values)
	if err != nil {
		return fmt.Errorf("set up connection: %w", err)
	}
	var role, name, value string
	var direct bool
	got := make(map[string]string)
	if _, err := pgx.ForEachRow(rows, []any{&role, &direct, &name, &value}, func() error { got[name] = value; return nil }); err != nil {
		return fmt.Errorf("set up connection: %w", err)
	}
	if direct {
		return nil // it has them all
	}
	conn.PgConn().CustomData()[pooled] = eachTransaction(settings)
	if got[isolation] != settings[isolation] {
		return fault.New(ErrMistake, "UPCALL_DATABASE_URL",
			fmt.Sprintf("run ALTER ROLE %s SET %s = '%s' and restart the pooler, or connect to PostgreSQL itself",
				pgx.Identifier{role}.Sanitize(), isolation, settings[isolation]),
			"the connection has %s = %s, and through a pooler that cannot be changed", isolation, got[isolation])
	}
	return nil
}

// eachTransaction returns the statement that gives a transaction its settings.
func eachTransaction(settings map[string]string) string {
	var calls []string
	for _, name := range perTransaction {
		if value := settings[name]; value != "" {
			calls = append(calls, fmt.Sprintf("set_config('%s', '%s', true)", name, strings.ReplaceAll(value, "'", "''")))
		}
	}
	return "SELECT " + strings.Join(calls, ", ")
}

// execPooled runs the statement of a batch in a transaction that begins with settings. The
// statement has no name: a prepared one may be in another session than the one that runs it.
func execPooled(ctx context.Context, conn *pgconn.PgConn, settings, sql string, parameters [][]byte, row func(values [][]byte)) error {
	pipeline := conn.StartPipeline(ctx)
	pipeline.SendQueryParams(settings, nil, nil, nil, nil)
	pipeline.SendQueryParams(sql, parameters, nil, binaryFormat, binaryFormat)
	err := pipeline.Sync()
	for n := 0; n < 3 && err == nil; n++ { // settings, statement, commit
		var got any
		if got, err = pipeline.GetResults(); err != nil {
			break
		}
		if reader, ok := got.(*pgconn.ResultReader); ok {
			for reader.NextRow() {
				if n == 1 {
					row(reader.Values())
				}
			}
			_, err = reader.Close()
		}
	}
	if closed := pipeline.Close(); err == nil {
		err = closed
	}
	return err
}

// execOne runs one statement that someone relies on, with the pool's settings even through a
// pooler, and returns when the standby has it, too. A nil read ignores what it returns.
func execOne(ctx context.Context, pool *pgxpool.Pool, read func(pgx.Rows) error, sql string, args ...any) (pgconn.CommandTag, error) {
	return Exec(ctx, pool, "", sql, read, args...)
}

// Exec runs one statement in a transaction of its own, with the pool's settings even through a
// pooler, and returns when a synchronous standby has what it wrote, too. Without a pooler,
// a statement with a name is planned once for each connection. A nil read ignores what it
// returns.
func Exec(ctx context.Context, pool *pgxpool.Pool, name, sql string, read func(pgx.Rows) error, args ...any) (pgconn.CommandTag, error) {
	return execThen(ctx, pool, name, sql, "", read, args...)
}

// execThen is Exec with another statement at the end of the same transaction; "" is none.
func execThen(ctx context.Context, pool *pgxpool.Pool, name, sql, last string, read func(pgx.Rows) error, args ...any,
) (pgconn.CommandTag, error) {
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return pgconn.CommandTag{}, fmt.Errorf("connect: %w", err)
	}
	defer conn.Release()
	var batch pgx.Batch
	if settings, ok := conn.Conn().PgConn().CustomData()[pooled].(string); ok {
		batch.Queue(settings).Exec(func(pgconn.CommandTag) error { return nil })
	} else if name != "" {
		// This asks the server only once for each connection.
		if _, err := conn.Conn().Prepare(ctx, name, sql); err != nil {
			return pgconn.CommandTag{}, closeSuspect(ctx, conn.Conn(), fmt.Errorf("prepare %s: %w", name, err))
		}
		sql = name
	}
	var tag pgconn.CommandTag
	batch.Queue(sql, args...).Query(func(rows pgx.Rows) error {
		if read != nil {
			if err := read(rows); err != nil {
				return err
			}
		}
		rows.Close()
		tag = rows.CommandTag()
		return rows.Err()
	})
	if last != "" {
		batch.Queue(last)
	}
	err = replicated(conn.Conn(), func() error { return conn.SendBatch(ctx, &batch).Close() })
	return tag, closeSuspect(ctx, conn.Conn(), err)
}

// Named returns what to run in a transaction of [Transact] instead of a statement: its name, if it is planned
// only once for each connection, or through a pooler the statement itself.
func Named(ctx context.Context, tx pgx.Tx, name, sql string) (string, error) {
	if _, ok := tx.Conn().PgConn().CustomData()[pooled]; ok {
		return sql, nil
	}
	if _, err := tx.Conn().Prepare(ctx, name, sql); err != nil {
		return "", fmt.Errorf("prepare %s: %w", name, err)
	}
	return name, nil
}

// Transact does the work in a transaction, with the pool's settings even through a pooler, and
// returns when a synchronous standby has what it wrote, too.
func Transact(ctx context.Context, pool *pgxpool.Pool, work func(pgx.Tx) error) error {
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer conn.Release()
	err = replicated(conn.Conn(), func() error {
		return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			if settings, ok := conn.Conn().PgConn().CustomData()[pooled].(string); ok {
				if _, err := tx.Exec(ctx, settings); err != nil {
					return err
				}
			}
			return work(tx)
		})
	})
	return closeSuspect(ctx, conn.Conn(), err)
}

// closeSuspect closes a connection that may be at fault for an error, for example because its
// server has become a standby or its session has lost a prepared statement, so that the next
// attempt gets another one. It returns the error.
func closeSuspect(ctx context.Context, conn *pgx.Conn, err error) error {
	if err == nil {
		return nil
	}
	reported := migrations.ServerError(err)
	if reported.SeverityUnlocalized != "ERROR" || reported.Code == objectNotInPrerequisiteState || // such as: recovery is in progress
		hasClass(err, "08", "25", "26", "53", "57", "58", "XX") {
		conn.Close(ctx)
	}
	return err
}
