package hooks

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"upcall/internal/eventstore"
	"upcall/internal/feed"
)

const (
	// pollEvery is how often changes of endpoints are looked for, and leaseEvery how often leases
	// that others may have lost.
	pollEvery, leaseEvery = 200 * time.Millisecond, time.Second
	// warnEvery bounds how often the same trouble is logged.
	warnEvery = 10 * time.Second
	// backoffTime is the pause after PostgreSQL could not be used.
	backoffTime = 500 * time.Millisecond
)

// PumpConfig configures a [Pump].
type PumpConfig struct {
	// Pool is from eventstore.Open. Required.
	Pool *pgxpool.Pool
	// Log is read. Required; it must run.
	Log *feed.Log
	// Consumers has the leases. Required; it must run until the pump has ended.
	Consumers *feed.Consumers
	// Rules say where deliveries may go.
	Rules Rules
	// Schedule says when failed deliveries are tried again. Default DefaultSchedule.
	Schedule Schedule
	// Logger is told of endpoints that fail and of dead letters. Required.
	Logger *slog.Logger
	// Now is the clock. Default time.Now.
	Now func() time.Time
	// Random is for the jitter, in [0, 1). Default from math/rand.
	Random func() float64
	// Resolver is for tests. Default the system's.
	Resolver *net.Resolver

	tick    time.Duration // how often lanes look at the clock
	attempt time.Duration // how long one may take
}

// A Pump sends deliveries for the endpoints that other receivers do not work for.
type Pump struct {
	config  PumpConfig
	sender  *sender
	slots   slots
	metrics *metrics
	notes   notes

	mu     sync.Mutex
	lanes  map[uuid.UUID]*lane
	warned map[string]time.Time
}

