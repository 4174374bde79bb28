package feed

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"upcall/internal/eventstore"
)

// TestPagesOfOneTransaction: a page from the middle of one large transaction, over many
// partitions, touches as few pages of PostgreSQL as the first.
func TestPagesOfOneTransaction(t *testing.T) {
	t.Parallel()
	w := shared(t)
	const rows = 100_000
	start := must(w.Now(t.Context()))(t)
	add(t, w.pool, time.Now(), rows)
	var xid uint64
	middle := position{id: uuid.UUID{0x80}}
	if err := w.pool.QueryRow(t.Context(), "SELECT recorded_xid FROM upcall.upload_events LIMIT 1").Scan(&xid); err != nil {
		t.Fatal(err)
	}
	middle.xid = xid
	drainUntil(t, w.Log, w.history.Load().at(position{xid: xid, id: uuid.UUID{0xff}}), 1)

	first, page := buffers(t, w, start.position), buffers(t, w, middle)
	t.Logf("the first page of 100 entries took %d buffers, one from the middle of %d rows %d", first, rows, page)
	if page > 400 || page > 2*first {
		t.Errorf("a page of 100 entries from the middle took %d buffers, the first %d", page, first)
	}
}

// buffers returns how many buffers a page of 100 entries takes, with the plan that the log has.
func buffers(t *testing.T, w *world, after position) int {
	t.Helper()
	var text []byte
	err := eventstore.Transact(t.Context(), w.config.Pool, func(tx pgx.Tx) error { // in one session, through a pooler as well
		if _, err := tx.Exec(t.Context(), "PREPARE page AS "+readAll); err != nil {
			return err
		}
		const explain = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE page('%d', '%s', 100)"
		if err := tx.QueryRow(t.Context(), fmt.Sprintf(explain, after.xid, after.id), pgx.QueryExecModeExec).Scan(&text); err != nil {
			return err
		}
		_, err := tx.Exec(t.Context(), "DEALLOCATE page")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var plans []struct {
		Plan struct {
			Hit  int `json:"Shared Hit Blocks"`
			Read int `json:"Shared Read Blocks"`
		}
	}
	if err := json.Unmarshal(text, &plans); err != nil {
		t.Fatal(err)
	}
	return plans[0].Plan.Hit + plans[0].Plan.Read
}
