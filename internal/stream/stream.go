// Package stream is the replicated queue for callbacks: a stream of NATS JetStream, on the disks of several
// servers. Each callback is fsynced on a majority of them before it is acknowledged, and moves to PostgreSQL later.
//
// All receivers share a [Group] of streams. The messages of each are the records of package kept, under two subjects:
//
//	NAME.waiting  the callbacks that wait. The consumer "receivers" hands each to one receiver, which acknowledges
//	              it to the stream after its commit; then the stream deletes it
//	NAME.dead.ID  the dead letters, which PostgreSQL could not hold when their turn came
//
// A message is handed out again if its receiver does not acknowledge it in time. Whoever records it then finds it in
// PostgreSQL, which keeps the IDs of callbacks. So is one that is in the stream twice. This makes it safe to repeat
// each step.
package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"upcall/internal/event"
)

var (
	// ErrUnfit means that the stream, as it is set, could lose what was acknowledged, or that the servers refuse us.
	ErrUnfit = errors.New("stream is unfit")
	// ErrNoDeadLetter means that no dead letter has the ID.
	ErrNoDeadLetter = errors.New("no such dead letter")
)

// Stats is what a stream holds.
type Stats struct {
	Queued      int       // callbacks that wait for PostgreSQL
	Oldest      time.Time // when the first of them arrived; zero if none waits
	Bytes       int64     // of all messages
	DeadLetters int       // callbacks that PostgreSQL cannot hold; they stay until Retry or Discard
	MaxBytes    int64     // that it may hold; 0 is no limit
	Replicas    int       // servers that have its messages and keep up; 0 if it has no leader
}

// A Stream is a connection to a stream. Its methods may be called concurrently.
type Stream struct {
	config   Config
	conn     *nats.Conn
	js       jetstream.JetStream
	watching sync.WaitGroup
	stop     context.CancelFunc
	refusals atomic.Int64 // callbacks that Config.Refused was called with
	failures atomic.Int64 // callbacks that Put could not keep
	late     atomic.Int64 // until when a group asks it last, in nanoseconds since 1970
	silent   atomic.Bool  // nobody answers for the stream: it has no leader, or no server can be reached
	noticed  atomic.Pointer[error]

	mu     sync.Mutex // guards the fields below, briefly
	stream jetstream.Stream
	queue  jetstream.Consumer
	unfit  error // why nothing may be put into the stream; nil if it was found fit
	checks struct {
		at        time.Time // of the last
		unchecked string    // what was logged as unchecked
	}
	stats    Stats
	puts     int // that Put has added since the stream was opened
	dead     map[uuid.UUID]struct{}
	refused  map[uuid.UUID]int // attempts to move an event that ended as kept.Refused
	erasures []event.Erasure   // the latest first. It is replaced, not changed
	cluster  *jetstream.ClusterInfo
	// clusterAt is when the servers said who leads the stream.
	clusterAt time.Time
}

var errUnchecked = errors.New("the stream was not checked yet")

// Open connects to a stream, makes it if there is none, and checks that it keeps its promise. An error wraps
// [ErrUnfit] or is a mistake in the settings. That no server can be reached is not an error: until one is, Put fails.
func Open(ctx context.Context, config Config) (*Stream, error) {
	s, err := connect(config)
	if err != nil {
		return nil, err
	}
	checking, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	if err := s.check(checking, true); err != nil {
		if errors.Is(err, ErrUnfit) {
			s.conn.Close()
			return nil, err
		}
		config.Logger.WarnContext(ctx, "stream cannot be reached", slog.String("error", err.Error()))
	} else {
		s.measure(checking)
	}
	watching, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.stop = stop
	s.watching.Go(func() { s.watch(watching) })
	return s, nil
}

// Inspect connects to a stream that there is, for commands. An error says what is wrong.
func Inspect(ctx context.Context, config Config) (*Stream, error) {
	s, err := connect(config)
	if err != nil {
		return nil, err
	}
	s.stop = func() {}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	if err := s.check(ctx, false); err != nil {
		s.conn.Close()
		return nil, err
	}
	s.measure(ctx)
	return s, nil
}

