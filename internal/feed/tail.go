package feed

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// The head keeps the latest entries for readers that are slower than others.
	keptEntries = 4096
	keptBytes   = 16 << 20
	// linger is how long the head is read after the last reader has stopped waiting.
	linger = 2 * time.Second
	// failedFor is how long a failure to read the head answers all that would wait.
	failedFor = 250 * time.Millisecond
	// The head is read at most once in a pause, which is longer under load: a read costs
	// PostgreSQL as much as many entries. But what was recorded in a longer one would keep a CPU
	// from the next callbacks for milliseconds, which the slowest hundredth of them shows.
	shortPause, longPause = 4 * time.Millisecond, 20 * time.Millisecond
	manyEntries           = 32
)

// A tail is the latest entries, which one reads for all.
type tail struct {
	mu      sync.Mutex
	valid   bool
	cluster cluster
	start   position // the entries are all that follow it, up to end
	end     position
	seen    uint64 // the watermark that end is complete to
	rows    []*row
	bytes   int

	changed chan struct{} // closed when there are more entries, or the tail is no longer valid
	finders map[*finder]bool
	waiting int
	left    time.Time // when the last reader left
	failure error
	failed  time.Time

	wanted, woken chan struct{} // each has room for one
}

func newTail() *tail {
	return &tail{
		changed: make(chan struct{}), finders: make(map[*finder]bool),
		wanted: make(chan struct{}, 1), woken: make(chan struct{}, 1),
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// after returns up to limit rows after a cursor, all that are known; known is false if the
// tail does not reach back to it. Without rows, a receive from changed returns when that may
// be different.
func (t *tail) after(c Cursor, limit int) (rows []*row, known bool, changed <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.valid || c.cluster() != t.cluster || c.compare(t.start) < 0 {
		return nil, false, nil
	}
	first, found := slices.BinarySearchFunc(t.rows, c.position, func(r *row, p position) int { return r.cursor.compare(p) })
	if found {
		first++
	}
	last := min(first+limit, len(t.rows))
	return t.rows[first:last:last], true, t.changed
}

// join makes the tail begin at a cursor up to which the log is complete, if it is not valid.
func (t *tail) join(c Cursor) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.valid && t.cluster == c.cluster() {
		return
	}
	t.valid, t.cluster, t.start, t.end, t.seen = true, c.cluster(), c.position, c.position, 0
	t.rows, t.bytes = nil, 0
}

// wait counts a reader that waits, until it calls the function that it returns.
func (t *tail) wait(now func() time.Time) (done func()) {
	t.mu.Lock()
	t.waiting++
	t.mu.Unlock()
	signal(t.wanted)
	return func() {
		t.mu.Lock()
		t.waiting--
		t.left = now()
		t.mu.Unlock()
	}
}

// idle reports whether no one has waited for a while.
func (t *tail) idle(now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.waiting == 0 && now.Sub(t.left) > linger
}

// drop makes the tail forget what it has, so that its readers read for themselves. A failure
// answers them for a moment instead.
func (t *tail) drop(failure error, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.valid, t.rows = false, nil
	t.failure, t.failed = failure, now
	for f := range t.finders {
		close(f.found)
	}
	clear(t.finders)
	t.tell()
}

// recent returns the failure of the last moment.
func (t *tail) recent(now time.Time) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now.Sub(t.failed) > failedFor {
		return nil
	}
	return t.failure
}

func (t *tail) tell() {
	close(t.changed)
	t.changed = make(chan struct{})
}

// A finder is a reader that waits for certain entries only. Whoever adds entries looks for it, so
// that a hundred readers that want little do not all wake, at once, for each page.
type finder struct {
	wants  func(*Sight) bool
	passed *atomic.Pointer[Cursor] // how far nothing was found; nil if nowhere
	found  chan struct{}           // closed when there is something, or the tail is no longer valid
}

