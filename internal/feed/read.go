package feed

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"upcall/internal/event"
	"upcall/internal/eventstore"
)

const (
	// mostEntries and mostBytes bound a page, as PostgreSQL sends it.
	mostEntries = 1000
	mostBytes   = 4 << 20
	// firstID comes before all others.
	firstID = "'00000000-0000-0000-0000-000000000000'::uuid"
	// hasStandbys is whether commits wait for synchronous standbys. If not, what is visible was
	// flushed already, and a barrier would make the intake's commits wait for one more flush.
	hasStandbys = "current_setting('synchronous_standby_names') <> ''"
)

// The statements that read a page. A row has either the head, which comes first, or an entry: they
// are read with one snapshot.
//
// If there are entries, a statement that reads them whole writes the barrier, so that its
// transaction ends when the synchronous standby has everything that the statement saw.
//
// The head tells whether there are findings, if they are wanted. Mostly there are none, and no entry pays
// for them.
var (
	readAll      = pageSQL(logOrder, recordedPlace, true, true)
	readRecorded = pageSQL(logOrder, recordedPlace, true, false)
	readOutline  = pageSQL(logOrder, recordedPlace, false, false)
	readNulls    = pageSQL(nullOrder, nullPlace, true, false) // findings come later
	outlineNulls = pageSQL(nullOrder, nullPlace, false, false)
)

// A reading says what is read of the entries after a cursor.
type reading int

const (
	recorded reading = iota // events as they were recorded
	all                     // and findings
	outline                 // ids and times of events, without a barrier
)

// statement returns the one that reads after a position, and its name.
func (r reading) statement(from position) (name, sql string) {
	switch {
	case r == outline && from.xid == 0:
		return "upcall_log_nulls_outline", outlineNulls
	case r == outline:
		return "upcall_log_outline", readOutline
	case from.xid == 0:
		return "upcall_log_nulls", readNulls
	case r == recorded:
		return "upcall_log", readRecorded
	}
	return "upcall_log_all", readAll
}

const (
	logOrder = `recorded_xid IS NOT NULL AND recorded_xid < pg_snapshot_xmin(pg_current_snapshot())
			AND (recorded_xid, id) > ($1::xid8, $2::uuid)
		ORDER BY recorded_xid, id LIMIT $3::bigint`
	nullOrder = `recorded_xid IS NULL AND received_at <= (SELECT null_until FROM upcall.feed_log)
			AND (received_at, id) > ($1::timestamptz, $2::uuid)
		ORDER BY received_at, id LIMIT $3::bigint`
)

const (
	recordedPlace = "recorded_xid, received_at AS placed_at, "
	nullPlace     = "NULL::xid8 AS recorded_xid, received_at AS placed_at, "
)

// pageSQL returns the statement that reads the entries of an order, with the barrier and whole events,
// or without and only their ids and times; and perhaps, whether there are findings.
func pageSQL(order, place string, whole, findings bool) string {
	from, barrier, columns, found := " FROM upcall.upload_events WHERE "+order, "NULL", place+"id, received_at", "false"
	width := outlineColumns
	if findings {
		found = "EXISTS (SELECT" + findingsAfter + ")"
	}
	if whole {
		barrier = "CASE WHEN " + hasStandbys + " AND (EXISTS (SELECT" + from + ") OR " + found + ") THEN " + eventstore.Barrier + " END"
		columns, width = place+eventstore.EventColumns(), len(event.Members)
	}
	return `
	SELECT ` + thisCluster + `, gone_xid, gone_id, gone_null_at, gone_null_id, repairing IS NOT NULL, ` + barrier + ", " + found +
		strings.Repeat(", NULL", 2+width) + `
	FROM upcall.feed_log
	UNION ALL
	(SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, ` + columns + from + ")"
}

// outlineColumns is how many columns of an event are in an outline, the first of them.
const outlineColumns = 2

// A head is what a statement knows of the log as a whole.
type head struct {
	cluster
	xmin, xmax uint64
	gone       position // the last entry that was dropped; zero if none was
	goneNull   position // of those without a recorded_xid
	repairing  bool
	found      bool // there are findings
}