// Close ends the connection.
func (s *Stream) Close() {
	s.stop()
	s.watching.Wait()
	s.conn.Close()
}

// connect opens the connection. If no server can be reached, it goes on trying.
func connect(config Config) (*Stream, error) {
	config = config.withDefaults()
	if err := config.Check(); err != nil {
		return nil, err
	}
	s := &Stream{config: config, unfit: errUnchecked, dead: make(map[uuid.UUID]struct{}), refused: make(map[uuid.UUID]int)}
	options, err := config.options(s.notice)
	if err != nil {
		return nil, err
	}
	urls := config.urls()
	s.conn, err = nats.Connect(urls, options...)
	switch {
	case isRefusal(err):
		return nil, fmt.Errorf("%w: the servers refuse the credentials: %w: see UPCALL_STREAM_CREDS_FILE", ErrUnfit, err)
	case err != nil:
		if s.conn, err = nats.Connect(urls, append(options, nats.RetryOnFailedConnect(true))...); err != nil {
			return nil, fmt.Errorf("connect to stream: %w", err)
		}
	}
	if s.js, err = jetstream.New(s.conn); err != nil {
		s.conn.Close()
		return nil, fmt.Errorf("connect to stream: %w", err)
	}
	return s, nil
}

// isRefusal reports whether a server has refused our credentials.
func isRefusal(err error) bool {
	return errors.Is(err, nats.ErrAuthorization) || errors.Is(err, nats.ErrAuthExpired) || errors.Is(err, nats.ErrAuthRevoked)
}

// notice keeps an error that a server has told outside of any answer, such as a missing permission: what waits for
// the answer then only sees that none comes.
func (s *Stream) notice(err error) { s.noticed.Store(&err) }

// because adds to an error what the server told.
func (s *Stream) because(err error) error {
	if told := s.noticed.Swap(nil); told != nil && err != nil {
		return fmt.Errorf("%w: %w", err, *told)
	}
	return err
}

// Stats returns what the stream held a moment ago. It asks no server.
func (s *Stream) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stats
}

// Depth returns how many callbacks wait for PostgreSQL.
func (s *Stream) Depth() int { return s.Stats().Queued }

// Has reports whether the callback with this ID is known to wait in the stream. Others may have put it there, so it is
// asked of the stream itself, by Put, and of PostgreSQL, when it is recorded: this is always false.
func (s *Stream) Has(uuid.UUID) bool { return false }

// HasDeadLetter reports whether the callback with this ID was a dead letter a moment ago.
func (s *Stream) HasDeadLetter(id uuid.UUID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, there := s.dead[id]
	return there
}

// Ready returns the error with which the stream would refuse a callback now, or nil.
func (s *Stream) Ready() error {
	if err := s.usable(); err != nil {
		return err
	}
	if !s.conn.IsConnected() {
		return fmt.Errorf("%w: no server can be reached", event.ErrStreamUnwritable)
	}
	ctx, cancel := context.WithTimeout(context.Background(), readyTimeout)
	defer cancel()
	info, err := s.handle().Info(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w", event.ErrStreamUnwritable, err)
	}
	if info.Cluster == nil || info.Cluster.Leader == "" {
		return fmt.Errorf("%w: it has no leader, because most of its servers are down", event.ErrStreamUnwritable)
	}
	if most := info.Config.MaxBytes; most > 0 && info.State.Bytes+maxFrame > uint64(most) {
		return fmt.Errorf("%w: it may take %d bytes", event.ErrStreamFull, most)
	}
	return nil
}

// usable returns why nothing may be put into the stream, or nil.
func (s *Stream) usable() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unfit != nil {
		return fmt.Errorf("%w: %w", event.ErrStreamUnwritable, s.unfit)
	}
	return nil
}

func (s *Stream) handle() jetstream.Stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stream
}