// find registers a finder that is at the end; it is nil if the cursor is not.
func (t *tail) find(c Cursor, wants func(*Sight) bool, passed *atomic.Pointer[Cursor]) *finder {
	t.mu.Lock()
	defer t.mu.Unlock()
	last := t.start
	if n := len(t.rows); n > 0 {
		last = t.rows[n-1].cursor.position
	}
	if !t.valid || c.cluster() != t.cluster || c.compare(last) < 0 {
		return nil
	}
	f := &finder{wants, passed, make(chan struct{})}
	t.finders[f] = true
	return f
}

func (f *finder) wantsAny(seen []Sight) bool {
	for i := range seen {
		if f.wants(&seen[i]) {
			return true
		}
	}
	return false
}

func (t *tail) forget(f *finder) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.finders, f)
}

// tellFinders wakes those for which there is something among new rows, and moves the others.
func (t *tail) tellFinders(rows []*row) {
	if len(t.finders) == 0 {
		return
	}
	end, seen := rows[len(rows)-1].cursor, sights(rows)
	for f := range t.finders {
		if f.wantsAny(seen) {
			close(f.found)
			delete(t.finders, f)
		} else {
			f.passed.Store(&end)
		}
	}
}

// add adds what was read after the end.
func (t *tail) add(c chunk) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.valid {
		return
	}
	t.rows = append(t.rows, c.rows...)
	for _, r := range c.rows {
		t.bytes += len(r.values)
	}
	if n := len(c.rows); n > 0 {
		t.end = c.rows[n-1].cursor.position
	}
	if c.full {
		t.end = c.end
	} else {
		t.seen = c.head.xmin
		if complete := (position{xid: c.head.xmin}); t.end.compare(complete) < 0 {
			t.end = complete
		}
	}
	if len(t.rows) > keptEntries || t.bytes > keptBytes {
		n := 0
		for ; len(t.rows)-n > keptEntries/2 || t.bytes > keptBytes/2; n++ {
			t.bytes -= len(t.rows[n].values)
		}
		t.start = t.rows[n-1].cursor.position
		t.rows = slices.Clone(t.rows[n:]) // readers may hold what they have been given; the rest can be freed
	}
	if len(c.rows) > 0 {
		t.tell()
		t.tellFinders(c.rows)
	}
}

// follow reads the head while there are readers.
func (l *Log) follow(ctx context.Context) {
	for {
		select {
		case <-l.tail.wanted:
		case <-ctx.Done():
			return
		}
		poll := time.NewTicker(l.config.Poll)
		for !l.tail.idle(time.Now()) {
			woken := false
			select {
			case <-l.tail.woken:
				woken = true
			case <-poll.C:
			case <-ctx.Done():
			}
			if ctx.Err() != nil {
				break
			}
			if wait := l.advance(ctx, woken); wait > 0 {
				sleep(ctx, wait)
			}
			poll.Reset(l.config.Poll)
		}
		poll.Stop()
		l.tail.drop(nil, time.Time{})
	}
}

// advance reads what is new, and returns how long to wait before the next time.
func (l *Log) advance(ctx context.Context, woken bool) time.Duration {
	t := l.tail
	t.mu.Lock()
	valid, here, end, seen := t.valid, t.cluster, t.end, t.seen
	t.mu.Unlock()
	if !valid {
		return 0 // the reader that waits joins first
	}
	if !woken {
		// Nothing can be new below the watermark that was seen last.
		now, err := l.head(ctx)
		if err != nil {
			t.drop(err, time.Now())
			return failedFor
		}
		if now.cluster == here && now.xmin == seen {
			return 0
		}
	}
	c, err := l.fetch(ctx, end, mostEntries, all)
	if err != nil {
		t.drop(err, time.Now())
		return failedFor
	}
	if c.head.cluster != here {
		t.drop(nil, time.Time{}) // the readers set their cursors back, and join again
		return 0
	}
	if n := len(c.rows); n > 0 {
		l.hand(c.rows[n-1].cursor)
	}
	t.add(c)
	switch {
	case c.full:
		signal(t.woken)
		return 0
	case len(c.rows) > manyEntries:
		return longPause
	}
	return shortPause
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
