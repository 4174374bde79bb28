package eventstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// SQLSTATEs that a writer acts upon (PostgreSQL 18 manual, appendix A).
const (
	serializationFailure = "40001"
	deadlockDetected     = "40P01"
	checkViolation       = "23514" // also: there is no partition for the row
)

// A writer commits one batch at a time.
type writer struct {
	config  Config
	columns *columns
}

// record commits the batch, which it sorts, and answers each request in it. It works
// under a time limit of its own: what has begun to commit does not stop because a
// caller has gone.
func (w *writer) record(batch []*request) {
	ctx, cancel := context.WithTimeout(context.Background(), w.config.CommitTimeout)
	defer cancel()
	unique := fold(batch)
	outcomes := w.commitOrSplit(ctx, unique, make([]answer, 0, len(unique)))
	i := -1
	for j, q := range batch {
		if j > 0 && q.event.ID == batch[j-1].event.ID {
			// It was folded: committed along with the first, or refused with it.
			q.answer <- answer{duplicate: outcomes[i].err == nil, err: outcomes[i].err}
			continue
		}
		i++
		q.answer <- outcomes[i]
	}
}

// commitOrSplit appends the outcome of each row. When PostgreSQL refuses the data of a
// batch it tries both halves, so that in the end only the bad rows are refused, after
// about twice the logarithm of the batch's size in transactions for each.
func (w *writer) commitOrSplit(ctx context.Context, rows []*request, outcomes []answer) []answer {
	fresh, err := w.commitRetry(ctx, rows)
	switch {
	case err == nil:
		for _, q := range rows {
			_, isNew := slices.BinarySearchFunc(fresh, q.event.ID, compareID)
			outcomes = append(outcomes, answer{duplicate: !isNew})
		}
		return outcomes
	case errors.Is(err, ErrRejected) && len(rows) > 1:
		half := len(rows) / 2
		outcomes = w.commitOrSplit(ctx, rows[:half], outcomes)
		return w.commitOrSplit(ctx, rows[half:], outcomes)
	}
	for range rows {
		outcomes = append(outcomes, answer{err: err})
	}
	return outcomes
}

// commitRetry tries again where that helps, once for each reason, and sorts errors into
// ErrRejected and ErrUnavailable.
func (w *writer) commitRetry(ctx context.Context, rows []*request) ([]uuid.UUID, error) {
	var repeated, ensured bool
	for {
		fresh, err := w.commit(ctx, rows)
		if err == nil {
			return fresh, nil
		}
		switch state := sqlState(err); {
		case (state == serializationFailure || state == deadlockDetected) && !repeated:
			repeated = true
		case state == checkViolation && !ensured:
			ensured = true
			if err := ensureMonths(ctx, w.config.Pool, received(rows)); err != nil {
				return nil, unavailable(err)
			}
		case isDataError(err):
			return nil, fmt.Errorf("%w: %w", ErrRejected, err)
		default:
			return nil, unavailable(err)
		}
	}
}

func received(rows []*request) []time.Time {
	times := make([]time.Time, len(rows))
	for i, q := range rows {
		times[i] = q.event.ReceivedAt
	}
	return times
}

// commit writes the rows in one transaction and returns the IDs that are new, sorted.
func (w *writer) commit(ctx context.Context, rows []*request) ([]uuid.UUID, error) {
	start := time.Now()
	conn, err := w.config.Pool.Acquire(ctx)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	defer conn.Release()
	fresh, err := w.insert(ctx, conn.Conn(), rows)
	if err != nil {
		if !isDataError(err) {
			// Whatever is wrong may be wrong with this connection: to a server that
			// has become a standby, for example. The next attempt gets another one.
			conn.Conn().Close(ctx)
		}
		return nil, err
	}
	w.config.OnBatch(len(rows), time.Since(start))
	return fresh, nil
}

func (w *writer) insert(ctx context.Context, conn *pgx.Conn, rows []*request) ([]uuid.UUID, error) {
	// The first time on a connection this asks the server, later it is a map's business.
	if _, err := conn.Prepare(ctx, insertName, insertEvents); err != nil {
		return nil, fmt.Errorf("prepare insert: %w", err)
	}
	w.columns.fill(rows)
	result := conn.PgConn().ExecPrepared(ctx, insertName, w.columns.params, w.columns.formats, w.columns.formats)
	fresh := make([]uuid.UUID, 0, len(rows))
	for result.NextRow() {
		fresh = append(fresh, uuid.UUID(result.Values()[0]))
	}
	if _, err := result.Close(); err != nil {
		return nil, fmt.Errorf("insert events: %w", err)
	}
	slices.SortFunc(fresh, compareID)
	return fresh, nil
}

func compareID(a, b uuid.UUID) int { return slices.Compare(a[:], b[:]) }

func sqlState(err error) string {
	var pgErr *pgconn.PgError
	if !errors.As(err, &pgErr) {
		return ""
	}
	return pgErr.Code
}

// isDataError says whether PostgreSQL refuses the values: data exceptions (class 22),
// constraints (23) and limits, such as that of jsonb (54).
func isDataError(err error) bool {
	code := sqlState(err)
	if len(code) != 5 {
		return false
	}
	class := code[:2]
	return class == "22" || class == "23" || class == "54"
}

// unavailable wraps an error of the connection or the server in ErrUnavailable.
func unavailable(err error) error { return fmt.Errorf("%w: %w", ErrUnavailable, err) }
