package eventstore

import (
	"context"
	"errors"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/pgdial"
)

const (
	// pingTimeout bounds the question to a connection that was idle for over a second, so that
	// one to a silent server does not take the time of the statement that asked for it.
	pingTimeout = time.Second
	// leaveTimeout bounds the farewell to a server that may be silent: the request to cancel what
	// it is doing, and the wait until it hangs up. The connection's place in the pool is not free
	// before that, and pgx waits 15 s.
	leaveTimeout = time.Second
)

// A link keeps a pool away from a server that is no longer the primary. A pool looks only at new
// connections whether they lead to the primary: those to a former one would stay, each until it
// fails by itself. So when one shows that its server has stopped, is read-only or is silent, it
// is dropped, and all others of the pool with it.
type link struct {
	pool   atomic.Pointer[pgxpool.Pool]
	resets atomic.Uint64
}

// A line is one connection of a pool.
type line struct {
	link    *link
	born    uint64      // resets of the pool before it
	single  bool        // the URL has no other server
	up      atomic.Bool // it is connected
	leaving atomic.Bool // what happens to it from now on is our own doing
}

// install watches the connections of a pool that is about to be made, and join that pool.
func (l *link) install(config *pgxpool.Config) {
	if config.PingTimeout == 0 {
		config.PingTimeout = pingTimeout
	}
	before, after := config.BeforeConnect, config.AfterConnect
	config.BeforeConnect = func(ctx context.Context, conn *pgx.ConnConfig) error {
		if err := before(ctx, conn); err != nil {
			return err
		}
		single := !pgdial.Several(conn)
		if err := pgdial.Choose(ctx, conn); err != nil {
			return err
		}
		this := &line{link: l, born: l.resets.Load(), single: single}
		this.watch(conn)
		return nil
	}
	config.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
		if this, ok := conn.PgConn().CustomData()[lineOf].(*line); ok {
			this.up.Store(true)
		}
		return after(ctx, conn)
	}
	config.BeforeClose = func(conn *pgx.Conn) {
		if this, ok := conn.PgConn().CustomData()[lineOf].(*line); ok {
			this.leaving.Store(true)
		}
		done, socket := conn.PgConn().CleanupDone(), conn.PgConn().Conn()
		time.AfterFunc(leaveTimeout, func() {
			select {
			case <-done:
			default:
				_ = socket.Close()
			}
		})
	}
}

func (l *link) join(pool *pgxpool.Pool) { l.pool.Store(pool) }

// lineOf is where a connection has its line.
const lineOf = "upcall_line"

// lost drops all connections of the pool, unless that was done since this one was made: many
// fail together, and the new ones are good.
func (l *line) lost() {
	pool := l.link.pool.Load()
	if pool != nil && l.link.resets.CompareAndSwap(l.born, l.born+1) {
		pool.Reset()
	}
}

// watch makes a new connection report what it meets.
func (l *line) watch(config *pgx.ConnConfig) {
	dial, onError, after := config.DialFunc, config.OnPgError, config.AfterConnect
	config.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		if l.up.Load() {
			return l.dialCancel(ctx, dial, network, address)
		}
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &watched{Conn: conn, line: l}, nil
	}
	config.OnPgError = func(conn *pgconn.PgConn, reported *pgconn.PgError) bool {
		if !leaves(reported.Code) {
			return onError(conn, reported)
		}
		// Where there are others, one that cannot be connected to says nothing about these.
		if l.up.Load() || l.single {
			l.leaving.Store(true)
			l.lost()
		}
		return false // which closes it
	}
	config.BuildContextWatcherHandler = func(conn *pgconn.PgConn) ctxwatch.Handler {
		return &impatience{pgconn.DeadlineContextWatcherHandler{Conn: conn.Conn()}, l}
	}
	config.AfterConnect = func(ctx context.Context, conn *pgconn.PgConn) error {
		conn.CustomData()[lineOf] = l
		if after != nil {
			return after(ctx, conn)
		}
		return nil
	}
}

// leaves reports whether an error says that this server is not, or will not be, the primary: it
// is read-only, is stopping or starting, or the connection is at fault, which is how a pooler in
// between tells of any of these (PostgreSQL 18 manual, appendix A).
func leaves(code string) bool {
	switch code {
	case "25006", "57P01", "57P02", "57P03":
		return true
	}
	return len(code) == 5 && code[:2] == "08"
}

// dialCancel connects to the server once more, to ask it to cancel a statement. A server that is
// silent does not answer that either, so all of it is bounded.
func (l *line) dialCancel(ctx context.Context, dial pgconn.DialFunc, network, address string) (net.Conn, error) {
	end := time.Now().Add(leaveTimeout)
	ctx, cancel := context.WithDeadline(ctx, end)
	defer cancel()
	conn, err := dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return conn, conn.SetDeadline(end)
}

// impatience is called when the context of a statement ends before the statement does. A
// deadline may mean that the server is silent; a caller who gave up says nothing about it.
type impatience struct {
	pgconn.DeadlineContextWatcherHandler
	line *line
}

func (i *impatience) HandleCancel(ctx context.Context) {
	i.line.leaving.Store(true)
	i.DeadlineContextWatcherHandler.HandleCancel(ctx)
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		i.line.lost()
	}
}

// A watched connection reports when the server, or the network, has ended it.
type watched struct {
	net.Conn
	line *line
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if err != nil {
		w.failed(err)
	}
	return n, err
}

func (w *watched) Write(p []byte) (int, error) {
	n, err := w.Conn.Write(p)
	if err != nil {
		w.failed(err)
	}
	return n, err
}

func (w *watched) failed(err error) {
	ours := errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded)
	if !ours && w.line.up.Load() && !w.line.leaving.Swap(true) {
		w.line.lost()
	}
}
