package feed

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"upcall/internal/eventstore"
)

// sinceSQL finds the first entry that was received at a time or later, among those that are
// visible; others are not below xmin. The sum over xids as numbers keeps PostgreSQL from
// reading the log from its beginning: it reads the events of that time.
const sinceSQL = `SELECT ` + thisCluster + `,
	NOT EXISTS (SELECT FROM upcall.upload_events WHERE received_at < $1::timestamptz),
	EXISTS (SELECT FROM upcall.upload_events WHERE recorded_xid IS NULL
		AND received_at BETWEEN $1::timestamptz AND (SELECT null_until FROM upcall.feed_log)),
	(SELECT min(recorded_xid::text::bigint) FROM upcall.upload_events WHERE received_at >= $1::timestamptz)`

// Since returns a cursor that comes before all events with a received_at of t or later. Earlier
// ones may follow it, too. It reads all events since t, so it may take long.
func (l *Log) Since(ctx context.Context, t time.Time) (Cursor, error) {
	for range 3 {
		h, err := l.place(ctx)
		if err != nil {
			return Cursor{}, err
		}
		var now head
		var all, null bool
		var first *int64
		err = eventstore.Transact(ctx, l.config.Pool, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, "SET LOCAL statement_timeout = 0; SET LOCAL enable_sort = on"); err != nil {
				return err
			}
			return tx.QueryRow(ctx, sinceSQL, t).Scan(&now.system, &now.timeline, &now.xmin, &now.xmax, &all, &null, &first)
		})
		if err != nil {
			return Cursor{}, fmt.Errorf("look for events since %s: %w", t.UTC().Format(time.RFC3339), eventstore.Unavailable(err))
		}
		if now.cluster != h.cluster {
			l.forget(h)
			continue
		}
		switch {
		case all:
			return l.Oldest(ctx)
		case null:
			return h.at(position{at: t.UnixMicro()}), nil
		case first != nil && uint64(*first) < now.xmin:
			now.xmin = uint64(*first)
		}
		c := h.at(position{xid: now.xmin})
		l.hand(c)
		return c, nil
	}
	return Cursor{}, eventstore.Unavailable(fmt.Errorf("the cluster changes again and again"))
}
