package feed

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"upcall/internal/event"
)

// An Entry is an event in the log.
type Entry struct {
	Cursor Cursor       // just after it
	Event  *event.Event // shared by all readers: do not change it
}

// A Page is entries that follow each other in the log.
type Page struct {
	Entries []Entry // shared by all readers: do not change them
	Next    Cursor  // where the next page begins: after the last entry
}

// Config configures a [Log].
type Config struct {
	// Pool is from eventstore.OpenFeed. Required.
	Pool *pgxpool.Pool
	// Logger is told of changes of the cluster. Required.
	Logger *slog.Logger
	// Now is the clock. Default time.Now.
	Now func() time.Time
	// Poll is how often PostgreSQL is asked for commits of other receivers while someone waits
	// for an entry; default 25 ms.
	Poll time.Duration
}

// A Log reads the log. Any number of callers may use it at once.
type Log struct {
	config Config
}

// New returns a log. PostgreSQL need not be running yet. It reads the head only while Run runs.
func New(config Config) (*Log, error) {
	if config.Pool == nil || config.Logger == nil {
		return nil, errors.New("feed config: Pool and Logger are required")
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	config.Poll = cmp.Or(config.Poll, 25*time.Millisecond)
	return &Log{config: config}, nil
}

var errSkeleton = errors.New("feed: not written yet")

// Run reads the head for all that wait in [Log.Next], and measures the lag, until ctx ends.
func (l *Log) Run(ctx context.Context) { <-ctx.Done() }

// Wake says that this process has just committed events, so that readers at the head need not
// wait for the next poll. It does not block.
func (l *Log) Wake() {}

// Collectors returns upcall_feed_lag_seconds and upcall_feed_lag_events.
func (l *Log) Collectors() []prometheus.Collector { return nil }

// Page returns up to limit entries after the cursor, at most 1000, without waiting; none if the
// cursor is at the head. Then Next is the cursor itself, or where a failover or a restore has
// set it back to.
//
// An error wraps [ErrGone], [ErrRestored], [ErrUnready], [ErrBehind], or event.ErrUnavailable:
// PostgreSQL cannot be reached, or its standby did not answer.
func (l *Log) Page(ctx context.Context, after Cursor, limit int) (Page, error) {
	return Page{}, errSkeleton
}

// Next is [Log.Page], except that it waits until there is at least one entry. When ctx ends
// before that, it returns the page without entries and no error. It does not wait for
// PostgreSQL: if that is away, it returns event.ErrUnavailable at once.
func (l *Log) Next(ctx context.Context, after Cursor, limit int) (Page, error) {
	return Page{}, errSkeleton
}

// Now returns the end of the log: every event that is committed after the call begins comes
// after it. An event whose callback is not answered yet may be committed already: [Log.Since] some
// seconds ago includes it.
func (l *Log) Now(ctx context.Context) (Cursor, error) { return Cursor{}, errSkeleton }

// Oldest returns the beginning of the log.
func (l *Log) Oldest(ctx context.Context) (Cursor, error) { return Cursor{}, errSkeleton }

// Since returns a cursor that comes before all events with a received_at of t or later. Earlier
// ones may follow it, too.
func (l *Log) Since(ctx context.Context, t time.Time) (Cursor, error) {
	return Cursor{}, errSkeleton
}

// A Lag is how far a cursor is from the end of the log.
type Lag struct {
	Events int           // committed after the cursor; MostLag if there are more
	Age    time.Duration // of the first of them, since it was received; 0 if there is none
}

// MostLag is where counting stops.
const MostLag = 10_000

// Lag returns how far a cursor is behind, also behind events that a running transaction keeps
// from being read.
func (l *Log) Lag(ctx context.Context, after Cursor) (Lag, error) { return Lag{}, errSkeleton }

// A Holder is a transaction that holds the watermark back.
type Holder struct {
	XID      uint64
	Since    time.Time // when the transaction began, or was prepared
	PID      int       // of the server process; 0 if the transaction is prepared
	Prepared string    // the name of the prepared transaction
	Database string
	User     string
	Program  string // application_name
	State    string // as in pg_stat_activity, such as "idle in transaction"
	Query    string // its first line, shortened; empty without the right to see it
}

// Holders returns the transactions with an xid, the oldest first.
func (l *Log) Holders(ctx context.Context) ([]Holder, error) { return nil, errSkeleton }
