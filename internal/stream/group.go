package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"upcall/internal/event"
)

const (
	// streams is how many streams a group has. With three servers, the loss of one takes the leader of one stream and
	// the connection to another away, and leaves the third.
	streams = 3
	// nextAfter is how long one stream may take before the next one is asked as well. All three have a share of the
	// second that a callback has at least.
	nextAfter = 250 * time.Millisecond
	// lateFor is how long a stream that did not answer in that time is asked last.
	lateFor = 3 * time.Second
)

// A Group is several streams that share the callbacks, so that there is always one that takes them. When a server of
// JetStream is lost, the others elect a leader of its streams only after 4 to 9 seconds, which no setting changes, and
// OSS waits five. So each stream of a group is led by another server, and has a connection to another one.
//
// They are called NAME, NAME_2 and NAME_3. A callback that is in two of them is recorded once, as one that is twice in
// the same. Its methods may be called concurrently.
type Group struct {
	config Config
	parts  []*Stream
	turn   atomic.Uint32 // of the part that is the next to be moved first

	failures atomic.Int64 // callbacks that Put could not keep

	balancing sync.WaitGroup
	stop      context.CancelFunc
}

// markLate notes that the stream does not answer.
func (s *Stream) markLate() { s.late.Store(time.Now().Add(lateFor).UnixNano()) }

func (s *Stream) isLate(now time.Time) bool { return s.late.Load() > now.UnixNano() }

// of returns the settings of one of the streams.
func (c Config) of(place int) Config {
	c = c.withDefaults()
	if c.place, c.all = place, streams; place > 0 {
		c.Name = fmt.Sprintf("%s_%d", c.Name, place+1)
	}
	c.Logger = c.Logger.With(slog.String("stream", c.Name))
	return c
}

// OpenGroup opens the streams of a group, as [Open] does each. Its errors are those of Open.
func OpenGroup(ctx context.Context, config Config) (*Group, error) {
	g, err := newGroup(ctx, config, Open)
	if err != nil {
		return nil, err
	}
	balancing, stop := context.WithCancel(context.WithoutCancel(ctx))
	g.stop = stop
	g.balancing.Go(func() { g.balance(balancing) })
	return g, nil
}

// InspectGroup connects to those streams of a group that there are, for commands. An error says what is wrong.
func InspectGroup(ctx context.Context, config Config) (*Group, error) {
	return newGroup(ctx, config, Inspect)
}

func newGroup(ctx context.Context, config Config, open func(context.Context, Config) (*Stream, error)) (*Group, error) {
	if err := config.Check(); err != nil {
		return nil, err
	}
	opened := make([]*Stream, streams)
	errs := make([]error, streams)
	var group sync.WaitGroup
	for i := range streams {
		group.Go(func() { opened[i], errs[i] = open(ctx, config.of(i)) })
	}
	group.Wait()
	g := &Group{config: config.withDefaults(), stop: func() {}}
	for _, s := range opened {
		if s != nil {
			g.parts = append(g.parts, s)
		}
	}
	for i, err := range errs {
		if err != nil && !(i > 0 && errors.Is(err, errMissing)) { // they were made by a receiver before it had groups
			g.Close()
			return nil, err
		}
	}
	return g, nil
}

// Close ends the connections.
func (g *Group) Close() {
	g.stop()
	g.balancing.Wait()
	var group sync.WaitGroup
	for _, p := range g.parts {
		group.Go(p.Close)
	}
	group.Wait()
}

// Put returns when a majority of the servers has the event on disk, in one of the streams. An event has the same stream
// each time, so that a repeat is known. If that does not answer in a moment, the next one is asked as well.
//
// Its errors are those of [Stream.Put].
func (g *Group) Put(ctx context.Context, e *event.Event) (duplicate bool, err error) {
	frame, err := g.parts[0].encode(e)
	if err != nil {
		return false, err
	}
	duplicate, err = g.put(ctx, e.ID, frame)
	if err != nil {
		g.failures.Add(1)
	}
	return duplicate, err
}

func (g *Group) put(ctx context.Context, id uuid.UUID, frame []byte) (duplicate bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // what is asked in vain then ends, perhaps too late
	type answer struct {
		part      *Stream
		duplicate bool
		err       error
	}
	answers, asked := make(chan answer, len(g.parts)), 0
	order := g.order(id)
	ask := func() {
		p := order[asked]
		asked++
		go func() {
			duplicate, err := p.add(ctx, id, frame)
			answers <- answer{p, duplicate, err}
		}()
	}
	ask()
	next := time.NewTicker(nextAfter)
	defer next.Stop()
	for failed := []error(nil); ; {
		select {
		case a := <-answers:
			if a.err == nil {
				a.part.late.Store(0)
				return a.duplicate, nil
			}
			a.part.markLate()
			if failed = append(failed, a.err); len(failed) == len(order) || ctx.Err() != nil {
				return false, errors.Join(failed...)
			}
		case <-next.C:
		case <-ctx.Done():
			return false, errors.Join(append(failed, fmt.Errorf("%w: %w", event.ErrStreamUnwritable, context.Cause(ctx)))...)
		}
		if asked < len(order) {
			order[asked-1].markLate()
			ask()
		}
	}
}

