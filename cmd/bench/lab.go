package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/embeddedpg"
	"upcall/internal/eventstore"
	"upcall/internal/loadgen"
	"upcall/migrations"
)

// maxConnections are what each PostgreSQL lets in.
const maxConnections = 200

// spoolPatience is how long the receiver may take to drain its spool.
const spoolPatience = 30 * time.Second

// A lab holds what all measurements share: a durable PostgreSQL and the key server.
type lab struct {
	postgres    *embeddedpg.Server
	databaseURL string
	pool        *pgxpool.Pool
	keys        *loadgen.KeyServer
	program     string   // its command serve runs the receivers
	tokensOff   bool     // the receivers ignore tokens
	args        []string // more of them for the receiver of a side
	tables      string   // to empty before a round; "" are those of events
	count       string   // how many ids and rows there are; "" is countRows
}

func newLab(ctx context.Context) (*lab, error) {
	postgres, err := embeddedpg.Start(ctx, embeddedpg.Config{MaxConnections: maxConnections, CommitTimes: true})
	if err != nil {
		return nil, err
	}
	l := &lab{postgres: postgres, databaseURL: postgres.URL(), keys: loadgen.NewKeyServer()}
	if l.program, err = os.Executable(); err == nil {
		err = l.prepare(ctx)
	}
	if err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

func (l *lab) prepare(ctx context.Context) error {
	if err := migrations.Up(ctx, l.databaseURL); err != nil {
		return err
	}
	var err error
	if l.pool, err = pgxpool.New(ctx, l.databaseURL); err != nil {
		return fmt.Errorf("open database: %w", err)
	}
	return eventstore.EnsurePartitions(ctx, l.pool, time.Now())
}

func (l *lab) closePool() {
	if l.pool != nil {
		l.pool.Close()
	}
}

func (l *lab) close() {
	l.closePool()
	l.keys.Close()
	l.postgres.Stop()
}

// requests returns n callbacks in wire format, of uploads that no other call returns.
func (l *lab) requests(n int, closing bool) ([][]byte, error) {
	generator, err := loadgen.New(l.keys.KeyURL)
	if err != nil {
		return nil, err
	}
	return generator.Wire(n, closing)
}

// empty removes all rows, also of more tables, as in ", a, b".
func (l *lab) empty(ctx context.Context, more string) error {
	return l.exec(ctx, "TRUNCATE "+cmp.Or(l.tables, "upcall.upload_events, upcall.callback_ids")+more, "CHECKPOINT")
}

func (l *lab) exec(ctx context.Context, statements ...string) error {
	for _, statement := range statements {
		if _, err := l.pool.Exec(ctx, statement); err != nil {
			return fmt.Errorf("%s: %w", statement, err)
		}
	}
	return nil
}

const countRows = "SELECT (SELECT count(*) FROM upcall.callback_ids), (SELECT count(*) FROM upcall.upload_events)"

// expect waits until there are want rows of each kind. Its error says how many there are.
func (l *lab) expect(ctx context.Context, want int) error {
	for began := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		var ids, events int
		if err := l.pool.QueryRow(ctx, cmp.Or(l.count, countRows)).Scan(&ids, &events); err != nil {
			return fmt.Errorf("count rows: %w", err)
		}
		if ids == want && events == want {
			return nil
		}
		// The receiver may still drain what PostgreSQL did not accept in time.
		if max(ids, events) > want || time.Since(began) > spoolPatience {
			return fmt.Errorf("there are %d ids of callbacks and %d events, but should be %d of each", ids, events, want)
		}
	}
}

// measure runs one variant once, after a warm-up. before is how many rows there are;
// afterwards there must be one more for each callback.
func (l *lab) measure(ctx context.Context, v variant, warmUp, requests [][]byte, how load, before int, profileDir string) (result, error) {
	profile := ""
	if profileDir != "" {
		name := fmt.Sprintf("%s %d %s.pprof", v.name, how.clients, how)
		profile = filepath.Join(profileDir, strings.ReplaceAll(name, " ", "-"))
	}
	databaseURL := l.databaseURL
	if v.recorder != nil {
		// As many connections as one INSERT a request can use. The receiver's default, which
		// is 4 on a small machine, would make Upcall look better than it is.
		databaseURL += "&pool_max_conns=32"
	}
	child, err := startChild(ctx, l.program, v, databaseURL, l.keys.KeyURL, profile, l.tokensOff)
	if err != nil {
		return result{}, err
	}
	if v.records {
		before += len(warmUp) + len(requests)
	}
	got, err := l.run(child, warmUp, requests, how)
	if err == nil {
		err = l.expect(ctx, before)
	}
	if err := errors.Join(err, child.stop()); err != nil {
		return result{}, fmt.Errorf("%s, %s: %w", v.name, how, err)
	}
	return got, nil
}

// run warms a receiver up and measures it, without its start, its connections to PostgreSQL
// and their prepared statements.
func (l *lab) run(c *child, warmUp, requests [][]byte, how load) (result, error) {
	// The first one goes alone, because the receiver fetches the public key for it.
	for _, some := range []struct {
		requests [][]byte
		how      load
	}{{warmUp[:1], load{1, how.closing}}, {warmUp[1:], how}} {
		if _, err := fire(c.addr, some.requests, some.how); err != nil {
			return result{}, fmt.Errorf("warm up: %w", err)
		}
	}
	receiverBefore, receiverErr := processCPU(c.cmd.Process.Pid)
	postgresBefore, postgresErr := postgresCPU(l.postgres)
	got, err := fire(c.addr, requests, how)
	if err := errors.Join(err, receiverErr, postgresErr); err != nil {
		return result{}, err
	}
	receiverAfter, receiverErr := processCPU(c.cmd.Process.Pid)
	postgresAfter, postgresErr := postgresCPU(l.postgres)
	got.receiverCPU, got.postgresCPU = receiverAfter-receiverBefore, postgresAfter-postgresBefore
	return got, errors.Join(receiverErr, postgresErr)
}
