package stream

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"upcall/internal/event"
	"upcall/internal/natsserver"
	"upcall/internal/testing/fallbacktest"
	"upcall/internal/testing/logtest"
	"upcall/internal/testing/natstest"
	"upcall/internal/testing/proc"
	"upcall/internal/testing/wait"
)

func TestMain(m *testing.M) {
	proc.Main(map[string]func(){natstest.Child: natstest.Serve})
	code := m.Run()
	if shared.cluster != nil {
		if err := shared.cluster.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
		os.RemoveAll(shared.dir)
	}
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// shared is the cluster of all tests that do no harm to it. Each test has a stream of its own.
var shared struct {
	sync.Once
	dir     string
	cluster *natsserver.Cluster
	err     error
}

func cluster(t testing.TB) *natsserver.Cluster {
	t.Helper()
	shared.Do(func() {
		if shared.dir, shared.err = os.MkdirTemp("", "upcall-nats-"); shared.err == nil {
			shared.cluster, shared.err = natsserver.Start(context.Background(), natstest.Config(shared.dir))
		}
	})
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.cluster
}

// numbered returns the nth event of a test.
func numbered(n int) *event.Event { return fallbacktest.Numbered(n) }

// putting gives Put more time than a callback has, because the machine is busy.
func putting(t testing.TB) context.Context { return fallbacktest.Context(t) }

// fill puts events into a stream.
func fill(t testing.TB, s *Stream, from, to int) {
	t.Helper()
	fallbacktest.Fill(t, s, from, to)
}

// config returns that of a stream of the test's own in a cluster.
func config(t testing.TB, c *natsserver.Cluster) (Config, *logtest.Buffer) {
	l := new(logtest.Buffer)
	return Config{URL: c.URL(), MonitorURL: c.MonitorURL(), Name: "T" + strings.ReplaceAll(uuid.NewString(), "-", ""), MaxBytes: 64 << 20,
		Logger: slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelInfo})),
		Now:    func() time.Time { return fallbacktest.Epoch.Add(time.Hour) }}, l
}

// open opens a stream. Where the servers are busy, the check at the start takes its time.
func open(t testing.TB, c Config) *Stream {
	t.Helper()
	s, err := Open(context.WithoutCancel(t.Context()), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	wait.Until(t, "the stream is usable", func() bool { return s.usable() == nil })
	return s
}

// held asks the servers how many messages there are, under the subject of those that wait and that of the dead.
func held(t testing.TB, s *Stream) (waiting, dead int) {
	t.Helper()
	waiting, dead, err := count(putting(t), s)
	if err != nil {
		t.Fatal(err)
	}
	return waiting, dead
}

// count is held, while servers may be away.
func count(ctx context.Context, s *Stream) (waiting, dead int, err error) {
	info, err := s.handle().Info(ctx, jetstream.WithSubjectFilter(">"))
	if err != nil {
		return 0, 0, err
	}
	for subject, n := range info.State.Subjects {
		if subject == s.config.waiting() {
			waiting += int(n)
		} else {
			dead += int(n)
		}
	}
	return waiting, dead, nil
}

// moveAll moves events until the servers hold none that wait.
func moveAll(t testing.TB, s *Stream, m *fallbacktest.Memory, most int) {
	t.Helper()
	wait.Until(t, "all are moved", func() bool {
		if _, err := s.Move(putting(t), m.Record, most); err != nil {
			t.Log(err)
		}
		waiting, _, err := count(putting(t), s)
		return err == nil && waiting == 0
	})
}
