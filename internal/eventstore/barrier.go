package eventstore

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// barrier is a condition for statements whose result a caller relies on. It is never true, but
// evaluating it writes a WAL record, so that the commit waits until the synchronous standby
// has everything up to that record.
//
// Without it, a transaction that writes nothing does not wait. A batch of repeats would then
// call a row recorded whose own commit was interrupted while it waited: the row is visible
// here, but perhaps not on the standby that is promoted next. PostgreSQL must not be able to
// skip the function: it does not run a query in WITH that nothing reads.
const barrier = Barrier + " IS NULL"

// ReadBarrier is an expression for the result of a statement that only reads what is about to
// leave the process: it has the effect of the barrier where commits wait for a synchronous standby.
// Elsewhere, what is visible was flushed already, as on a standby, which cannot write.
const ReadBarrier = "CASE WHEN current_setting('synchronous_standby_names') <> '' AND NOT pg_is_in_recovery() THEN " + Barrier + " END"

// errNotReplicated says that a transaction may be committed on this server only.
var errNotReplicated = errors.New("committed, but possibly not on the synchronous standby")

// notReplicated is the mark that [noteWarning] leaves on the connection.
const notReplicated = "upcall_not_replicated"

// noteWarning marks a connection whose commit did not wait until the standby had it. PostgreSQL
// only warns, and otherwise answers as usual. The warning is known by the function that raised
// it, because its text is translated and its SQLSTATE is that of any warning
// (SyncRepWaitForLSN in src/backend/replication/syncrep.c).
func noteWarning(conn *pgconn.PgConn, warning *pgconn.Notice) {
	if warning.Routine == "SyncRepWaitForLSN" {
		conn.CustomData()[notReplicated] = true
	}
}

// replicated returns errNotReplicated if what run has just committed was not replicated.
func replicated(conn *pgx.Conn, run func() error) error {
	marks := conn.PgConn().CustomData()
	delete(marks, notReplicated) // of an earlier statement
	if err := run(); err != nil {
		return err
	}
	if marks[notReplicated] != nil {
		return errNotReplicated
	}
	return nil
}

// queryRow scans the only row of a statement with a barrier.
func queryRow[T any](ctx context.Context, pool *pgxpool.Pool, found *T, sql string, args ...any) error {
	_, err := execOne(ctx, pool, func(rows pgx.Rows) (err error) {
		*found, err = pgx.CollectExactlyOneRow(rows, pgx.RowTo[T])
		return err
	}, sql, args...)
	return err
}
