package recorder

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/dbtest"
	"upcall/internal/event"
	"upcall/internal/eventstore"
	"upcall/internal/testing/wait"
)

func execute(t *testing.T, pool *pgxpool.Pool, sql string) {
	t.Helper()
	if _, err := pool.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// refuse makes PostgreSQL fail the rows of objects that are called bad.
func refuse(t *testing.T, pool *pgxpool.Pool, state string) {
	t.Helper()
	execute(t, pool, fmt.Sprintf(`CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			IF NEW.object_key = 'bad' THEN RAISE EXCEPTION 'not this one' USING ERRCODE = '%s'; END IF;
			RETURN NEW;
		END $$`, state))
	execute(t, pool, "CREATE TRIGGER refuse BEFORE INSERT ON upcall.upload_events FOR EACH ROW EXECUTE FUNCTION refuse()")
}

func badEvent() *event.Event {
	e := newEvent()
	e.Callback.Object = "bad"
	return e
}

// TestDeadLetterBlocksNothing: a row that PostgreSQL fails becomes a dead letter, at the head of
// the spool as elsewhere, within five seconds, whatever PostgreSQL reports. PostgreSQL does not
// count as away, and all others are recorded.
func TestDeadLetterBlocksNothing(t *testing.T) {
	t.Parallel()
	for _, state := range []string{"P0001", "42501", "23514", "40001", "57014", "XX000", "53100"} {
		t.Run(state, func(t *testing.T) {
			t.Parallel()
			pool := dbtest.Pool(t, eventstore.Open)
			if err := eventstore.EnsurePartitions(t.Context(), pool, time.Now()); err != nil {
				t.Fatal(err)
			}
			refuse(t, pool, state)
			store, queue := newFaulty(t, pool), openSpool(t, t.TempDir(), nil)
			f := patient(store, queue)
			store.set(away)
			bad, events := badEvent(), []*event.Event{}
			record(t, f, bad, spooled)
			for range 20 {
				events = append(events, newEvent())
				record(t, f, events[len(events)-1], spooled)
			}
			store.set(nil)
			drains(t, f)
			began := time.Now()
			wait.Until(t, "the others are recorded, the bad one is a dead letter", func() bool {
				stats := queue.Stats()
				return stats.Queued == 0 && stats.DeadLetters == 1 && !f.away.Load()
			})
			t.Logf("%s after %v", state, time.Since(began))
			for _, e := range events {
				if rows(t, pool, e.ID) != 1 {
					t.Error("an event is missing")
				}
			}
			record(t, f, bad, spooledTwice)

			// The same without an outage, and alone in its batch.
			record(t, f, badEvent(), spooled)
			if f.away.Load() {
				t.Error("PostgreSQL counts as away because of a row")
			}
			record(t, f, newEvent(), committed)
			wait.Until(t, "it is a dead letter", func() bool { return queue.Stats().DeadLetters == 2 })

			// Without a spool it is an error that OSS may try again.
			bare := patient(store, nil)
			if _, err := bare.Record(t.Context(), badEvent()); !errors.Is(err, event.ErrDeadLetter) || bare.away.Load() {
				t.Errorf("without a spool: %v, away %v", err, bare.away.Load())
			}
			record(t, bare, newEvent(), committed)

			// Once nothing stands in the way, they can be recorded.
			execute(t, pool, "DROP TRIGGER refuse ON upcall.upload_events")
			if err := queue.Retry([]uuid.UUID{bad.ID}); err != nil {
				t.Fatal(err)
			}
			wait.Until(t, "it is recorded", func() bool { return rows(t, pool, bad.ID) == 1 })
		})
	}
}

// TestNoRowFitsWaits: while the schema takes no row, all wait, and none is a dead letter.
func TestNoRowFitsWaits(t *testing.T) {
	t.Parallel()
	pool := dbtest.Pool(t, eventstore.Open)
	execute(t, pool, "ALTER TABLE upcall.upload_events ADD COLUMN tenant text NOT NULL")
	store, queue := newFaulty(t, pool), openSpool(t, t.TempDir(), nil)
	f := patient(store, queue)
	drains(t, f)
	events := []*event.Event{newEvent(), newEvent(), newEvent()}
	for _, e := range events {
		record(t, f, e, spooled)
	}
	asked := store.asked.Load()
	wait.Until(t, "they are tried", func() bool { return store.asked.Load() > asked+10 })
	if stats := queue.Stats(); stats.Queued != 3 || stats.DeadLetters != 0 || f.away.Load() || !f.unfit.Load() {
		t.Errorf("%+v, away %v, unfit %v", stats, f.away.Load(), f.unfit.Load())
	}
	if _, err := patient(store, nil).Record(t.Context(), newEvent()); !errors.Is(err, event.ErrNoRowFits) {
		t.Errorf("without a spool: %v", err)
	}
	execute(t, pool, "ALTER TABLE upcall.upload_events ALTER tenant DROP NOT NULL")
	wait.Until(t, "all are recorded", func() bool { return queue.Stats().Queued == 0 })
	if f.unfit.Load() {
		t.Error("rows fit again, and it has not noticed")
	}
	for _, e := range events {
		if rows(t, pool, e.ID) != 1 {
			t.Error("an event is missing")
		}
	}
}

// TestLateCallbackSaysNothing: an event that came so late that PostgreSQL had next to no time
// for it does not show that PostgreSQL is away; one that had its full share does.
func TestLateCallbackSaysNothing(t *testing.T) {
	t.Parallel()
	for _, spools := range []bool{false, true} {
		pool := dbtest.Pool(t, eventstore.Open)
		store := newFaulty(t, pool)
		store.set(func(ctx context.Context, _ *event.Event) error {
			<-ctx.Done()
			return fmt.Errorf("%w: %w", event.ErrUnavailable, context.Cause(ctx))
		})
		var fallback Fallback
		if spools {
			fallback = openSpool(t, t.TempDir(), nil)
		}
		f := patient(store, fallback)
		f.config.PrimaryTimeout = 200 * time.Millisecond
		for left, want := range map[time.Duration]bool{time.Millisecond: false, 150 * time.Millisecond: false} {
			ctx, cancel := context.WithTimeout(t.Context(), left)
			f.Record(ctx, newEvent())
			cancel()
			if f.away.Load() != want {
				t.Errorf("spool %v, %v left: away %v", spools, left, f.away.Load())
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		began := time.Now()
		f.Record(ctx, newEvent())
		cancel()
		if !f.away.Load() {
			t.Errorf("spool %v: not away after %v", spools, time.Since(began))
		}
		if spools && time.Since(began) > time.Second {
			t.Errorf("PostgreSQL had %v, and its share is %v", time.Since(began), f.config.PrimaryTimeout)
		}
	}
}
