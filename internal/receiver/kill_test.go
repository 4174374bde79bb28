package receiver

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"upcall/internal/callbackspec"
	"upcall/internal/dbtest"
	"upcall/internal/event"
	"upcall/internal/kept"
	"upcall/internal/spool"
	"upcall/internal/testing/ossfake"
	"upcall/internal/testing/pgbouncer"
	"upcall/internal/testing/proc"
	"upcall/internal/testing/wait"
)

// TestReceiverKilled kills receivers with SIGKILL while they spool and while they drain. The next
// receiver resumes, and in the end each acknowledged callback has a row.
func TestReceiverKilled(t *testing.T) {
	t.Parallel()
	database, keyURL, dir := dbtest.NewServer(t), ossfake.KeyURL(t), t.TempDir()
	acknowledged, uncertain := make(map[uuid.UUID]bool), 0
	database.Kill(t)
	for round := range 4 {
		if round == 2 {
			database.Restart(t)
		}
		child := proc.Start(t, "receiver", pgbouncer.Between(t, database.URL()), dir, keyURL)
		l := startLoad(t, "http://"+child.FirstLine(t), keyURL, 8, func(r answered) bool { return r.err != nil || r.late() })
		wait.Until(t, "callbacks are acknowledged", func() bool { return l.answers("spool")+l.answers("postgres") >= 400 })
		child.Kill(t)
		l.stop()
		maps.Copy(acknowledged, l.ids)
		uncertain += l.refused
	}
	receiver := start(t, Config{DatabaseURL: database.URL(), TrustKeyURLs: []string{keyURL}, SpoolDir: dir, SpoolMinFreeBytes: -1})
	wait.Until(t, "the spool is empty", func() bool { return receiver.Metric(t, "upcall_spool_depth") == 0 })
	wantRows(t, database.URL(), acknowledged, uncertain)
}

// TestReceiverKilledWhileRetrying kills receivers with SIGKILL while they queue dead letters
// again. Each dead letter is still one, waits, or has a row, and in the end all have one.
func TestReceiverKilledWhileRetrying(t *testing.T) {
	t.Parallel()
	url, keyURL := dbtest.URL(t), ossfake.KeyURL(t)
	cfg := spool.Config{Dir: t.TempDir(), MinFreeBytes: -1, LockTimeout: time.Minute, Logger: slog.New(slog.DiscardHandler)}
	queue, err := spool.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ids := make(map[uuid.UUID]bool)
	var putting sync.WaitGroup
	for n := range 2000 {
		e := &event.Event{ID: uuid.New(), ReceivedAt: time.Now(), Callback: callbackspec.Callback{Bucket: "demo", Object: fmt.Sprint(n)}}
		ids[e.ID] = true
		putting.Go(func() {
			if _, err := queue.Put(t.Context(), e); err != nil {
				t.Error(err)
			}
		})
	}
	putting.Wait()
	refuse := func(context.Context, *event.Event) (bool, error) { return false, event.ErrUnstorable }
	if _, err := queue.Move(t.Context(), refuse, len(ids)); err != nil {
		t.Fatal(err)
	}
	if err := queue.Close(); err != nil {
		t.Fatal(err)
	}
	retry := spool.Request{Action: spool.ActionRetry, All: true}
	cfg.LockTimeout = time.Second // it is the receiver's
	for _, killAt := range []int{1, 400, math.MaxInt} {
		child := proc.Start(t, "receiver", pgbouncer.Between(t, url), cfg.Dir, keyURL)
		status(t, "http://"+child.FirstLine(t)) // it serves
		changed := 0
		_, err := spool.Change(t.Context(), cfg, retry, func(kept.Entry) error {
			if changed++; changed == killAt {
				child.Kill(t)
			}
			return nil
		})
		if changed < killAt {
			child.Kill(t)
		}
		t.Logf("%d reported until the receiver was killed: %v", changed, err)
		left := make(map[uuid.UUID]bool)
		if err := spool.Read(t.Context(), cfg.Dir, func(e kept.Entry) error { left[e.ID] = true; return nil }); err != nil {
			t.Fatal(err)
		}
		recorded := maps.Clone(ids)
		maps.DeleteFunc(recorded, func(id uuid.UUID, _ bool) bool { return left[id] })
		wantRows(t, url, recorded, len(ids))
	}
	receiver := start(t, Config{DatabaseURL: url, TrustKeyURLs: []string{keyURL}, SpoolDir: cfg.Dir, SpoolMinFreeBytes: -1})
	status(t, receiver.Public) // it serves, so the spool is locked by it, not by what follows
	wait.Until(t, "the rest is queued", func() bool {
		_, err := spool.Change(t.Context(), cfg, retry, func(kept.Entry) error { return nil })
		return err == nil && receiver.Metric(t, "upcall_spool_rejected") == 0
	})
	wait.Until(t, "the spool is empty", func() bool { return receiver.Metric(t, "upcall_spool_depth") == 0 })
	wantRows(t, url, ids, 0)
}
