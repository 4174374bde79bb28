package reconcile

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/event"
	"upcall/internal/eventstore"
	"upcall/internal/fault"
	"upcall/internal/feed"
	"upcall/internal/ossrule"
	"upcall/internal/rollup"
	"upcall/migrations"
)

// Defaults of a [Config].
const (
	DefaultRate  = 20
	DefaultGrace = 10 * time.Minute
)

// ErrBehind says that the roll-ups did not read the log in time: no receiver runs, or it is far behind.
var ErrBehind = errors.New("the roll-up of objects is behind")

// Config is what to compare. Required are Pool, Log, OSS, Bucket and Logger; OSS is needed for an
// inventory, too.
type Config struct {
	Pool *pgxpool.Pool // from eventstore.OpenFeed, whose statements are never planned for the wrong size
	Log  *feed.Log
	OSS  Bucket

	Bucket string
	// Prefix limits the run to keys that begin with it. Default all.
	Prefix string
	// Since limits the run to objects that were stored from then on. Default all.
	Since time.Time
	// Inventory is read instead of a listing. Default none.
	Inventory *Inventory
	// DryRun writes nothing but the run's own tables.
	DryRun bool

	// Rate is the most requests a second. Default [DefaultRate].
	Rate float64
	// Grace is how old an object must be to be missed: its callback or notification may still be on
	// its way. Default [DefaultGrace]; below 0 is none.
	Grace time.Duration
	// KeepDays is how many days of events are kept. What is older is not recorded. Default 0: all.
	KeepDays int
	// Patience is how long the run waits for the roll-ups, and for another run. Default a minute.
	Patience time.Duration

	// Holder names this run among others; it must be unique. Default the host's name and a random text.
	Holder string
	// Lease is how long others wait after this process was killed. Default 15 s.
	Lease time.Duration
	// Parallel is how many requests are sent at once. Default 8.
	Parallel int

	// Known is called for each event that was recorded, with the time. Default none.
	Known   func(*event.Event, time.Time)
	Metrics *Metrics // default none
	Logger  *slog.Logger

	every time.Duration    // a schedule's: no run that began later is complete
	Now   func() time.Time // the clock; default time.Now
	// Report is called after each step, by one goroutine at a time. Default none.
	Report func(Progress)
}

// Check returns all mistakes, joined.
func (c Config) Check() error {
	var faults fault.List
	faults.Add(fault.In("bucket", ossrule.CheckBucket(c.Bucket)))
	if c.Prefix != "" {
		faults.Add(fault.In("prefix", ossrule.CheckKey(c.Prefix)))
	}
	if !storable(c.Prefix) {
		faults.AddAt("prefix", "holds the character NUL, which no row can hold")
	}
	if c.Rate < 0 {
		faults.AddAt("rate", "%v is not a number of requests a second", c.Rate)
	}
	if c.Inventory != nil && c.Inventory.Bucket != c.Bucket {
		faults.AddNew(ErrInventory, "inventory", "give the inventory of that bucket", "is of the bucket %q, not of %q",
			c.Inventory.Bucket, c.Bucket)
	}
	return faults.Err()
}

func (c Config) withDefaults() Config {
	host, _ := os.Hostname() // only for people who read the table
	c.Holder = cmp.Or(c.Holder, fmt.Sprintf("%s/%d/%.8s", cmp.Or(host, "receiver"), os.Getpid(), rand.Text()))
	c.Rate = cmp.Or(c.Rate, DefaultRate)
	c.Grace = cmp.Or(c.Grace, DefaultGrace)
	c.Patience = cmp.Or(c.Patience, time.Minute)
	c.Lease = cmp.Or(c.Lease, 15*time.Second)
	c.Parallel = cmp.Or(c.Parallel, 8)
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Metrics == nil {
		c.Metrics = NewMetrics()
	}
	if c.Known == nil {
		c.Known = func(*event.Event, time.Time) {}
	}
	if c.Report == nil {
		c.Report = func(Progress) {}
	}
	return c
}

