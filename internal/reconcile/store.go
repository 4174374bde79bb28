package reconcile

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/eventstore"
	"upcall/internal/fault"
	"upcall/migrations"
)

// ErrRunning says that another process compares a bucket at this moment. Only one does at a time.
var ErrRunning = errors.New("another run is going on")

// ErrLost says that another process took the run over, because this one did not renew its lease in time.
var ErrLost = errors.New("the run was taken over by another process")

// The stages of a run, as in reconcile_runs.stage.
const (
	stageList    = "list"
	stageCompare = "compare"
	stageRecover = "recover"
	stageVanish  = "vanish"
	stageNote    = "note"
	stageDone    = "done"
	stageFailed  = "failed"
)

const (
	// resumable is for how long an interrupted run is worth resuming: what it listed is that old.
	resumable = 3 * 24 * time.Hour
	// keptRuns is how many rows of former runs are kept.
	keptRuns = 200
	// clearStep is how many rows of former runs are deleted at once.
	clearStep = 5000
)

// Counts say what a run has found.
type Counts struct {
	Listed    int64 `json:"listed"`
	Known     int64 `json:"known"`
	Missing   int64 `json:"missing"`
	Recovered int64 `json:"recovered"`
	Vanished  int64 `json:"vanished"`
	Foreign   int64 `json:"foreign"`
	TooOld    int64 `json:"too_old"`
}

func (c *Counts) add(d Counts) {
	c.Listed, c.Known, c.Missing, c.Recovered = c.Listed+d.Listed, c.Known+d.Known, c.Missing+d.Missing, c.Recovered+d.Recovered
	c.Vanished, c.Foreign, c.TooOld = c.Vanished+d.Vanished, c.Foreign+d.Foreign, c.TooOld+d.TooOld
}

// A record is a run as in the database.
type record struct {
	id       int64
	stage    string
	begunAt  time.Time
	listedAt time.Time
	begunXID uint64
	fence    int64
	parts    []byte
	after    string
	counts   Counts
}

const recordColumns = `run_id, stage, begun_at, listed_at, begun_xid, fence, parts, after_key,
	listed, known, missing, recovered, vanished, unissued, too_old`

func (r *record) fields() []any {
	c := &r.counts
	return []any{&r.id, &r.stage, &r.begunAt, &r.listedAt, &r.begunXID, &r.fence, &r.parts, &r.after,
		&c.Listed, &c.Known, &c.Missing, &c.Recovered, &c.Vanished, &c.Foreign, &c.TooOld}
}

