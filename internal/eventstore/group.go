package eventstore

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/event"
)

// Config says how a [Recorder] or a [Ledger] commits rows.
type Config struct {
	// Pool is from [OpenRecorder]. Required. It needs a connection for each writer, and for
	// calls of [Recorder.Find].
	Pool *pgxpool.Pool

	// Writers is how many batches are committed at once; default 2.
	Writers int

	// MaxBatch is the most rows in one transaction; default 512.
	MaxBatch int

	// MaxEvents is the most events that a recorder accepts for one upload; default 0: no limit.
	// Each recorder knows only those that it is about to commit, so several may exceed it.
	MaxEvents int

	// LimitAcknowledged makes MaxEvents hold for acknowledged events, too: they were acknowledged before anyone
	// could count them.
	LimitAcknowledged bool

	// Queue is the most rows that wait for a writer; default 4096. Callers with more get
	// event.ErrQueueFull.
	Queue int

	// CommitTimeout bounds the work on one batch, retries included; default 3 s.
	CommitTimeout time.Duration

	// KeepDays is how long events are kept; default 0: indefinitely. A recorder gives the present
	// time to an acknowledged event that is older.
	KeepDays int

	// Now is the clock; default time.Now.
	Now func() time.Time

	// Batch begins to trace a batch, for which callers with these contexts wait. It returns the context of the batch's
	// statements, and what ends the trace. Default none.
	Batch func(callers []context.Context) (context.Context, func())

	// OnBatch is called after each committed transaction with the number of its rows and
	// the time it took. It must be quick. Default none.
	OnBatch func(rows int, took time.Duration)
}

func (c Config) withDefaults() Config {
	c.Writers = cmp.Or(c.Writers, 2)
	c.MaxBatch = cmp.Or(c.MaxBatch, 512)
	c.Queue = cmp.Or(c.Queue, 4096)
	c.CommitTimeout = cmp.Or(c.CommitTimeout, 3*time.Second)
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.OnBatch == nil {
		c.OnBatch = func(int, time.Duration) {}
	}
	return c
}

func (c Config) validate() error {
	switch {
	case c.Pool == nil || !isRecorders(c.Pool):
		return errors.New("Pool is required, and must be OpenRecorder's")
	case c.Writers < 1, c.MaxBatch < 1, c.Queue < 1, c.CommitTimeout < 1:
		return errors.New("Writers, MaxBatch, Queue and CommitTimeout must be positive")
	}
	return nil
}

const (
	// joinTime is the longest that a batch waits for the end of another.
	joinTime = 2 * time.Millisecond
	// fewRows are so few that the disk sets the pace, and two batches at once make the most of it.
	// With more, the CPU does, and one larger batch costs less of it than two.
	fewRows = 32
)

// A group commits rows of one kind in groups: each writer takes all waiting rows, commits
// them in one transaction, and answers their callers. While one group commits, the next one
// gathers, so groups grow with the load, and a single row commits at once.
type group[T any] struct {
	config  Config
	kind    kind[T]
	queue   chan *request[T]
	writers sync.WaitGroup

	underway atomic.Int64  // rows in transactions
	ended    chan struct{} // has room for one: a transaction ended

	closing sync.RWMutex // held for reading by those who send to queue
	closed  bool
}

// A kind of rows.
type kind[T any] struct {
	// insert writes a batch. Its parameters are the arrays of the fields. It returns the id
	// and the outcome, as "char", of each row whose outcome is not "known".
	insert statement
	fields []field[T]

	// join merges into a row what a repeat of it, which is not written, adds. It may be nil.
	join func(kept, repeat *T)

	// fix removes the cause of a check_violation. It is nil if nothing can: the row is bad.
	fix func(context.Context, *pgxpool.Pool, []*request[T]) error

	// bad is the error of a row that PostgreSQL does not accept, while it accepts others.
	bad error

	// samples returns rows of which PostgreSQL accepts at least one, unless it accepts none at
	// all. It is nil if that does not matter.
	samples func(ctx context.Context, pool *pgxpool.Pool, bad *request[T]) ([]*request[T], error)
}

// A request is a row and the caller that waits for it.
type request[T any] struct {
	id      uuid.UUID
	row     T
	answer  chan answer
	ctx     context.Context // the caller's, if batches are traced
	repeats []*request[T]   // of the same batch, with the same id
}

// reply answers the request and its repeats, which were committed along with it or failed
// with it.
func (q *request[T]) reply(a answer) {
	q.answer <- a
	if a.outcome == fresh {
		a.outcome = known
	}
	for _, repeat := range q.repeats {
		repeat.answer <- a
	}
}

type answer struct {
	outcome outcome
	err     error
}

// An outcome is what became of a row that PostgreSQL accepted.
type outcome byte

