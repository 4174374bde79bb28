package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// A load is how callbacks are sent.
type load struct {
	clients int
	// closing opens a connection for each request, as OSS does; otherwise each client
	// keeps its own.
	closing bool
}

func (l load) String() string {
	if l.closing {
		return "one connection a request"
	}
	return "keep-alive"
}

// warmUp returns how many requests go before n that are measured.
func (l load) warmUp(n int) int { return max(n/10, l.clients) }

// A result is what one run of one variant gave.
type result struct {
	sent        int
	took        time.Duration
	latencies   []time.Duration // sorted
	receiverCPU time.Duration
	postgresCPU time.Duration
}

func (r result) rate() float64 { return float64(r.sent) / r.took.Seconds() }

// quantile returns the latency that the share q of the requests stayed under.
func (r result) quantile(q float64) time.Duration {
	return r.latencies[min(int(q*float64(len(r.latencies))), len(r.latencies)-1)]
}

// median returns the result with the median rate.
func median(results []result) result {
	sorted := slices.SortedFunc(slices.Values(results), func(a, b result) int { return int(a.rate() - b.rate()) })
	return sorted[len(sorted)/2]
}

// fire sends every request once. Each client sends its next request when it has the
// answer to the one before. It speaks HTTP by hand: net/http's client would cost more
// than the receiver that it measures.
func fire(addr string, requests [][]byte, l load) (result, error) {
	latencies := make([]time.Duration, len(requests))
	errs := make([]error, l.clients)
	var next atomic.Int64
	var group sync.WaitGroup
	started := time.Now()
	for c := range l.clients {
		group.Go(func() {
			client := &client{addr: addr, closing: l.closing}
			defer client.close()
			for {
				n := int(next.Add(1)) - 1
				if n >= len(requests) {
					return
				}
				begin := time.Now()
				if errs[c] = client.send(requests[n]); errs[c] != nil {
					return
				}
				latencies[n] = time.Since(begin)
			}
		})
	}
	group.Wait()
	took := time.Since(started)
	if err := errors.Join(errs...); err != nil {
		return result{}, err
	}
	slices.Sort(latencies)
	return result{sent: len(requests), took: took, latencies: latencies}, nil
}

// A client is one sender and its connection, if it has one.
type client struct {
	addr    string
	closing bool
	conn    net.Conn
	reader  *bufio.Reader
}

func (c *client) close() {
	if c.conn != nil {
		c.conn.Close()
		c.conn = nil
	}
}

func (c *client) send(request []byte) error {
	if c.conn == nil {
		conn, err := net.Dial("tcp", c.addr)
		if err != nil {
			return fmt.Errorf("connect to receiver: %w", err)
		}
		if c.conn = conn; c.reader == nil {
			c.reader = bufio.NewReaderSize(conn, 4<<10)
		} else {
			c.reader.Reset(conn)
		}
	}
	if _, err := c.conn.Write(request); err != nil {
		return fmt.Errorf("send callback: %w", err)
	}
	if err := readOK(c.reader); err != nil {
		return err
	}
	if c.closing {
		c.close()
	}
	return nil
}

// readOK reads one answer and fails unless it is a 200.
func readOK(r *bufio.Reader) error {
	status, err := r.ReadSlice('\n')
	if err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	ok := bytes.HasPrefix(status, []byte("HTTP/1.1 200 "))
	line := string(bytes.TrimSpace(status))
	length := 0
	for {
		header, err := r.ReadSlice('\n')
		if err != nil {
			return fmt.Errorf("read answer: %w", err)
		}
		if len(header) <= 2 {
			break
		}
		if value, found := bytes.CutPrefix(header, []byte("Content-Length: ")); found {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return fmt.Errorf("read answer: %w", err)
			}
		}
	}
	if ok {
		_, err := r.Discard(length)
		return err
	}
	body := make([]byte, length)
	if _, err := io.ReadFull(r, body); err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	return fmt.Errorf("the receiver answered %s: %s", line, body)
}
