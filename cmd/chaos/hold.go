package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"upcall/internal/loadgen"
)

// A holding is what became of the transactions that were held open.
type holding struct {
	times  int
	lag    float64 // what upcall_feed_lag_seconds showed, at least, in seconds before the end
	early  int     // events that were told while an older transaction was open
	unseen int     // times that receiver feed status did not name the transaction
}

// lagBelow is how far the lag may be below the time that a transaction was open: it is
// measured every second, and from the first event after its beginning.
const lagBelow = 3 * time.Second

// hold keeps a transaction open for some time, and lets it record an event at its end. Nothing
// that is recorded in the meantime may be told, and nothing may be skipped afterwards.
func (t *telling) hold(ctx context.Context, d time.Duration) error {
	conn, err := t.world.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	tx, err := conn.Begin(ctx)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	var xid uint64
	if err := tx.QueryRow(ctx, "SELECT pg_current_xact_id()").Scan(&xid); err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	began, read := time.Now(), len(t.reader.seen(0))
	select {
	case <-time.After(d):
	case <-ctx.Done():
		return ctx.Err()
	}
	lag := 0.0
	for _, r := range t.world.receivers {
		values, err := loadgen.Metrics(ctx, r.admin, "upcall_feed_lag_seconds")
		if err != nil {
			return err
		}
		lag = max(lag, values[0])
	}
	status, err := t.world.command(ctx, "feed", "status")
	if err != nil {
		return err
	}
	// It must come first of all that come after it.
	if _, err := tx.Exec(ctx, `INSERT INTO upcall.upload_events (id, received_at, bucket, object_key, request_id, vars, source)
		VALUES (gen_random_uuid(), clock_timestamp(), 'demo', 'photos/2026/11/held/00000000.jpg', gen_random_uuid(), '{}', 'callback')`,
	); err != nil {
		return fmt.Errorf("record late event: %w", err)
	}
	told := append(t.flaky.events(), t.reader.seen(read)...)
	var early int
	const toldSince = "SELECT count(*) FROM upcall.upload_events WHERE recorded_xid >= $1::xid8 AND id = ANY ($2)"
	if err := tx.QueryRow(ctx, toldSince, xid, told).Scan(&early); err != nil {
		return fmt.Errorf("look what was told: %w", err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.held.times++
	t.held.early += early
	if !strings.Contains(string(status), fmt.Sprint(xid)) || !strings.Contains(string(status), "idle in transaction") {
		t.held.unseen++
	}
	if short := time.Since(began).Seconds() - lag; short > lagBelow.Seconds() {
		t.held.unseen++
	}
	t.held.lag = max(t.held.lag, lag)
	if err := tx.Commit(ctx); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}
