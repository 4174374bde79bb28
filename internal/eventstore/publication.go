package eventstore

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"upcall/migrations"
)

// Publication is the name of the publication of events.
const Publication = "upcall_events"

const duplicateObject = "42710"

// CreatePublication publishes new events for logical replication, as rows of upload_events
// whatever their partition. If it is there already it does nothing. The role must own the table
// and may create in the database.
func CreatePublication(ctx context.Context, pool *pgxpool.Pool) error {
	// Inserts only: what retention drops stays at the subscribers, and so does what was erased.
	_, err := execOne(ctx, pool, nil, "CREATE PUBLICATION "+Publication+
		" FOR TABLE upcall.upload_events WITH (publish = 'insert', publish_via_partition_root = true)")
	if err != nil && migrations.ServerError(err).Code != duplicateObject {
		return fmt.Errorf("create publication: %w", err)
	}
	return nil
}

// DropPublication ends it. Slots stay.
func DropPublication(ctx context.Context, pool *pgxpool.Pool) error {
	if _, err := execOne(ctx, pool, nil, "DROP PUBLICATION IF EXISTS "+Publication); err != nil {
		return fmt.Errorf("drop publication: %w", err)
	}
	return nil
}

// WALLevel returns the server's setting, which must be "logical" for logical replication.
func WALLevel(ctx context.Context, pool *pgxpool.Pool) (level string, err error) {
	if err := queryRow(ctx, pool, &level, "SELECT current_setting('wal_level')"); err != nil {
		return "", fmt.Errorf("look up wal_level: %w", err)
	}
	return level, nil
}

// A Slot is a logical replication slot of the database.
type Slot struct {
	Name   string
	Active bool // something reads it
	// Lag is how many bytes of WAL the server keeps for it.
	Lag int64
}

// LogicalSlots returns the logical replication slots of the database: PostgreSQL does not say
// which publication each is for.
func LogicalSlots(ctx context.Context, pool *pgxpool.Pool) (slots []Slot, err error) {
	const statement = `
		SELECT slot_name::text, active, coalesce(pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
			ELSE pg_current_wal_lsn() END, restart_lsn), 0)::bigint
		FROM pg_replication_slots WHERE slot_type = 'logical' AND database = current_database() ORDER BY slot_name`
	_, err = execOne(ctx, pool, func(rows pgx.Rows) (err error) {
		slots, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Slot])
		return err
	}, statement)
	if err != nil {
		return nil, fmt.Errorf("look up replication slots: %w", err)
	}
	return slots, nil
}

// SlotLag keeps the metric of the slots true.
type SlotLag struct {
	Pool  *pgxpool.Pool // from [Open]
	slots atomic.Pointer[[]Slot]
}

// slotEvery is how often slots are looked up.
const slotEvery = 15 * time.Second

var slotLag = prometheus.NewDesc("upcall_slot_lag_bytes",
	"WAL that PostgreSQL keeps for a logical replication slot of this database.", []string{"slot"}, nil)

// Describe implements prometheus.Collector.
func (s *SlotLag) Describe(to chan<- *prometheus.Desc) { to <- slotLag }

// Collect implements prometheus.Collector.
func (s *SlotLag) Collect(to chan<- prometheus.Metric) {
	if slots := s.slots.Load(); slots != nil {
		for _, slot := range *slots {
			to <- prometheus.MustNewConstMetric(slotLag, prometheus.GaugeValue, float64(slot.Lag), slot.Name)
		}
	}
}

// Run works until ctx ends.
func (s *SlotLag) Run(ctx context.Context) {
	for {
		slots, err := LogicalSlots(ctx, s.Pool)
		if err != nil {
			s.slots.Store(nil) // no number is better than an old one
		} else {
			s.slots.Store(&slots)
		}
		if pause(ctx, slotEvery) != nil {
			return
		}
	}
}
