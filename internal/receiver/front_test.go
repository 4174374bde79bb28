package receiver

import (
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/uuid"

	"upcall/internal/admission"
	"upcall/internal/dbtest"
	"upcall/internal/event"
	"upcall/internal/eventstore"
	"upcall/internal/stream"
	"upcall/internal/testing/logtest"
	"upcall/internal/testing/natstest"
	"upcall/internal/testing/ossfake"
	"upcall/internal/testing/wait"
)

// TestFront: two receivers put callbacks into the stream first and drain it together. They are recorded once each, while
// PostgreSQL is killed, while a server of the stream is killed, and when two are, so that PostgreSQL has to take them.
func TestFront(t *testing.T) {
	t.Parallel()
	database, keyURL, cluster := dbtest.NewServer(t), ossfake.KeyURL(t), natstest.Start(t, nil)
	cfg := Config{DatabaseURL: database.URL(), TrustKeyURLs: []string{keyURL}, StreamFront: true,
		Stream: &stream.Config{URL: cluster.URL(), MonitorURL: cluster.MonitorURL()}}
	receiver, other := start(t, cfg), start(t, cfg)
	for _, r := range []interface {
		Metric(t testing.TB, name string) float64
	}{receiver, other} {
		wait.Until(t, "the stream is usable", func() bool { return r.Metric(t, "upcall_stream_usable") == 1 })
	}
	l := startLoad(t, receiver.Public, keyURL, 4, answered.busy)
	m := startLoad(t, other.Public, keyURL, 4, answered.busy)
	more := func(what, durable string) {
		t.Helper()
		before := l.answers(durable)
		wait.Until(t, what, func() bool { return l.answers(durable) >= before+50 })
	}
	more("the stream takes callbacks", "stream")
	database.Kill(t)
	more("the stream takes callbacks without PostgreSQL", "stream")
	database.Restart(t)
	more("the stream takes callbacks", "stream")
	if err := cluster.Servers[0].Kill(); err != nil {
		t.Fatal(err)
	}
	more("the stream takes callbacks with two of three", "stream")
	if err := cluster.Servers[1].Kill(); err != nil {
		t.Fatal(err)
	}
	more("PostgreSQL takes callbacks without the stream", "postgres")
	for _, s := range cluster.Servers[:2] {
		if err := cluster.StartServer(s); err != nil {
			t.Fatal(err)
		}
	}
	more("the stream takes callbacks again", "stream")
	l.stop()
	m.stop()
	wait.Until(t, "the stream is drained", func() bool {
		return receiver.Metric(t, "upcall_stream_depth") == 0 && other.Metric(t, "upcall_stream_depth") == 0
	})
	all := make(map[uuid.UUID]bool)
	for _, some := range []map[uuid.UUID]bool{l.ids, m.ids} {
		for id := range some {
			all[id] = true
		}
	}
	for _, r := range []interface{ Stop() error }{receiver, other} {
		if err := r.Stop(); err != nil {
			t.Error(err)
		}
	}
	wantRows(t, database.URL(), all, l.refused+m.refused)
}

// TestRefusedAfter: what PostgreSQL refuses after its callback was answered leaves a mark, besides the refusal.
func TestRefusedAfter(t *testing.T) {
	t.Parallel()
	pool := dbtest.Pool(t, eventstore.Open)
	log := new(logtest.Buffer)
	janitor := &eventstore.Janitor{Pool: pool}
	var err error
	if janitor.Refusals, err = eventstore.NewRefusals(pool, 100); err != nil {
		t.Fatal(err)
	}
	mark := Config{Logger: slog.New(slog.NewTextHandler(log, nil))}.refusedAfter(janitor)
	for why, want := range map[error]admission.Reason{event.ErrRevoked: admission.ReasonRevokedAfter,
		errors.Join(event.ErrOverused): admission.ReasonOverusedAfter} {
		e := &event.Event{ID: uuid.New(), UploadID: uuid.NullUUID{UUID: uuid.New(), Valid: true}}
		mark(t.Context(), e, why)
		var reason string
		err := pool.QueryRow(t.Context(), "SELECT reason FROM upcall.refused_callbacks WHERE digest = $1 AND upload_id = $2", e.ID,
			e.UploadID).Scan(&reason)
		if err != nil || reason != string(want) || !strings.Contains(log.String(), e.ID.String()) {
			t.Errorf("%v: %q, %v; log %s", why, reason, err, log)
		}
	}
}