const (
	known    outcome = 0   // a row with its id was committed before
	fresh    outcome = 'n' // the row is committed now
	overused outcome = 'o' // it is refused
	crowded  outcome = 'w' // it is not recorded now, but may be when others have ended
	revoked  outcome = 'r' // the row is refused, and the refusal is committed
)

// start starts the writers. PostgreSQL need not be running yet.
func (k kind[T]) start(config Config) (*group[T], error) {
	config = config.withDefaults()
	if err := config.validate(); err != nil {
		return nil, err
	}
	g := &group[T]{config: config, kind: k, queue: make(chan *request[T], config.Queue), ended: make(chan struct{}, 1)}
	for range config.Writers {
		g.writers.Go(g.write)
	}
	return g, nil
}

// commit returns when the row is committed. When ctx ends it returns event.ErrUnavailable,
// but the row is still committed if PostgreSQL can be reached.
func (g *group[T]) commit(ctx context.Context, id uuid.UUID, row T) (outcome, error) {
	q := &request[T]{id: id, row: row, answer: make(chan answer, 1)}
	if g.config.Batch != nil {
		q.ctx = ctx
	}
	if err := g.enqueue(q); err != nil {
		return known, err
	}
	select {
	case a := <-q.answer:
		return a.outcome, a.err
	case <-ctx.Done():
		return known, fmt.Errorf("%w: %w", event.ErrUnavailable, context.Cause(ctx))
	}
}

// depth returns how many rows wait for a writer.
func (g *group[T]) depth() int { return len(g.queue) }

// close accepts no more rows, and returns when those it accepted are answered.
func (g *group[T]) close() {
	g.closing.Lock()
	if !g.closed {
		g.closed = true
		close(g.queue)
	}
	g.closing.Unlock()
	g.writers.Wait()
}

func (g *group[T]) enqueue(q *request[T]) error {
	g.closing.RLock()
	defer g.closing.RUnlock()
	if g.closed {
		return ErrClosed
	}
	select {
	case g.queue <- q:
		return nil
	default:
		return event.ErrQueueFull
	}
}

// write is one writer.
func (g *group[T]) write() {
	w := newWriter(g.config, g.kind)
	batch := make([]*request[T], 0, g.config.MaxBatch)
	for first := range g.queue {
		batch = g.gather(append(batch[:0], first))
		rows := int64(len(batch))
		g.underway.Add(rows)
		g.record(w, batch)
		g.underway.Add(-rows)
		select {
		case g.ended <- struct{}{}:
		default:
		}
		clear(batch) // so that the answered requests can be freed
	}
}

// record commits a batch. Its context is nobody's: a caller that leaves does not take the others' rows along.
func (g *group[T]) record(w *writer[T], batch []*request[T]) {
	ctx := context.Background()
	if g.config.Batch != nil {
		callers := make([]context.Context, len(batch))
		for i, q := range batch {
			callers[i] = q.ctx
		}
		var end func()
		ctx, end = g.config.Batch(callers)
		defer end()
	}
	w.record(ctx, batch)
}

// gather adds all waiting requests, up to MaxBatch. Because each transaction is costly, it
// lets callers that are ready to run add their rows first, and a batch that is smaller than
// the one being committed, or of more than a few rows, waits a moment for that to end.
func (g *group[T]) gather(batch []*request[T]) []*request[T] {
	select {
	case <-g.ended: // some time ago
	default:
	}
	runtime.Gosched()
	batch = g.take(batch)
	if underway := g.underway.Load(); underway == 0 || len(batch) <= fewRows && int64(len(batch)) >= underway {
		return batch
	}
	patience := time.NewTimer(joinTime)
	defer patience.Stop()
	select {
	case <-g.ended:
	case <-patience.C:
	}
	return g.take(batch)
}

// take adds all waiting requests, up to MaxBatch.
func (g *group[T]) take(batch []*request[T]) []*request[T] {
	for len(batch) < g.config.MaxBatch {
		select {
		case q, ok := <-g.queue:
			if !ok {
				return batch
			}
			batch = append(batch, q)
		default:
			return batch
		}
	}
	return batch
}

// fold sorts a batch by ID, the order that all writers in all programs use, and returns the
// first request of each ID, with its repeats.
func (k kind[T]) fold(batch []*request[T]) []*request[T] {
	slices.SortStableFunc(batch, func(a, b *request[T]) int { return bytes.Compare(a.id[:], b.id[:]) })
	unique := make([]*request[T], 0, len(batch))
	for i, q := range batch {
		if i == 0 || q.id != batch[i-1].id {
			unique = append(unique, q)
			continue
		}
		kept := unique[len(unique)-1]
		kept.repeats = append(kept.repeats, q)
		if k.join != nil {
			k.join(&kept.row, &q.row)
		}
	}
	return unique
}
