// Package dbcheck says what a PostgreSQL server really promises to those who commit on it, and
// what to change where that is less than a receiver's acknowledgement says.
package dbcheck

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/eventstore"
	"upcall/internal/fault"
	"upcall/migrations"
)

// A Finding is one thing to change. It has one line.
type Finding struct {
	Name string // for programs, as "fsync"
	What string
	Fix  string
}

func (f Finding) String() string { return f.Name + ": " + f.What + ": " + f.Fix }

// maxClock is how far apart the clocks may be: times of receipt are the receiver's, and leases the
// server's.
const maxClock = time.Second

// state is what the server says of itself.
type state struct {
	direct, recovering, managed          bool
	fsync, pages, commit, standbys, user string
	synchronous                          *int64 // standbys that commits wait for; nil if this role may not see that
	clock                                time.Time
	before, after                        time.Time // ours, around it
}

// Only a member of pg_monitor sees the state of a standby. Managed databases are known by the roles
// that they come with: AWS and Alibaba Cloud RDS, and PolarDB.
const stateSQL = `SELECT pg_backend_pid() = $1::bigint, pg_is_in_recovery(), current_setting('fsync'), current_setting('full_page_writes'),
	(SELECT reset_val FROM pg_settings WHERE name = 'synchronous_commit'), current_setting('synchronous_standby_names'),
	quote_ident(current_user),
	(SELECT CASE WHEN count(*) = count(sync_state) THEN count(*) FILTER (WHERE sync_state IN ('sync', 'quorum')) END
		FROM pg_stat_replication),
	EXISTS (SELECT FROM pg_roles WHERE rolname IN ('rds_superuser', 'pg_rds_superuser', 'alicloud_rds_admin', 'polar_superuser')),
	clock_timestamp()`

// Check examines the server behind a pool of eventstore.Open. The findings are in the order of what
// they cost. The error says that the database cannot be asked.
func Check(ctx context.Context, pool *pgxpool.Pool, now func() time.Time) ([]Finding, error) {
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	defer conn.Release()
	var s state
	s.before = now()
	err = conn.QueryRow(ctx, stateSQL, pgx.QueryExecModeExec, int64(conn.Conn().PgConn().PID())).Scan(&s.direct, &s.recovering, &s.fsync,
		&s.pages, &s.commit, &s.standbys, &s.user, &s.synchronous, &s.managed, &s.clock)
	if err != nil {
		return nil, fmt.Errorf("ask the database: %w", err)
	}
	s.after = now()
	found := s.findings()
	if !s.direct {
		pooler, err := poolerFinding(ctx, conn.Conn())
		if err != nil {
			return nil, err
		}
		found = append(found, pooler)
	}
	ours, err := ours(ctx, pool, now())
	return append(found, ours...), err
}

// findings are those about the server.
func (s *state) findings() (found []Finding) {
	add := func(when bool, name, what, fix string) {
		if when {
			found = append(found, Finding{name, what, fix})
		}
	}
	add(s.recovering, "standby", "this server is a standby and accepts no writes",
		"name all servers in the URL, with target_session_attrs=read-write")
	add(s.fsync == "off", "fsync", "a power failure loses or destroys what was acknowledged", "set fsync = on and restart PostgreSQL")
	add(s.pages == "off", "full_page_writes", "a power failure in the middle of a write destroys pages", "set full_page_writes = on")
	alone := s.standbys == ""
	add(alone && s.managed, "managed", "a managed database that replicates asynchronously by default, so that a failover loses the last commits",
		"set the data replication mode to Synchronous in the provider's console")
	add(alone && !s.managed, "synchronous_standby_names", "it is empty: what is acknowledged is on one disk",
		"run a synchronous standby, see docs/high-availability.md, or accept that")
	add(!alone && s.synchronous != nil && *s.synchronous == 0, "standby_missing", "commits wait for a standby and none follows: all callbacks go to the spool",
		"start the standby that synchronous_standby_names = "+fault.Quote(s.standbys)+" names")
	add(!alone && s.synchronous == nil, "standby_unknown", "this role may not see whether a standby follows", "GRANT pg_monitor TO "+s.user)
	add(s.commit != "on" && s.commit != "remote_apply", "synchronous_commit",
		"it is "+s.commit+" by default: receivers and issuers set it to on, but others who write here do not wait for the disk or the standby",
		"set synchronous_commit = on, or leave it to Upcall if nobody else writes")
	// The server's clock was read at some moment between ours.
	ahead, behind := s.clock.Sub(s.after), s.before.Sub(s.clock)
	add(max(ahead, behind) > maxClock, "clock", fmt.Sprintf("the clocks of this machine and of the database are at least %s apart",
		max(ahead, behind).Round(time.Millisecond)), "run an NTP client, such as chrony, on both")
	return found
}

func poolerFinding(ctx context.Context, conn *pgx.Conn) (Finding, error) {
	f := Finding{"pooler", "a pooler in session mode is in between", "connect receivers to PostgreSQL itself: through a pooler a batch is planned each time"}
	switch err := migrations.CheckPooler(ctx, conn); {
	case errors.Is(err, migrations.ErrPooler):
		f.What = "a pooler in transaction mode is in between"
		f.Fix += ", and receiver migrate and receiver index do not work"
	case err == nil:
		f.Fix += ", and a receiver keeps up to 30 of its sessions (default_pool_size)"
	case err != nil:
		return Finding{}, fmt.Errorf("ask the pooler: %w", err)
	}
	return f, nil
}

// ours are the findings about Upcall's schema.
func ours(ctx context.Context, pool *pgxpool.Pool, now time.Time) (found []Finding, err error) {
	if err := migrations.Check(ctx, pool); errors.Is(err, migrations.ErrTooOld) || errors.Is(err, migrations.ErrDirty) {
		return []Finding{{"schema", fault.Line(err.Error()), "run receiver migrate up"}}, nil
	} else if err != nil && eventstore.Mistake(err) == nil {
		return nil, err
	}
	if err := eventstore.ReceiverRights().Check(ctx, pool); errors.Is(err, eventstore.ErrMistake) {
		return []Finding{{"rights", "the role lacks rights of receiver serve", fault.Line(err.Error())}}, nil
	} else if err != nil {
		return nil, err
	}
	ahead, err := eventstore.MonthsAhead(ctx, pool, now)
	if err != nil {
		return nil, err
	}
	if ahead < 1 {
		found = append(found, Finding{"months", fmt.Sprintf("%d months after this one have a partition", max(ahead, 0)),
			"run receiver maintain as the owner of the tables, every day"})
	}
	return found, nil
}
