package intake

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
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
	return &protocolConn{Conn: conn, metrics: l.metrics}, nil
}

// A protocolConn is a connection to the public listener.
type protocolConn struct {
	net.Conn
	metrics *Metrics
	begun   atomic.Bool // bytes have arrived
	handled atomic.Bool // a request has reached a handler
	refused atomic.Bool // the answer was written here, and the connection ends
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
func (c *protocolConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.begun.Store(true)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) && c.begun.Load() && !c.handled.Load() {
		c.refuse(admission.Malformed, "the headers came too slowly")
	}
	return n, err
}

// netHTTPError is in every answer that net/http gives without a handler, and in none of
// ours.
var netHTTPError = []byte("\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n")

// Write replaces the plain-text errors of net/http with answers of the contract.
func (c *protocolConn) Write(p []byte) (int, error) {
	if c.refused.Load() {
		return len(p), nil
	}
	if !bytes.HasPrefix(p, []byte("HTTP/1.1 ")) || !bytes.Contains(p, netHTTPError) {
		return c.Conn.Write(p)
	}
	if status, _, _ := bytes.Cut(p[len("HTTP/1.1 "):], []byte(" ")); string(status) == strconv.Itoa(http.StatusRequestHeaderFieldsTooLarge) {
		c.refuse(admission.HeadersTooLarge.Code, admission.HeadersTooLarge.Message)
	} else {
		c.refuse(admission.Malformed, "this is not an HTTP/1.1 request")
	}
	return len(p), nil
}

// refuse writes an answer of the contract, and lets nothing follow it.
func (c *protocolConn) refuse(code admission.Code, message string) {
	if c.refused.Swap(true) {
		return
	}
	body, status := errorJSON(code, message), statuses[code]
	// A peer that does not read must not keep the connection open.
	_ = c.Conn.SetWriteDeadline(time.Now().Add(time.Second))
	fmt.Fprintf(c.Conn, "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
		status, http.StatusText(status), len(body), body)
	c.metrics.requests.WithLabelValues(string(code)).Inc()
}
