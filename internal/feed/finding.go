package feed

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"upcall/internal/event"
	"upcall/internal/eventstore"
)

// A Finding is what was found about an event after it was recorded.
type Finding struct {
	ID    uuid.UUID
	At    time.Time // when it was found
	Found json.RawMessage
}

// found is a finding of a row.
type found struct {
	Finding
	kind event.Kind
}

// findingsAfter are those of a page, in the log's order.
const findingsAfter = ` FROM upcall.findings WHERE recorded_xid < pg_snapshot_xmin(pg_current_snapshot())
	AND (recorded_xid, id) > ($1::xid8, $2::uuid)`

// readFindings reads them when it is known that there are any, with their events, each of which is looked
// up by its key, whatever the statistics say. Below the watermark of the statement that has seen them,
// nothing has changed since.
var readFindings = `
	SELECT f.id, f.kind, f.found, f.found_at, f.recorded_xid, NULL AS placed_at, e.* FROM (
		SELECT recorded_xid, id, event_received_at, event_id, kind, found, found_at FROM upcall.findings
		WHERE recorded_xid < $4::xid8 AND (recorded_xid, id) > ($1::xid8, $2::uuid) ORDER BY recorded_xid, id LIMIT $3::bigint
	) AS f LEFT JOIN LATERAL (
		SELECT ` + eventstore.EventColumns() + ` FROM upcall.upload_events
		WHERE received_at = f.event_received_at AND id = f.event_id OFFSET 0
	) AS e ON true ORDER BY f.recorded_xid, f.id`

// addFindings puts the findings after a position among the events. What was read of both is complete up
// to the earlier of their ends.
func (l *Log) addFindings(ctx context.Context, c *chunk, from position, limit int) error {
	rows, end, err := l.findings(ctx, from, limit, c.head)
	if err != nil {
		return err
	}
	if end != (position{}) && (!c.full || end.compare(c.end) < 0) {
		c.full, c.end = true, end
	}
	c.rows = append(c.rows, rows...)
	slices.SortFunc(c.rows, func(a, b *row) int { return a.cursor.compare(b.cursor.position) })
	if c.full {
		c.rows = slices.DeleteFunc(c.rows, func(r *row) bool { return r.cursor.compare(c.end) > 0 })
	}
	if len(c.rows) > limit {
		c.rows = c.rows[:limit]
		c.full, c.end = true, c.rows[limit-1].cursor.position
	}
	return nil
}

// findings reads findings after a position. The end is how far, if there may be more. Those whose events
// have been dropped are left out.
func (l *Log) findings(ctx context.Context, from position, limit int, h head) (_ []*row, end position, err error) {
	var all *scanner
	err = l.query(ctx, "upcall_log_findings", readFindings, func(rows pgx.Rows) error {
		all = newScanner(rows, len(event.Members))
		var last position
		for n := 1; rows.Next(); n++ {
			one := new(found)
			all.fields[0], all.fields[1], all.fields[2], all.fields[3] = &one.ID, (*string)(&one.kind), (*[]byte)(&one.Found), &one.At
			fields := all.fields
			dropped := rows.RawValues()[all.first+idAt] == nil
			if dropped {
				fields = append(slices.Clone(fields[:all.first]), make([]any, len(event.Members))...)
				if err := rows.Scan(fields...); err != nil {
					return err
				}
			} else if more, err := all.scan(rows); err != nil {
				return err
			} else if !more {
				end = last
				break
			} else {
				r := &all.rows[len(all.rows)-1]
				r.cursor.position, r.found = position{xid: all.place, id: one.ID}, one
			}
			if last = (position{xid: all.place, id: one.ID}); n == limit {
				end = last
			}
		}
		return rows.Err()
	}, from.xid, from.id, limit, h.xmin)
	if err != nil {
		return nil, position{}, err
	}
	return all.end(h.cluster), end, nil
}

// withoutFindings returns the rows that are events.
func withoutFindings(rows []*row) []*row {
	if !slices.ContainsFunc(rows, func(r *row) bool { return r.found != nil }) {
		return rows
	}
	return slices.DeleteFunc(slices.Clone(rows), func(r *row) bool { return r.found != nil })
}
