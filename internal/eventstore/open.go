package eventstore

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/migrations"
)

// There are three ways to open a database, which differ in the settings of their
// connections. They return a pool and do not connect: that happens when a connection is
// needed, so that a receiver can start, and say that it is not ready, while PostgreSQL is
// away. The URL is postgres://… or key=value; what it sets itself (pool_max_conns,
// statement_timeout, a connect_timeout up to 5 and so on) stays, save for
// default_transaction_isolation and a synchronous_commit that promises less than "on". An
// error wraps [migrations.ErrURL]. A program that opens two pools may use pool_max_conns
// connections for each.
//
// The settings travel in the start-up message. A pooler in between must pass them on and
// keep prepared statements: PgBouncer does so with pool_mode = session. With pool_mode =
// transaction it needs 1.21 or newer, max_prepared_statements above 0, and
// ignore_startup_parameters with the names below; the server's own settings hold then,
// so synchronous_commit and default_transaction_isolation must not be weakened there.

// Open is for ordinary statements, which are short.
func Open(ctx context.Context, databaseURL string) (*pgxpool.Pool, error) {
	return open(ctx, databaseURL, map[string]string{"statement_timeout": "5s", "lock_timeout": "2s"})
}

// OpenReader is for statements that only read, for as long as they need.
func OpenReader(ctx context.Context, databaseURL string) (*pgxpool.Pool, error) {
	return open(ctx, databaseURL, map[string]string{
		"default_transaction_read_only": "on", "statement_timeout": "0", "lock_timeout": "10s",
	})
}

// OpenRecorder is for a [Recorder] and a [Ledger], and nothing else: the plans that it asks
// for are those of their statements.
func OpenRecorder(ctx context.Context, databaseURL string) (*pgxpool.Pool, error) {
	return open(ctx, databaseURL, map[string]string{
		"statement_timeout": "5s", "lock_timeout": "2s",
		// The batch's statement is planned once on each connection. Left to itself
		// PostgreSQL plans it anew for every batch, because it can see how long the arrays
		// are, and that costs more than recording a small batch does.
		planCacheMode: "force_generic_plan",
		// That plan may be made while the tables are empty, and is kept when they have
		// grown to millions of rows: it must not read them from end to end. The price
		// that this puts on reading so must not lead to compiling what has no other way.
		"enable_seqscan": "off",
		"jit":            "off",
	})
}

const planCacheMode = "plan_cache_mode"

// isRecorders says whether a pool is one of OpenRecorder.
func isRecorders(pool *pgxpool.Pool) bool {
	return pool.Config().ConnConfig.RuntimeParams[planCacheMode] != ""
}

func open(ctx context.Context, databaseURL string, settings map[string]string) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(databaseURL)
	if err != nil {
		// The parser's text may hold part of the URL, and so the password.
		return nil, fmt.Errorf("%w: it should look like postgres://user:password@host:5432/database", migrations.ErrURL)
	}
	conn := config.ConnConfig
	if conn.ConnectTimeout == 0 || conn.ConnectTimeout > 5*time.Second {
		// OSS waits five seconds for an answer, so more is of no use.
		conn.ConnectTimeout = 2 * time.Second
	}
	settings["application_name"] = "upcall"
	settings["idle_in_transaction_session_timeout"] = "10s"
	for name, value := range settings {
		if conn.RuntimeParams[name] == "" {
			conn.RuntimeParams[name] = value
		}
	}
	// ON CONFLICT DO NOTHING fails at higher levels when another was quicker.
	conn.RuntimeParams["default_transaction_isolation"] = "read committed"
	// Committed before acknowledged, whatever the server's default is.
	if conn.RuntimeParams["synchronous_commit"] != "remote_apply" {
		conn.RuntimeParams["synchronous_commit"] = "on"
	}
	// Of a commit that was not replicated a warning tells, and nothing else.
	conn.RuntimeParams["client_min_messages"] = "warning"
	conn.OnNotice = noteWarning
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("open database pool: %w", err)
	}
	return pool, nil
}
