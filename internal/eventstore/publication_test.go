package eventstore

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"upcall/internal/dbtest"
	"upcall/internal/testing/wait"
)

// TestPublication reads events from a slot: inserts, as rows of the one table, and no deletions.
func TestPublication(t *testing.T) {
	t.Parallel()
	server := dbtest.NewServer(t)
	dbtest.Execute(t, server.URL(), "ALTER SYSTEM SET wal_level = 'logical'")
	server.Kill(t)
	server.Restart(t)
	pool := dbtest.Open(t, server.URL(), Open)
	if err := EnsurePartitions(t.Context(), pool, time.Now()); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := CreatePublication(t.Context(), pool); err != nil {
			t.Fatal(err)
		}
	}
	if level, err := WALLevel(t.Context(), pool); level != "logical" || err != nil {
		t.Errorf("wal_level is %s, %v", level, err)
	}
	dbtest.Execute(t, server.URL(), "SELECT pg_create_logical_replication_slot('warehouse', 'pgoutput')")
	dbtest.Execute(t, server.URL(), "INSERT INTO upcall.upload_events (id, received_at, source) VALUES (gen_random_uuid(), now(), 'callback')")
	dbtest.Execute(t, server.URL(), "DELETE FROM upcall.upload_events")
	var messages []string
	rows, err := pool.Query(t.Context(), `SELECT convert_from(substr(data, 1, 1), 'UTF8') || CASE substr(data, 1, 1) WHEN 'R' THEN
		replace(encode(data, 'escape'), '\000', '.') ELSE '' END
		FROM pg_logical_slot_peek_binary_changes('warehouse', NULL, NULL, 'proto_version', '1', 'publication_names', 'upcall_events')`)
	if err != nil {
		t.Fatal(err)
	}
	for rows.Next() {
		var message string
		if err := rows.Scan(&message); err != nil {
			t.Fatal(err)
		}
		messages = append(messages, message)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	all := strings.Join(messages, " ")
	if !strings.Contains(all, "upcall.upload_events.") || strings.Count(" "+all, " I") != 1 || strings.Contains(" "+all, " D") {
		t.Errorf("messages: %q", messages)
	}

	lag := &SlotLag{Pool: pool}
	registry := prometheus.NewRegistry()
	registry.MustRegister(lag)
	go lag.Run(t.Context())
	wait.Until(t, "the slot has a lag", func() bool {
		families, err := registry.Gather()
		return err == nil && len(families) == 1 && families[0].GetMetric()[0].GetGauge().GetValue() > 0
	})
	if slots, err := LogicalSlots(t.Context(), pool); err != nil || len(slots) != 1 || slots[0].Name != "warehouse" || slots[0].Active ||
		slots[0].Lag <= 0 {
		t.Errorf("slots: %+v, %v", slots, err)
	}
	for range 2 {
		if err := DropPublication(t.Context(), pool); err != nil {
			t.Fatal(err)
		}
	}
}
