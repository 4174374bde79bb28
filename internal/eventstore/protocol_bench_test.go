package eventstore

import (
	"context"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/dbtest"
	"upcall/internal/event"
)

// BenchmarkProtocols compares ways to commit 64 events in one transaction: the recorder's arrays,
// a pipeline of one statement for each event, and COPY to a temporary table.
func BenchmarkProtocols(b *testing.B) {
	const size = 64
	pool := benchPool(b, dbtest.NewServer(b).URL(), 2)
	for _, protocol := range []struct {
		name   string
		commit func(*testing.B, *pgxpool.Pool) func([]*event.Event) error
	}{{"arrays", byArrays}, {"pipeline", byPipeline}, {"copy", byCopy}} {
		b.Run(protocol.name, func(b *testing.B) {
			commit := protocol.commit(b, pool)
			for b.Loop() {
				b.StopTimer()
				events := make([]*event.Event, size)
				for i := range events {
					events[i] = newEvent()
				}
				b.StartTimer()
				if err := commit(events); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/size, "µs/event")
		})
	}
}

func byArrays(b *testing.B, pool *pgxpool.Pool) func([]*event.Event) error {
	w := newWriter(Config{Pool: pool}.withDefaults(), eventKind)
	return func(events []*event.Event) error {
		batch := make([]*request[eventRow], len(events))
		for i, e := range events {
			row, err := newEventRow(e)
			if err != nil {
				return err
			}
			batch[i] = &request[eventRow]{id: e.ID, row: row}
		}
		_, err := w.commit(b.Context(), eventKind.fold(batch))
		return err
	}
}

func byPipeline(b *testing.B, pool *pgxpool.Pool) func([]*event.Event) error {
	return func(events []*event.Event) error {
		return pgx.BeginFunc(b.Context(), pool, func(tx pgx.Tx) error {
			var batch pgx.Batch
			for _, e := range events {
				batch.Queue(insertEvent, oneRow(e)...)
			}
			return tx.SendBatch(b.Context(), &batch).Close()
		})
	}
}

func byCopy(b *testing.B, pool *pgxpool.Pool) func([]*event.Event) error {
	conn, err := pool.Acquire(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(conn.Release)
	ctx := context.WithoutCancel(b.Context())
	if _, err := conn.Exec(ctx, "CREATE TEMP TABLE given (LIKE upcall.upload_events) ON COMMIT DELETE ROWS"); err != nil {
		b.Fatal(err)
	}
	return func(events []*event.Event) error {
		return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			_, err := tx.CopyFrom(ctx, pgx.Identifier{"given"}, columnNames(), pgx.CopyFromSlice(len(events), func(i int) ([]any, error) {
				return oneRow(events[i]), nil
			}))
			if err != nil {
				return err
			}
			rows, err := tx.Query(ctx, `
				WITH fresh AS (
					INSERT INTO upcall.callback_ids (upload_id, id, received_at) SELECT upload_id, id, received_at FROM given
					ON CONFLICT DO NOTHING RETURNING id
				), recorded AS (
					INSERT INTO upcall.upload_events SELECT given.* FROM given JOIN fresh USING (id)
				)
				SELECT id FROM fresh`)
			if err != nil {
				return err
			}
			_, err = pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
			return err
		})
	}
}
