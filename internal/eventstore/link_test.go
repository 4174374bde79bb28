package eventstore

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/dbtest"
	"upcall/internal/testing/pgbouncer"
	"upcall/internal/testing/toolchain"
	"upcall/internal/testing/wait"
)

var openers = map[string]dbtest.Opener{"ordinary": Open, "reader": OpenReader, "recorder": OpenRecorder, "feed": OpenFeed}

// raise is a statement that fails with a SQLSTATE.
func raise(code string) func(ctx context.Context, conn *pgxpool.Conn) error {
	return func(ctx context.Context, conn *pgxpool.Conn) error {
		_, err := conn.Exec(ctx, "DO $$ BEGIN RAISE EXCEPTION 'test' USING ERRCODE = '"+code+"'; END $$")
		return err
	}
}

func sleep(end func(context.Context) (context.Context, context.CancelFunc)) func(context.Context, *pgxpool.Conn) error {
	return func(ctx context.Context, conn *pgxpool.Conn) error {
		ctx, cancel := end(ctx)
		defer cancel()
		_, err := conn.Exec(ctx, "SELECT pg_sleep(60)")
		return err
	}
}

// TestLink: what says that the server is not the primary any more drops the connection that met
// it, and all others of its pool; other failures do not.
func TestLink(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		fail        func(ctx context.Context, conn *pgxpool.Conn) error
		drops, pool bool
	}{
		"read-only":           {raise("25006"), true, true},
		"shutdown":            {raise("57P01"), true, true},
		"crash":               {raise("57P02"), true, true},
		"starting":            {raise("57P03"), true, true},
		"connection failure":  {raise("08006"), true, true},
		"connection at fault": {raise("08P01"), true, true},
		"deadline": {sleep(func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, 100*time.Millisecond)
		}), true, true},
		"terminated":             {terminate, true, true},
		"cut":                    {cut, true, true},
		"a caller who gave up":   {sleep(giveUp), true, false},
		"a bad row":              {raise("23505"), false, false},
		"the statement's time":   {raise("57014"), false, false},
		"the database's own end": {raise("57P04"), false, false}, // it is dropped: reconnecting does not help
	}
	for kind, open := range openers {
		for name, tt := range tests {
			t.Run(kind+"/"+name, func(t *testing.T) {
				t.Parallel()
				pool := dbtest.Open(t, dbtest.URL(t)+"&pool_max_conns=3", open)
				before := sessions(t, pool, 2)
				conn, err := pool.Acquire(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Release()
				own := conn.Conn().PgConn().PID()
				if err := tt.fail(t.Context(), conn); err == nil {
					t.Fatal("it did not fail")
				}
				if dropped := conn.Conn().IsClosed(); dropped != tt.drops {
					t.Errorf("the connection is dropped: %t, want %t", dropped, tt.drops)
				}
				conn.Release()
				if tt.pool {
					wait.Until(t, "no connection of before is used", func() bool { return !overlap(before, sessions(t, pool, 2)) })
					return
				}
				after := sessions(t, pool, 2)
				for _, pid := range before {
					if pid != own && !slices.Contains(after, pid) {
						t.Errorf("the pool was reset: sessions %v, before %v", after, before)
					}
				}
			})
		}
	}
}

// terminate ends the session as pg_terminate_backend does.
func terminate(ctx context.Context, conn *pgxpool.Conn) error {
	_, err := conn.Exec(ctx, "SELECT pg_terminate_backend(pg_backend_pid()), pg_sleep(60)")
	return err
}

// cut is what the network does. If only reading were shut down, an answer that is quicker than the call that waits for it
// would still arrive.
func cut(ctx context.Context, conn *pgxpool.Conn) error {
	socket := conn.Conn().PgConn().Conn().(*watched).Conn.(*net.TCPConn)
	if err := socket.CloseWrite(); err != nil {
		return err
	}
	_, err := conn.Exec(ctx, "SELECT 1")
	return err
}

