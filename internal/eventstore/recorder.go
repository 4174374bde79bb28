package eventstore

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Config says how a [Recorder] works.
type Config struct {
	// Pool is where events go, from [Open]. Required. It must have room for Writers
	// connections and those of other work.
	Pool *pgxpool.Pool

	// Writers is how many batches are under way at once; default 2.
	Writers int

	// MaxBatch is the most events in one transaction; default 512.
	MaxBatch int

	// Queue is the most events that wait for a writer; default 4096. More are refused
	// with ErrQueueFull.
	Queue int

	// CommitTimeout bounds the work on one batch, retries included; default 3 s.
	CommitTimeout time.Duration

	// OnBatch hears of each transaction that was committed: how many events it held,
	// and how long it took. It must be quick. Default none.
	OnBatch func(events int, took time.Duration)
}

func (c Config) withDefaults() Config {
	c.Writers = cmp.Or(c.Writers, 2)
	c.MaxBatch = cmp.Or(c.MaxBatch, 512)
	c.Queue = cmp.Or(c.Queue, 4096)
	c.CommitTimeout = cmp.Or(c.CommitTimeout, 3*time.Second)
	if c.OnBatch == nil {
		c.OnBatch = func(int, time.Duration) {}
	}
	return c
}

func (c Config) validate() error {
	switch {
	case c.Pool == nil:
		return errors.New("recorder config: Pool is required")
	case c.Writers < 1, c.MaxBatch < 1, c.Queue < 1, c.CommitTimeout < 1:
		return errors.New("recorder config: Writers, MaxBatch, Queue and CommitTimeout must be positive")
	}
	return nil
}

// A Recorder commits events in groups: each writer takes all events that wait, commits
// them in one transaction, and answers each of the callers who wait. While one group
// commits the next one gathers, so groups grow with the load and nobody waits for a timer.
type Recorder struct {
	config  Config
	queue   chan *request
	writers sync.WaitGroup

	closing sync.RWMutex // held for reading by those who send to queue
	closed  bool
}

// A request is an event and the caller who waits for it.
type request struct {
	event  Event
	vars   []byte // event.Callback.Vars as JSON
	answer chan answer
}

type answer struct {
	duplicate bool
	err       error
}

// NewRecorder starts the writers. PostgreSQL need not be there yet.
func NewRecorder(config Config) (*Recorder, error) {
	config = config.withDefaults()
	if err := config.validate(); err != nil {
		return nil, err
	}
	r := &Recorder{config: config, queue: make(chan *request, config.Queue)}
	for range config.Writers {
		r.writers.Go(r.write)
	}
	return r, nil
}

// Record returns when the event is committed. It says duplicate when an event with the
// same ID was committed before, or along with this one.
//
// An error wraps [ErrUnavailable] or [ErrRejected]. When ctx ends, the caller gets
// ErrUnavailable, but the event is recorded all the same if PostgreSQL can be reached.
// The maps and pointers in the event must not be changed afterwards.
func (r *Recorder) Record(ctx context.Context, event *Event) (duplicate bool, err error) {
	q := &request{event: *event, answer: make(chan answer, 1)}
	q.event.Source = cmp.Or(event.Source, SourceCallback)
	if q.vars, err = encodeVars(&q.event); err != nil {
		return false, err
	}
	if err := r.enqueue(q); err != nil {
		return false, err
	}
	select {
	case a := <-q.answer:
		return a.duplicate, a.err
	case <-ctx.Done():
		return false, fmt.Errorf("%w: %w", ErrUnavailable, context.Cause(ctx))
	}
}

// Depth returns how many events wait for a writer.
func (r *Recorder) Depth() int { return len(r.queue) }

// Close takes no more events, and returns when those it took are answered.
func (r *Recorder) Close() {
	r.closing.Lock()
	if !r.closed {
		r.closed = true
		close(r.queue)
	}
	r.closing.Unlock()
	r.writers.Wait()
}

// Find says whether an event with this ID is committed.
func (r *Recorder) Find(ctx context.Context, id uuid.UUID) (bool, error) {
	var found bool
	err := r.config.Pool.QueryRow(ctx, "SELECT EXISTS (SELECT FROM upcall.callback_ids WHERE id = $1)", id).Scan(&found)
	if err != nil {
		return false, fmt.Errorf("find event: %w", unavailable(err))
	}
	return found, nil
}

// Ping says whether PostgreSQL answers.
func (r *Recorder) Ping(ctx context.Context) error {
	if err := r.config.Pool.Ping(ctx); err != nil {
		return fmt.Errorf("ping: %w", unavailable(err))
	}
	return nil
}

func (r *Recorder) enqueue(q *request) error {
	r.closing.RLock()
	defer r.closing.RUnlock()
	if r.closed {
		return ErrClosed
	}
	select {
	case r.queue <- q:
		return nil
	default:
		return ErrQueueFull
	}
}

// write is one writer.
func (r *Recorder) write() {
	w := &writer{config: r.config, columns: newColumns()}
	batch := make([]*request, 0, r.config.MaxBatch)
	for first := range r.queue {
		batch = r.gather(append(batch[:0], first))
		w.record(batch)
		clear(batch) // the answered are not kept alive
	}
}

// gather adds all that wait, up to MaxBatch.
func (r *Recorder) gather(batch []*request) []*request {
	for len(batch) < r.config.MaxBatch {
		select {
		case q, ok := <-r.queue:
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

// encodeVars returns the event's further fields as JSON, and sees to it that its texts
// are such as PostgreSQL takes: what PostgreSQL itself has to refuse costs a whole batch
// further transactions, which a sender of bad callbacks should not be able to cause.
func encodeVars(e *Event) ([]byte, error) {
	c := &e.Callback
	for _, text := range [...]string{c.Bucket, c.Object, c.ETag, c.MimeType, c.ImageFormat, c.ContentMD5,
		c.VPCID, c.RequestID, c.Operation, e.Source} {
		if !utf8.ValidString(text) || strings.IndexByte(text, 0) >= 0 {
			return nil, fmt.Errorf("%w: a text is not UTF-8, or holds NUL", ErrRejected)
		}
	}
	if len(c.Vars) == 0 {
		return []byte("{}"), nil
	}
	vars, err := json.Marshal(c.Vars)
	if err != nil {
		return nil, fmt.Errorf("%w: a variable is not JSON", ErrRejected)
	}
	if !utf8.Valid(vars) {
		return nil, fmt.Errorf("%w: a variable is not UTF-8", ErrRejected)
	}
	return vars, nil
}

// byID orders requests by the ID of their events; all writers in all receivers use the
// same order.
func byID(a, b *request) int { return bytes.Compare(a.event.ID[:], b.event.ID[:]) }

// fold sorts a batch and returns one request for each ID, the one that came first, in order.
func fold(batch []*request) []*request {
	slices.SortStableFunc(batch, byID)
	unique := make([]*request, 0, len(batch))
	for i, q := range batch {
		if i == 0 || q.event.ID != batch[i-1].event.ID {
			unique = append(unique, q)
		}
	}
	return unique
}
