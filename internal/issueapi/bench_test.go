package issueapi

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"upcall/internal/apikey"
	"upcall/internal/dbtest"
	"upcall/internal/eventstore"
	"upcall/internal/testing/servetest"
)

// clients is the number of keep-alive connections.
const clients = 32

// noLedger replaces the database and keeps nothing.
type noLedger struct{}

func (noLedger) Get(context.Context, uuid.UUID) (eventstore.IssuedStatus, error) {
	return eventstore.IssuedStatus{}, eventstore.ErrNotFound
}
func (noLedger) Revoke(context.Context, uuid.UUID) error { return nil }

// fixedKeys are keys without a database.
type fixedKeys []eventstore.APIKey

func (k fixedKeys) List(context.Context) ([]eventstore.APIKey, error) { return k, nil }

// BenchmarkServe requests uploads over HTTP, in turns with a ledger, in a PostgreSQL that
// syncs to disk, and without one. It reports both rates and their ratio. Server, clients and
// PostgreSQL share the machine.
func BenchmarkServe(b *testing.B) {
	on, rows, token := benchServer(b, true)
	off, _, offToken := benchServer(b, false)
	const round = 2000 // requests
	var withLedger, without time.Duration
	n := 0
	for b.Loop() {
		// The first one alternates, because a round leaves work behind for PostgreSQL.
		if n%2 == 0 {
			withLedger += benchRound(b, on, token, round)
			without += benchRound(b, off, offToken, round)
		} else {
			without += benchRound(b, off, offToken, round)
			withLedger += benchRound(b, on, token, round)
		}
		n++
	}
	if got := rows(); got != n*round {
		b.Fatalf("%d rows for %d answers", got, n*round)
	}
	b.ReportMetric(float64(n*round)/withLedger.Seconds(), "ledger/s")
	b.ReportMetric(float64(n*round)/without.Seconds(), "no-ledger/s")
	b.ReportMetric(without.Seconds()/withLedger.Seconds(), "ratio")
	b.ReportMetric(0, "ns/op")
}

// benchServer returns the address of a running API, a function that counts its rows, and a
// key.
func benchServer(b *testing.B, withLedger bool) (addr string, rows func() int, token string) {
	b.Helper()
	token, hash, err := apikey.New("web")
	if err != nil {
		b.Fatal(err)
	}
	key := eventstore.APIKey{ID: "web", Hash: hash[:], Policy: "photos", CreatedAt: time.Now()}
	cfg := Config{
		Issuer: newIssuer(b, nil, nil), Ledger: noLedger{}, Repeats: noRepeats{}, Keys: fixedKeys{key},
		Policies: parsePolicies(b, policies), Metrics: NewMetrics(),
		Rate: 1e6, Burst: 1e6,
		Logger: slog.New(slog.NewJSONHandler(io.Discard, nil)),
	}
	if withLedger {
		pool, err := eventstore.Open(b.Context(), dbtest.NewServer(b).URL())
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(pool.Close)
		ledger, err := eventstore.NewLedger(eventstore.Config{Pool: dbtest.Beside(b, pool, eventstore.OpenRecorder),
			OnBatch: eventstore.NewBatches("upcall_issuer", "Uploads").Observe})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(ledger.Close)
		keys := eventstore.NewAPIKeys(pool)
		if err := keys.Add(b.Context(), key); err != nil {
			b.Fatal(err)
		}
		cfg.Issuer, cfg.Ledger, cfg.Keys = newIssuer(b, ledger, nil), eventstore.NewUploads(pool), keys
		rows = func() (n int) {
			if err := pool.QueryRow(b.Context(), "SELECT count(*) FROM upcall.issued_uploads").Scan(&n); err != nil {
				b.Fatal(err)
			}
			return n
		}
	}
	server, err := New(cfg)
	if err != nil {
		b.Fatal(err)
	}
	s := servetest.Start(b, func(ctx context.Context, api, _ net.Listener) error { return server.Serve(ctx, api) })
	return strings.TrimPrefix(s.Public, "http://"), rows, token
}

// benchRound sends n requests over the clients' connections and returns how long it took.
func benchRound(b *testing.B, addr, token string, n int) time.Duration {
	b.Helper()
	request := fmt.Sprintf(rawUpload, addr, token, len(goodBody), goodBody)
	var left atomic.Int64
	left.Store(int64(n))
	var group sync.WaitGroup
	conns := make([]net.Conn, clients)
	for i := range conns {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			b.Fatal(err)
		}
		defer conn.Close()
		conns[i] = conn
	}
	start := time.Now()
	for _, conn := range conns {
		group.Go(func() {
			in := bufio.NewReaderSize(conn, 8<<10)
			for left.Add(-1) >= 0 {
				if _, err := io.WriteString(conn, request); err != nil {
					b.Error(err)
					return
				}
				if err := readCreated(in); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
	return time.Since(start)
}

// readCreated reads an answer with as little work as possible, because the client shares the
// processors with what it measures.
func readCreated(in *bufio.Reader) error {
	response, err := http.ReadResponse(in, nil)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusCreated {
		body, _ := io.ReadAll(response.Body)
		return fmt.Errorf("%s: %s", response.Status, strings.TrimSpace(string(body)))
	}
	_, err = io.Copy(io.Discard, response.Body)
	return err
}
