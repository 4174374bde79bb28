package intake

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"math"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"upcall/internal/callbackspec"
	"upcall/internal/testing/servetest"
)

// BenchmarkServe measures the server on keep-alive connections, without database. It reports the
// CPU time of the best of its runs, with that of the clients: other work on the machine adds to it.
func BenchmarkServe(b *testing.B) {
	o, server, u := measured(b)
	running := servetest.Start(b, func(ctx context.Context, public, _ net.Listener) error { return server.Serve(ctx, public) })
	var message bytes.Buffer
	if err := o.request(b, running.Public, path, string(callbackspec.Form), u.body(b, callbackspec.Form)).Write(&message); err != nil {
		b.Fatal(err)
	}
	conns := make([]net.Conn, 32)
	var size int
	for i := range conns {
		var err error
		if conns[i], err = net.Dial("tcp", strings.TrimPrefix(running.Public, "http://")); err != nil {
			b.Fatal(err)
		}
		defer conns[i].Close()
		if _, err := conns[i].Write(message.Bytes()); err != nil {
			b.Fatal(err)
		}
		var seen bytes.Buffer
		answer, err := http.ReadResponse(bufio.NewReader(io.TeeReader(conns[i], &seen)), nil)
		if err != nil {
			b.Fatal(err)
		}
		if body, err := io.ReadAll(answer.Body); answer.StatusCode != http.StatusOK || err != nil {
			b.Fatalf("got %d %s, %v", answer.StatusCode, body, err)
		}
		size = seen.Len()
	}
	b.ReportAllocs()
	best := time.Duration(math.MaxInt64)
	for b.Loop() {
		const each = 2000
		var left atomic.Int64
		left.Store(each)
		var group sync.WaitGroup
		before := used()
		for _, conn := range conns {
			group.Go(func() {
				answer := make([]byte, size)
				for left.Add(-1) >= 0 {
					_, writeErr := conn.Write(message.Bytes())
					if _, err := io.ReadFull(conn, answer); writeErr != nil || err != nil {
						b.Error(writeErr, err)
						return
					}
				}
			})
		}
		group.Wait()
		best = min(best, (used()-before)/each)
	}
	b.ReportMetric(float64(best.Nanoseconds()), "cpu-ns/callback")
}

// used returns the CPU time of this process.
func used() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