// Progress says how far a run is.
type Progress struct {
	Counts
	Stage   string  // what it does: list, compare, recover, vanish or note
	Share   float64 // of the stage, from 0 to 1; 0 if it is not known
	Resumed bool
}

// A Result is what a run found, as JSON for programs.
type Result struct {
	RunID int64 `json:"run_id"`
	Counts
	// LostShare is the share of issued uploads that the log did not know.
	LostShare float64 `json:"lost_share"`
	Resumed   bool    `json:"-"`
}

// A run is one comparison while it runs.
type run struct {
	Config
	caller  *caller
	resumed bool
	now     time.Time // when this process began: what is younger than the grace before it is left alone
	kept    time.Time // events before this are dropped by retention, or will be

	progressed bool // something was committed

	saving sync.Mutex // held while the record is changed and written
	record
	expected int64 // objects in the bucket, about
}

// Run compares a bucket with the log. If a run of the same kind was interrupted, it goes on with that.
// The error wraps [ErrRunning], [ErrLost], [ErrBehind], [ErrInventory] or event.ErrUnavailable, or is
// that of a request to OSS. After an error that may pass, and if ctx ends, the run can be resumed.
//
// While PostgreSQL is unavailable, it waits, and then goes on from what is committed.
func Run(ctx context.Context, cfg Config) (Result, error) {
	if err := cfg.Check(); err != nil {
		return Result{}, err
	}
	cfg = cfg.withDefaults()
	for began := time.Now(); ; {
		result, progressed, err := runOnce(ctx, cfg)
		if progressed {
			began = time.Now()
		}
		if err == nil || ctx.Err() != nil || !unavailable(err) || time.Since(began) > outage {
			cfg.Metrics.ended(cfg.Bucket, result.Counts, err, cfg.Now())
			return result, err
		}
		cfg.Logger.WarnContext(ctx, "comparison waits for the database", slog.String("error", fault.Line(err.Error())))
		if err := sleep(ctx, outagePause); err != nil {
			return result, err
		}
	}
}

const (
	// outage is how long a run waits for PostgreSQL, which it asks every outagePause.
	outage, outagePause = 10 * time.Minute, 2 * time.Second
)

// unavailable reports whether an error is about PostgreSQL, and may pass: it is about the connection, or
// its SQLSTATE is of a class that other connections or times do not have.
func unavailable(err error) bool {
	code := migrations.ServerError(err).Code
	return errors.Is(err, event.ErrUnavailable) && eventstore.Mistake(err) == nil &&
		(code == "" || slices.Contains([]string{"08", "25", "26", "40", "53", "55", "57", "58"}, code[:2]))
}

// runOnce is Run until PostgreSQL is unavailable. It reports whether anything was committed.
func runOnce(ctx context.Context, cfg Config) (result Result, progressed bool, err error) {
	row, resumed, err := acquireSoon(ctx, cfg)
	if err != nil {
		return Result{}, false, err
	}
	r := &run{Config: cfg, caller: newCaller(cfg.OSS, cfg.Rate, cfg.Metrics, cfg.Now), record: row, resumed: resumed, now: cfg.Now()}
	if cfg.Grace < 0 {
		r.Grace = 0
	}
	working, stop := context.WithCancelCause(ctx)
	var keeper sync.WaitGroup
	keeper.Go(func() { r.keep(working, row.id, row.fence, stop) })
	err = r.stages(working)
	if cause := context.Cause(working); cause != nil && ctx.Err() == nil {
		err = cause // the keeper's
	}
	stop(nil)
	keeper.Wait()
	if !errors.Is(err, ErrLost) {
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		var final error
		if err != nil && ctx.Err() == nil && !resumes(err) {
			final = err
		}
		err = errors.Join(err, r.release(bounded, final))
	}
	return r.result(), r.progressed, err
}

// resumes reports whether a run that ended with the error can be resumed.
func resumes(err error) bool { return !errors.Is(err, ErrInventory) }

