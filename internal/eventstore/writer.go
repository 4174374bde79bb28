package eventstore

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
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
	uniqueViolation      = "23505"
	exclusionViolation   = "23P01"
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
func (w *writer[T]) record(ctx context.Context, batch []*request[T]) {
	ctx, cancel := context.WithTimeout(ctx, w.config.CommitTimeout)
	defer cancel()
	var t trial[T]
	w.commitOrSplit(ctx, w.kind.fold(batch), &t)
	w.judge(ctx, &t)
}

// commitOrSplit commits and answers rows. When PostgreSQL does not accept a batch because of
// its rows, it tries both halves, so that in the end only the bad rows fail. Each costs about
// twice the logarithm of the batch's size in transactions. Bad rows are left to judge.
func (w *writer[T]) commitOrSplit(ctx context.Context, rows []*request[T], t *trial[T]) {
	results, err := w.commitRetry(ctx, rows)
	if len(rows) == 1 && err != nil && !isDataError(err) && w.blamesRows(ctx, err, t) {
		results, err = w.commitRetry(ctx, rows) // it could have been the connection
	}
	switch {
	case err == nil:
		t.fits = t.fits || slices.ContainsFunc(results, func(r result) bool { return r.outcome == fresh })
		for _, q := range rows {
			a := answer{outcome: known}
			if i, ok := slices.BinarySearchFunc(results, q.id, compareResult); ok {
				a.outcome = results[i].outcome
			}
			q.reply(a)
		}
		return
	case len(rows) == 1 && errors.Is(err, event.ErrExpiring):
		rows[0].reply(answer{err: err})
		return
	case !w.blamesRows(ctx, err, t):
		err = unavailable(err)
	case len(rows) == 1:
		t.bad, t.errs = append(t.bad, rows[0]), append(t.errs, err)
		return
	case t.failures < mostFailures || t.fits || w.sampleFits(ctx, rows):
		half := len(rows) / 2
		w.commitOrSplit(ctx, rows[:half], t)
		w.commitOrSplit(ctx, rows[half:], t)
		return
	default:
		err = fmt.Errorf("%w: %w", event.ErrNoRowFits, err)
	}
	for _, q := range rows {
		q.reply(answer{err: err})
	}
}

// mostFailures is how many transactions of a batch may fail, without any that succeeds, before
// a sample must show that PostgreSQL accepts rows at all.
const mostFailures = 40

// A trial is what is known of a batch that PostgreSQL did not accept as it was.
type trial[T any] struct {
	failures int
	answers  bool // it has answered a ping
	fits     bool // it has accepted a new row
	bad      []*request[T]
	errs     []error // of the bad rows
}

// blamesRows reports whether PostgreSQL failed a statement because of its rows. It says so
// itself for values and constraints. A trigger can report anything, and so can a server that
// accepts nothing now, so PostgreSQL is asked with the same statement for no rows.
func (w *writer[T]) blamesRows(ctx context.Context, err error, t *trial[T]) bool {
	t.failures++
	if errors.Is(err, event.ErrExpiring) || errors.Is(err, errNoMonth) || isDataError(err) {
		return true
	}
	if migrations.ServerError(err).SeverityUnlocalized != "ERROR" || ctx.Err() != nil {
		return false
	}
	t.answers = t.answers || w.ping(ctx) == nil
	return t.answers
}

// judge answers the bad rows: as bad if PostgreSQL accepts others.
func (w *writer[T]) judge(ctx context.Context, t *trial[T]) {
	if len(t.bad) == 0 {
		return
	}
	verdict := w.kind.bad
	if !t.fits && !w.sampleFits(ctx, t.bad) {
		verdict = event.ErrNoRowFits
	}
	for i, q := range t.bad {
		q.reply(answer{err: fmt.Errorf("%w: %w", verdict, t.errs[i])})
	}
}

// ping runs the statement without rows. That shows whether it can be prepared, may write, and
// is replicated.
func (w *writer[T]) ping(ctx context.Context) error {
	_, err := w.commit(ctx, nil)
	return err
}

// sampleFits reports whether PostgreSQL accepts a row like those that it has, when it has not
// accepted any of these. It does not keep the row.
func (w *writer[T]) sampleFits(ctx context.Context, bad []*request[T]) bool {
	if w.kind.samples == nil {
		return true
	}
	samples, err := w.kind.samples(ctx, w.config.Pool, bad[0])
	return err == nil && slices.ContainsFunc(samples, func(sample *request[T]) bool {
		err := pgx.BeginFunc(ctx, w.config.Pool, func(tx pgx.Tx) error {
			_, err := w.insert(ctx, tx.Conn(), []*request[T]{sample})
			return cmp.Or(err, errTakeBack)
		})
		code := migrations.ServerError(err).Code
		return errors.Is(err, errTakeBack) || code == uniqueViolation || code == exclusionViolation // of a row, by definition
	})
}

var (
	errTakeBack = errors.New("it was a sample")
	// errNoMonth says that there is no partition for a row, and that this role may not make one.
	// There can be one for the other rows.
	errNoMonth = errors.New("no partition")
)

// commitRetry retries where that helps, once for each reason.
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
			if err := w.kind.fix(ctx, w.config.Pool, rows); errors.Is(err, ErrMistake) {
				return nil, fmt.Errorf("%w: %w", errNoMonth, err)
			} else if err != nil {
				return nil, err
			}
		case reported.Code == checkViolation && fixed && reported.ConstraintName == "" && reported.TableName != "": // no partition
			return nil, fmt.Errorf("%w: %w", event.ErrExpiring, err)
		default:
			return nil, err
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
		return nil, closeSuspect(ctx, conn.Conn(), err)
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
	for n, q := range rows {
		for i, f := range w.kind.fields {
			if f.once && n > 0 {
				continue
			}
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
func isDataError(err error) bool { return hasClass(err, "22", "23", "54") }

func hasClass(err error, classes ...string) bool {
	code := migrations.ServerError(err).Code
	return len(code) == 5 && slices.Contains(classes, code[:2])
}

// Unavailable wraps an error of the connection or the server in event.ErrUnavailable.
func Unavailable(err error) error { return unavailable(err) }

func unavailable(err error) error { return fmt.Errorf("%w: %w", event.ErrUnavailable, err) }
