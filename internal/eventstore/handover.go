package eventstore

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"upcall/internal/event"
	"upcall/internal/fault"
)

// ErrHeldBack says that a month was not dropped, because it was not handed over.
var ErrHeldBack = errors.New("expired events are not handed over, so they are not dropped")

// A Keeper takes events over before retention drops them.
type Keeper interface {
	// Ready returns an error if the Keeper could take nothing now.
	Ready(ctx context.Context) error
	// Keep returns when it has every event of a month, and the sums of those that it has read back: what it
	// was told that it had written does not count. It has each event once, and may have had any of them before.
	Keep(ctx context.Context, m Month) (Sums, error)
}

// A Month is a table with the expired events of a month.
type Month struct {
	Begins   time.Time // in UTC
	pages    *Pages
	erasures []event.Erasure // that may not have come to its events yet
}

// First returns when the first event was received from since on, and whether there is one.
func (m Month) First(ctx context.Context, since time.Time) (time.Time, bool, error) {
	return m.pages.First(ctx, Span{Since: since, Until: m.Begins.AddDate(0, 1, 0)})
}

// Next is [Pages.Next]. Whoever asked to erase something must not find it in what was handed over.
func (m Month) Next(ctx context.Context, span Span, after Place, limit int) ([]*event.Event, error) {
	events, err := m.pages.Next(ctx, span, after, limit)
	for _, e := range events {
		for _, x := range m.erasures {
			if x.Matches(e) {
				e.Erase()
			}
		}
	}
	return events, err
}

// Sums tell whether two sets of events are the same. All but Rows are modulo 2^64.
type Sums struct {
	Rows   int64
	Sizes  uint64
	CRC64s uint64
	IDs    uint64 // of the two halves of each, as numbers
}

// Add adds an event; a number that is not known is 0.
func (s *Sums) Add(id uuid.UUID, size int64, crc64 uint64) {
	s.Rows++
	s.Sizes += uint64(size)
	s.CRC64s += crc64
	s.IDs += binary.BigEndian.Uint64(id[:8]) + binary.BigEndian.Uint64(id[8:])
}

// Plus returns the sums of two sets together.
func (s Sums) Plus(t Sums) Sums {
	return Sums{s.Rows + t.Rows, s.Sizes + t.Sizes, s.CRC64s + t.CRC64s, s.IDs + t.IDs}
}

// sumsSQL has PostgreSQL itself add up a day, without any of the code that reads pages.
const sumsSQL = `SELECT count(*), coalesce(sum(size), 0)::text, coalesce(sum(crc64), 0)::text,
		coalesce(sum(('x' || left(hex, 16))::bit(64)::bigint) + sum(('x' || right(hex, 16))::bit(64)::bigint), 0)::text
	FROM (SELECT size, crc64, encode(uuid_send(id), 'hex') AS hex FROM %s WHERE received_at >= $1 AND received_at < $2) AS day`

// sums returns those of a table of a month.
func (x *expirer) sums(ctx context.Context, m month, table string) (total Sums, err error) {
	for day := m.begins; day.Before(m.begins.AddDate(0, 1, 0)); day = day.AddDate(0, 0, 1) {
		var one Sums
		var sizes, crcs, ids string
		err := x.conn.QueryRow(ctx, fmt.Sprintf(sumsSQL, table), day, day.AddDate(0, 0, 1)).Scan(&one.Rows, &sizes, &crcs, &ids)
		if err != nil {
			return Sums{}, err
		}
		for _, sum := range []struct {
			text string
			into *uint64
		}{{sizes, &one.Sizes}, {crcs, &one.CRC64s}, {ids, &one.IDs}} {
			n, ok := new(big.Int).SetString(sum.text, 10)
			if !ok {
				return Sums{}, fmt.Errorf("PostgreSQL's sum %q is not a number", sum.text)
			}
			*sum.into = n.Mod(n, new(big.Int).Lsh(big.NewInt(1), 64)).Uint64()
		}
		total = total.Plus(one)
	}
	return total, nil
}

// watchEvery is how often it is made sure that the lock is ours while a month is handed over, which may take long.
const watchEvery = 5 * time.Second

