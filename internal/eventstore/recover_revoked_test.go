package eventstore

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"upcall/internal/dbtest"
	"upcall/internal/event"
)

// TestRecoverRevoked revokes an upload while what a notification told of it is recorded: between look-up and write,
// when it is not recorded; and after the write, when it is.
func TestRecoverRevoked(t *testing.T) {
	t.Parallel()
	pool := dbtest.Pool(t, Open)
	l := newLedger(t, Config{Pool: pool})
	issued := func() *event.Event {
		u := smallUpload()
		u.ID = uuid.New()
		issue(t, l, u)
		return told(uuid.NullUUID{UUID: u.ID, Valid: true}, "E1", u.ID.String())
	}
	isRecorded := func(e *event.Event, want bool) {
		t.Helper()
		found := slices.ContainsFunc(recorded(t, pool), func(other event.Event) bool { return other.ID == e.ID })
		var noted bool
		err := pool.QueryRow(t.Context(), "SELECT EXISTS (SELECT FROM upcall.recovered_uploads WHERE event_id = $1)", e.ID).Scan(&noted)
		if err != nil || found != want || noted != want {
			t.Errorf("recorded %t and noted %t, %v; want %t", found, noted, err, want)
		}
	}

	t.Run("between look-up and write", func(t *testing.T) {
		e, beside := issued(), issued()
		if err := EnsurePartitions(t.Context(), pool, e.ReceivedAt); err != nil {
			t.Fatal(err)
		}
		var rows []*request[recoveredRow]
		for _, e := range []*event.Event{e, beside} {
			row, err := newRecoveredRow(e)
			if err != nil {
				t.Fatal(err)
			}
			rows = append(rows, &request[recoveredRow]{id: e.ID, row: row})
		}
		slices.SortFunc(rows, func(a, b *request[recoveredRow]) int { return slices.Compare(a.id[:], b.id[:]) })
		found, since, err := lookUp(t.Context(), pool, rows)
		if err != nil || !slices.Equal(found, []Recovery{"", ""}) {
			t.Fatalf("looked up %q, %v", found, err)
		}
		revoke(t, l, e.UploadID.UUID)
		for _, q := range rows {
			q.row.since = &since
		}
		err = Transact(t.Context(), pool, func(tx pgx.Tx) error {
			verdicts, err := writeRecovered(t.Context(), tx, rows, heldFor)
			for _, v := range verdicts {
				if want := map[uuid.UUID]Recovery{e.ID: RecoveryRevoked, beside.ID: Recovered}[v.id]; verdictOf[v.outcome] != want {
					t.Errorf("%s became %s, want %s", v.id, verdictOf[v.outcome], want)
				}
			}
			if len(verdicts) != 2 {
				t.Errorf("%d verdicts, want 2", len(verdicts))
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		isRecorded(e, false)
		isRecorded(beside, true)
	})

	t.Run("in a transaction that began before", func(t *testing.T) {
		e := issued()
		tx, err := pool.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Rollback(t.Context())
		if _, err := tx.Exec(t.Context(), "INSERT INTO upcall.revoked_uploads VALUES ($1, now())", e.UploadID); err != nil {
			t.Fatal(err)
		}
		var group sync.WaitGroup
		defer group.Wait()
		var over atomic.Bool
		group.Go(func() {
			defer over.Store(true)
			err := RecoverWith(t.Context(), pool, []*event.Event{e}, func(_ pgx.Tx, all []Recovery) error {
				if all[0] != RecoveryRevoked {
					t.Errorf("it became %s, want revoked", all[0])
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
		for len(lines(t, pool, recovering)) == 0 && !over.Load() {
		}
		if err := tx.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		group.Wait()
		isRecorded(e, false)
	})

	t.Run("after the write", func(t *testing.T) {
		e := issued()
		err := RecoverWith(t.Context(), pool, []*event.Event{e}, func(_ pgx.Tx, all []Recovery) error {
			if all[0] != Recovered {
				t.Errorf("it became %s, want recorded", all[0])
			}
			return l.Revoke(t.Context(), e.UploadID.UUID) // does not wait for this transaction
		})
		if err != nil {
			t.Fatal(err)
		}
		isRecorded(e, true)
		again := told(e.UploadID, "E2", uuid.NewString())
		if got := became(t, pool, again); got != RecoveryRevoked {
			t.Errorf("another use of the upload became %s, want revoked", got)
		}
		isRecorded(again, false)
	})
}