// acquire takes the lease on an interrupted run of the same kind, or else on a new one.
func acquire(ctx context.Context, cfg Config) (r record, resumed bool, err error) {
	var since *time.Time
	if !cfg.Since.IsZero() {
		since = &cfg.Since
	}
	now, listedAt, inventory := cfg.Now(), cfg.Now(), ""
	if cfg.Inventory != nil {
		inventory, listedAt = cfg.Inventory.name, cfg.Inventory.CreatedAt
	}
	err = eventstore.Transact(ctx, cfg.Pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", int64(migrations.LockReconcile)); err != nil {
			return err
		}
		var holder, bucket string
		err := tx.QueryRow(ctx, `SELECT holder, bucket FROM upcall.reconcile_runs
			WHERE ended_at IS NULL AND lease_until > now() AND holder <> $1 LIMIT 1`, cfg.Holder).Scan(&holder, &bucket)
		if err == nil {
			return fault.New(ErrRunning, "", "wait until it has ended", "%s: %s compares the bucket %s", ErrRunning, holder, bucket)
		} else if !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
		if cfg.every > 0 {
			var done bool
			err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM upcall.reconcile_runs WHERE bucket = $1 AND prefix = '' AND since IS NULL
				AND NOT dry_run AND stage = 'done' AND begun_at > $2)`, cfg.Bucket, now.Add(-cfg.every)).Scan(&done)
			if err == nil && done {
				err = errNotDue
			}
			if err != nil {
				return err
			}
		}
		err = tx.QueryRow(ctx, `UPDATE upcall.reconcile_runs SET holder = $1, lease_until = now() + $2::interval, fence = fence + 1
			WHERE run_id = (SELECT max(run_id) FROM upcall.reconcile_runs WHERE ended_at IS NULL AND bucket = $3 AND prefix = $4
				AND since IS NOT DISTINCT FROM $5 AND inventory = $6 AND dry_run = $7 AND begun_at > $8)
			RETURNING `+recordColumns, cfg.Holder, cfg.Lease, cfg.Bucket, cfg.Prefix, since, inventory, cfg.DryRun,
			now.Add(-resumable)).Scan(r.fields()...)
		if resumed = err == nil; !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
		return tx.QueryRow(ctx, `INSERT INTO upcall.reconcile_runs
				(bucket, prefix, since, inventory, dry_run, stage, begun_at, listed_at, holder, lease_until, fence)
			VALUES ($1, $2, $3, $4, $5, 'list', $6, $7, $8, now() + $9::interval, 1) RETURNING `+recordColumns,
			cfg.Bucket, cfg.Prefix, since, inventory, cfg.DryRun, now, listedAt, cfg.Holder, cfg.Lease).Scan(r.fields()...)
	})
	switch {
	case err == nil:
		return r, resumed, nil
	case !errors.Is(err, ErrRunning) && !errors.Is(err, errNotDue):
		err = eventstore.Unavailable(err)
	}
	return record{}, false, fmt.Errorf("begin run: %w", err)
}

// clear removes what former runs listed, except those that can be resumed. At most one run is under way,
// so there are usually none of these, and the table is emptied at once.
func (r *run) clear(ctx context.Context) error {
	_, err := eventstore.Exec(ctx, r.Pool, "", `UPDATE upcall.reconcile_runs SET ended_at = $2, stage = 'failed', lease_until = NULL,
			problem = 'interrupted, and not resumed in time'
		WHERE ended_at IS NULL AND run_id <> $1 AND (begun_at <= $3 OR bucket = $4 AND prefix = $5 AND dry_run = $6)`, nil,
		r.id, r.Now(), r.Now().Add(-resumable), r.Bucket, r.Prefix, r.DryRun)
	if err != nil {
		return fmt.Errorf("end interrupted runs: %w", eventstore.Unavailable(err))
	}
	err = eventstore.Transact(ctx, r.Pool, func(tx pgx.Tx) error {
		// Vacuum is waited for before this becomes a transaction that writes, which readers of the log would wait for;
		// afterwards only those that read the table, and not for long.
		_, err := tx.Exec(ctx, "LOCK TABLE upcall.reconcile_objects IN EXCLUSIVE MODE; SET LOCAL lock_timeout = '100ms'")
		if err != nil {
			return err
		}
		if err := r.save(ctx, tx); err != nil {
			return err
		}
		var others bool
		if err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM upcall.reconcile_runs WHERE ended_at IS NULL AND run_id <> $1)`,
			r.id).Scan(&others); err != nil || others {
			return err
		}
		_, err = tx.Exec(ctx, "TRUNCATE upcall.reconcile_objects")
		return err
	})
	if errors.Is(err, ErrLost) {
		return err
	}
	for err = nil; err == nil; { // what is left, if emptying was not possible
		var gone int64
		tag, stepErr := eventstore.Exec(ctx, r.Pool, "", `DELETE FROM upcall.reconcile_objects WHERE ctid = ANY (ARRAY(
			SELECT ctid FROM upcall.reconcile_objects
			WHERE run_id NOT IN (SELECT run_id FROM upcall.reconcile_runs WHERE ended_at IS NULL) LIMIT $1))`, nil, clearStep)
		if gone, err = tag.RowsAffected(), stepErr; err == nil && gone == 0 {
			break
		}
	}
	if err == nil {
		_, err = eventstore.Exec(ctx, r.Pool, "", `DELETE FROM upcall.reconcile_runs WHERE ended_at IS NOT NULL AND run_id <= (
			SELECT run_id FROM upcall.reconcile_runs ORDER BY run_id DESC OFFSET $1 LIMIT 1)`, nil, keptRuns)
	}
	if err != nil {
		return fmt.Errorf("remove former runs: %w", eventstore.Unavailable(err))
	}
	return nil
}

// save writes how far the run is, in the transaction of what it did. The commit may be lost in a crash,
// and with it all that the transaction did; so it does not wait for the disk or a standby.
func (r *run) save(ctx context.Context, tx pgx.Tx) error { return r.saveWith(ctx, tx, "off") }

