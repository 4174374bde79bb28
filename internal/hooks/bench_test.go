package hooks

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"upcall/internal/dbtest"
	"upcall/internal/eventstore"
	"upcall/internal/feed"
	"upcall/internal/webhook"
)

// BenchmarkDeliver sends events that are in the log already to one endpoint that answers at
// once. Its result is signed deliveries a second, with PostgreSQL and the endpoint on the same
// machine.
func BenchmarkDeliver(b *testing.B) {
	w := &world{url: dbtest.URL(b), clock: new(clock)}
	w.pool = dbtest.Open(b, w.url, eventstore.Open)
	logger := slog.New(slog.DiscardHandler)
	if err := eventstore.EnsurePartitions(b.Context(), w.pool, time.Now()); err != nil {
		b.Fatal(err)
	}
	reader := dbtest.Open(b, w.url, eventstore.OpenFeed)
	log, err := feed.New(feed.Config{Pool: reader, Logger: logger})
	if err != nil {
		b.Fatal(err)
	}
	consumers, err := feed.NewConsumers(feed.ConsumersConfig{Pool: dbtest.Open(b, w.url, eventstore.OpenFeed)})
	if err != nil {
		b.Fatal(err)
	}
	pump, err := NewPump(PumpConfig{Pool: w.pool, Log: log, Consumers: consumers, Rules: loopback, Logger: logger})
	if err != nil {
		b.Fatal(err)
	}
	endpoints, err := NewEndpoints(Config{Pool: w.pool, Log: log, Rules: loopback, Logger: logger})
	if err != nil {
		b.Fatal(err)
	}
	var arrived atomic.Int64
	all := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // it is short
		rw.WriteHeader(http.StatusNoContent)
		if arrived.Add(1) == int64(b.N) {
			close(all)
		}
	}))
	defer server.Close()
	if _, _, err := endpoints.Add(b.Context(), Settings{URL: server.URL}, webhook.Secret{}, Start{}); err != nil {
		b.Fatal(err)
	}
	w.upload(b, "k", b.N)
	ctx, stop := context.WithCancel(b.Context())
	defer stop()
	go log.Run(ctx)
	go consumers.Run(ctx)
	b.ResetTimer()
	ended := make(chan struct{})
	go func() { defer close(ended); pump.Run(ctx) }()
	<-all
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "deliveries/s")
	b.StopTimer()
	stop()
	<-ended
}
