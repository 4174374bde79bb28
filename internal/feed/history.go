package feed

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"upcall/internal/eventstore"
)

// A cluster is what numbers transactions: a PostgreSQL cluster on a timeline of its WAL. After a
// failover, the new timeline may assign numbers again that the old one assigned.
type cluster struct {
	system   uint64
	timeline uint32
}

func (c Cursor) cluster() cluster { return cluster{c.system, c.timeline} }

func (c cluster) at(p position) Cursor { return Cursor{c.system, c.timeline, p} }

// thisCluster is the cluster of the server in SQL. The timeline is that of the WAL that it
// writes: pg_control_checkpoint shows that of the last checkpoint, which after a promotion
// remains the old one for minutes. A standby fails, which is right: it cannot commit a
// barrier.
const thisCluster = `(SELECT system_identifier FROM pg_control_system()) AS system,
	('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int AS timeline,
	pg_snapshot_xmin(pg_current_snapshot()) AS xmin, pg_snapshot_xmax(pg_current_snapshot()) AS xmax`

// A history says where the log of this cluster parts from that of earlier ones.
type history struct {
	cluster
	eras []era // those of the same system by their timelines
}

// An era is a row of feed_timelines.
type era struct {
	cluster
	since     uint64 // the log below this is as in the era before
	readUntil uint64 // the watermark at some moment in this era
	written   uint64 // the transaction that wrote the row
}

// readUntil returns that of the present era.
func (h *history) readUntil() uint64 {
	i := slices.IndexFunc(h.eras, func(e era) bool { return e.cluster == h.cluster })
	return h.eras[i].readUntil
}

// resolve returns where a cursor is in the log of this cluster. It is foreign if the answer is
// in feed_moved, if there is one.
func (h *history) resolve(c Cursor) (p position, foreign bool, err error) {
	known := false
	since := uint64(math.MaxUint64)
	for _, e := range h.eras {
		known = known || e.system == c.system
		if e.system == h.system && (e.system != c.system || e.timeline > c.timeline) {
			since = min(since, e.since)
		}
	}
	switch {
	case c.cluster() == h.cluster:
		return c.position, false, nil
	case !known:
		return position{}, false, ErrGone // of a database that this one does not come from
	case c.system == h.system && c.timeline > h.timeline:
		return position{}, false, ErrBehind
	}
	return earlier(c.position, position{xid: max(since, 1)}), c.system != h.system, nil
}

func earlier(a, b position) position {
	if b.compare(a) < 0 {
		return b
	}
	return a
}

// movedTo returns where a cursor of another cluster continues if repair has moved entries: those
// of its cluster, and all of clusters that came later.
func (l *Log) movedTo(ctx context.Context, h *history, c Cursor, p position) (position, error) {
	var later []int64
	for _, e := range h.eras {
		if e.system == c.system {
			later = nil
		} else {
			later = append(later, int64(e.system))
		}
	}
	const query = `
		(SELECT received_at, id FROM upcall.feed_moved WHERE system_identifier = $1
			AND (recorded_xid = (SELECT recorded_xid FROM upcall.feed_moved WHERE system_identifier = $1 AND recorded_xid <= $2::xid8
					ORDER BY recorded_xid DESC LIMIT 1)
				OR NOT EXISTS (SELECT FROM upcall.feed_moved WHERE system_identifier = $1 AND recorded_xid <= $2::xid8))
			ORDER BY recorded_xid LIMIT 1)
		UNION ALL
		(SELECT received_at, id FROM upcall.feed_moved WHERE system_identifier = ANY ($3) ORDER BY received_at, id LIMIT 1)`
	err := l.query(ctx, "", query, func(rows pgx.Rows) error {
		for rows.Next() {
			var first position
			if err := rows.Scan(microseconds{&first.at}, &first.id); err != nil {
				return err
			}
			p = earlier(p, first.before())
		}
		return rows.Err()
	}, int64(c.system), c.xid, later)
	return p, err
}

// before returns the place just before an entry's.
func (p position) before() position {
	for i := len(p.id) - 1; i >= 0; i-- {
		p.id[i]--
		if p.id[i] != 0xff {
			return p
		}
	}
	p.at, p.id = p.at-1, uuid.Max // the id was zero
	return p
}

// place returns the history of the cluster, from the cache or the database.
func (l *Log) place(ctx context.Context) (*history, error) {
	if h := l.history.Load(); h != nil {
		return h, nil
	}
	// One asks, and the others wait for the answer.
	select {
	case l.noticing <- struct{}{}:
		defer func() { <-l.noticing }()
	case <-ctx.Done():
		return nil, eventstore.Unavailable(context.Cause(ctx))
	}
	if h := l.history.Load(); h != nil {
		return h, nil
	}
	h, err := l.notice(ctx)
	if err != nil {
		return nil, err
	}
	l.history.Store(h)
	return h, nil
}

