package hooks

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"upcall/internal/event"
	"upcall/internal/fault"
	"upcall/internal/feed"
	"upcall/internal/webhook"
)

const (
	// pageSize is how many entries of the log a lane reads at once, and windowSize how many
	// deliveries there may be between the cursor and the last one that has begun. After a kill,
	// so many may be delivered again.
	pageSize, windowSize = 256, 1024
	// tick is how often a lane looks at the clock, and idleTicks how many of them one with nothing to
	// do leaves out.
	tick, idleTicks = 100 * time.Millisecond, 9
	// commitAfter is how long an outcome waits for others to be committed with.
	commitAfter = 200 * time.Millisecond
	// stopTimeout is how long requests in flight are waited for at the end.
	stopTimeout = 2 * time.Second
	// never is when a lane without retries looks for them, unless it is told of one before: the
	// pump looks for all lanes, so that a hundred do not ask PostgreSQL all at once.
	never = 24 * time.Hour
	// maxDue is how many due retries a lane holds.
	maxDue = 64
)

// A delivery is one message on its way to the endpoint of a lane.
type delivery struct {
	id       uuid.UUID // of the event, or of the finding
	received time.Time // the event
	kind     webhook.Kind
	event    *event.Event  // nil if it was dropped from the log
	found    *feed.Finding // nil if the kind is webhook.Recorded
	number   int           // attempts that failed
	reason   Reason
	written  string // the transaction that wrote the row of a retry

	first  bool        // it comes from the log, else from upcall.hook_retries
	before feed.Cursor // its place in the log, of a first try
	done   bool        // of a first try: delivered, or failed with a row to be written
	failed *retryRow   // that row

	probe   bool
	attempt *inFlight // nil unless there is a request
}

// inFlight is a request.
type inFlight struct {
	cancel    context.CancelFunc
	connected chan struct{} // closed when there is a connection
	settled   chan struct{} // closed when the request was written, or has ended without
}

// A result is a delivery with what became of its attempt.
type result struct {
	*delivery
	outcome outcome
	err     error
}

// A lane sends the deliveries of one endpoint, while this process has its lease. One goroutine
// owns it; what others may use is marked.
type lane struct {
	pump     *Pump
	lease    *feed.Lease
	endpoint *Endpoint
	breaker  breaker

	window  []*delivery        // first tries, in the order of the log, from the first that is not done
	read    feed.Cursor        // up to where the window was filled
	reading bool               // a page was asked for
	due     []*delivery        // retries that may be sent
	held    map[uuid.UUID]bool // retries that are due, in flight, or to be committed
	flying  map[*delivery]bool

	lookAt  time.Time // when to look for due retries, by the clock
	pending changes

	changed  chan *Endpoint           // others send the newest version; holds one
	results  chan result              // of requests; never full
	wake     chan struct{}            // a slot is free; holds one
	tick     chan struct{}            // it is time to look at the clock; holds one
	idle     atomic.Bool              // it has nothing to do
	standing atomic.Pointer[standing] // for others
	want     chan feed.Cursor         // the reader reads the page after it
	pages    chan gotPage
	sieve    atomic.Pointer[sieve]       // for the reader
	skimmed  atomic.Pointer[feed.Cursor] // how far the reader is, which has found nothing; nil if it has not moved
}

// at returns when the entry was made: the event received, or the finding found.
func (d *delivery) at() time.Time {
	if d.found != nil {
		return d.found.At
	}
	return d.received
}

// message returns what is sent.
func (d *delivery) message() *webhook.Message {
	m := &webhook.Message{ID: d.id, Kind: d.kind, At: d.at(), Event: d.event}
	if d.found != nil {
		m.Found = d.found.Found
	}
	return m
}

// A sieve is what the reader has to know of an endpoint.
type sieve struct {
	working  bool
	received time.Time
	filter   *matcher
}

func (s *sieve) asksFor(d *delivery) bool {
	return !d.at().Before(s.received) && s.filter.matches(d.kind, d.event)
}

func (s *sieve) asksForSeen(seen *feed.Sight) bool {
	return !seen.At.Before(s.received) && s.filter.matchesSight(seen)
}

// A gotPage is what the reader has found: a page with something for the endpoint, or an error.
type gotPage struct {
	after feed.Cursor
	page  feed.Page
	err   error
}

