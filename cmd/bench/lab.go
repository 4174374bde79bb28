package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/embeddedpg"
	"upcall/internal/eventstore"
	"upcall/internal/loadgen"
	"upcall/migrations"
)

// A lab is what all measurements share: a durable PostgreSQL, and the key server.
type lab struct {
	postgres *embeddedpg.Server
	pool     *pgxpool.Pool
	keys     *loadgen.KeyServer
}

func newLab(ctx context.Context) (*lab, error) {
	postgres, err := embeddedpg.Start(ctx, embeddedpg.Config{MaxConnections: 200})
	if err != nil {
		return nil, err
	}
	l := &lab{postgres: postgres, keys: loadgen.NewKeyServer()}
	if err := l.prepare(ctx); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

func (l *lab) prepare(ctx context.Context) error {
	if err := migrations.Up(ctx, l.postgres.URL()); err != nil {
		return err
	}
	// Filling tables takes longer than the programs' statements may.
	var err error
	if l.pool, err = eventstore.Open(ctx, l.postgres.URL()+"&statement_timeout=0"); err != nil {
		return err
	}
	return eventstore.EnsurePartitions(ctx, l.pool, time.Now())
}

func (l *lab) close() {
	if l.pool != nil {
		l.pool.Close()
	}
	l.keys.Close()
	l.postgres.Stop()
}

// requests returns n callbacks on the wire, of uploads that no other call returns.
func (l *lab) requests(n int, closing bool) ([][]byte, error) {
	generator, err := loadgen.New(l.keys.KeyURL)
	if err != nil {
		return nil, err
	}
	return generator.Wire(n, closing)
}

// empty takes all rows out.
func (l *lab) empty(ctx context.Context) error {
	for _, statement := range []string{"TRUNCATE upcall.upload_events, upcall.callback_ids", "CHECKPOINT"} {
		if _, err := l.pool.Exec(ctx, statement); err != nil {
			return fmt.Errorf("empty tables: %w", err)
		}
	}
	return nil
}

func (l *lab) rows(ctx context.Context) (int, error) {
	var n int
	if err := l.pool.QueryRow(ctx, "SELECT count(*) FROM upcall.callback_ids").Scan(&n); err != nil {
		return 0, fmt.Errorf("count rows: %w", err)
	}
	return n, nil
}

// measure runs one variant once. before is how many rows there are; afterwards there
// must be one more for each callback that was answered.
func (l *lab) measure(ctx context.Context, v variant, requests [][]byte, how load, before int, profileDir string) (result, error) {
	// As many connections as one INSERT a request can use: pgx's default is 4 on a
	// small machine, which would make the comparison look better than it is.
	profile := ""
	if profileDir != "" {
		name := fmt.Sprintf("%s %d %s.pprof", v.name, how.clients, how)
		profile = filepath.Join(profileDir, strings.ReplaceAll(name, " ", "-"))
	}
	child, err := startChild(ctx, v, l.postgres.URL()+"&pool_max_conns=32", l.keys.KeyURL, profile)
	if err != nil {
		return result{}, err
	}
	cpuBefore, err := postgresCPU(l.postgres)
	got, fired := fire(child.addr, requests, how)
	cpuAfter, cpuErr := postgresCPU(l.postgres)
	receiverCPU, stopped := child.stop()
	if err := errors.Join(err, fired, cpuErr, stopped); err != nil {
		return result{}, fmt.Errorf("%s, %s: %w", v.name, how, err)
	}
	got.receiverCPU, got.postgresCPU = receiverCPU, cpuAfter-cpuBefore
	if v.records {
		before += len(requests)
	}
	rows, err := l.rows(ctx)
	if err != nil {
		return result{}, err
	}
	if rows != before {
		return result{}, fmt.Errorf("%s, %s: there are %d rows and should be %d", v.name, how, rows, before)
	}
	return got, nil
}
