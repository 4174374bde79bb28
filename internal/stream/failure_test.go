package stream

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"upcall/internal/event"
	"upcall/internal/natsserver"
	"upcall/internal/testing/fallbacktest"
	"upcall/internal/testing/natstest"
	"upcall/internal/testing/wait"
)

// A storm is clients that put events into a stream until it is over.
type storm struct {
	kept atomic.Int64 // events whose Put returned nil
	ids  sync.Map
	stop func()
}

func startStorm(t *testing.T, s *Stream) *storm {
	w := new(storm)
	ctx, stop := context.WithCancel(context.Background())
	var group sync.WaitGroup
	var next atomic.Int64
	for range 8 {
		group.Go(func() {
			for ctx.Err() == nil {
				e := numbered(int(next.Add(1)))
				within, cancel := context.WithTimeout(context.Background(), 4*time.Second)
				if _, err := s.Put(within, e); err == nil {
					w.ids.Store(e.ID, true)
					w.kept.Add(1)
				} else if !errors.Is(err, event.ErrStreamUnwritable) {
					t.Error(err)
				}
				cancel()
			}
		})
	}
	w.stop = sync.OnceFunc(func() { stop(); group.Wait() })
	t.Cleanup(w.stop)
	return w
}

// more waits until the stream has taken more.
func (w *storm) more(t *testing.T, what string) {
	t.Helper()
	before := w.kept.Load()
	wait.Until(t, what, func() bool { return w.kept.Load() >= before+50 })
}

// wantKept checks that all that was kept is recorded, and nothing else has two rows: a Memory knows IDs as PostgreSQL does.
func (w *storm) wantKept(t *testing.T, m *fallbacktest.Memory) {
	t.Helper()
	lost := 0
	w.ids.Range(func(id, _ any) bool {
		if _, there := m.Events[id.(uuid.UUID)]; !there {
			lost++
		}
		return true
	})
	if lost > 0 || len(m.Order) != len(m.Events) {
		t.Errorf("%d of %d acknowledged events are lost, %d rows for %d", lost, w.kept.Load(), len(m.Order), len(m.Events))
	}
}

// leader returns the server that leads the stream, nil while there is none.
func leader(t *testing.T, s *Stream, c *natsserver.Cluster) *natsserver.Server {
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	info, err := s.handle().Info(ctx)
	if err != nil || info.Cluster == nil {
		return nil
	}
	for _, server := range c.Servers {
		if server.Name == info.Cluster.Leader {
			return server
		}
	}
	return nil
}

// TestLeaderKilled kills the server that leads the stream, twice, under load and while events move. None that was
// acknowledged is lost, and how many servers keep up is known.
func TestLeaderKilled(t *testing.T) {
	t.Parallel()
	c := natstest.Start(t, nil)
	config, _ := config(t, c)
	s := open(t, config)
	w, m := startStorm(t, s), new(fallbacktest.Memory)
	var mover sync.WaitGroup
	moving, stop := context.WithCancel(context.Background())
	defer func() { stop(); mover.Wait() }()
	mover.Go(func() {
		for moving.Err() == nil {
			_, _ = s.Move(putting(t), m.Record, 100)
		}
	})
	for round := range 2 {
		w.more(t, "the stream takes events")
		var first *natsserver.Server
		wait.Until(t, "there is a leader", func() bool { first = leader(t, s, c); return first != nil })
		if err := first.Kill(); err != nil {
			t.Fatal(err)
		}
		w.more(t, "the stream takes events under another leader")
		if round == 0 {
			wait.Until(t, "two servers keep up", func() bool { return s.Stats().Replicas == 2 })
		}
		if err := c.StartServer(first); err != nil {
			t.Fatal(err)
		}
		wait.Until(t, "three servers keep up", func() bool { return s.Stats().Replicas == 3 })
	}
	w.stop()
	stop()
	mover.Wait()
	moveAll(t, s, m, 500)
	w.wantKept(t, m)
}

// TestAllRestarted kills two servers under load, then the last one. When they are back, the receiver uses them again, and what was
// acknowledged is there.
func TestAllRestarted(t *testing.T) {
	t.Parallel()
	c := natstest.Start(t, nil)
	config, _ := config(t, c)
	s := open(t, config)
	w := startStorm(t, s)
	w.more(t, "the stream takes events")
	for _, server := range c.Servers[:2] {
		if err := server.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	wait.Until(t, "it is known that there is no majority", func() bool { return s.conn.IsConnected() && s.Trouble() != nil })
	if err := c.Stop(); err != nil {
		t.Fatal(err)
	}
	wait.Until(t, "it is known that nobody is there", func() bool { return !s.conn.IsConnected() && s.Trouble() != nil && s.Ready() != nil })
	short, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := s.Put(short, numbered(-1)); !errors.Is(err, event.ErrStreamUnwritable) {
		t.Errorf("put: %v", err)
	}
	for _, server := range c.Servers {
		if err := c.StartServer(server); err != nil {
			t.Fatal(err)
		}
	}
	w.more(t, "the stream takes events again")
	w.stop()
	m := new(fallbacktest.Memory)
	moveAll(t, s, m, 500)
	w.wantKept(t, m)
	wait.Until(t, "all is well", func() bool { return s.Trouble() == nil && s.Ready() == nil })
}

// TestTwoReceiversDrain: two receivers drain a stream at once, and each event goes to one of them.
func TestTwoReceiversDrain(t *testing.T) {
	t.Parallel()
	const all = 400
	c, _ := config(t, cluster(t))
	s, other := open(t, c), open(t, c)
	fill(t, s, 0, all)
	m := new(fallbacktest.Memory)
	var group sync.WaitGroup
	var moved [2]int
	for i, receiver := range []*Stream{s, other} {
		group.Go(func() {
			wait.Until(t, "the stream is empty", func() bool {
				n, err := receiver.Move(putting(t), m.Record, 20)
				if moved[i] += n; err != nil {
					t.Error(err)
				}
				waiting, _ := held(t, receiver)
				return waiting == 0
			})
		})
	}
	group.Wait()
	if len(m.Events) != all || m.Repeat != 0 || moved[0]+moved[1] != all {
		t.Errorf("%d events, %d repeats, moved %v", len(m.Events), m.Repeat, moved)
	}
}
