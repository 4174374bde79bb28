package eventstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"upcall/internal/event"
)

// SQLSTATEs that a writer acts upon (PostgreSQL 18 manual, appendix A).
const (
	serializationFailure = "40001"
	deadlockDetected     = "40P01"
	checkViolation       = "23514" // also: there is no partition for the row
)

// A writer commits one batch at a time.
type writer[T any] struct {
	config  Config
	kind    kind[T]
	columns columns
}

func newWriter[T any](config Config, k kind[T]) *writer[T] {
	return &writer[T]{config: config, kind: k, columns: slices.Clone(k.insert.columns)}
}

// record commits the batch, which it sorts, and answers each request in it. It works
// under a time limit of its own: what has begun to commit does not stop because a
// caller has gone.
func (w *writer[T]) record(batch []*request[T]) {
	ctx, cancel := context.WithTimeout(context.Background(), w.config.CommitTimeout)
	defer cancel()
	unique := w.kind.fold(batch)
	answers := w.commitOrSplit(ctx, unique, make([]answer, 0, len(unique)))
	i := -1
	for j, q := range batch {
		if j > 0 && q.id == batch[j-1].id {
			// It was folded: committed along with the first, or failed with it.
			a := answers[i]
			if a.outcome == fresh {
				a.outcome = known
			}
			q.answer <- a
			continue
		}
		i++
		q.answer <- answers[i]
	}
}

// commitOrSplit appends the answer to each row. When PostgreSQL cannot hold the data of a
// batch, or has no partition for some of it, it tries both halves, so that in the end only
// the bad rows fail, after about twice the logarithm of the batch's size in transactions for
// each.
func (w *writer[T]) commitOrSplit(ctx context.Context, rows []*request[T], answers []answer) []answer {
	results, err := w.commitRetry(ctx, rows)
	switch {
	case err == nil:
		for _, q := range rows {
			a := answer{outcome: known}
			if i, ok := slices.BinarySearchFunc(results, q.id, compareResult); ok {
				a.outcome = results[i].outcome
			}
			answers = append(answers, a)
		}
		return answers
	case (errors.Is(err, event.ErrUnstorable) || errors.Is(err, event.ErrExpiring)) && len(rows) > 1:
		half := len(rows) / 2
		answers = w.commitOrSplit(ctx, rows[:half], answers)
		return w.commitOrSplit(ctx, rows[half:], answers)
	}
	for range rows {
		answers = append(answers, answer{err: err})
	}
	return answers
}

// commitRetry tries again where that helps, once for each reason, and sorts errors into
// event.ErrUnstorable and event.ErrUnavailable.
func (w *writer[T]) commitRetry(ctx context.Context, rows []*request[T]) ([]result, error) {
	var repeated, fixed bool
	for {
		results, err := w.commit(ctx, rows)
		if err == nil {
			return results, nil
		}
		switch state := sqlState(err); {
		case (state == serializationFailure || state == deadlockDetected) && !repeated:
			repeated = true
		case state == checkViolation && w.kind.fix != nil && !fixed:
			fixed = true
			if err := w.kind.fix(ctx, w.config.Pool, rows); err != nil {
				return nil, unavailable(err)
			}
		case state == checkViolation && fixed && noPartition(err):
			return nil, fmt.Errorf("%w: %w", event.ErrExpiring, err)
		case isDataError(err):
			return nil, fmt.Errorf("%w: %w", event.ErrUnstorable, err)
		default:
			return nil, unavailable(err)
		}
	}
}

// commit writes the rows in one transaction and returns what became of them, sorted by
// ID; those that are not in it were known.
func (w *writer[T]) commit(ctx context.Context, rows []*request[T]) ([]result, error) {
	start := time.Now()
	conn, err := w.config.Pool.Acquire(ctx)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	defer conn.Release()
	results, err := w.insert(ctx, conn.Conn(), rows)
	if err != nil {
		if !isDataError(err) {
			// Whatever is wrong may be wrong with this connection: to a server that
			// has become a standby, for example. The next attempt gets another one.
			conn.Conn().Close(ctx)
		}
		return nil, err
	}
	w.config.OnBatch(len(rows), time.Since(start))
	return results, nil
}

// A result is what became of one row.
type result struct {
	id      uuid.UUID
	outcome outcome
}

func compareResult(r result, id uuid.UUID) int { return bytes.Compare(r.id[:], id[:]) }

func (w *writer[T]) insert(ctx context.Context, conn *pgx.Conn, rows []*request[T]) ([]result, error) {
	// The first time on a connection this asks the server, later it is a map's business.
	if _, err := conn.Prepare(ctx, w.kind.insert.name, w.kind.insert.sql); err != nil {
		return nil, fmt.Errorf("prepare %s: %w", w.kind.insert.name, err)
	}
	w.columns.reset()
	for _, q := range rows {
		for i, f := range w.kind.fields {
			w.columns[i].add(f.pointer(&q.row))
		}
	}
	parameters := w.columns.parameters()
	conn.PgConn().Frontend().Send(reserveFor(parameters))
	reader := conn.PgConn().ExecPrepared(ctx, w.kind.insert.name, parameters, binaryFormat, binaryFormat)
	results := make([]result, 0, len(rows))
	for reader.NextRow() {
		values := reader.Values()
		results = append(results, result{uuid.UUID(values[0]), outcome(values[1][0])})
	}
	err := replicated(conn, func() error {
		_, err := reader.Close()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("execute %s: %w", w.kind.insert.name, err)
	}
	slices.SortFunc(results, func(a, b result) int { return bytes.Compare(a.id[:], b.id[:]) })
	return results, nil
}

func sqlState(err error) string {
	var pgErr *pgconn.PgError
	if !errors.As(err, &pgErr) {
		return ""
	}
	return pgErr.Code
}

// noPartition tells a missing partition from a constraint, which has a name.
func noPartition(err error) bool {
	var pgErr *pgconn.PgError
	return errors.As(err, &pgErr) && pgErr.ConstraintName == ""
}

// isDataError says whether PostgreSQL cannot hold the values: data exceptions (class 22),
// constraints (23) and limits, such as that of jsonb (54).
func isDataError(err error) bool {
	code := sqlState(err)
	if len(code) != 5 {
		return false
	}
	class := code[:2]
	return class == "22" || class == "23" || class == "54"
}

// unavailable wraps an error of the connection or the server in event.ErrUnavailable.
func unavailable(err error) error { return fmt.Errorf("%w: %w", event.ErrUnavailable, err) }