// keep has the keeper take a table of a month.
func (x *expirer) keep(ctx context.Context, m month, table string) (sums Sums, err error) {
	if x.keeper == nil {
		return Sums{}, nil
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("%w: month %s: %w", ErrHeldBack, m.begins.Format("2006-01"), err)
		}
	}()
	pool, err := OpenPages(ctx, x.pool.Config().ConnString())
	if err != nil {
		return Sums{}, err
	}
	defer pool.Close()
	rest, err := x.unerased(ctx)
	if err != nil {
		return Sums{}, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		for pause(ctx, watchEvery) == nil {
			if err := x.locked(ctx); err != nil {
				cancel(err)
			}
		}
	}()
	defer func() { cancel(nil); <-watched }()
	pages := NewPages(pool)
	pages.table = table
	sums, err = x.keeper.Keep(ctx, Month{Begins: m.begins, pages: pages, erasures: rest})
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	return sums, err
}

// unerased returns the requests to erase that may not have come to all events yet.
func (x *expirer) unerased(ctx context.Context) ([]event.Erasure, error) {
	rows, _ := x.conn.Query(ctx, `SELECT asked_at, upload_id, coalesce(variable, ''), salt, digest FROM upcall.erasures
		WHERE finished_at IS NULL`)
	return pgx.CollectRows(rows, pgx.RowToStructByPos[event.Erasure])
}

// A kept is what a month was handed over as. If it is another when the table is dropped, it was not all of it.
type kept struct {
	table    uint32     // its OID
	erasures int        // requests, and
	asked    *time.Time // the time of the last; nil if there are none
	events   int64
}

func (k kept) same(other kept) bool {
	return k.table == other.table && k.erasures == other.erasures && (k.asked == nil) == (other.asked == nil) &&
		(k.asked == nil || k.asked.Equal(*other.asked))
}

// A querier is a connection or a transaction.
type querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

func (m month) kept(ctx context.Context, q querier) (k kept, err error) {
	err = q.QueryRow(ctx, "SELECT $1::text::regclass::oid, count(*), max(asked_at) FROM upcall.erasures", m.expired()).
		Scan(&k.table, &k.erasures, &k.asked)
	return k, err
}

// handDetached hands over a month that was detached, to which nothing can be added any more, again: events may have come
// since it was handed over the first time. PostgreSQL's own sums must be those of what the keeper has.
func (x *expirer) handDetached(ctx context.Context, m month) (kept, error) {
	if x.keeper == nil {
		return kept{}, nil
	}
	k, err := m.kept(ctx, x.conn)
	if err != nil {
		return kept{}, err
	}
	theirs, err := x.keep(ctx, m, m.expiredName())
	if err != nil {
		return kept{}, err
	}
	ours, err := x.sums(ctx, m, m.expired())
	if err == nil && ours != theirs {
		err = fault.New(ErrHeldBack, "", "report this with the month's files", "month %s has %+v, and what was read back %+v",
			m.begins.Format("2006-01"), ours, theirs)
	}
	if err != nil {
		return kept{}, err
	}
	k.events = ours.Rows
	return k, nil
}

// dropTries is how often a table is dropped that is in use, or is handed over again; dropLock is how long one
// attempt waits for those that erase.
const dropTries, dropLock = 5, "1s"

// dropTable drops a month. It must be the table that was handed over, not one that another process has since
// detached, and nobody may have asked to erase something of it since: that would stay in what was handed over.
func (x *expirer) dropTable(ctx context.Context, m month, k kept) error {
	if x.keeper == nil {
		_, err := x.conn.Exec(ctx, "DROP TABLE "+m.expired())
		return err
	}
	for try := 1; ; try++ {
		same := false
		err := pgx.BeginFunc(ctx, x.conn, func(tx pgx.Tx) error {
			// An eraser notes its request first: it has, and we see it, or it waits until the table is gone.
			_, err := tx.Exec(ctx, "SET LOCAL lock_timeout = '"+dropLock+"'; LOCK TABLE upcall.erasures IN SHARE MODE; LOCK TABLE "+m.expired())
			if err != nil {
				return err
			}
			now, err := m.kept(ctx, tx)
			if same = k.same(now); err != nil || !same {
				return err
			}
			_, err = tx.Exec(ctx, "DROP TABLE "+m.expired())
			return err
		})
		switch {
		case err == nil && same:
			x.dropped.Kept += k.events
			return nil
		case try == dropTries:
			return errors.Join(err, ErrHeldBack)
		case err == nil:
			if k, err = x.handDetached(ctx, m); err != nil {
				return err
			}
		case !hasClass(err, "40", "55"):
			return err
		default:
			if err := x.rest(ctx, time.Now().Add(-time.Second)); err != nil {
				return err
			}
		}
	}
}
