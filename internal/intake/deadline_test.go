package intake

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/google/uuid"

	"upcall/internal/callbackspec"
	"upcall/internal/event"
	"upcall/internal/recorder"
)

// counted counts the deadlines that it is given.
type counted struct {
	net.Conn
	deadlines int
}

func (c *counted) SetReadDeadline(t time.Time) error {
	c.deadlines++
	return c.Conn.SetReadDeadline(t)
}

// newConn returns a connection of the listener, what it counts, and the sender's end.
func newConn(t *testing.T) (*protocolConn, *counted, net.Conn) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	sender, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sender.Close() })
	accepted, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { accepted.Close() })
	below := &counted{Conn: accepted}
	return newProtocolConn(below, NewMetrics()), below, sender
}

// TestDeadlines checks that a call ends by its deadline, or a little before, whatever the one before it was.
func TestDeadlines(t *testing.T) {
	t.Parallel()
	read := func(t *testing.T, conn *protocolConn, from, until time.Duration) {
		t.Helper()
		began := time.Now()
		n, err := conn.Read(make([]byte, 1))
		if took := time.Since(began); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) || took < from || took > until {
			t.Errorf("read %d bytes, %v, after %s; want a timeout after %s", n, err, took, from)
		}
	}
	const soon, late = 200 * time.Millisecond, 30 * time.Second
	for name, before := range map[string]time.Duration{"first": 0, "after an earlier one": soon / 4, "after a later one": 2 * late} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn, _, sender := newConn(t)
			if before != 0 {
				conn.SetReadDeadline(time.Now().Add(before))
				sender.Write([]byte("a"))
				if n, err := conn.Read(make([]byte, 1)); n != 1 || err != nil {
					t.Fatal(n, err)
				}
			}
			conn.SetReadDeadline(time.Now().Add(soon))
			read(t, conn, soon/2, late)
			conn.SetReadDeadline(time.Now().Add(soon)) // it holds for one call after another
			read(t, conn, soon/2, late)
		})
	}
	t.Run("while a call waits", func(t *testing.T) {
		t.Parallel()
		conn, below, _ := newConn(t)
		conn.SetReadDeadline(time.Now().Add(2 * late))
		go func() {
			for waits := false; !waits; time.Sleep(time.Millisecond) {
				conn.reads.mu.Lock()
				waits = conn.reads.busy
				conn.reads.mu.Unlock()
			}
			conn.SetReadDeadline(time.Unix(1, 0))
		}()
		read(t, conn, 0, late)
		if below.deadlines != 2 {
			t.Errorf("the connection got %d deadlines", below.deadlines)
		}
	})
	t.Run("write", func(t *testing.T) {
		t.Parallel()
		conn, _, _ := newConn(t)
		conn.SetWriteDeadline(time.Now().Add(soon))
		for began := time.Now(); ; { // until what the sender does not read fills all buffers
			if _, err := conn.Write(make([]byte, 1<<20)); errors.Is(err, os.ErrDeadlineExceeded) {
				return
			} else if err != nil || time.Since(began) > late {
				t.Fatal(err)
			}
		}
	})
}

// TestDeadlinesAreKept checks that requests that follow one another share a deadline.
func TestDeadlinesAreKept(t *testing.T) {
	t.Parallel()
	conn, below, sender := newConn(t)
	until := time.Now().Add(time.Minute)
	for i := range 10 {
		sender.Write([]byte("a"))
		conn.SetReadDeadline(until.Add(time.Duration(i) * early / 10))
		if n, err := conn.Read(make([]byte, 1)); n != 1 || err != nil {
			t.Fatal(n, err)
		}
	}
	if below.deadlines != 1 {
		t.Errorf("the connection got %d deadlines, want 1", below.deadlines)
	}
}

// TestReadWithoutDeadline checks that nothing waits, or takes what the sender sends, without one.
func TestReadWithoutDeadline(t *testing.T) {
	t.Parallel()
	conn, _, sender := newConn(t)
	if n, err := conn.Read(make([]byte, 1)); n != 0 || err != nil {
		t.Errorf("read %d bytes, %v", n, err)
	}
	sender.Write([]byte("a"))
	conn.SetReadDeadline(time.Now().Add(time.Minute))
	text := make([]byte, 1)
	if _, err := io.ReadFull(conn, text); err != nil || text[0] != 'a' {
		t.Errorf("read %q, %v", text, err)
	}
}

// TestSenderLeaves checks that a callback is recorded although its sender goes away meanwhile.
func TestSenderLeaves(t *testing.T) {
	t.Parallel()
	o := newOSS(t)
	left, kept := make(chan struct{}), make(chan error, 1)
	s := serve(t, o, nil, func(c *Config) { c.Recorder = leaving{left, kept} })
	ctx, leave := context.WithCancel(t.Context())
	r := o.request(t, s.Public, path, string(callbackspec.Form), issued(t, "a.txt", "R1").body(t, callbackspec.Form)).WithContext(ctx)
	go func() {
		<-left
		leave()
	}()
	if response, err := http.DefaultTransport.RoundTrip(r); err == nil {
		response.Body.Close()
		t.Error("the sender got an answer")
	}
	if err := <-kept; err != nil {
		t.Errorf("the callback was given up: %v", err)
	}
}

// leaving is a recorder that says when it has an event, and what became of its context until long after.
type leaving struct {
	has  chan<- struct{}
	kept chan<- error
}

func (l leaving) Record(ctx context.Context, e *event.Event) (recorder.Outcome, error) {
	close(l.has)
	select {
	case <-ctx.Done():
		l.kept <- ctx.Err()
	case <-time.After(Deadline / 4):
		l.kept <- nil
	}
	return instant{}.Record(ctx, e)
}

func (l leaving) Find(ctx context.Context, _ uuid.UUID, _ uuid.NullUUID) (recorder.Durable, error) {
	return "", nil
}