func giveUp(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	time.AfterFunc(100*time.Millisecond, cancel)
	return ctx, cancel
}

// sessions returns the process ids of n sessions of the pool, which has that many idle afterwards.
func sessions(t *testing.T, pool *pgxpool.Pool, n int) (pids []uint32) {
	t.Helper()
	for range n {
		conn, err := pool.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Release()
		pids = append(pids, conn.Conn().PgConn().PID())
	}
	return pids
}

func overlap(a, b []uint32) bool {
	return slices.ContainsFunc(a, func(pid uint32) bool { return slices.Contains(b, pid) })
}

// A wire leads to a server until it goes silent: then nothing gets through, and nothing is closed.
type wire struct {
	net.Listener
	silent sync.RWMutex // held for writing while it is
}

func newWire(t *testing.T, server string) *wire {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{Listener: listener}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			go w.lead(client, server)
		}
	}()
	return w
}

func (w *wire) lead(client net.Conn, server string) {
	upstream, err := net.Dial("tcp", server)
	if err != nil {
		client.Close()
		return
	}
	pass := func(to, from net.Conn) {
		defer to.Close()
		buffer := make([]byte, 64<<10)
		for {
			n, err := from.Read(buffer)
			w.silent.RLock()
			w.silent.RUnlock() //nolint:staticcheck // it waits
			if err != nil {
				return
			}
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
	}
	go pass(upstream, client)
	pass(client, upstream)
}

// TestSilentServer: when the server of all connections goes silent, at most the statement that
// finds out fails. The next one reaches the other server of the URL, although the first still
// accepts connections, and although the pool may hold no more of them than it does.
func TestSilentServer(t *testing.T) {
	t.Parallel()
	for kind, open := range openers {
		for _, connections := range []int{1, 4} {
			t.Run(fmt.Sprint(kind, " ", connections), func(t *testing.T) {
				t.Parallel()
				u, err := url.Parse(dbtest.URL(t))
				if err != nil {
					t.Fatal(err)
				}
				first := newWire(t, u.Host)
				u.Host = first.Addr().String() + "," + u.Host
				pool := dbtest.Open(t, u.String()+fmt.Sprintf("&target_session_attrs=any&pool_max_conns=%d", connections), open)
				sessions(t, pool, connections)
				first.silent.Lock()
				defer first.silent.Unlock()
				start := time.Now()
				for attempt := 1; ; attempt++ {
					ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
					_, err := Exec(ctx, pool, "", "SELECT 1", nil)
					cancel()
					if err == nil {
						t.Logf("attempt %d, after %s", attempt, time.Since(start))
						return
					}
					if attempt > 1 || !errors.Is(err, context.DeadlineExceeded) {
						t.Fatalf("attempt %d, after %s: %v", attempt, time.Since(start), err)
					}
				}
			})
		}
	}
}

// TestLinkPooled: through a pooler, the same errors come from the pooler.
func TestLinkPooled(t *testing.T) {
	t.Parallel()
	toolchain.Need(t, "pgbouncer")
	for kind, open := range openers {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			direct := dbtest.URL(t)
			u, err := url.Parse(direct)
			if err != nil {
				t.Fatal(err)
			}
			pool := dbtest.Open(t, pgbouncer.Start(t, direct, "transaction", "default_pool_size = 2"), open)
			if _, err := Exec(t.Context(), pool, "", "SELECT 1", nil); err != nil {
				t.Fatal(err)
			}
			dbtest.Execute(t, direct, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = '"+
				strings.TrimPrefix(u.Path, "/")+"'")
			for attempt := 1; ; attempt++ {
				if _, err = Exec(t.Context(), pool, "", "SELECT 1", nil); err == nil {
					return
				}
				if attempt > 2 {
					t.Fatalf("attempt %d: %v", attempt, err)
				}
			}
		})
	}
}