func newLane(p *Pump, lease *feed.Lease, e *Endpoint) *lane {
	l := &lane{
		pump: p, lease: lease, breaker: newBreaker(p.config.Schedule), read: lease.Cursor(),
		held: make(map[uuid.UUID]bool), flying: make(map[*delivery]bool),
		changed: make(chan *Endpoint, 1), results: make(chan result, maxInProcess),
		wake: make(chan struct{}, 1), tick: make(chan struct{}, 1),
		want: make(chan feed.Cursor, 1), pages: make(chan gotPage, 1),
	}
	l.set(e)
	if e.State == Failing {
		l.breaker.open, l.breaker.since, l.breaker.probeAt, l.breaker.pause = true, e.FailingSince, e.ProbeAt, e.pause
	}
	return l
}

// run works until the lease is lost or stop ends, and then releases the lease.
func (l *lane) run(stop context.Context) {
	ctx, cancel := context.WithCancel(l.lease.Context())
	defer cancel()
	var reader waitGroup
	reader.Go(func() { l.reader(ctx) })
	defer reader.Wait()
	defer cancel()
	l.confirm(ctx)
	for {
		l.ask()
		l.dispatch(ctx)
		l.idle.Store(l.nothingToDo())
		select {
		case <-ctx.Done():
			l.interrupt()
			return
		case <-stop.Done():
			l.finishUp(ctx)
			return
		case e := <-l.changed:
			l.apply(ctx, e)
			if l.endpoint.State == removing {
				l.interrupt()
				l.release(ctx)
				return
			}
		case got := <-l.pages:
			l.take(ctx, got)
		case r := <-l.results:
			l.finish(ctx, r)
			for len(l.results) > 0 {
				l.finish(ctx, <-l.results)
			}
		case <-l.wake:
		case <-l.tick:
			l.report()
			l.lookForRetries(ctx)
			if l.skim(); l.mustCommit() {
				l.commit(ctx)
			}
		}
		if l.unfinished() >= windowSize && l.window[0].done {
			l.commit(ctx)
		}
	}
}

// nothingToDo reports whether the lane only waits for its reader, or for a retry that is not due soon.
func (l *lane) nothingToDo() bool {
	return l.reading && len(l.window) == 0 && len(l.held) == 0 && !l.breaker.open && l.pending.nothing() &&
		l.lookAt.Sub(l.pump.now()) > (idleTicks+1)*l.pump.config.tick
}

// working reports whether deliveries may begin.
func (l *lane) working() bool { return l.endpoint.State == Active || l.endpoint.State == Failing }

// set makes the lane and its reader work with an endpoint.
func (l *lane) set(e *Endpoint) {
	l.endpoint = e
	l.sieve.Store(&sieve{l.working(), e.received, e.Filter.matcher()})
}

// ask asks for the next page if there is room for it.
func (l *lane) ask() {
	if !l.reading && l.working() && l.unfinished()+pageSize <= windowSize && (!l.breaker.open || len(l.window) == 0) {
		l.reading = true
		l.skimmed.Store(nil)
		l.want <- l.read
	}
}

// reader reads when it is asked, up to a page with something for the endpoint. The lane does not
// wake for the others: of many endpoints, most ask for little of the log.
func (l *lane) reader(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case after := <-l.want:
			got := l.find(ctx, after)
			if ctx.Err() != nil {
				return
			}
			if got.err != nil && !errors.Is(got.err, feed.ErrGone) {
				_ = sleep(ctx, l.pump.backoff()) // PostgreSQL is away
			}
			l.pages <- got
		}
	}
}

// find returns the next page with something for the endpoint, or an empty one if ctx ends or
// deliveries may not begin any more.
func (l *lane) find(ctx context.Context, after feed.Cursor) gotPage {
	// The sieve is looked at after an entry was read, so that none meets an older one than it must.
	page, err := l.pump.config.Log.Find(ctx, after, pageSize, func(seen *feed.Sight) bool {
		s := l.sieve.Load()
		return !s.working || s.asksForSeen(seen)
	}, &l.skimmed)
	if to := l.skimmed.Load(); to != nil {
		after = *to
	}
	if err != nil || !l.sieve.Load().working {
		page = feed.Page{Next: after}
	}
	return gotPage{after, page, err}
}

// skim takes note of how far the reader is, and has the cursor moved there if there is nothing
// else to commit.
func (l *lane) skim() {
	if to := l.skimmed.Load(); l.reading && to != nil {
		l.read = *to
	}
	to, passed := l.target()
	if passed == 0 && l.pending.nothing() && to != l.lease.Cursor() {
		l.lease.Skip(to)
	}
}

