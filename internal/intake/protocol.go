package intake

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"github.com/gin-gonic/gin"

	"upcall/internal/admission"
)

// A protocolListener accepts connections on which even malformed requests get the JSON
// answers of the contract. net/http itself answers broken or overlong headers with plain
// text, and closes the connection without an answer when headers stall.
type protocolListener struct {
	net.Listener
	metrics *Metrics
}

func (l protocolListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return newProtocolConn(conn, l.metrics), nil
}

// A protocolConn is a connection to the public listener.
type protocolConn struct {
	net.Conn
	metrics *Metrics
	begun   atomic.Bool // bytes have arrived
	handled atomic.Bool // a request has reached a handler
	refused atomic.Bool // the answer was written here, and the connection ends

	reads, writes deadline
}

// SetReadDeadline is net.Conn's, see [deadline].
func (c *protocolConn) SetReadDeadline(t time.Time) error { return c.reads.want(t) }

// SetWriteDeadline is net.Conn's, see [deadline].
func (c *protocolConn) SetWriteDeadline(t time.Time) error { return c.writes.want(t) }

// SetDeadline is net.Conn's.
func (c *protocolConn) SetDeadline(t time.Time) error {
	return errors.Join(c.reads.want(t), c.writes.want(t))
}

func newProtocolConn(conn net.Conn, metrics *Metrics) *protocolConn {
	return &protocolConn{Conn: conn, metrics: metrics,
		reads: deadline{set: conn.SetReadDeadline}, writes: deadline{set: conn.SetWriteDeadline}}
}

type protocolKey struct{}

// withConn lets handlers find their connection.
func withConn(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, protocolKey{}, conn)
}

// markHandled is middleware that notes that a request has reached a handler, which answers
// from then on.
func markHandled(c *gin.Context) {
	if conn, ok := c.Request.Context().Value(protocolKey{}).(*protocolConn); ok {
		conn.handled.Store(true)
	}
}

// Read answers a first request whose headers began and then stalled.
//
// It reads nothing when it has no deadline. The server sets one whenever it needs something from the
// sender. Without one, net/http only looks, in a goroutine of its own for each request, whether the
// sender goes away while we answer, and that makes no difference to a callback: what it says is
// true, and is recorded. Waiting for it and waking it up takes as long as parsing the callback.
func (c *protocolConn) Read(p []byte) (int, error) {
	if c.reads.none() {
		return 0, nil
	}
	if err := c.reads.begin(); err != nil {
		return 0, err
	}
	defer c.reads.end()
	if !c.begun.Load() {
		growStack()
	}
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.begun.Store(true)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) && c.begun.Load() && !c.handled.Load() {
		c.refuse(admission.Malformed, "the headers came too slowly")
	}
	return n, err
}

// growStack gives the goroutine of a new connection the stack that a callback needs, while it is
// nearly empty. Growing step by step copies a deep one again and again, for each connection of
// OSS, which makes one request.
//
//go:noinline
func growStack() byte {
	var room [stackNeeded]byte
	return room[len(os.Args)%stackNeeded]
}

// stackNeeded is a bit less than the 16 KiB, in bytes, that a goroutine has after.
const stackNeeded = 10 << 10

// netHTTPError is in every error that net/http writes without a handler but one, and in none
// of our answers. The exception is a 417, for an Expect other than 100-continue.
var netHTTPError = []byte("\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n")

// The beginnings of their status lines, after the version.
var expectationFailed, headersTooLarge = []byte("417 "), []byte("431 ")

// maxUnread is how much is read of a message that was refused here, in bytes.
const maxUnread = 4 << 20

// Write replaces the plain-text errors of net/http with answers of the contract.
func (c *protocolConn) Write(p []byte) (int, error) {
	if c.refused.Load() {
		return len(p), nil
	}
	if err := c.writes.begin(); err != nil {
		return 0, err
	}
	defer c.writes.end()
	version, status, _ := bytes.Cut(p, []byte(" "))
	switch {
	case !bytes.HasPrefix(version, []byte("HTTP/1.")):
		return c.Conn.Write(p)
	case bytes.HasPrefix(status, expectationFailed):
		c.refuse(admission.Malformed, "Expect is neither absent nor 100-continue")
	case !bytes.Contains(p, netHTTPError):
		return c.Conn.Write(p)
	case bytes.HasPrefix(status, headersTooLarge):
		c.refuse(admission.HeadersTooLarge.Code, admission.HeadersTooLarge.Message)
	default:
		c.refuse(admission.Malformed, "this is not an HTTP/1.1 request")
	}
	return len(p), nil
}

// refuse writes an answer of the contract, and lets nothing follow it.
func (c *protocolConn) refuse(code admission.Code, message string) {
	if c.refused.Swap(true) {
		return
	}
	body, status := (&admission.Refusal{Code: code, Message: message}).Body(), code.Status()
	// A peer that does not read must not keep the connection open.
	_ = c.Conn.SetWriteDeadline(time.Now().Add(time.Second))
	fmt.Fprintf(c.Conn, "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
		status, http.StatusText(status), len(body), body)
	c.metrics.requests.WithLabelValues(string(code)).Inc()
	// No other answer follows. What the peer still sends is read: if the connection were closed
	// before, TCP would reset it, and the peer could lose the answer.
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
	_ = c.Conn.SetReadDeadline(time.Now().Add(time.Second))
	_, _ = io.CopyN(io.Discard, c.Conn, maxUnread)
}
