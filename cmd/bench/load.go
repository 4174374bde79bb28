package main

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"upcall/internal/loadgen"
)

// A load says how callbacks are sent.
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

// warmUp returns how many requests precede n measured ones.
func (l load) warmUp(n int) int { return max(n/10, l.clients) }

// A result is what one run of one variant measured.
type result struct {
	took        time.Duration
	latencies   []time.Duration // of all requests, sorted
	receiverCPU time.Duration
	postgresCPU time.Duration
}

func (r result) rate() float64 { return float64(len(r.latencies)) / r.took.Seconds() }

// percentiles are columns of a table: p50, p99 and p99.9.
func (r result) percentiles() string {
	var columns [3]string
	for i, q := range []float64{.5, .99, .999} {
		at := min(int(q*float64(len(r.latencies))), len(r.latencies)-1)
		columns[i] = r.latencies[at].Round(10 * time.Microsecond).String()
	}
	return strings.Join(columns[:], "\t")
}

// median returns the result with the median rate.
func median(results []result) result {
	sorted := slices.SortedFunc(slices.Values(results), func(a, b result) int { return cmp.Compare(a.rate(), b.rate()) })
	return sorted[len(sorted)/2]
}

// fire sends every request once. Each client waits for an answer before it sends its next
// request.
func fire(addr string, requests [][]byte, l load) (result, error) {
	latencies := make([]time.Duration, len(requests))
	errs := make([]error, l.clients)
	var next atomic.Int64
	var group sync.WaitGroup
	started := time.Now()
	for c := range l.clients {
		group.Go(func() {
			client := &loadgen.Client{Addr: addr, Closing: l.closing}
			defer client.Close()
			for {
				n := int(next.Add(1)) - 1
				if n >= len(requests) {
					return
				}
				begin := time.Now()
				status, body, err := client.Send(requests[n])
				if err == nil && status != http.StatusOK {
					err = fmt.Errorf("the receiver answered %d: %s", status, body)
				}
				if errs[c] = err; err != nil {
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
	return result{took: took, latencies: latencies}, nil
}