// take adds the entries of a page that the endpoint asked for to the window.
func (l *lane) take(ctx context.Context, got gotPage) {
	l.reading = false
	if gone := new(feed.GoneError); errors.As(got.err, &gone) {
		l.pump.config.Logger.ErrorContext(ctx, "events were dropped before the endpoint was told of them", l.attrs()...)
		l.read = gone.Oldest
		return
	}
	if got.err != nil {
		l.read = got.after
		l.pump.warn(ctx, "log cannot be read", got.err)
		return
	}
	before := got.after
	for _, entry := range got.page.Entries {
		d := &delivery{
			id: entry.Event.ID, received: entry.Event.ReceivedAt, kind: entry.Kind, event: entry.Event, found: entry.Found,
			reason: ForFirst, first: true, before: before,
		}
		if d.found != nil {
			d.id = d.found.ID
		}
		if l.sieve.Load().asksFor(d) {
			l.window = append(l.window, d)
		}
		before = entry.Cursor
	}
	l.read = got.page.Next
}

// unfinished returns the length of the window.
func (l *lane) unfinished() int { return len(l.window) }

// finish takes in what became of an attempt.
func (l *lane) finish(ctx context.Context, r result) {
	d, now, isProbe := r.delivery, l.pump.now(), r.probe
	delete(l.flying, d)
	d.attempt, d.probe = nil, false
	if errors.Is(r.err, errInterrupted) { // by us: it waits for its turn again
		l.putBack(d)
		return
	}
	poison := errors.Is(r.err, errPoison)
	reason, number := d.reason, d.number+1
	if isProbe {
		reason, number = ForProbe, 0
	}
	if !poison {
		l.pump.note(l.endpoint, r.outcome.attempt(l.endpoint.ID, d.message(), d.received, reason, number))
	}
	if r.outcome.delivered() {
		l.count(delivered, now)
		if l.breaker.success() == closed {
			l.stateChanged(ctx, closed, "")
		}
		if d.done = d.first; !d.first {
			l.pending.delivered = append(l.pending.delivered, d)
		}
		return
	}
	verdict := unchanged
	if !poison {
		verdict = l.breaker.failure(now, isProbe, r.outcome.retryAfter)
		if r.outcome.status == 410 { // Standard Webhooks: it does not want any more
			verdict = disabled
		}
	}
	if isProbe && verdict == unchanged {
		l.pending.state = true // the next probe
	}
	if verdict == disabled || isProbe && !poison {
		l.count(failed, now)
		l.stateChanged(ctx, verdict, r.outcome.problem)
		l.putBack(d) // it keeps its attempts
		return
	}
	l.stateChanged(ctx, verdict, r.outcome.problem)
	row := &retryRow{delivery: d, attempts: number, failedAt: r.outcome.began, status: r.outcome.status, problem: r.outcome.problem}
	row.attempts = d.number + 1
	if pause, again := l.pump.config.Schedule.next(row.attempts, l.pump.config.Random(), r.outcome.retryAfter); again && !poison {
		row.due = now.Add(pause)
		l.count(failed, now)
	} else {
		l.count(dead, now)
		l.buried(ctx, row)
	}
	if d.first {
		d.done, d.failed = true, row
		return
	}
	l.pending.failed = append(l.pending.failed, row)
}

// buried logs a dead letter, with all that is needed to send it again.
func (l *lane) buried(ctx context.Context, row *retryRow) {
	attrs := append(l.attrs(), slog.String("event_id", row.id.String()), slog.Time("received_at", row.received),
		slog.Int("attempts", row.attempts), slog.Int("status", row.status), slog.String("problem", row.problem),
		slog.String("redeliver", "receiver hooks redeliver --endpoint "+l.endpoint.Name+" --event "+row.id.String()+
			" --since "+row.received.UTC().Format(time.RFC3339)))
	if row.event != nil {
		attrs = append(attrs, slog.String("bucket", fault.Name(row.event.Callback.Bucket)), slog.String("object_key", row.event.Callback.Object))
	}
	l.pump.config.Logger.ErrorContext(ctx, "delivery is a dead letter", attrs...)
}

// putBack returns a delivery to where it waits. A first try has never left the window.
func (l *lane) putBack(d *delivery) {
	if !d.first {
		l.due = append([]*delivery{d}, l.due...)
	}
}

func (l *lane) attrs() []any {
	return []any{slog.String("endpoint", l.endpoint.Name), slog.String("endpoint_id", l.endpoint.ID.String())}
}
