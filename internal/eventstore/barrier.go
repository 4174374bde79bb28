package eventstore

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// barrier is the condition of a statement whose result is told to someone. It is never true,
// and evaluating it writes a WAL record, so that the commit waits for the synchronous
// standby to have everything up to that point.
//
// A transaction that writes nothing waits for nobody. Without the barrier a batch of repeats
// would call a row recorded whose own commit was cut short while it waited: it is visible
// here, but not on the standby that is promoted next. The function must stand where
// PostgreSQL cannot skip it; a query in WITH that nothing reads is not run.
const barrier = "pg_logical_emit_message(true, 'upcall', '') IS NULL"

// errNotReplicated says that a transaction was committed on this server alone.
var errNotReplicated = errors.New("committed, but possibly not on the synchronous standby")

// notReplicated is where [noteWarning] leaves a mark on the connection.
const notReplicated = "upcall_not_replicated"

// noteWarning marks a connection whose commit did not wait for the standby to the end:
// PostgreSQL says so in a warning only, and answers as if nothing had happened. It is known by
// the function that raised it, because its text is translated and its SQLSTATE is that of any
// warning (SyncRepWaitForLSN in src/backend/replication/syncrep.c).
func noteWarning(conn *pgconn.PgConn, warning *pgconn.Notice) {
	if warning.Routine == "SyncRepWaitForLSN" {
		conn.CustomData()[notReplicated] = true
	}
}

// replicated returns errNotReplicated if what run has just committed was not replicated.
func replicated(conn *pgx.Conn, run func() error) error {
	marks := conn.PgConn().CustomData()
	delete(marks, notReplicated) // of a statement that nobody asked about
	if err := run(); err != nil {
		return err
	}
	if marks[notReplicated] != nil {
		return errNotReplicated
	}
	return nil
}

// queryRow scans the one row of a statement that holds a barrier.
func queryRow(ctx context.Context, pool *pgxpool.Pool, found *bool, sql string, args ...any) error {
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer conn.Release()
	return replicated(conn.Conn(), func() error { return conn.QueryRow(ctx, sql, args...).Scan(found) })
}