// acquireSoon waits for a while if another run is going on: one that was killed holds its lease a little longer.
func acquireSoon(ctx context.Context, cfg Config) (r record, resumed bool, err error) {
	for deadline := time.Now().Add(min(cfg.Lease+time.Second, cfg.Patience)); ; {
		r, resumed, err = acquire(ctx, cfg)
		if !errors.Is(err, ErrRunning) || time.Now().After(deadline) {
			return r, resumed, err
		}
		if err := sleep(ctx, 250*time.Millisecond); err != nil {
			return record{}, false, err
		}
	}
}

func (r *run) result() Result {
	result := Result{RunID: r.id, Counts: r.counts, Resumed: r.resumed}
	if all := r.counts.Known + r.counts.Missing; all > 0 {
		result.LostShare = float64(r.counts.Missing) / float64(all)
	}
	return result
}

// stages does what is left to do.
func (r *run) stages(ctx context.Context) error {
	if err := r.prepare(ctx); err != nil {
		return err
	}
	for r.stage != stageDone {
		var work func(context.Context) error
		next := stageDone
		switch r.stage {
		case stageList:
			work, next = r.list, stageCompare
			if r.Inventory != nil {
				work = r.readInventory
			}
		case stageCompare:
			work, next = r.compare, stageRecover
		case stageRecover:
			work, next = r.recover, stageVanish
		case stageVanish:
			work, next = r.vanish, stageNote
		case stageNote:
			work = r.note
		default:
			return fmt.Errorf("run %d is in the stage %q, which this version does not know", r.id, r.stage)
		}
		if err := work(ctx); err != nil {
			return fmt.Errorf("%s: %w", r.stage, err)
		}
		to := r.record
		to.stage, to.after = next, ""
		if err := r.commit(ctx, to, nil); err != nil {
			return err
		}
		r.report()
	}
	return nil
}

// prepare reads what the whole run needs.
func (r *run) prepare(ctx context.Context) (err error) {
	if !r.resumed || r.stage == stageList && string(r.parts) == "[]" {
		if err := r.clear(ctx); err != nil {
			return err
		}
	}
	if r.kept, err = keptSince(ctx, r.Pool, r.now, r.KeepDays); err != nil {
		return err
	}
	r.expected, err = estimate(ctx, r.Pool, r.Bucket, r.Prefix)
	return err
}

// report tells how far the run is.
func (r *run) report() {
	p := Progress{Counts: r.counts, Stage: r.stage, Resumed: r.resumed}
	done, all := r.counts.Listed, max(r.expected, r.counts.Listed)
	if r.stage == stageCompare {
		done = r.counts.Known + r.counts.Foreign + r.counts.TooOld
	}
	if all > 0 && (r.stage == stageList || r.stage == stageCompare) {
		p.Share = min(1, float64(done)/float64(all))
	}
	r.Report(p)
}

// waitForRollups returns when the roll-ups have read the log up to the beginning of the run, so that an
// upload that was told of before is known.
func (r *run) waitForRollups(ctx context.Context) error {
	for deadline := time.Now().Add(r.Patience); ; {
		there, err := r.rollupsRead(ctx)
		if err != nil || there {
			return err
		}
		if time.Now().After(deadline) {
			return fault.New(ErrBehind, "", "run a receiver, wait until upcall_rollup_lag_events is 0, and try again",
				"%s: it has not read what was recorded before the run began", ErrBehind)
		}
		if err := sleep(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}

func (r *run) rollupsRead(ctx context.Context) (bool, error) {
	consumers, err := feed.ListConsumers(ctx, r.Pool)
	if err != nil {
		return false, err
	}
	for _, c := range consumers {
		if c.Name != rollup.Consumer {
			continue
		}
		if xid, _, _ := c.Cursor.Place(); xid >= r.begunXID {
			return true, nil
		}
		lag, err := r.Log.Lag(ctx, c.Cursor)
		return err == nil && lag.Events == 0, err
	}
	// No receiver has ever run, so that there is nothing to know.
	events, err := anyEvent(ctx, r.Pool)
	return !events, err
}
