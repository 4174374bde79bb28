package eventstore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/event"
	"upcall/migrations"
)

// A Span is a part of the events by the time of their receipt.
type Span struct {
	Since, Until time.Time // from Since on, before Until
	Bucket       string    // of this bucket only; "" is any
}

// A Place is where a reader of [Pages] is: the last event that it has read. The zero value is
// before all events.
type Place struct {
	At time.Time
	ID uuid.UUID
}

// Pages reads events in the order of their receipt, in short statements: however long a reader
// takes, it holds back neither VACUUM nor retention, and on a standby not the replay of WAL.
type Pages struct {
	pool  *pgxpool.Pool
	table string        // one month's, or "" for all
	pause time.Duration // before a page is tried again
}

// NewPages returns a reader. The pool is from [OpenPages].
func NewPages(pool *pgxpool.Pool) *Pages { return &Pages{pool, "", time.Second} }

// query returns a statement and its name. That of a month differs in both.
func (p *Pages) query(name, sql string) (string, string) {
	if p.table == "" {
		return name, sql
	}
	return name + "_" + p.table, strings.Replace(sql, allEvents,
		" FROM "+pgx.Identifier{"upcall", p.table}.Sanitize()+" AS upload_events", 1)
}

// OpenPages is for [Pages]: its statements read the index of a partition in order, whatever the
// statistics say.
func OpenPages(ctx context.Context, databaseURL string) (*pgxpool.Pool, error) {
	return open(ctx, databaseURL, map[string]string{
		"default_transaction_read_only": "on", "statement_timeout": "0", "lock_timeout": "10s",
		planCacheMode:       "force_generic_plan",
		"enable_seqscan":    "off",
		"enable_bitmapscan": "off",
		"enable_sort":       "off",
		"jit":               "off",
	})
}

const (
	allEvents = " FROM upcall.upload_events"

	inSpan   = allEvents + " WHERE received_at >= $1 AND received_at < $2 AND ($3::text = '' OR bucket = $3)"
	inOrder  = " ORDER BY received_at, id LIMIT "
	firstSQL = "SELECT received_at" + inSpan + inOrder + "1"

	// pageBytes is about how much of a page is kept in memory, and pageRows how many rows it has
	// at most.
	pageBytes, pageRows = 4 << 20, 4096
	// pageTries is how often a page is read if the connection is lost, or a standby needed to
	// replay what the statement held.
	pageTries = 6
)

var pageSQL = "SELECT " + eventColumns + inSpan + " AND (received_at, id) > ($4, $5)" + inOrder + "$6"

// First returns when the first event of a span was received, and whether there is one.
func (p *Pages) First(ctx context.Context, span Span) (first time.Time, there bool, err error) {
	name, sql := p.query("upcall_first", firstSQL)
	err = p.read(ctx, name, sql, "", func(rows pgx.Rows) error {
		if there = rows.Next(); there {
			return rows.Scan(&first)
		}
		return nil
	}, span.Since, span.Until, span.Bucket)
	if err != nil {
		return time.Time{}, false, fmt.Errorf("look for events: %w", err)
	}
	return first.UTC(), there, nil
}

// Next returns the events of a span after a place, at most limit of them, and none at the end, when
// a synchronous standby has them, too.
// It may return fewer than there are, so that what it returns fits into memory.
func (p *Pages) Next(ctx context.Context, span Span, after Place, limit int) ([]*event.Event, error) {
	limit = min(limit, pageRows)
	since := span.Since
	if after.At.After(since) {
		since = after.At // with which PostgreSQL finds the first row in the index, and the partition
	}
	var page []*event.Event
	name, sql := p.query("upcall_page", pageSQL)
	// What is read here leaves the process: the barrier comes last, so that its transaction, which readers of the log
	// wait for, is short.
	err := p.read(ctx, name, sql, "SELECT "+ReadBarrier, func(rows pgx.Rows) error {
		page = page[:0]
		for size := 0; size < pageBytes && rows.Next(); {
			for _, value := range rows.RawValues() {
				size += len(value)
			}
			e, err := scanEvent(rows)
			if err != nil {
				return err
			}
			page = append(page, e)
		}
		return nil
	}, since, span.Until, span.Bucket, after.At, after.ID, limit)
	if err != nil {
		return nil, fmt.Errorf("read events: %w", err)
	}
	return page, nil
}

// Month returns a number that stands for the partition that a time falls into. It changes if
// retention drops the partition; 0 stands for none.
func (p *Pages) Month(ctx context.Context, at time.Time) (id int64, err error) {
	// to_jsonb, because PostgreSQL before 14 has no column inhdetachpending.
	err = p.read(ctx, "upcall_month", `
		SELECT coalesce(max(c.oid::bigint), 0) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
		WHERE i.inhparent = 'upcall.upload_events'::regclass AND c.relname = $1
			AND (to_jsonb(i)->>'inhdetachpending')::boolean IS NOT TRUE`, "", func(rows pgx.Rows) error {
		if !rows.Next() {
			return rows.Err()
		}
		return rows.Scan(&id)
	}, partitionName(monthOf(at)))
	if err != nil {
		return 0, fmt.Errorf("look for partitions: %w", err)
	}
	return id, nil
}

// read runs a statement, and another one at the end of its transaction, again if that may help.
func (p *Pages) read(ctx context.Context, name, sql, last string, read func(pgx.Rows) error, args ...any) error {
	for try := 1; ; try++ {
		_, err := execThen(ctx, p.pool, name, sql, last, read, args...)
		passing := err != nil && Mistake(err) == nil &&
			(migrations.ServerError(err).Code == "" || hasClass(err, "08", "25", "26", "40", "53", "57", "58"))
		if !passing || try == pageTries {
			return err
		}
		if stopped := pause(ctx, p.pause); stopped != nil {
			return errors.Join(err, stopped)
		}
	}
}