// order returns the streams in the order in which they are asked for an event. Those that are late are the last.
func (g *Group) order(id uuid.UUID) []*Stream {
	first, now := int(id[len(id)-1])%len(g.parts), time.Now()
	order := slices.Concat(g.parts[first:], g.parts[:first])
	slices.SortStableFunc(order, func(a, b *Stream) int {
		switch late := a.isLate(now); {
		case late == b.isLate(now):
			return 0
		case late:
			return 1
		}
		return -1
	})
	return order
}

// Move is [Stream.Move] for all streams together. That one of them hands nothing out now is no error.
func (g *Group) Move(
	ctx context.Context, record func(context.Context, *event.Event) (duplicate bool, err error), most int,
) (moved int, err error) {
	parts := g.holding(most)
	type result struct {
		moved int
		err   error
	}
	results := make([]result, len(parts))
	var group sync.WaitGroup
	for i, p := range parts {
		group.Go(func() {
			r := &results[i]
			if r.moved, r.err = p.Move(ctx, record, max(1, most/len(parts))); errors.Is(r.err, errHandOut) {
				p.markLate()
			}
		})
	}
	group.Wait()
	silent := 0
	for _, r := range results {
		moved += r.moved
		if errors.Is(r.err, errHandOut) {
			silent++
		}
	}
	for _, r := range results {
		if silent == len(results) || !errors.Is(r.err, errHandOut) {
			err = errors.Join(err, r.err)
		}
	}
	return moved, err
}

// holding returns the streams from which events are moved next, no more than there are events to be moved: those that
// are not known to be empty, and not late unless all are.
func (g *Group) holding(most int) []*Stream {
	now := time.Now()
	turn := int(g.turn.Add(1)) % len(g.parts)
	parts := slices.DeleteFunc(slices.Concat(g.parts[turn:], g.parts[:turn]), func(p *Stream) bool { return p.Depth() == 0 })
	if some := slices.DeleteFunc(slices.Clone(parts), func(p *Stream) bool { return p.isLate(now) }); len(some) > 0 {
		parts = some
	}
	return parts[:min(len(parts), max(most, 1))]
}

// Stats returns what the streams held a moment ago, all together. It asks no server.
func (g *Group) Stats() Stats {
	var all Stats
	dead := make(map[uuid.UUID]struct{})
	limited := true
	for i, p := range g.parts {
		s := p.Stats()
		limited = limited && s.MaxBytes > 0
		all.MaxBytes += s.MaxBytes
		if i == 0 || s.Replicas < all.Replicas {
			all.Replicas = s.Replicas
		}
		all.Queued += s.Queued
		all.Bytes += s.Bytes
		if !s.Oldest.IsZero() && (all.Oldest.IsZero() || s.Oldest.Before(all.Oldest)) {
			all.Oldest = s.Oldest
		}
		p.mu.Lock()
		for id := range p.dead {
			dead[id] = struct{}{}
		}
		p.mu.Unlock()
	}
	all.DeadLetters = len(dead)
	if !limited {
		all.MaxBytes = 0
	}
	return all
}

// Part is what one stream of a group holds.
type Part struct {
	Name  string
	Stats Stats
}

// Parts returns what each stream holds.
func (g *Group) Parts() (all []Part) {
	for _, p := range g.parts {
		all = append(all, Part{p.config.Name, p.Stats()})
	}
	return all
}

// Depth returns how many callbacks wait for PostgreSQL.
func (g *Group) Depth() (depth int) {
	for _, p := range g.parts {
		depth += p.Depth()
	}
	return depth
}

// Has is always false, as [Stream.Has].
func (g *Group) Has(uuid.UUID) bool { return false }

// HasDeadLetter reports whether the callback with this ID was a dead letter a moment ago.
func (g *Group) HasDeadLetter(id uuid.UUID) bool {
	return slices.ContainsFunc(g.parts, func(p *Stream) bool { return p.HasDeadLetter(id) })
}

// Ready returns the error with which a callback would be refused now, or nil.
func (g *Group) Ready() error {
	answers := make(chan error, len(g.parts))
	for _, p := range g.parts {
		go func() { answers <- p.Ready() }()
	}
	var errs []error
	for range g.parts {
		err := <-answers
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Trouble returns why none of the streams takes callbacks, as far as it is known; nil if one does. It asks no server.
func (g *Group) Trouble() error {
	var errs []error
	for _, p := range g.parts {
		err := p.Trouble()
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// reachable returns why one of the streams could not be used when it was last looked at, or nil.
func (g *Group) reachable() error {
	for _, p := range g.parts {
		if err := p.reachable(); err != nil {
			return err
		}
	}
	return nil
}

// Collectors returns the metrics of the streams, all together.
func (g *Group) Collectors() []prometheus.Collector {
	return collectors(g.config.Now, g.Stats, g.reachable, g.failures.Load, func() (refused int64) {
		for _, p := range g.parts {
			refused += p.refusals.Load()
		}
		return refused
	})
}
