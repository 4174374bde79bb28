package receiver

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/google/uuid"

	"upcall/internal/dbtest"
	"upcall/internal/natsserver"
	"upcall/internal/stream"
	"upcall/internal/testing/natstest"
	"upcall/internal/testing/ossfake"
	"upcall/internal/testing/proc"
	"upcall/internal/testing/servetest"
	"upcall/internal/testing/wait"
)

// busy reports whether an answer is one that a slow machine causes: the servers did not answer in time either.
func (r answered) busy() bool { return r.late() || r.unavailable() }

// TestStreamBridgesOutage kills and restarts PostgreSQL under load, with one of the three servers of the stream down.
// Every callback that was answered 200 has one row in the end.
func TestStreamBridgesOutage(t *testing.T) {
	t.Parallel()
	database, keyURL, cluster := dbtest.NewServer(t), ossfake.KeyURL(t), natstest.Start(t, nil)
	receiver := start(t, Config{DatabaseURL: database.URL(), TrustKeyURLs: []string{keyURL},
		Stream: &stream.Config{URL: cluster.URL(), MonitorURL: cluster.MonitorURL()}})
	wait.Until(t, "the stream is usable", func() bool { return receiver.Metric(t, "upcall_stream_usable") == 1 })
	l := startLoad(t, receiver.Public, keyURL, 8, answered.busy)
	for round := range 2 {
		before := l.answers("postgres")
		wait.Until(t, "PostgreSQL records callbacks", func() bool { return l.answers("postgres") >= before+100 })
		database.Kill(t)
		before = l.answers("stream")
		wait.Until(t, "the stream takes callbacks", func() bool { return l.answers("stream") >= before+100 })
		if round == 0 {
			if err := cluster.Servers[0].Kill(); err != nil {
				t.Fatal(err)
			}
			before = l.answers("stream")
			wait.Until(t, "the stream takes callbacks with two of three", func() bool { return l.answers("stream") >= before+100 })
		}
		wait.Until(t, "readyz says that the stream takes callbacks", func() bool { return status(t, receiver.Admin+"/readyz") == 200 })
		database.Restart(t)
	}
	before := l.answers("postgres")
	wait.Until(t, "PostgreSQL records callbacks again, and the stream is drained", func() bool {
		return l.answers("postgres") >= before+100 && receiver.Metric(t, "upcall_stream_depth") == 0
	})
	l.stop()
	for _, name := range []string{"upcall_stream_depth", "upcall_stream_rejected", "upcall_database_away"} {
		wait.Until(t, name+" is 0 at the end", func() bool { return receiver.Metric(t, name) == 0 })
	}
	if err := receiver.Stop(); err != nil {
		t.Error(err)
	}
	wantRows(t, database.URL(), l.ids, l.refused)
}

// TestStreamOutlivesReceiver kills a receiver that has acknowledged callbacks, and never starts it again. Two others
// record them, each once.
func TestStreamOutlivesReceiver(t *testing.T) {
	t.Parallel()
	database, keyURL, cluster := dbtest.NewServer(t), ossfake.KeyURL(t), natstest.Start(t, nil)
	child := proc.Start(t, "receiver", database.URL(), "", keyURL, cluster.URL())
	base := "http://" + child.FirstLine(t)
	database.Kill(t)
	l := startLoad(t, base, keyURL, 8, func(got answered) bool { return got.busy() || got.err != nil })
	wait.Until(t, "the stream takes callbacks", func() bool { return l.answers("stream") >= 200 })
	child.Kill(t)
	l.stop()
	database.Restart(t)
	for range 2 {
		receiver := start(t, Config{DatabaseURL: database.URL(), TrustKeyURLs: []string{keyURL}, Stream: &stream.Config{URL: cluster.URL()}})
		wait.Until(t, "the stream is drained", func() bool {
			return receiver.Metric(t, "upcall_stream_usable") == 1 && receiver.Metric(t, "upcall_stream_depth") == 0
		})
	}
	wantRows(t, database.URL(), l.ids, l.refused)
}

// withoutPostgres starts a receiver that has only the stream, and returns it, the stream's servers, and what sends it a
// callback.
func withoutPostgres(t *testing.T) (receiver *servetest.Service, cluster *natsserver.Cluster, send func() answered) {
	t.Helper()
	keyURL := ossfake.KeyURL(t)
	cluster = natstest.Start(t, nil)
	receiver = start(t, Config{DatabaseURL: "postgres://nobody@127.0.0.1:1/none", TrustKeyURLs: []string{keyURL},
		Stream: &stream.Config{URL: cluster.URL()}})
	send = func() answered {
		return call(http.DefaultClient, receiver.Public, keyURL, "bucket=demo&object=a&reqId="+uuid.NewString())
	}
	wait.Until(t, "the stream takes callbacks", func() bool { return strings.Contains(send().body, `"durable":"stream"`) })
	return receiver, cluster, send
}

// TestStreamWithoutMajority: with two of three servers down, nothing is acknowledged from the stream.
func TestStreamWithoutMajority(t *testing.T) {
	t.Parallel()
	receiver, cluster, send := withoutPostgres(t)
	for _, s := range cluster.Servers[1:] {
		if err := s.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	for range 4 {
		if got := send(); got.err != nil || got.code != 503 || got.took > tooSlow {
			t.Errorf("got %+v", got)
		}
	}
	wait.Until(t, "readyz says that nothing takes callbacks", func() bool { return status(t, receiver.Admin+"/readyz") == 503 })
	for _, s := range cluster.Servers[1:] {
		if err := cluster.StartServer(s); err != nil {
			t.Fatal(err)
		}
	}
	wait.Until(t, "the stream takes callbacks again", func() bool { return strings.Contains(send().body, `"durable":"stream"`) })
}

// TestUnfitStream: a receiver does not start with a stream that could lose callbacks, here for it would have no replicas.
func TestUnfitStream(t *testing.T) {
	t.Parallel()
	cluster := natstest.Start(t, func(c *natsserver.Config) { c.Servers = 1 })
	receiver := start(t, Config{DatabaseURL: "postgres://nobody@127.0.0.1:1/none", Stream: &stream.Config{URL: cluster.URL()}})
	if err := receiver.Wait(); !errors.Is(err, stream.ErrUnfit) || !strings.Contains(err.Error(), "three servers") {
		t.Errorf("got %v", err)
	}
}