// notice looks where it is, and records a cluster that is new.
func (l *Log) notice(ctx context.Context) (*history, error) {
	var whole, repairing bool
	err := l.queryRow(ctx, `SELECT repairing IS NOT NULL, coalesce((SELECT indisvalid FROM pg_index
		WHERE indexrelid = to_regclass('upcall.upload_events_log')), false) FROM upcall.feed_log`, []any{&repairing, &whole})
	switch {
	case err != nil:
		return nil, err
	case !whole:
		return nil, ErrUnready
	case repairing:
		return nil, fmt.Errorf("%w (it has begun, but not ended)", ErrRestored)
	}
	for range 3 {
		h, head, err := l.lookAround(ctx)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(h.eras, func(e era) bool { return e.cluster == h.cluster }) {
			return h, nil
		}
		since, err := h.began(head)
		if err != nil {
			return nil, err
		}
		if len(h.eras) > 0 { // else it is the first of all
			l.config.Logger.WarnContext(ctx, "the log continues on a new timeline", slog.Uint64("system_identifier", h.system),
				slog.Uint64("timeline", uint64(h.timeline)), slog.Uint64("read_again_from", since))
		}
		// Others may record it at the same time; whichever is first counts.
		err = l.query(ctx, "", `INSERT INTO upcall.feed_timelines (system_identifier, timeline, since_xid, read_until)
			VALUES ($1, $2, $3::xid8, $4::xid8) ON CONFLICT DO NOTHING`, nil,
			int64(h.system), int32(h.timeline), since, max(since, 1))
		if err != nil {
			return nil, err
		}
	}
	return nil, eventstore.Unavailable(errors.New("the cluster changes again and again"))
}

// lookAround reads where it is, and what came before.
func (l *Log) lookAround(ctx context.Context) (*history, head, error) {
	var h history
	var now head
	var newest *uint64
	// Any entry that is visible was written by a transaction below xmax, unless it was
	// numbered by another cluster.
	err := l.queryRow(ctx, `SELECT `+thisCluster+`, greatest(
		(SELECT recorded_xid FROM upcall.upload_events WHERE recorded_xid IS NOT NULL ORDER BY recorded_xid DESC LIMIT 1),
		(SELECT recorded_xid FROM upcall.findings ORDER BY recorded_xid DESC LIMIT 1))`,
		[]any{&now.system, &now.timeline, &now.xmin, &now.xmax, &newest})
	if err != nil {
		return nil, head{}, err
	}
	h.cluster = now.cluster
	err = l.query(ctx, "", `SELECT system_identifier, timeline, since_xid, read_until, xmin::text::bigint
		FROM upcall.feed_timelines ORDER BY noticed_at, system_identifier, timeline`, func(rows pgx.Rows) error {
		for rows.Next() {
			var e era
			if err := rows.Scan(&e.system, &e.timeline, &e.since, &e.readUntil, &e.written); err != nil {
				return err
			}
			// xmin has 32 bits of the number.
			if e.written |= now.xmax &^ math.MaxUint32; e.written > now.xmax {
				e.written -= 1 << 32
			}
			h.eras = append(h.eras, e)
		}
		return rows.Err()
	})
	if err == nil && newest != nil && *newest >= now.xmax {
		err = fmt.Errorf("%w (an entry has recorded_xid %d, which this cluster has not reached)", ErrRestored, *newest)
	}
	return &h, now, err
}

// began returns where a cluster that is new begins to differ from the one before.
func (h *history) began(now head) (uint64, error) {
	var last *era
	for i, e := range h.eras {
		if e.system == h.system && (last == nil || last.system != h.system || e.timeline > last.timeline) {
			last = &h.eras[i]
		} else if e.system != h.system && (last == nil || last.system != h.system) {
			last = &h.eras[i]
		}
	}
	switch {
	case last == nil: // the first of all: there are no older cursors
		return now.xmin, nil
	case last.system == h.system && last.timeline > h.timeline:
		return 0, ErrBehind
	case last.system == h.system:
		return last.readUntil, nil
	}
	// The events were restored. What was recorded here since then has numbers above that of
	// the transaction that restored the row; after pg_upgrade, that is the one that wrote it
	// in the old cluster.
	return min(last.readUntil, last.written), nil
}

// forget makes the next call look again. Cursors that were handed out elsewhere need no mark
// here.
func (l *Log) forget(h *history) {
	if l.history.CompareAndSwap(h, nil) {
		l.handed.Store(0)
		l.marked.Store(0)
	}
}
