package eventstore

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/dbtest"
	"upcall/migrations"
)

// BenchmarkLink measures what it costs a statement that its connection is watched. One statement records all callbacks
// that wait, so that a callback has its share of it.
func BenchmarkLink(b *testing.B) {
	url := dbtest.URL(b)
	for name, watch := range map[string]bool{"plain": false, "watched": true} {
		b.Run(name, func(b *testing.B) {
			config, err := migrations.ParseURL(url)
			if err != nil {
				b.Fatal(err)
			}
			config.BeforeConnect = func(context.Context, *pgx.ConnConfig) error { return nil }
			config.AfterConnect = func(context.Context, *pgx.Conn) error { return nil }
			var l link
			if watch {
				l.install(config)
			}
			pool, err := pgxpool.NewWithConfig(b.Context(), config)
			if err != nil {
				b.Fatal(err)
			}
			defer pool.Close()
			l.join(pool)
			b.ReportAllocs()
			for b.Loop() {
				ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
				if _, err := pool.Exec(ctx, "SELECT 1"); err != nil {
					b.Fatal(err)
				}
				cancel()
			}
		})
	}
}

// nowhere is a connection that takes and gives at once.
type nowhere struct{ net.Conn }

func (nowhere) Read(p []byte) (int, error)  { return len(p), nil }
func (nowhere) Write(p []byte) (int, error) { return len(p), nil }

// BenchmarkWatched is the same without PostgreSQL: a write and a read.
func BenchmarkWatched(b *testing.B) {
	for name, conn := range map[string]net.Conn{"plain": nowhere{}, "watched": &watched{Conn: nowhere{}, line: new(line)}} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			buffer := make([]byte, 64)
			for b.Loop() {
				_, _ = conn.Write(buffer)
				_, _ = conn.Read(buffer)
			}
		})
	}
}