func (h *head) fields() []any {
	return []any{&h.system, &h.timeline, &h.xmin, &h.xmax, orZero{&h.gone.xid}, orNil{&h.gone.id},
		microseconds{&h.goneNull.at}, orNil{&h.goneNull.id}, &h.repairing, nil, &h.found}
}

// A chunk is what a statement has read.
type chunk struct {
	head head
	rows []*row
	full bool     // there may be more, after end
	end  position // zero unless full
}

// fetch reads the entries after a position, either those without a recorded_xid or those with.
func (l *Log) fetch(ctx context.Context, from position, limit int, what reading) (c chunk, err error) {
	name, sql := what.statement(from)
	place, columns := any(from.xid), len(event.Members)
	if from.xid == 0 {
		place = time.UnixMicro(from.at)
	}
	if what == outline {
		columns = outlineColumns
	}
	var found *scanner
	err = l.query(ctx, name, sql, func(rows pgx.Rows) error {
		for rows.Next() {
			if found == nil {
				found = newScanner(rows, columns)
			}
			if rows.RawValues()[0] != nil {
				fields := c.head.fields()
				if err := rows.Scan(append(fields, make([]any, len(found.fields)-len(fields))...)...); err != nil {
					return err
				}
			} else if more, err := found.scan(rows); err != nil {
				return err
			} else if !more {
				c.full = true
				break
			}
		}
		return rows.Err()
	}, place, from.id, limit)
	if err != nil {
		return chunk{}, err
	}
	if found == nil {
		return chunk{}, errors.New("read the log: upcall.feed_log has lost its row: restore it from a backup")
	}
	if c.head.repairing {
		l.forget(l.history.Load())
		return chunk{}, ErrRestored
	}
	c.rows = found.end(c.head.cluster)
	if c.full = c.full || len(c.rows) >= limit; c.full {
		c.end = c.rows[len(c.rows)-1].cursor.position
	}
	if c.head.found {
		if err := l.addFindings(ctx, &c, from, limit); err != nil {
			return chunk{}, err
		}
	}
	if !slices.IsSortedFunc(c.rows, func(a, b *row) int { return a.cursor.compare(b.cursor.position) }) {
		return chunk{}, fmt.Errorf("read the log: PostgreSQL returned it out of order") // a mistake of ours
	}
	return c, nil
}

// read returns the entries after a cursor, and the cursor after them. If there are no more, that
// is where the log is complete.
func (l *Log) read(ctx context.Context, after Cursor, limit int, what reading) (c chunk, next Cursor, err error) {
	limit = min(max(limit, 1), mostEntries)
	select {
	case l.reading <- struct{}{}:
		defer func() { <-l.reading }()
	case <-ctx.Done():
		return chunk{}, after, eventstore.Unavailable(context.Cause(ctx))
	}
	for range 5 {
		h, err := l.place(ctx)
		if err != nil {
			return chunk{}, after, err
		}
		from, foreign, err := h.resolve(after)
		if err == ErrGone {
			return chunk{}, after, l.goneError(ctx)
		} else if err != nil {
			return chunk{}, after, err
		}
		if foreign {
			if from, err = l.movedTo(ctx, h, after, from); err != nil {
				return chunk{}, after, err
			}
		}
		c, err := l.fetch(ctx, from, limit, what)
		if err != nil {
			return chunk{}, after, err
		}
		if c.head.cluster != h.cluster {
			l.forget(h)
			continue
		}
		if from.xid > c.head.xmax {
			// No transaction has had this number: the server was set back on its timeline.
			l.forget(h) // it may have an older mark now
			if h, err = l.place(ctx); err != nil {
				return chunk{}, after, err
			}
			after = h.at(position{xid: max(h.readUntil(), 1)})
			continue
		}
		gone, err := l.isGone(ctx, from, c.head)
		if err != nil {
			return chunk{}, after, err
		}
		if gone != nil {
			return chunk{}, after, gone
		}
		if n := len(c.rows); n > 0 {
			l.hand(c.rows[n-1].cursor)
			return c, c.rows[n-1].cursor, nil
		}
		if c.full { // of findings whose events were dropped
			after = h.at(c.end)
			continue
		}
		if from.xid == 0 {
			after = h.at(position{xid: 1})
			continue
		}
		if complete := (position{xid: c.head.xmin}); from.compare(complete) < 0 {
			from = complete
		}
		next = h.at(from)
		if what != outline { // else who reads again and again at the end would have a mark written each second
			l.hand(next)
		}
		return c, next, nil
	}
	return chunk{}, after, eventstore.Unavailable(fmt.Errorf("the cluster changes again and again"))
}

