package migrations

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// ErrPooler says that a pooler gives each transaction another session, so that a lock of the
// session protects nothing and stays behind.
var ErrPooler = errors.New("migrations do not work through a pooler in transaction mode: " +
	"give them the address of PostgreSQL itself in UPCALL_DATABASE_URL")

// CheckPooler returns [ErrPooler] if the connection is through such a pooler.
func CheckPooler(ctx context.Context, conn *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	session := func(db interface {
		QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
	}) (pid uint32, err error) {
		var n int64
		err = db.QueryRow(ctx, "SELECT pg_backend_pid()::bigint").Scan(&n)
		return uint32(n), err
	}
	ours, err := session(conn)
	if err != nil || ours == conn.PgConn().PID() {
		return err // which no pooler would have told us
	}
	other, err := pgx.ConnectConfig(ctx, conn.Config())
	if err != nil {
		return fmt.Errorf("connect again: %w", err)
	}
	defer other.Close(context.WithoutCancel(ctx))
	for range 3 {
		// While another connection is in a transaction, ours gets its own session, or whichever is free.
		tx, err := other.Begin(ctx)
		if err != nil {
			return fmt.Errorf("look for a pooler: %w", err)
		}
		theirs, err := session(tx)
		if err == nil && theirs != ours {
			theirs, err = session(conn)
			if theirs == ours {
				theirs = 0
			}
		}
		if err := errors.Join(err, tx.Rollback(ctx)); err != nil {
			return fmt.Errorf("look for a pooler: %w", err)
		}
		if theirs != 0 {
			return ErrPooler
		}
	}
	return nil
}
