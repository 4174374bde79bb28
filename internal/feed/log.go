package feed

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/event"
)

// An Entry is an event in the log, or what was found about one.
type Entry struct {
	Cursor Cursor       // just after it
	Event  *event.Event // shared by all readers: do not change it
	Kind   event.Kind   // what it tells of the event
	Found  *Finding     // nil if Kind is event.Recorded
}

// A Page is entries of the log in its order: all that there are between two places, or those that
// its reader wants.
type Page struct {
	Entries []Entry
	Next    Cursor // where the next page begins: after the last entry
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
	config   Config
	history  atomic.Pointer[history]
	noticing chan struct{} // has room for one
	reading  chan struct{} // has room for the readers that are behind and read at once
	tail     *tail
	decoder  decoder
	handed   atomic.Uint64 // the lowest xid that is above all that cursors that were handed out have passed
	marked   atomic.Uint64 // where the last mark is
	lag      atomic.Pointer[Lag]
}

// mostReading leaves connections to the reader of the head, and to consumers that commit, however
// many are behind.
const mostReading = 2

// New returns a log. PostgreSQL need not be running yet. It reads the head only while Run runs.
func New(config Config) (*Log, error) {
	if config.Pool == nil || config.Logger == nil {
		return nil, errors.New("feed config: Pool and Logger are required")
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	config.Poll = cmp.Or(config.Poll, 25*time.Millisecond)
	return &Log{
		config: config, noticing: make(chan struct{}, 1), reading: make(chan struct{}, mostReading), tail: newTail(),
	}, nil
}

// Run reads the head for all that wait in [Log.Next], and measures the lag, until ctx ends.
func (l *Log) Run(ctx context.Context) {
	var work sync.WaitGroup
	work.Go(func() { l.follow(ctx) })
	work.Go(func() { l.measure(ctx) })
	work.Wait()
}

// Wake says that this process has just committed events, so that readers at the head need not
// wait for the next poll. It does not block.
func (l *Log) Wake() { signal(l.tail.woken) }

// Page returns up to limit entries after the cursor, those of kind event.Recorded, at most 1000, without waiting; none if the
// cursor is at the head. Then Next is the cursor itself, or where a failover or a restore has
// set it back to.
//
// An error wraps [ErrGone], [ErrRestored], [ErrUnready], [ErrBehind], or event.ErrUnavailable:
// PostgreSQL cannot be reached, or its standby did not answer.
func (l *Log) Page(ctx context.Context, after Cursor, limit int) (Page, error) {
	c, next, err := l.read(ctx, after, limit, recorded)
	return l.page(c.rows, next, err)
}

// Outline is [Log.Page] for a consumer whose work is a statement in the same database: of the events it
// has only ID and ReceivedAt, and it neither writes a barrier nor waits for a standby. After a
// failover, entries may be lost that it has returned, but then what was made of them is lost, too.
func (l *Log) Outline(ctx context.Context, after Cursor, limit int) (Page, error) {
	c, next, err := l.read(ctx, after, limit, outline)
	page := Page{Entries: make([]Entry, 0, len(c.rows)), Next: next}
	for _, r := range c.rows {
		e := &event.Event{ID: r.cursor.id, ReceivedAt: r.received}
		page.Entries = append(page.Entries, Entry{Cursor: r.cursor, Event: e, Kind: event.Recorded})
	}
	return page, err
}

// page decodes rows.
func (l *Log) page(rows []*row, next Cursor, err error) (Page, error) {
	if err != nil {
		return Page{Next: next}, err
	}
	entries, err := l.decoder.entries(rows)
	return Page{entries, next}, err
}

// Next is [Log.Page], except that it waits until there is at least one entry. When ctx ends
// before that, it returns the page without entries and no error. It does not wait for
// PostgreSQL: if that is away, it returns event.ErrUnavailable at once.
func (l *Log) Next(ctx context.Context, after Cursor, limit int) (Page, error) {
	return l.page(l.next(ctx, after, limit, recorded))
}

// next returns the next rows, and the cursor after them. The head is read with findings, for all.
func (l *Log) next(ctx context.Context, after Cursor, limit int, what reading) ([]*row, Cursor, error) {
	limit = min(max(limit, 1), mostEntries)
	for {
		rows, known, changed := l.tail.after(after, limit)
		if n := len(rows); n > 0 {
			after = rows[n-1].cursor
			if what == recorded {
				rows = withoutFindings(rows)
			}
			if len(rows) > 0 {
				return rows, after, nil
			}
			continue
		}
		if !known {
			if err := l.tail.recent(time.Now()); err != nil {
				return nil, after, err
			}
			c, next, err := l.read(ctx, after, limit, what)
			if err != nil && ctx.Err() != nil {
				return nil, after, nil
			} else if err != nil || len(c.rows) > 0 {
				return c.rows, next, err
			}
			after = next
			l.tail.join(after)
			continue
		}
		done := l.tail.wait(time.Now)
		select {
		case <-changed:
			done()
		case <-ctx.Done():
			done()
			return nil, after, nil
		}
	}
}

// Find is [Log.Next] for a reader that wants certain entries only, findings among them: it returns those
// of the next page that has one. passed is set to how far nothing was found, while Find runs; its copies are never
// changed. wants is called for entries after they were read, in any goroutine, and must be quick.
// When ctx ends, Find returns a page without entries.
func (l *Log) Find(ctx context.Context, after Cursor, limit int, wants func(*Sight) bool, passed *atomic.Pointer[Cursor]) (Page, error) {
	passed.Store(nil)
	for ctx.Err() == nil {
		if f := l.tail.find(after, wants, passed); f != nil {
			done := l.tail.wait(time.Now)
			select {
			case <-f.found:
			case <-ctx.Done():
				l.tail.forget(f)
			}
			done()
			if to := passed.Load(); to != nil {
				after = *to
			}
			if ctx.Err() != nil {
				break
			}
		}
		rows, next, err := l.next(ctx, after, limit, all)
		if err != nil {
			return Page{Next: next}, err
		}
		if found := wanted(rows, wants); len(found) > 0 {
			return l.page(found, next, nil)
		}
		after = next
		passed.Store(&next)
	}
	return Page{Next: after}, nil
}

// wanted returns those of the rows that a reader wants.
func wanted(rows []*row, wants func(*Sight) bool) (found []*row) {
	for _, r := range rows {
		if s := r.sight(); wants(&s) {
			found = append(found, r)
		}
	}
	return found
}

// hand notes that a cursor leaves the process. A mark at the xid of an entry is before that entry, and
// before all others of its transaction.
func (l *Log) hand(c Cursor) {
	above := c.xid
	if c.position != (position{xid: c.xid}) {
		above++
	}
	for old := l.handed.Load(); above > old && !l.handed.CompareAndSwap(old, above); old = l.handed.Load() {
	}
}

// Now returns the end of the log: every event that is committed after the call begins comes
// after it. An event whose callback is not answered yet may be committed already: [Log.Since] some
// seconds ago includes it.
func (l *Log) Now(ctx context.Context) (Cursor, error) {
	var now head
	h, err := l.here(ctx, "SELECT "+thisCluster, &now)
	if err != nil {
		return Cursor{}, err
	}
	c := h.at(position{xid: now.xmin})
	l.hand(c)
	return c, nil
}

// Oldest returns the beginning of the log.
func (l *Log) Oldest(ctx context.Context) (Cursor, error) {
	c, _, err := l.oldest(ctx)
	l.hand(c)
	return c, err
}
