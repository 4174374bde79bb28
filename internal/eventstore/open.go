package eventstore

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/migrations"
)

// The four ways to open a database differ in the settings of their connections. They return a
// pool, which connects only when a connection is needed, so that a receiver can start, and
// report that it is not ready, while PostgreSQL is unavailable. Settings in the URL (such as
// pool_max_conns, statement_timeout, or a connect_timeout up to 5) take precedence, except
// default_transaction_isolation and a synchronous_commit weaker than "on". An error wraps
// [migrations.ErrURL]. A program that opens two pools may use pool_max_conns connections for
// each.
//
// Between the program and PostgreSQL may be a pooler, in any mode: see settle.

// Open is for ordinary, short statements.
func Open(ctx context.Context, databaseURL string) (*pgxpool.Pool, error) {
	return open(ctx, databaseURL, map[string]string{"statement_timeout": "5s", "lock_timeout": "2s"})
}

// OpenReader is for statements that only read. They may take as long as they need.
func OpenReader(ctx context.Context, databaseURL string) (*pgxpool.Pool, error) {
	return open(ctx, databaseURL, map[string]string{
		"default_transaction_read_only": "on", "statement_timeout": "0", "lock_timeout": "10s",
	})
}

// OpenRecorder is only for a [Recorder] and a [Ledger]: its planner settings suit their
// statements.
func OpenRecorder(ctx context.Context, databaseURL string) (*pgxpool.Pool, error) {
	return OpenTracedRecorder(ctx, databaseURL, nil)
}

// OpenTracedRecorder is [OpenRecorder] with a tracer of its statements; nil is none.
func OpenTracedRecorder(ctx context.Context, databaseURL string, tracer pgx.QueryTracer) (*pgxpool.Pool, error) {
	return openTraced(ctx, databaseURL, tracer, map[string]string{
		"statement_timeout": "5s", "lock_timeout": "2s",
		// The batch's statement is planned once on each connection. By default PostgreSQL
		// plans it again for every batch, because the lengths of the arrays differ, and that
		// costs more than recording a small batch.
		planCacheMode: "force_generic_plan",
		// That plan may be made while the tables are empty, and stays when they have grown to
		// millions of rows: it must not scan whole tables. The high cost that this assigns to
		// unavoidable scans must not trigger JIT compilation.
		"enable_seqscan": "off",
		"jit":            "off",
	})
}

// OpenFeed is for package feed: its statements are planned once on each connection, and read
// the log in the order of its index, whatever the statistics say.
func OpenFeed(ctx context.Context, databaseURL string) (*pgxpool.Pool, error) {
	return open(ctx, databaseURL, map[string]string{
		"statement_timeout": "5s", "lock_timeout": "2s",
		planCacheMode:       "force_generic_plan",
		"enable_seqscan":    "off",
		"enable_bitmapscan": "off",
		"enable_sort":       "off",
		"jit":               "off",
	})
}

const planCacheMode = "plan_cache_mode"

// isRecorders reports whether a pool is from OpenRecorder.
func isRecorders(pool *pgxpool.Pool) bool {
	settings := pool.Config().ConnConfig.RuntimeParams
	return settings[planCacheMode] != "" && settings["enable_sort"] == ""
}

func open(ctx context.Context, databaseURL string, settings map[string]string) (*pgxpool.Pool, error) {
	return openTraced(ctx, databaseURL, nil, settings)
}

func openTraced(ctx context.Context, databaseURL string, tracer pgx.QueryTracer, settings map[string]string) (*pgxpool.Pool, error) {
	config, err := migrations.ParseURL(databaseURL)
	if err != nil {
		return nil, err
	}
	conn := config.ConnConfig
	conn.Tracer = tracer
	if conn.ConnectTimeout == 0 || conn.ConnectTimeout > 5*time.Second {
		// More is useless because OSS waits only five seconds for an answer.
		conn.ConnectTimeout = 2 * time.Second
	}
	settings["application_name"] = "upcall"
	settings["idle_in_transaction_session_timeout"] = "10s"
	for name, value := range settings {
		if conn.RuntimeParams[name] == "" {
			conn.RuntimeParams[name] = value
		}
	}
	// At higher levels, ON CONFLICT DO NOTHING fails if another transaction was quicker.
	conn.RuntimeParams["default_transaction_isolation"] = "read committed"
	// Events are committed before they are acknowledged, whatever the server's default.
	if conn.RuntimeParams["synchronous_commit"] != "remote_apply" {
		conn.RuntimeParams["synchronous_commit"] = "on"
	}
	// Only a warning reports that a commit was not replicated.
	conn.RuntimeParams["client_min_messages"] = "warning"
	conn.OnNotice = noteWarning
	session := split(conn.Copy())
	config.BeforeConnect = func(_ context.Context, conn *pgx.ConnConfig) error { split(conn); return nil }
	config.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error { return settle(ctx, conn, session) }
	var primary link
	primary.install(config)
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("open database pool: %w", err)
	}
	primary.join(pool)
	return pool, nil
}
