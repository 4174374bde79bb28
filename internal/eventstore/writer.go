package eventstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"upcall/internal/event"
	"upcall/migrations"
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

// record sorts and commits the batch, and answers each request in it. It has its own time
// limit: a commit that has begun does not stop because a caller has gone.
func (w *writer[T]) record(batch []*request[T]) {
	ctx, cancel := context.WithTimeout(context.Background(), w.config.CommitTimeout)
	defer cancel()
	w.commitOrSplit(ctx, w.kind.fold(batch))
}

// commitOrSplit commits and answers rows. When PostgreSQL cannot hold the data of a batch, or
// has no partition for some of it, it tries both halves, so that in the end only the bad rows
// fail. Each costs about twice the logarithm of the batch's size in transactions.
func (w *writer[T]) commitOrSplit(ctx context.Context, rows []*request[T]) {
	results, err := w.commitRetry(ctx, rows)
	if (errors.Is(err, event.ErrUnstorable) || errors.Is(err, event.ErrExpiring)) && len(rows) > 1 {
		half := len(rows) / 2
		w.commitOrSplit(ctx, rows[:half])
		w.commitOrSplit(ctx, rows[half:])
		return
	}
	for _, q := range rows {
		a := answer{outcome: known, err: err}
		if i, ok := slices.BinarySearchFunc(results, q.id, compareResult); ok {
			a.outcome = results[i].outcome
		}
		q.reply(a)
	}
}

// commitRetry retries where that helps, once for each reason, and sorts errors into
// event.ErrUnstorable and event.ErrUnavailable.
func (w *writer[T]) commitRetry(ctx context.Context, rows []*request[T]) ([]result, error) {
	var repeated, fixed bool
	for {
		results, err := w.commit(ctx, rows)
		if err == nil {
			return results, nil
		}
		switch reported := migrations.ServerError(err); {
		case (reported.Code == serializationFailure || reported.Code == deadlockDetected) && !repeated:
			repeated = true
		case reported.Code == checkViolation && w.kind.fix != nil && !fixed:
			fixed = true
			if err := w.kind.fix(ctx, w.config.Pool, rows); err != nil {
				return nil, unavailable(err)
			}
		case reported.Code == checkViolation && fixed && reported.ConstraintName == "": // a missing partition has no name
			return nil, fmt.Errorf("%w: %w", event.ErrExpiring, err)
		case isDataError(err):
			return nil, fmt.Errorf("%w: %w", event.ErrUnstorable, err)
		default:
			return nil, unavailable(err)
		}
	}
}

// commit writes the rows in one transaction and returns their results, sorted by ID. Rows
// without a result were known.
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
			// The connection may be at fault, for example because its server has become a
			// standby. The next attempt gets another connection.
			conn.Conn().Close(ctx)
		}
		return nil, err
	}
	if len(rows) > 0 {
		w.config.OnBatch(len(rows), time.Since(start))
	}
	return results, nil
}

// A result is what became of one row.
type result struct {
	id      uuid.UUID
	outcome outcome
}

func compareResult(r result, id uuid.UUID) int { return bytes.Compare(r.id[:], id[:]) }

func (w *writer[T]) insert(ctx context.Context, conn *pgx.Conn, rows []*request[T]) ([]result, error) {
	statement := w.kind.insert
	settings, pooled := conn.PgConn().CustomData()[pooled].(string)
	if !pooled {
		// This asks the server only once for each connection.
		if _, err := conn.Prepare(ctx, statement.name, statement.sql); err != nil {
			return nil, fmt.Errorf("prepare %s: %w", statement.name, err)
		}
	}
	w.columns.reset()
	for _, q := range rows {
		for i, f := range w.kind.fields {
			w.columns[i].add(f.pointer(&q.row))
		}
	}
	parameters := w.columns.parameters()
	conn.PgConn().Frontend().Send(reserveFor(parameters))
	results := make([]result, 0, len(rows))
	add := func(values [][]byte) {
		results = append(results, result{uuid.UUID(values[0]), outcome(values[1][0])})
	}
	err := replicated(conn, func() error {
		if pooled {
			return execPooled(ctx, conn.PgConn(), settings, statement.sql, parameters, add)
		}
		reader := conn.PgConn().ExecPrepared(ctx, statement.name, parameters, binaryFormat, binaryFormat)
		for reader.NextRow() {
			add(reader.Values())
		}
		_, err := reader.Close()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("execute %s: %w", w.kind.insert.name, err)
	}
	slices.SortFunc(results, func(a, b result) int { return bytes.Compare(a.id[:], b.id[:]) })
	return results, nil
}

// isDataError reports whether PostgreSQL cannot hold the values: data exceptions (class 22),
// constraints (23) and limits, such as that of jsonb (54).
func isDataError(err error) bool {
	code := migrations.ServerError(err).Code
	return strings.HasPrefix(code, "22") || strings.HasPrefix(code, "23") || strings.HasPrefix(code, "54")
}

// unavailable wraps an error of the connection or the server in event.ErrUnavailable.
func unavailable(err error) error { return fmt.Errorf("%w: %w", event.ErrUnavailable, err) }
