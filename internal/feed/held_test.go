package feed

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"upcall/internal/dbtest"
	"upcall/internal/eventstore"
	"upcall/internal/testing/wait"
)

// metrics returns the log's metrics by name.
func metrics(t *testing.T, log *Log) map[string]float64 {
	t.Helper()
	values := make(map[string]float64)
	for _, c := range log.Collectors() {
		found := make(chan prometheus.Metric, 1)
		c.Collect(found)
		var m dto.Metric
		metric := <-found
		if err := metric.Write(&m); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"upcall_feed_lag_seconds", "upcall_feed_lag_events"} {
			if strings.Contains(metric.Desc().String(), `"`+name+`"`) {
				values[name] = m.GetGauge().GetValue()
			}
		}
	}
	return values
}

// TestTransactionIsHeldOpen: while a transaction is open for a minute, nothing that was
// committed after its beginning is told, and the lag and its holder show. Then all of it is
// told, the late event first.
func TestTransactionIsHeldOpen(t *testing.T) {
	t.Parallel()
	w := own(t)
	start := must(w.Now(t.Context()))(t)
	reading := begin(t, w.pool) // holds up nothing
	if _, err := reading.Exec(t.Context(), "SELECT FROM upcall.upload_events"); err != nil {
		t.Fatal(err)
	}
	before := add(t, w.pool, time.Now(), 2)
	got, after := drainUntil(t, w.Log, start, 2)
	wantOnce(t, got, before)

	open := begin(t, w.pool)
	late := add(t, open, time.Now(), 1)
	held := add(t, w.pool, time.Now().Add(-time.Minute), 3)
	held = append(held, add(t, w.pool, time.Now(), 2)...)
	wait.Until(t, "the metrics show it", func() bool {
		m := metrics(t, w.Log)
		return m["upcall_feed_lag_events"] == 5 && m["upcall_feed_lag_seconds"] >= 60
	})
	if ids, _ := drain(t, w.Log, after, 10); len(ids) > 0 {
		t.Errorf("%d entries were told early", len(ids))
	}
	lag := must(w.Lag(t.Context(), after))(t)
	if lag.Events != 5 || lag.Age < time.Minute {
		t.Errorf("the cursor is %+v behind, want 5 events and a minute", lag)
	}
	holders := must(w.Holders(t.Context()))(t)
	status := must(w.Status(t.Context()))(t)
	if len(holders) != 1 || holders[0].XID != status.CompleteBelow || status.HeldEvents != 5 || status.HeldSeconds < 60 ||
		holders[0].State != "idle in transaction" ||
		holders[0].PID == 0 || !strings.Contains(holders[0].Query, "INSERT INTO upcall.upload_events") || holders[0].Since.IsZero() {
		t.Errorf("%+v is held by %+v", status, holders)
	}
	commit(t, open)
	got, _ = drainUntil(t, w.Log, after, 6)
	wantOnce(t, got, late, held)
	if got[0] != late[0] {
		t.Error("the late event does not come first")
	}
	wait.Until(t, "the metrics show that it is over", func() bool {
		m := metrics(t, w.Log)
		return m["upcall_feed_lag_events"] == 0 && m["upcall_feed_lag_seconds"] == 0
	})
}

// TestPreparedTransaction holds up the log without any session, through a restart.
func TestPreparedTransaction(t *testing.T) {
	t.Parallel()
	server := dbtest.NewServer(t)
	dbtest.Execute(t, server.URL(), "ALTER SYSTEM SET max_prepared_transactions = 5")
	server.Kill(t)
	server.Restart(t)
	w := at(t, server.URL())
	start := must(w.Now(t.Context()))(t)
	tx := begin(t, w.pool)
	late := add(t, tx, time.Now(), 1)
	if _, err := tx.Exec(t.Context(), "PREPARE TRANSACTION 'forgotten'"); err != nil {
		t.Fatal(err)
	}
	_ = tx.Commit(t.Context()) // there is no transaction any more
	held := add(t, w.pool, time.Now(), 2)
	server.Kill(t)
	server.Restart(t)
	var ids []uuid.UUID
	wait.Until(t, "the server answers", func() bool {
		page, err := w.Page(t.Context(), start, 10)
		ids = nil
		for _, e := range page.Entries {
			ids = append(ids, e.Event.ID)
		}
		return err == nil
	})
	if len(ids) > 0 {
		t.Errorf("%d entries were told early", len(ids))
	}
	holders := must(w.Holders(t.Context()))(t)
	if len(holders) != 1 || holders[0].Prepared != "forgotten" || holders[0].PID != 0 || holders[0].XID == 0 {
		t.Errorf("got %+v, want the prepared transaction", holders)
	}
	dbtest.Execute(t, server.URL(), "COMMIT PREPARED 'forgotten'")
	got, _ := drainUntil(t, w.Log, start, 3)
	wantOnce(t, got, late, held)
	if got[0] != late[0] {
		t.Error("the late event does not come first")
	}
}

// TestLagByTheClock: the age is by the clock that the log has.
func TestLagByTheClock(t *testing.T) {
	t.Parallel()
	w := shared(t)
	log, err := New(Config{Pool: dbtest.Open(t, w.url, eventstore.OpenFeed), Logger: slog.New(slog.DiscardHandler),
		Now: func() time.Time { return time.Now().Add(time.Hour) }})
	if err != nil {
		t.Fatal(err)
	}
	start := must(log.Now(t.Context()))(t)
	if lag := must(log.Lag(t.Context(), start))(t); lag != (Lag{}) {
		t.Errorf("got %+v for an empty log", lag)
	}
	add(t, w.pool, time.Now(), 4)
	if lag := must(log.Lag(t.Context(), start))(t); lag.Events != 4 || lag.Age < 59*time.Minute || lag.Age > 61*time.Minute {
		t.Errorf("got %+v, want 4 events and an hour", lag)
	}
}

// TestFullXID: of the 32 bits that PostgreSQL shows of an xid, the whole number is made, also for
// transactions that are younger than the snapshot, and where the 32 bits start again.
func TestFullXID(t *testing.T) {
	t.Parallel()
	pool := dbtest.Open(t, dbtest.URL(t), eventstore.OpenFeed)
	const epoch = 1 << 32
	for _, tt := range []struct{ latest, low, want int64 }{
		{3159, 3100, 3100},
		{3159, 3159, 3159},
		{3159, 3163, 3163},
		{5*epoch + 3159, 3100, 5*epoch + 3100},
		{5*epoch + 3159, 3163, 5*epoch + 3163},
		{5*epoch + 3, epoch - 7, 5*epoch - 7},
		{5*epoch - 7, 3, 5*epoch + 3},
		{6*epoch - 1, 4, 6*epoch + 4},
	} {
		var got int64
		query := "SELECT " + fullXID + " FROM (SELECT $1::bigint AS latest, $2::bigint AS low) AS number"
		if err := pool.QueryRow(t.Context(), query, tt.latest, tt.low).Scan(&got); err != nil || got != tt.want {
			t.Errorf("%d near %d: got %d, %v; want %d", tt.low, tt.latest, got, err, tt.want)
		}
	}
}
