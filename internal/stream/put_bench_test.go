package stream

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"upcall/internal/event"
	"upcall/internal/kept"
	"upcall/internal/testing/natstest"
)

// benchClients is how many callbacks wait for an answer at once.
const benchClients = 128

// BenchmarkPut compares what Put does, a message for each callback, with group commits: those that wait go together in
// an atomic batch, while so many batches are on their way. docs/stream.md has the figures.
func BenchmarkPut(b *testing.B) {
	cluster := natstest.Start(b, nil)
	config, _ := config(b, cluster)
	settings := config.withDefaults().settings()
	settings.AllowAtomicPublish, settings.MaxBytes = true, 1<<30
	if _, err := admin(b, cluster).CreateStream(putting(b), settings); err != nil {
		b.Fatal(err)
	}
	s := open(b, config)
	for _, way := range []struct {
		name string
		put  func(context.Context, *event.Event) error
	}{
		{"each", func(ctx context.Context, e *event.Event) error { _, err := s.Put(ctx, e); return err }},
		{"atomic-1", newBatcher(b, s, 1).put},
		{"atomic-2", newBatcher(b, s, 2).put},
		{"atomic-4", newBatcher(b, s, 4).put},
	} {
		b.Run(way.name, func(b *testing.B) {
			before := processorTime(b, cluster.PIDs())
			took := make([]time.Duration, b.N)
			var next atomic.Int64
			var group sync.WaitGroup
			for range benchClients {
				group.Go(func() {
					for n := next.Add(1) - 1; n < int64(b.N); n = next.Add(1) - 1 {
						e, began := numbered(0), time.Now()
						e.ID = uuid.New()
						if err := way.put(putting(b), e); err != nil {
							b.Error(err)
							return
						}
						took[n] = time.Since(began)
					}
				})
			}
			group.Wait()
			slices.Sort(took)
			b.ReportMetric(float64(took[b.N*99/100].Microseconds())/1000, "p99-ms")
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "callbacks/s")
			b.ReportMetric(float64((processorTime(b, cluster.PIDs())-before).Microseconds())/float64(b.N), "servers-µs/op")
		})
	}
}

// A batcher publishes those that wait in one atomic batch (ADR-50 of nats-architecture-and-design, 2025).
type batcher struct {
	stream *Stream
	queue  chan queued
}

type queued struct {
	message *nats.Msg
	done    chan error
}

const mostInBatch = 256

func newBatcher(b *testing.B, s *Stream, atOnce int) *batcher {
	w := &batcher{stream: s, queue: make(chan queued, benchClients)}
	for range atOnce {
		go w.run()
	}
	b.Cleanup(func() { close(w.queue) })
	return w
}

func (w *batcher) put(_ context.Context, e *event.Event) error {
	frame, err := kept.Encode(&kept.Record{Event: *e})
	if err != nil {
		return err
	}
	q := queued{nats.NewMsg(w.stream.config.waiting()), make(chan error, 1)}
	q.message.Data = frame
	q.message.Header.Set(jetstream.MsgIDHeader, e.ID.String())
	w.queue <- q
	return <-q.done
}

func (w *batcher) run() {
	for first := range w.queue {
		batch := []queued{first}
		for more := true; more && len(batch) < mostInBatch; {
			select {
			case q, ok := <-w.queue:
				if more = ok; ok {
					batch = append(batch, q)
				}
			default:
				more = false
			}
		}
		err := w.publish(batch)
		for _, q := range batch {
			q.done <- err
		}
	}
}

func (w *batcher) publish(batch []queued) error {
	id := uuid.NewString()
	for i, q := range batch {
		q.message.Header.Set("Nats-Batch-Id", id)
		q.message.Header.Set("Nats-Batch-Sequence", strconv.Itoa(i+1))
		if i < len(batch)-1 {
			if err := w.stream.conn.PublishMsg(q.message); err != nil {
				return err
			}
		}
	}
	last := batch[len(batch)-1].message
	last.Header.Set("Nats-Batch-Commit", "1")
	answer, err := w.stream.conn.RequestMsg(last, time.Minute)
	if err != nil {
		return err
	}
	if !strings.Contains(string(answer.Data), fmt.Sprintf(`"count":%d`, len(batch))) {
		return fmt.Errorf("the servers answer %s", answer.Data)
	}
	return nil
}

// processorTime returns what processes have used; 0 without /proc.
func processorTime(b *testing.B, pids []int) (sum time.Duration) {
	b.Helper()
	for _, pid := range pids {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return 0
		}
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		for _, field := range fields[11:13] { // utime and stime, in hundredths of a second
			ticks, err := strconv.Atoi(field)
			if err != nil {
				b.Fatal(err)
			}
			sum += time.Duration(ticks) * 10 * time.Millisecond
		}
	}
	return sum
}
