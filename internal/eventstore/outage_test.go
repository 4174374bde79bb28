package eventstore

import (
	"context"
	"errors"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"upcall/internal/dbtest"
	"upcall/internal/event"
	"upcall/internal/testing/servetest"
	"upcall/internal/testing/wait"
)

// A proxy forwards TCP connections. While it is stalled, they stay open but transfer nothing.
type proxy struct {
	listener net.Listener
	target   string
	gate     sync.RWMutex // held for writing while stalled
	done     sync.WaitGroup
	mu       sync.Mutex
	conns    []net.Conn
}

// newProxy returns a proxy for the database, and the URL through it.
func newProxy(t *testing.T, databaseURL string) (*proxy, string) {
	t.Helper()
	u, err := url.Parse(databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	listener := servetest.Listen(t)
	p := &proxy{listener: listener, target: u.Host}
	p.done.Go(p.accept)
	t.Cleanup(func() {
		p.listener.Close()
		p.mu.Lock()
		for _, conn := range p.conns {
			conn.Close()
		}
		p.mu.Unlock()
		p.done.Wait()
	})
	u.Host = listener.Addr().String()
	return p, u.String()
}

func (p *proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.target)
		if err != nil {
			client.Close()
			continue
		}
		p.mu.Lock()
		p.conns = append(p.conns, client, server)
		p.mu.Unlock()
		p.done.Go(func() { p.forward(client, server) })
		p.done.Go(func() { p.forward(server, client) })
	}
}

func (p *proxy) forward(to, from net.Conn) {
	defer to.Close()
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		p.gate.RLock()
		_, writeErr := to.Write(buffer[:n])
		p.gate.RUnlock()
		if err != nil || writeErr != nil {
			return
		}
	}
}

func TestStalledConnectionIsCut(t *testing.T) {
	t.Parallel()
	direct := dbtest.URL(t)
	p, through := newProxy(t, direct)
	r := newRecorder(t, Config{Pool: dbtest.Open(t, through, Open), CommitTimeout: time.Second})
	wait.Until(t, "the first event is recorded", func() bool {
		_, err := r.Record(t.Context(), smallEvent())
		return err == nil
	})
	p.gate.Lock()
	if _, err := r.Record(t.Context(), smallEvent()); !errors.Is(err, event.ErrUnavailable) {
		t.Errorf("got %v, want event.ErrUnavailable", err)
	}
	p.gate.Unlock()
	wait.Until(t, "the recorder recovers", func() bool {
		_, err := r.Record(t.Context(), smallEvent())
		return err == nil
	})
}

func TestQueueFull(t *testing.T) {
	t.Parallel()
	p, through := newProxy(t, dbtest.URL(t))
	r := newRecorder(t, Config{Pool: dbtest.Open(t, through, Open), Writers: 1, MaxBatch: 1, Queue: 1})
	p.gate.Lock()
	const many = 10
	outcomes := make(chan error, many)
	for range many {
		go func() {
			_, err := r.Record(context.Background(), smallEvent())
			outcomes <- err
		}()
	}
	// One is being committed and one waits; at least eight are refused at once.
	for range many - 2 {
		if err := <-outcomes; !errors.Is(err, event.ErrQueueFull) || !errors.Is(err, event.ErrUnavailable) {
			t.Errorf("got %v, want event.ErrQueueFull", err)
		}
	}
	if r.Depth() > 1 {
		t.Errorf("depth %d", r.Depth())
	}
	p.gate.Unlock()
	for range 2 {
		if err := <-outcomes; err != nil && !errors.Is(err, event.ErrQueueFull) {
			t.Error(err)
		}
	}
}

// TestCallerGoesAway checks that the caller gets ErrUnavailable, and that the event is recorded.
func TestCallerGoesAway(t *testing.T) {
	t.Parallel()
	direct := dbtest.URL(t)
	p, through := newProxy(t, direct)
	r := newRecorder(t, Config{Pool: dbtest.Open(t, through, Open), CommitTimeout: time.Minute})
	p.gate.Lock()
	ctx, cancel := context.WithCancelCause(t.Context())
	e := smallEvent()
	reason := errors.New("the client has gone")
	cancel(reason)
	if _, err := r.Record(ctx, e); !errors.Is(err, event.ErrUnavailable) || !errors.Is(err, reason) {
		t.Errorf("got %v, want event.ErrUnavailable and the reason", err)
	}
	p.gate.Unlock()
	wait.Until(t, "the event is recorded", func() bool {
		found, err := r.Find(t.Context(), e.ID, e.UploadID)
		return err == nil && found
	})
	record(t, r, e, true)
}

func TestRecorderWithoutDatabase(t *testing.T) {
	t.Parallel()
	r := newRecorder(t, Config{Pool: dbtest.Open(t, "postgres://nobody:secret@127.0.0.1:1/none", Open)})
	_, errRecord := r.Record(t.Context(), smallEvent())
	_, errFind := r.Find(t.Context(), uuid.New(), uuid.NullUUID{})
	for name, err := range map[string]error{"Record": errRecord, "Find": errFind, "Ping": r.Ping(t.Context())} {
		if !errors.Is(err, event.ErrUnavailable) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: got %v, want event.ErrUnavailable without the password", name, err)
		}
	}
}

func TestRecoversFromCrashOfPostgreSQL(t *testing.T) {
	t.Parallel()
	server := dbtest.NewServer(t)
	pool := dbtest.Open(t, server.URL(), Open)
	r := newRecorder(t, Config{Pool: pool})

	var acknowledged sync.Map // of uuid.UUID
	var recorded, failed atomic.Int32
	stop := make(chan struct{})
	var group sync.WaitGroup
	for range 16 {
		group.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				e := smallEvent()
				switch _, err := r.Record(context.Background(), e); {
				case err == nil:
					acknowledged.Store(e.ID, true)
					recorded.Add(1)
				case errors.Is(err, event.ErrUnavailable):
					failed.Add(1)
				default:
					t.Error(err)
				}
			}
		})
	}
	wait.Until(t, "events are recorded", func() bool { return recorded.Load() > 100 })
	server.Kill(t)
	wait.Until(t, "events are refused", func() bool { return failed.Load() > 100 })
	server.Restart(t)
	before := recorded.Load()
	wait.Until(t, "events are recorded again", func() bool { return recorded.Load() > before+100 })
	close(stop)
	group.Wait()

	acknowledged.Range(func(id, _ any) bool {
		if found, err := r.Find(t.Context(), id.(uuid.UUID), uuid.NullUUID{}); err != nil || !found {
			t.Errorf("acknowledged but lost: %v, %v", id, err)
			return false
		}
		return true
	})
}

// TestLostStatement: a session that has lost the prepared statement is not used again, and the
// callers do not notice.
func TestLostStatement(t *testing.T) {
	t.Parallel()
	pool := dbtest.Pool(t, Open)
	r := newRecorder(t, Config{Pool: pool, Writers: 1})
	record(t, r, smallEvent(), false)
	for _, try := range []func() error{
		func() error { _, err := r.Record(t.Context(), smallEvent()); return err },
		func() error { _ = r.Ping(t.Context()); return r.Ping(t.Context()) },
	} {
		conns := r.group.config.Pool.AcquireAllIdle(t.Context())
		for _, conn := range conns {
			if _, err := conn.Exec(t.Context(), "DEALLOCATE ALL"); err != nil {
				t.Error(err)
			}
			conn.Release()
		}
		if len(conns) == 0 {
			t.Fatal("there is no session")
		}
		if err := try(); err != nil {
			t.Error(err)
		}
	}
}
