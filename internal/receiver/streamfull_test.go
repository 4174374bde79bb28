package receiver

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"upcall/internal/admission"
	"upcall/internal/dbtest"
	"upcall/internal/event"
	"upcall/internal/eventstore"
	"upcall/internal/loadgen"
	"upcall/internal/stream"
	"upcall/internal/testing/fallbacktest"
	"upcall/internal/testing/natstest"
	"upcall/internal/testing/ossfake"
	"upcall/internal/testing/servetest"
	"upcall/internal/testing/wait"
	"upcall/internal/uploadtoken"
)

// TestFullStream: while the stream is full and PostgreSQL is away, callbacks are answered 503. When PostgreSQL is back,
// all that was acknowledged is recorded, and callbacks are accepted again.
func TestFullStream(t *testing.T) {
	t.Parallel()
	database, keyURL, cluster := dbtest.NewServer(t), ossfake.KeyURL(t), natstest.Start(t, nil)
	database.Kill(t)
	config := stream.Config{URL: cluster.URL(), MaxBytes: 16 << 20}
	receiver := start(t, Config{DatabaseURL: database.URL(), TrustKeyURLs: []string{keyURL}, Stream: &config})
	wait.Until(t, "the stream is usable", func() bool { return receiver.Metric(t, "upcall_stream_usable") == 1 })
	config.Logger = slog.New(slog.DiscardHandler)
	other, err := stream.OpenGroup(t.Context(), config) // another receiver
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	ids := make(map[uuid.UUID]bool)
	for _, size := range []int{400 << 10, 20 << 10, 0} {
		for err = nil; err == nil; {
			e := fallbacktest.Numbered(len(ids))
			e.ReceivedAt = time.Now()
			e.Callback.Vars["pad"] = json.RawMessage(`"` + strings.Repeat("x", size) + `"`)
			if _, err = other.Put(fallbacktest.Context(t), e); err == nil {
				ids[e.ID] = true
			}
		}
		if !errors.Is(err, event.ErrStreamFull) {
			t.Fatal(err)
		}
	}
	send := func() answered {
		return call(http.DefaultClient, receiver.Public, keyURL, "bucket=demo&object=a&reqId="+uuid.NewString())
	}
	for range 10 { // the streams may have room for a callback that is smaller
		if send().unavailable() {
			break
		}
	}
	for range 3 {
		if got := send(); got.err != nil || !got.unavailable() || got.took > tooSlow {
			t.Errorf("got %+v", got)
		}
	}
	wait.Until(t, "readyz says that nothing takes callbacks", func() bool { return status(t, receiver.Admin+"/readyz") == 503 })
	wait.Until(t, "the receiver knows what others put there", func() bool {
		return receiver.Metric(t, "upcall_stream_depth") >= float64(len(ids))
	})
	database.Restart(t)
	wait.Until(t, "PostgreSQL takes callbacks", func() bool { return strings.Contains(send().body, `"durable":"postgres"`) })
	wait.Until(t, "the stream is drained", func() bool { return receiver.Metric(t, "upcall_stream_depth") == 0 })
	wantRows(t, database.URL(), ids, 1000)
}

// TestStreamStalls: servers that stand still and keep their connections do not hold a callback longer than its deadline.
func TestStreamStalls(t *testing.T) {
	t.Parallel()
	_, cluster, send := withoutPostgres(t)
	for _, s := range cluster.Servers {
		if err := s.Process().Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		if got := send(); got.err != nil || got.code != 503 || got.took > tooSlow {
			t.Errorf("got %+v", got)
		}
	}
	for _, s := range cluster.Servers {
		if err := s.Process().Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
	}
	wait.Until(t, "the stream takes callbacks again", func() bool { return strings.Contains(send().body, `"durable":"stream"`) })
}

// TestFrontRefusesRevoked: a callback of a revoked upload is answered by the stream, which cannot know that, and then refused
// by PostgreSQL: there is no event, but a mark. Another one beside it is recorded.
func TestFrontRefusesRevoked(t *testing.T) {
	t.Parallel()
	database, cluster, keys := dbtest.URL(t), natstest.Start(t, nil), loadgen.NewKeyServer()
	t.Cleanup(keys.Close)
	ring, err := uploadtoken.ParseKeys(loadgen.TokenKeys)
	if err != nil {
		t.Fatal(err)
	}
	generator, err := loadgen.New(keys.KeyURL)
	if err != nil {
		t.Fatal(err)
	}
	revoked, err := generator.Event(0)
	if err != nil {
		t.Fatal(err)
	}
	pool := dbtest.Open(t, database, eventstore.Open)
	if _, err := pool.Exec(t.Context(), "INSERT INTO upcall.revoked_uploads VALUES ($1, now())", revoked.UploadID); err != nil {
		t.Fatal(err)
	}
	cfg := Config{DatabaseURL: database, TrustKeyURLs: []string{keys.KeyURL}, Admission: admission.Config{Tokens: ring},
		Logger: slog.New(slog.DiscardHandler), Stream: &stream.Config{URL: cluster.URL()}, StreamFront: true}
	receiver := servetest.Start(t, func(ctx context.Context, public, admin net.Listener) error { return Run(ctx, cfg, public, admin) })
	wait.Until(t, "the stream is usable", func() bool { return receiver.Metric(t, "upcall_stream_usable") == 1 })
	client := &loadgen.Client{Addr: strings.TrimPrefix(receiver.Public, "http://")}
	defer client.Close()
	for i := range 2 {
		message, err := generator.Message(i, false)
		if err != nil {
			t.Fatal(err)
		}
		if code, body, err := client.Send(message); err != nil || code != 200 || !strings.Contains(string(body), `"durable":"stream"`) {
			t.Fatalf("callback %d: %d %s, %v", i, code, body, err)
		}
	}
	wait.Until(t, "one is recorded and one refused", func() bool {
		var events, marks int
		err := pool.QueryRow(t.Context(), `SELECT (SELECT count(*) FROM upcall.upload_events WHERE upload_id <> $1),
			(SELECT count(*) FROM upcall.refused_callbacks WHERE upload_id = $1 AND reason = 'token_revoked_after_answer')`,
			revoked.UploadID).Scan(&events, &marks)
		return err == nil && events == 1 && marks == 1 && receiver.Metric(t, "upcall_stream_refused_total") == 1
	})
	var events int
	err = pool.QueryRow(t.Context(), "SELECT count(*) FROM upcall.upload_events WHERE upload_id = $1", revoked.UploadID).Scan(&events)
	if err != nil || events != 0 {
		t.Errorf("%d events of the revoked upload, %v", events, err)
	}
	if n := receiver.Metric(t, "upcall_stream_rejected"); n != 0 {
		t.Errorf("%v dead letters", n)
	}
}
