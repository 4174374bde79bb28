package feed

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
)

// A Lag is how far a cursor is from the end of the log.
type Lag struct {
	Events int           // committed after the cursor; MostLag if there are more
	Age    time.Duration // of the first of them, since it was received; 0 if there is none
}

const (
	// MostLag is where counting stops.
	MostLag = 10_000
	// measureEvery is how often the lag is measured, and, if cursors were handed out since,
	// where they are read again from after a failover.
	measureEvery = time.Second
)

// lagSQL counts what comes after an entry, whether it may be read yet or not.
const (
	lagSQL = `SELECT (SELECT count(*) FROM (SELECT FROM upcall.upload_events
			WHERE recorded_xid IS NOT NULL AND (recorded_xid, id) > ($1::xid8, $2::uuid) LIMIT $3) AS there),
		(SELECT received_at FROM upcall.upload_events WHERE recorded_xid IS NOT NULL AND (recorded_xid, id) > ($1::xid8, $2::uuid)
			ORDER BY recorded_xid, id LIMIT 1)`
	nullLagSQL = `SELECT (SELECT count(*) FROM (SELECT FROM upcall.upload_events WHERE recorded_xid IS NULL
			AND received_at <= (SELECT null_until FROM upcall.feed_log) AND (received_at, id) > ($1::timestamptz, $2::uuid)
			LIMIT $3) AS there),
		(SELECT received_at FROM upcall.upload_events WHERE recorded_xid IS NULL
			AND received_at <= (SELECT null_until FROM upcall.feed_log) AND (received_at, id) > ($1::timestamptz, $2::uuid)
			ORDER BY received_at, id LIMIT 1)`
	// findingLagSQL is lagSQL for findings.
	findingLagSQL = `SELECT (SELECT count(*) FROM (SELECT FROM upcall.findings
			WHERE (recorded_xid, id) > ($1::xid8, $2::uuid) LIMIT $3) AS there),
		(SELECT found_at FROM upcall.findings WHERE (recorded_xid, id) > ($1::xid8, $2::uuid) ORDER BY recorded_xid, id LIMIT 1)`
	// heldSQL is lagSQL for what may not be read yet.
	heldSQL = `SELECT (SELECT count(*) FROM (SELECT FROM upcall.upload_events
			WHERE recorded_xid IS NOT NULL AND recorded_xid >= pg_snapshot_xmin(pg_current_snapshot()) LIMIT $1) AS there),
		(SELECT received_at FROM upcall.upload_events
			WHERE recorded_xid IS NOT NULL AND recorded_xid >= pg_snapshot_xmin(pg_current_snapshot())
			ORDER BY recorded_xid, id LIMIT 1)`
)

// Lag returns how far a cursor is behind, also behind events that a running transaction keeps
// from being read. Findings do not count.
func (l *Log) Lag(ctx context.Context, after Cursor) (Lag, error) {
	return l.lagAfter(ctx, after, recorded)
}

// LagOfAll is Lag for a reader of findings.
func (l *Log) LagOfAll(ctx context.Context, after Cursor) (Lag, error) {
	return l.lagAfter(ctx, after, all)
}

func (l *Log) lagAfter(ctx context.Context, after Cursor, what reading) (Lag, error) {
	h, err := l.place(ctx)
	if err != nil {
		return Lag{}, err
	}
	p, foreign, err := h.resolve(after)
	if err == nil && foreign {
		p, err = l.movedTo(ctx, h, after, p)
	}
	if err != nil {
		return Lag{}, err
	}
	var lag Lag
	if p.xid == 0 {
		if lag, err = l.lagOf(ctx, "upcall_lag_nulls", nullLagSQL, time.UnixMicro(p.at), p.id, MostLag); err != nil {
			return Lag{}, err
		}
		p = position{xid: 1}
	}
	rest, err := l.lagOf(ctx, "upcall_lag", lagSQL, p.xid, p.id, MostLag)
	lag = lag.and(rest)
	if err == nil && what == all {
		rest, err = l.lagOf(ctx, "upcall_lag_findings", findingLagSQL, p.xid, p.id, MostLag)
		lag = lag.and(rest)
	}
	if err != nil {
		return Lag{}, err
	}
	return lag, nil
}

// and returns the lag behind both.
func (lag Lag) and(other Lag) Lag {
	return Lag{min(lag.Events+other.Events, MostLag), max(lag.Age, other.Age)}
}

func (l *Log) lagOf(ctx context.Context, name, sql string, args ...any) (lag Lag, err error) {
	var first *time.Time
	err = l.query(ctx, name, sql, func(rows pgx.Rows) error {
		for rows.Next() {
			if err := rows.Scan(&lag.Events, &first); err != nil {
				return err
			}
		}
		return rows.Err()
	}, args...)
	if first != nil {
		lag.Age = max(l.config.Now().Sub(*first), 0)
	}
	return lag, err
}

