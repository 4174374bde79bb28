package eventstore

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"upcall/internal/dbtest"
	"upcall/internal/event"
)

// TestClockFarBehind: what a receiver records while its clock is years behind, as before NTP has
// set it, is not dropped as old as soon as the clock is right. Neither is what the spool took
// then. A clock that is ahead, or a little behind, changes nothing.
func TestClockFarBehind(t *testing.T) {
	t.Parallel()
	pool := dbtest.Pool(t, Open)
	now := time.Now().UTC().Truncate(time.Microsecond)
	reset := time.Date(2000, 1, 1, 0, 0, 5, 0, time.UTC)
	// As the receiver's janitor does, by the same clock.
	if err := EnsurePartitions(t.Context(), pool, reset); err != nil {
		t.Fatal(err)
	}
	var all []*event.Event
	note := func(clock, receivedAt time.Time, acknowledged bool, want time.Time) {
		t.Helper()
		r := newRecorder(t, Config{Pool: pool, KeepDays: 400, Now: func() time.Time { return clock }})
		e := withUpload(smallEvent())
		if len(all)%2 == 0 {
			e.UploadID = uuid.NullUUID{}
		}
		e.ReceivedAt, e.Acknowledged = receivedAt, acknowledged
		record(t, r, e, false)
		record(t, r, e, true)
		all = append(all, e)
		for _, table := range []string{"upload_events", "callback_ids"} {
			var got time.Time
			if err := pool.QueryRow(t.Context(), "SELECT received_at FROM upcall."+table+" WHERE id = $1", e.ID).Scan(&got); err != nil {
				t.Fatal(err)
			}
			if got.Sub(want).Abs() > 5*time.Minute {
				t.Errorf("clock %v, received %v: %s has %v, want about %v", clock, receivedAt, table, got, want)
			}
		}
	}
	for range 2 { // with a token and without
		note(reset, reset.Add(-time.Second), false, now)
		note(now.AddDate(0, -3, 0), now.AddDate(0, -3, 0), false, now)
		note(now.Add(-time.Hour), now.Add(-time.Hour), false, now.Add(-time.Hour))
		note(now.AddDate(0, 0, 40), now.AddDate(0, 0, 40), false, now.AddDate(0, 0, 40))
		note(now, reset, true, now)                                       // spooled by the wrong clock
		note(reset, reset.Add(-time.Second), true, now)                   // and moved by it
		note(now, now.AddDate(0, 0, -300), true, now.AddDate(0, 0, -300)) // it waited long
		note(reset, now.AddDate(0, 0, -3), true, now.AddDate(0, 0, -3))   // spooled by the right clock
	}
	for range 20 { // months that the wrong clock made go one by one
		if _, err := DropExpired(t.Context(), pool, now, 400); err != nil {
			t.Fatal(err)
		}
	}
	wantCount(t, pool, len(all))
	r := newRecorder(t, Config{Pool: pool})
	for _, e := range all {
		record(t, r, e, true)
	}
}
