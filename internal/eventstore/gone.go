package eventstore

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// dropFound deletes what was found about the events of a month, what waits to be, and which of them were recovered. The log loses these
// findings without a word to readers, who have lost the events, too.
func (x *expirer) dropFound(ctx context.Context, m month) error {
	for _, table := range []string{"findings", "confirmations", "confirm_retries", "recovered_uploads"} {
		received, since := "event_received_at", m.begins
		if table == "recovered_uploads" {
			received = "received_at"
			if x.keeper != nil { // which is yet to get events of the next month that supersede some of this one
				since = since.AddDate(0, -1, 0)
			}
		}
		for {
			began := time.Now()
			tag, err := x.conn.Exec(ctx, fmt.Sprintf(`
				DELETE FROM upcall.%[1]s WHERE ctid = ANY (ARRAY(
					SELECT ctid FROM upcall.%[1]s WHERE %[2]s >= $1 AND %[2]s < $2 LIMIT $3))`, table, received),
				since, since.AddDate(0, 1, 0), trimStep)
			if err != nil {
				return err
			}
			if tag.RowsAffected() == 0 {
				break
			}
			if err := x.rest(ctx, began); err != nil {
				return err
			}
		}
	}
	return nil
}

// noteGone records the end of what the log loses with a table of expired events, those of the
// month that begins then, so that a reader whose cursor is before that learns of it.
func (x *expirer) noteGone(ctx context.Context, begins time.Time, table string) error {
	// A table that was detached before the log was there has no column for it.
	var ordered bool
	err := x.conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_attribute
		WHERE attrelid = $1::text::regclass AND attname = 'recorded_xid' AND NOT attisdropped)`, table).Scan(&ordered)
	if err != nil {
		return err
	}
	// Roll-ups outlive the events: a rebuild keeps what was counted before this.
	_, err = x.conn.Exec(ctx, "UPDATE upcall.feed_log SET dropped_before = greatest(dropped_before, $1)", begins.AddDate(0, 1, 0))
	if err != nil {
		return err
	}
	null := "true"
	if ordered {
		null = "recorded_xid IS NULL AND received_at <= (SELECT null_until FROM upcall.feed_log)"
		_, err := x.conn.Exec(ctx, fmt.Sprintf(`
			UPDATE upcall.feed_log SET gone_xid = recorded_xid, gone_id = id
			FROM (SELECT recorded_xid, id FROM %s WHERE recorded_xid IS NOT NULL ORDER BY recorded_xid DESC, id DESC LIMIT 1) AS last
			WHERE gone_xid IS NULL OR (gone_xid, gone_id) < (recorded_xid, id)`, table))
		if err != nil {
			return err
		}
	}
	_, err = x.conn.Exec(ctx, strings.NewReplacer("{table}", table, "{null}", null).Replace(`
		UPDATE upcall.feed_log SET gone_null_at = received_at, gone_null_id = id
		FROM (SELECT received_at, id FROM {table} WHERE {null} ORDER BY received_at DESC, id DESC LIMIT 1) AS last
		WHERE gone_null_at IS NULL OR (gone_null_at, gone_null_id) < (received_at, id)`))
	return err
}