func (r *run) saveWith(ctx context.Context, tx pgx.Tx, synchronous string) error {
	c := r.counts
	var saved string
	err := tx.QueryRow(ctx, `UPDATE upcall.reconcile_runs SET stage = $3, parts = $4, after_key = $5, lease_until = now() + $6::interval,
			listed = $7, known = $8, missing = $9, recovered = $10, vanished = $11, unissued = $12, too_old = $13
		WHERE run_id = $1 AND fence = $2 AND ended_at IS NULL RETURNING
			set_config('synchronous_commit', CASE $14 WHEN '' THEN current_setting('synchronous_commit') ELSE $14 END, true)`,
		r.id, r.fence, r.stage, r.parts, r.after, r.Lease,
		c.Listed, c.Known, c.Missing, c.Recovered, c.Vanished, c.Foreign, c.TooOld, synchronous).Scan(&saved)
	if errors.Is(err, pgx.ErrNoRows) {
		return ErrLost
	}
	return err
}

// commit does the work of a step and saves how far the run is. If that fails, the run is as it was before.
func (r *run) commit(ctx context.Context, next record, work func(pgx.Tx) error) error {
	r.saving.Lock()
	defer r.saving.Unlock()
	return r.commitLocked(ctx, next, work)
}

func (r *run) commitLocked(ctx context.Context, next record, work func(pgx.Tx) error) error {
	before := r.record
	r.record = next
	err := eventstore.Transact(ctx, r.Pool, func(tx pgx.Tx) error {
		if err := r.save(ctx, tx); err != nil {
			return err
		}
		if work == nil {
			return nil
		}
		return work(tx)
	})
	switch {
	case err == nil:
		r.progressed = true
		return nil
	case errors.Is(err, ErrLost), migrations.ServerError(err).Code == uniqueViolation:
	default:
		err = eventstore.Unavailable(err)
	}
	r.record = before
	return err
}

// keep renews the lease until ctx ends, and calls lost if it is lost.
func (r *run) keep(ctx context.Context, id, fence int64, lost func(error)) {
	ticker := time.NewTicker(r.Lease / 3)
	defer ticker.Stop()
	renewed := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		bounded, cancel := context.WithTimeout(ctx, r.Lease/3)
		tag, err := eventstore.Exec(bounded, r.Pool, "", `UPDATE upcall.reconcile_runs SET lease_until = now() + $3::interval
			WHERE run_id = $1 AND fence = $2 AND ended_at IS NULL`, nil, id, fence, r.Lease)
		cancel()
		switch {
		case err == nil && tag.RowsAffected() == 0:
			lost(ErrLost)
			return
		case err != nil && ctx.Err() == nil && time.Since(renewed) > r.Lease:
			lost(fmt.Errorf("renew lease: %w", eventstore.Unavailable(err))) // another process may have it by now
			return
		case err == nil:
			renewed = time.Now()
		}
	}
}

// release gives the lease back: of a run that ended, or of one that another process may resume at once.
func (r *run) release(ctx context.Context, failed error) error {
	stage, ended, problem := r.stage, (*time.Time)(nil), (*string)(nil)
	if now := r.Now(); failed != nil {
		text := fault.Line(failed.Error())
		stage, ended, problem = stageFailed, &now, &text
	} else if stage == stageDone {
		ended = &now
	}
	_, err := eventstore.Exec(ctx, r.Pool, "", `UPDATE upcall.reconcile_runs SET stage = $3, ended_at = $4, problem = $5, lease_until = NULL
		WHERE run_id = $1 AND fence = $2 AND ended_at IS NULL`, nil, r.id, r.fence, stage, ended, problem)
	if err != nil {
		return fmt.Errorf("end run: %w", eventstore.Unavailable(err))
	}
	return nil
}

// lastRun returns when the last complete run on a whole bucket began, and whether there was one.
func lastRun(ctx context.Context, pool *pgxpool.Pool, bucket string) (begunAt time.Time, there bool, err error) {
	_, err = eventstore.Exec(ctx, pool, "", `SELECT begun_at FROM upcall.reconcile_runs
		WHERE bucket = $1 AND prefix = '' AND since IS NULL AND NOT dry_run AND stage = 'done' ORDER BY run_id DESC LIMIT 1`,
		func(rows pgx.Rows) error {
			if there = rows.Next(); there {
				return rows.Scan(&begunAt)
			}
			return nil
		}, bucket)
	if err != nil {
		return time.Time{}, false, fmt.Errorf("look up the last run: %w", err)
	}
	return begunAt, there, nil
}

func decodeParts[T any](text []byte) (parts []T, err error) {
	if err := json.Unmarshal(text, &parts); err != nil {
		return nil, fmt.Errorf("read parts of the run: %w", err)
	}
	return parts, nil
}
