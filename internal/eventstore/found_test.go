package eventstore

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"upcall/internal/dbtest"
	"upcall/internal/event"
)

// TestFoundIsDropped: what was found about events goes with them.
func TestFoundIsDropped(t *testing.T) {
	t.Parallel()
	pool := dbtest.Pool(t, Open)
	recorder := newRecorder(t, Config{Pool: pool})
	old, kept := eventAt(monthsAgo(4)), eventAt(monthsAgo(1))
	for _, e := range []*event.Event{old, kept} {
		record(t, recorder, e, false)
		for table, columns := range map[string]string{
			"findings":        "id, kind, found, found_at) SELECT gen_random_uuid(), 'gone', '{}', now()",
			"confirmations":   "outcome, looked_at, at) SELECT 'gone', 'object', now()",
			"confirm_retries": "attempts, differs, problem, failed_at) SELECT 1, false, '', now()",
		} {
			columns = strings.Replace(columns, ") SELECT", ", event_received_at, event_id) SELECT", 1)
			if table == "confirm_retries" {
				executeArgs(t, pool, fmt.Sprintf(`INSERT INTO upcall.recovered_uploads (event_id, received_at, source)
					SELECT gen_random_uuid(), $1, 'notification' FROM generate_series(0, %d)`, trimStep), e.ReceivedAt)
			}
			executeArgs(t, pool, fmt.Sprintf(`INSERT INTO upcall.%s (%s, $1::timestamptz, CASE WHEN n = 0 THEN $2 ELSE gen_random_uuid() END
				FROM generate_series(0, %d) AS n`, table, columns, trimStep), e.ReceivedAt, e.ID)
		}
	}
	dropped(t, pool, time.Now(), 90, 4)
	for table, received := range map[string]string{"findings": "event_received_at", "confirmations": "event_received_at",
		"confirm_retries": "event_received_at", "recovered_uploads": "received_at"} {
		all := number(t, pool, "SELECT count(*) FROM upcall."+table)
		left := number(t, pool, "SELECT count(*) FROM upcall."+table+" WHERE "+received+" = $1", kept.ReceivedAt)
		if all != trimStep+1 || left != all {
			t.Errorf("%s has %d rows, %d of them of the kept month; want %d", table, all, left, trimStep+1)
		}
	}
}