// Collectors returns upcall_feed_lag_seconds and upcall_feed_lag_events.
func (l *Log) Collectors() []prometheus.Collector {
	gauge := func(name, help string, value func(Lag) float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 {
			lag := l.lag.Load()
			if lag == nil {
				return math.NaN()
			}
			return value(*lag)
		})
	}
	return []prometheus.Collector{
		gauge("upcall_feed_lag_seconds", "Age of the first committed event that cannot be told yet, because an older transaction "+
			"is still open; 0 if there is none; NaN while it is not known.", func(lag Lag) float64 { return lag.Age.Seconds() }),
		gauge("upcall_feed_lag_events", fmt.Sprintf("How many such events there are, up to %d.", MostLag),
			func(lag Lag) float64 { return float64(lag.Events) }),
	}
}

// measure keeps the metrics true, until ctx ends.
func (l *Log) measure(ctx context.Context) {
	ticker := time.NewTicker(measureEvery)
	defer ticker.Stop()
	var failed error
	for {
		if lag, err := l.lagOf(ctx, "upcall_held", heldSQL, MostLag); err != nil {
			l.lag.Store(nil)
		} else {
			l.lag.Store(&lag)
		}
		err := l.mark(ctx)
		if err != nil && ctx.Err() == nil && (failed == nil || failed.Error() != err.Error()) {
			l.config.Logger.WarnContext(ctx, "the log cannot be read", slog.String("error", err.Error()))
		}
		failed = err
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// mark notes the watermark, from which cursors that were handed out are read again if this
// cluster is lost. A standby that is promoted has the mark only if it has all that is below it.
func (l *Log) mark(ctx context.Context) error {
	h, err := l.place(ctx)
	if err != nil {
		return err
	}
	if l.handed.Load() <= l.marked.Load() {
		return nil
	}
	var now head
	const update = `UPDATE upcall.feed_timelines SET read_until = greatest(read_until, pg_snapshot_xmin(pg_current_snapshot()))
		WHERE system_identifier = $1 AND timeline = $2 RETURNING ` + thisCluster
	if err := l.queryRow(ctx, update, []any{&now.system, &now.timeline, &now.xmin, &now.xmax},
		int64(h.system), int32(h.timeline)); err != nil {
		return err
	}
	if now.cluster != h.cluster {
		l.forget(h)
		return nil
	}
	l.marked.Store(now.xmin)
	return nil
}

// A Holder is a transaction that holds the watermark back.
type Holder struct {
	XID      uint64
	Since    time.Time // when the transaction began, or was prepared
	PID      int       // of the server process; 0 if the transaction is prepared
	Prepared string    // the name of the prepared transaction
	Database string
	User     string
	Program  string // application_name
	State    string // as in pg_stat_activity, such as "idle in transaction"
	Query    string // its beginning; empty without the right to see it
}

// fullXID is the number of a transaction of which low has 32 bits, and which is not far from
// latest. It can be above that: the views also show transactions that began after the
// statement's snapshot was taken.
const fullXID = `CASE
	WHEN (latest >> 32 << 32) + low - latest > 2147483648 THEN (latest >> 32 << 32) + low - 4294967296
	WHEN latest - (latest >> 32 << 32) - low > 2147483648 THEN (latest >> 32 << 32) + low + 4294967296
	ELSE (latest >> 32 << 32) + low END`

// holdersSQL completes the 32 bits that the two views show of an xid.
const holdersSQL = `
	SELECT full_xid, since, pid, prepared, coalesce(datname, ''), coalesce(usename, ''), program, state, query FROM (
		SELECT backend_xid AS xid, xact_start AS since, pid, '' AS prepared, datname::text, usename::text,
			coalesce(application_name, '') AS program, coalesce(state, '') AS state, coalesce(left(query, 200), '') AS query
		FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid()
		UNION ALL
		SELECT transaction, prepared, 0, gid, database::text, owner::text, '', 'prepared', '' FROM pg_prepared_xacts
	) AS open
	CROSS JOIN LATERAL (
		SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS latest, xid::text::bigint AS low
	) AS number
	CROSS JOIN LATERAL (SELECT ` + fullXID + ` AS full_xid) AS known
	ORDER BY full_xid`

// Holders returns the transactions with an xid in the whole cluster, the oldest first.
func (l *Log) Holders(ctx context.Context) ([]Holder, error) {
	var holders []Holder
	err := l.query(ctx, "", holdersSQL, func(rows pgx.Rows) (err error) {
		holders, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (h Holder, err error) {
			var since *time.Time
			err = row.Scan(&h.XID, &since, &h.PID, &h.Prepared, &h.Database, &h.User, &h.Program, &h.State, &h.Query)
			if since != nil {
				h.Since = *since
			}
			return h, err
		})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("look for open transactions: %w", err)
	}
	return holders, nil
}
