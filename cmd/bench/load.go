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
	tails       []time.Duration // the 99th percentile of each turn
	answers     []time.Time     // when each request was answered, in their order
	receiverCPU time.Duration
	postgresCPU time.Duration
}

func (r result) rate() float64 { return float64(len(r.latencies)) / r.took.Seconds() }

// percentiles are columns of a table: p50, p99 and p99.9.
func (r result) percentiles() string {
	var columns [3]string
	for i, q := range []float64{.5, .99, .999} {
		columns[i] = quantile(r.latencies, q).Round(10 * time.Microsecond).String()
	}
	return strings.Join(columns[:], "\t")
}

// quantile returns a quantile of sorted values, 0 if there are none.
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

// median returns the result with the median rate.
func median(results []result) result {
	sorted := slices.SortedFunc(slices.Values(results), func(a, b result) int { return cmp.Compare(a.rate(), b.rate()) })
	return sorted[len(sorted)/2]
}

// fire sends every request once. Each client waits for an answer before it sends its next
// request.
func fire(addr string, requests [][]byte, l load) (result, error) {
	clients := connect(addr, l)
	defer clients.close()
	return clients.send(requests, 0)
}

// A fleet is clients that keep their connections from one load to the next.
type fleet struct {
	clients  []*loadgen.Client
	answered atomic.Int64
}

func connect(addr string, l load) *fleet {
	f := new(fleet)
	for range l.clients {
		f.clients = append(f.clients, &loadgen.Client{Addr: addr, Closing: l.closing})
	}
	return f
}

func (f *fleet) close() {
	for _, client := range f.clients {
		client.Close()
	}
}

// send sends every request once, so many a second, or as fast as the answers come if rate is 0.
// A request that is sent late, because all clients wait, counts from when it was due.
func (f *fleet) send(requests [][]byte, rate float64) (result, error) {
	latencies, answers := make([]time.Duration, len(requests)), make([]time.Time, len(requests))
	errs := make([]error, len(f.clients))
	var next atomic.Int64
	var group sync.WaitGroup
	started := time.Now()
	for c, client := range f.clients {
		group.Go(func() {
			for {
				n := int(next.Add(1)) - 1
				if n >= len(requests) {
					return
				}
				begin := time.Now()
				if rate > 0 {
					due := started.Add(time.Duration(float64(n) / rate * float64(time.Second)))
					if wait := due.Sub(begin); wait > 0 {
						time.Sleep(wait)
						begin = time.Now()
					} else {
						begin = due
					}
				}
				status, body, err := client.Send(requests[n])
				if err == nil && status != http.StatusOK {
					err = fmt.Errorf("the receiver answered %d: %s", status, body)
				}
				if errs[c] = err; err != nil {
					return
				}
				answers[n] = time.Now()
				latencies[n] = answers[n].Sub(begin)
				f.answered.Add(1)
			}
		})
	}
	group.Wait()
	took := time.Since(started)
	if err := errors.Join(errs...); err != nil {
		return result{}, err
	}
	slices.Sort(latencies)
	return result{took: took, latencies: latencies, answers: answers}, nil
}
