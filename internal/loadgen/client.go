package loadgen

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// A Client sends callbacks to a receiver, one after the other. It writes HTTP itself because
// net/http's client would cost more than the receiver under test.
type Client struct {
	Addr string
	// Closing opens a connection for each request, as OSS does; the request must ask for
	// that. Otherwise the client keeps its connection.
	Closing bool
	// ConnectTimeout limits connecting, Timeout everything after. Default none.
	ConnectTimeout, Timeout time.Duration

	conn   net.Conn
	reader *bufio.Reader
	body   []byte
}

// Close ends the connection, if there is one.
func (c *Client) Close() {
	if c.conn != nil {
		c.conn.Close()
		c.conn = nil
	}
}

// Send sends a request of [Generator.Wire] and returns the answer. The body is valid until
// the next call.
func (c *Client) Send(request []byte) (status int, body []byte, err error) {
	if c.conn == nil {
		// Asking for probes takes four system calls for each connection.
		dialer := net.Dialer{Timeout: c.ConnectTimeout, KeepAlive: -1}
		if c.conn, err = dialer.Dial("tcp", c.Addr); err != nil {
			c.conn = nil
			return 0, nil, fmt.Errorf("connect to receiver: %w", err)
		}
		if c.reader == nil {
			c.reader = bufio.NewReaderSize(c.conn, 4<<10)
		}
		c.reader.Reset(c.conn)
	}
	if c.Closing {
		defer c.Close()
	}
	if c.Timeout > 0 {
		c.conn.SetDeadline(time.Now().Add(c.Timeout))
	}
	if _, err := c.conn.Write(request); err != nil {
		return 0, nil, fmt.Errorf("send callback: %w", err)
	}
	if status, err = c.read(); err != nil {
		return 0, nil, fmt.Errorf("read answer: %w", err)
	}
	return status, c.body, nil
}

func (c *Client) read() (int, error) {
	line, err := c.reader.ReadSlice('\n')
	if err != nil {
		return 0, err
	}
	if len(line) < len("HTTP/1.1 200") {
		return 0, fmt.Errorf("it begins with %q", line)
	}
	status, err := strconv.Atoi(string(line[len("HTTP/1.1 "):len("HTTP/1.1 200")]))
	if err != nil {
		return 0, err
	}
	length := 0
	for {
		header, err := c.reader.ReadSlice('\n')
		if err != nil {
			return 0, err
		}
		if len(header) <= 2 {
			break
		}
		if value, found := bytes.CutPrefix(header, []byte("Content-Length: ")); found {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return 0, err
			}
		}
	}
	if cap(c.body) < length {
		c.body = make([]byte, length)
	}
	c.body = c.body[:length]
	_, err = io.ReadFull(c.reader, c.body)
	return status, err
}

// Get returns the body at a URL of a receiver's admin listener.
func Get(ctx context.Context, url string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, fmt.Errorf("ask receiver: %w", err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, fmt.Errorf("ask receiver: %w", err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, fmt.Errorf("ask receiver: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("ask receiver: %s says %s: %s", url, response.Status, body)
	}
	return body, nil
}

// Metrics reads metrics without labels from a receiver's admin listener, in the order of
// names.
func Metrics(ctx context.Context, admin string, names ...string) ([]float64, error) {
	body, err := Get(ctx, "http://"+admin+"/metrics")
	if err != nil {
		return nil, err
	}
	values := make([]float64, len(names))
	for i, name := range names {
		_, rest, found := strings.Cut("\n"+string(body), "\n"+name+" ")
		value, _, _ := strings.Cut(rest, "\n")
		if values[i], err = strconv.ParseFloat(value, 64); err != nil || !found {
			return nil, fmt.Errorf("read metrics: there is no %s", name)
		}
	}
	return values, nil
}
