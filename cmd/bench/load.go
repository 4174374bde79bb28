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

// A result is what one run of one variant gave.
type result struct {
	sent      int
	took      time.Duration
	latencies []time.Duration // sorted
	cpu       time.Duration   // of the receiver
}

func (r result) rate() float64 { return float64(r.sent) / r.took.Seconds() }

// quantile returns the latency that the share q of the requests stayed under.
func (r result) quantile(q float64) time.Duration {
	return r.latencies[min(int(q*float64(len(r.latencies))), len(r.latencies)-1)]
}

// fire sends every request once over the given number of keep-alive connections, each
// of which sends its next request when it has the answer to the one before. It speaks
// HTTP by hand: net/http's client would cost more than the receiver it measures.
func fire(addr string, requests [][]byte, clients int) (result, error) {
	latencies := make([]time.Duration, len(requests))
	var next atomic.Int64
	var group sync.WaitGroup
	errs := make([]error, clients)
	conns := make([]net.Conn, clients)
	for i := range clients {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			return result{}, fmt.Errorf("connect to receiver: %w", err)
		}
		defer conn.Close()
		conns[i] = conn
	}
	started := time.Now()
	for i := range clients {
		group.Go(func() {
			reader := bufio.NewReaderSize(conns[i], 4<<10)
			for {
				n := int(next.Add(1)) - 1
				if n >= len(requests) {
					return
				}
				begin := time.Now()
				if _, err := conns[i].Write(requests[n]); err != nil {
					errs[i] = err
					return
				}
				if err := readOK(reader); err != nil {
					errs[i] = err
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