// NewPump returns a pump. PostgreSQL need not be running yet.
func NewPump(config PumpConfig) (*Pump, error) {
	if config.Pool == nil || config.Log == nil || config.Consumers == nil || config.Logger == nil {
		return nil, errors.New("hooks config: Pool, Log, Consumers and Logger are required")
	}
	if config.Schedule == nil {
		config.Schedule = DefaultSchedule()
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.Random == nil {
		config.Random = rand.Float64
	}
	config.tick = cmp.Or(config.tick, tick)
	pump := &Pump{
		config: config, sender: newSender(config.Rules, config.Now, config.Resolver), slots: slots{free: maxInProcess},
		metrics: newMetrics(), lanes: make(map[uuid.UUID]*lane), warned: make(map[string]time.Time),
	}
	pump.sender.timeout = cmp.Or(config.attempt, attemptTimeout)
	return pump, nil
}

// Collectors returns what /metrics shows of deliveries.
func (p *Pump) Collectors() []prometheus.Collector { return p.metrics.collectors() }

// now is the clock, as PostgreSQL keeps it.
func (p *Pump) now() time.Time { return p.config.Now().Truncate(time.Microsecond) }

func (p *Pump) backoff() time.Duration { return backoffTime }

// Run delivers until ctx ends. Then it lets requests in flight end, for a moment, and releases
// its leases.
func (p *Pump) Run(ctx context.Context) {
	var work, lanes sync.WaitGroup
	// What the lanes leave behind is written after they have ended.
	after, cancel := context.WithCancel(context.WithoutCancel(ctx))
	work.Go(func() { p.writeNotes(after) })
	work.Go(func() { p.keep(ctx) })
	work.Go(func() { p.measure(ctx) })
	work.Go(func() { p.tickLanes(ctx) })
	p.watch(ctx, &lanes)
	lanes.Wait()
	cancel()
	work.Wait()
	p.sender.close()
}

// watch starts a lane for each endpoint that it gets a lease for, and tells lanes of changes.
func (p *Pump) watch(ctx context.Context, lanes *sync.WaitGroup) {
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	known, looked := int64(-1), time.Time{}
	var all []Endpoint
	for {
		version, err := p.version(ctx)
		if err == nil && version != known {
			if all, err = loadEndpoints(ctx, p.config.Pool, "true"); err == nil {
				known, looked = version, time.Time{}
				p.tellAll(all)
			}
		}
		if err == nil && time.Since(looked) >= leaseEvery {
			if err = errors.Join(p.tellOfRetries(ctx, all), p.fill(ctx, all, lanes)); err == nil {
				looked = time.Now()
			}
		}
		if err != nil && ctx.Err() == nil {
			p.warn(ctx, "endpoints cannot be read", err)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// tickLanes has all lanes look at the clock at once: a hundred that woke one after another would
// cost the intake much more. Those with nothing to do are left alone for most of the time.
func (p *Pump) tickLanes(ctx context.Context) {
	ticker := time.NewTicker(p.config.tick)
	defer ticker.Stop()
	for n := 0; ; n++ {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		p.mu.Lock()
		for _, l := range p.lanes {
			if l.idle.Load() && n%(idleTicks+1) != 0 {
				continue
			}
			select {
			case l.tick <- struct{}{}:
			default: // it has not looked yet
			}
		}
		p.mu.Unlock()
	}
}

func (p *Pump) version(ctx context.Context) (version int64, err error) {
	const sql = "SELECT version FROM upcall.hook_changes"
	_, err = eventstore.Exec(ctx, p.config.Pool, "upcall_hook_changes", sql, func(rows pgx.Rows) (err error) {
		version, err = pgx.CollectExactlyOneRow(rows, pgx.RowTo[int64])
		return err
	})
	return version, err
}

// tellAll tells lanes of their endpoints. Each gets a copy of its own, which it may change.
func (p *Pump) tellAll(all []Endpoint) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range all {
		if l := p.lanes[e.ID]; l != nil {
			l.tell(&e)
		}
	}
}

// tellOfRetries tells lanes when their first retry is due, which may be one that someone else has made.
func (p *Pump) tellOfRetries(ctx context.Context, all []Endpoint) error {
	due, err := loadDue(ctx, p.config.Pool)
	if err != nil {
		return err
	}
	var some []Endpoint
	for i := range all {
		if at, ok := due[all[i].ID]; ok {
			e := all[i]
			e.retryAt = at
			some = append(some, e)
		}
	}
	p.tellAll(some)
	return nil
}

// fill starts lanes for endpoints without one that no other receiver works for.
func (p *Pump) fill(ctx context.Context, all []Endpoint, lanes *sync.WaitGroup) error {
	var free []string
	p.mu.Lock()
	for i := range all {
		if p.lanes[all[i].ID] == nil && all[i].State != removing {
			free = append(free, all[i].consumer())
		}
	}
	p.mu.Unlock()
	if len(free) == 0 {
		return nil
	}
	leases, err := p.config.Consumers.Acquire(ctx, free)
	if err != nil || len(leases) == 0 {
		return err
	}
	// Again, because an operator who changed one before we had its lease does not wait for us.
	all, err = loadEndpoints(ctx, p.config.Pool, "true")
	for _, lease := range leases {
		var found *Endpoint
		for i := range all {
			if all[i].consumer() == lease.Name() && all[i].State != removing {
				found = &all[i]
			}
		}
		if err != nil || found == nil {
			_ = lease.Release(ctx) // if that fails, it runs out
			continue
		}
		l := newLane(p, lease, found)
		p.mu.Lock()
		p.lanes[found.ID] = l
		p.mu.Unlock()
		lanes.Go(func() {
			l.run(ctx)
			p.mu.Lock()
			delete(p.lanes, found.ID)
			p.mu.Unlock()
		})
	}
	return err
}

// tell gives a lane the newest version of its endpoint.
func (l *lane) tell(e *Endpoint) {
	select {
	case <-l.changed: // an older one that it has not seen
	default:
	}
	l.changed <- e
}

// exec runs a statement that returns nothing.
func (p *Pump) exec(ctx context.Context, sql string, args ...any) error {
	_, err := eventstore.Exec(ctx, p.config.Pool, "", sql, nil, args...)
	return err
}

// warn logs trouble, but the same not all the time.
func (p *Pump) warn(ctx context.Context, what string, err error) {
	if ctx.Err() != nil {
		return
	}
	p.mu.Lock()
	recently := time.Since(p.warned[what]) < warnEvery
	if !recently {
		p.warned[what] = time.Now()
	}
	p.mu.Unlock()
	if !recently {
		p.config.Logger.WarnContext(ctx, what, slog.String("error", err.Error()))
	}
}