// isGone returns a [GoneError] if entries after a position were dropped, and none before them
// is left: an entry that is dropped out of turn, because it was late, is no reason to fail.
func (l *Log) isGone(ctx context.Context, from position, now head) (error, error) {
	lost := now.gone
	if from.xid == 0 && lost.xid == 0 {
		lost = now.goneNull
	}
	if lost == (position{}) || from.compare(lost) >= 0 {
		return nil, nil
	}
	oldest, _, err := l.oldest(ctx)
	if err != nil || from.compare(oldest.position) >= 0 {
		return nil, err
	}
	return &GoneError{Oldest: oldest}, nil
}

func (l *Log) goneError(ctx context.Context) error {
	oldest, _, err := l.oldest(ctx)
	return cmp.Or(err, error(&GoneError{Oldest: oldest}))
}

// oldest returns the cursor before the first entry, or before whatever comes next if there is
// none.
func (l *Log) oldest(ctx context.Context) (Cursor, head, error) {
	const query = `SELECT ` + thisCluster + `, null_at, xid FROM (SELECT
		(SELECT received_at FROM upcall.upload_events
			WHERE recorded_xid IS NULL AND received_at <= (SELECT null_until FROM upcall.feed_log)
			ORDER BY received_at, id LIMIT 1) AS null_at,
		(SELECT recorded_xid FROM upcall.upload_events WHERE recorded_xid IS NOT NULL ORDER BY recorded_xid, id LIMIT 1) AS xid) AS first`
	var now head
	var at int64
	var xid uint64
	h, err := l.here(ctx, query, &now, microseconds{&at}, orZero{&xid})
	switch {
	case err != nil:
		return Cursor{}, now, err
	case at != 0:
		return h.at(position{at: at}), now, nil
	case xid == 0 || xid > now.xmin:
		xid = now.xmin
	}
	return h.at(position{xid: xid}), now, nil
}

// here runs a query that begins with thisCluster until it answers from the cluster that is
// known.
func (l *Log) here(ctx context.Context, query string, now *head, fields ...any) (*history, error) {
	for range 3 {
		h, err := l.place(ctx)
		if err != nil {
			return nil, err
		}
		if err := l.queryRow(ctx, query, append([]any{&now.system, &now.timeline, &now.xmin, &now.xmax}, fields...)); err != nil {
			return nil, err
		}
		if now.cluster == h.cluster {
			return h, nil
		}
		l.forget(h)
	}
	return nil, eventstore.Unavailable(fmt.Errorf("the cluster changes again and again"))
}

// query runs a statement. Its error wraps event.ErrUnavailable.
func (l *Log) query(ctx context.Context, name, sql string, read func(pgx.Rows) error, args ...any) error {
	if _, err := eventstore.Exec(ctx, l.config.Pool, name, sql, read, args...); err != nil {
		return fmt.Errorf("read the log: %w", eventstore.Unavailable(err))
	}
	return nil
}

// queryRow scans the only row of a statement.
func (l *Log) queryRow(ctx context.Context, sql string, fields []any, args ...any) error {
	return l.query(ctx, "", sql, oneRow(fields), args...)
}

// head reads the head of the log, which touches no table.
func (l *Log) head(ctx context.Context) (now head, err error) {
	err = l.query(ctx, "upcall_log_head", "SELECT "+thisCluster, oneRow([]any{&now.system, &now.timeline, &now.xmin, &now.xmax}))
	return now, err
}

func oneRow(fields []any) func(pgx.Rows) error {
	return func(rows pgx.Rows) error {
		for rows.Next() {
			if err := rows.Scan(fields...); err != nil {
				return err
			}
		}
		return rows.Err()
	}
}
