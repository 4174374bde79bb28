package migrations

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/golang-migrate/migrate/v4"
	"github.com/golang-migrate/migrate/v4/database"
	"github.com/jackc/pgx/v5"
)

const (
	// lockTimeout is how long a statement of a migration waits for a table that is in use.
	// While it waits, it blocks all later statements on that table, such as those that
	// record callbacks. So it gives up soon, and tries again after lockPause.
	lockTimeout = "1s"
	lockPause   = time.Second
	lockTries   = 60
)

// step applies one migration, or rolls one back with -1. If a table is in use for too long,
// nothing has changed but the mark of a failure, which it removes before it tries again.
func step(ctx context.Context, m *migrate.Migrate, direction int) error {
	before := database.NilVersion
	version, _, err := m.Version()
	if err == nil {
		before = int(version)
	} else if !errors.Is(err, migrate.ErrNilVersion) {
		return err
	}
	return retryLocks(ctx, func() error {
		err := m.Steps(direction)
		if failed, ok := errors.AsType[database.Error](err); ok && lockedOut(failed.OrigErr) {
			return cmp.Or(m.Force(before), failed.OrigErr)
		}
		return err
	})
}

// retryLocks repeats work while it fails because something is in use.
func retryLocks(ctx context.Context, work func() error) error {
	for try := 1; ; try++ {
		err := work()
		if !lockedOut(err) || try == lockTries {
			return err
		}
		select {
		case <-time.After(lockPause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func lockedOut(err error) bool {
	code := ServerError(err).Code
	return code == lockNotAvailable || code == deadlock
}

// lock waits for its turn. It polls because a session that waits in the server holds a
// snapshot, and a migration that waits for all snapshots would never end.
func lock(ctx context.Context, conn *pgx.Conn) error {
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		var locked bool
		if err := conn.QueryRow(ctx, "SELECT pg_try_advisory_lock($1)", LockMigrations).Scan(&locked); err != nil {
			return fmt.Errorf("lock the schema for migration: %w", err)
		}
		if locked {
			return nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("wait for another migration: %w", ctx.Err())
		}
	}
}
