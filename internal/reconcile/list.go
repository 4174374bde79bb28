package reconcile

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"upcall/internal/oss"
)

// A listing reads a bucket, in parts that workers share.
type listing struct {
	*run
	mu    sync.Mutex
	parts []*part
	pages int        // read in this process
	looks int        // for a place to split
	free  *sync.Cond // a part is free, or all are done
	err   error      // of a worker
}

// list copies the bucket's listing to the table.
func (r *run) list(ctx context.Context) error {
	parts, err := decodeParts[*part](r.record.parts)
	if err != nil {
		return err
	}
	if len(parts) == 0 {
		parts = []*part{{}}
	}
	l := &listing{run: r, parts: parts}
	l.free = sync.NewCond(&l.mu)
	group, ctx := errgroup.WithContext(ctx)
	defer context.AfterFunc(ctx, func() { l.stop(context.Cause(ctx)) })()
	for range r.Parallel {
		group.Go(func() error {
			err := l.work(ctx)
			if err != nil {
				l.stop(err)
			}
			return err
		})
	}
	return group.Wait()
}

// stop wakes the workers that wait.
func (l *listing) stop(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.err = err
	}
	l.free.Broadcast()
}

// work reads parts until there are none.
func (l *listing) work(ctx context.Context) error {
	for {
		p, at, err := l.next()
		if err != nil || p == nil {
			return err
		}
		if at != "" {
			err = l.split(ctx, p, at)
		} else {
			err = l.read(ctx, p)
		}
		if err != nil {
			return err
		}
	}
}

// next returns a part to read, or one to split at a key, and nil if all is listed.
func (l *listing) next() (p *part, at string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		if l.err != nil {
			return nil, "", l.err
		}
		open := 0
		for _, p := range l.parts {
			if !p.Done {
				open++
				if !p.busy {
					p.busy = true
					return p, "", nil
				}
			}
		}
		if open == 0 {
			l.free.Broadcast()
			return nil, "", nil
		}
		if p, at := l.worthSplitting(); p != nil {
			l.looks++
			p.split = true
			return p, at, nil
		}
		l.free.Wait()
	}
}

// worthSplitting returns the part of which the most was read, because it likely has the most to come.
func (l *listing) worthSplitting() (best *part, at string) {
	if len(l.parts) >= maxParts {
		l.parts = l.withoutDone()
	}
	if len(l.parts) >= maxParts || l.looks*pagesForSplit > l.pages {
		return nil, ""
	}
	for _, p := range l.parts {
		if p.Done || p.split || p.pages < splitAfter || best != nil && p.pages <= best.pages {
			continue
		}
		if key, ok := splitKey(l.Prefix, string(p.After), string(p.Until), p.wide); ok {
			best, at = p, key
		}
	}
	return best, at
}

// withoutDone leaves out parts that are done, but for the last: what they covered is in the table.
func (l *listing) withoutDone() (open []*part) {
	for _, p := range l.parts {
		if !p.Done {
			open = append(open, p)
		}
	}
	if len(open) == 0 {
		return l.parts[:1]
	}
	return open
}

// split lists what comes after a key. If that is something, it is the first page of a new part.
func (l *listing) split(ctx context.Context, p *part, at string) error {
	page, err := l.caller.list(ctx, oss.Listing{Bucket: l.Bucket, Prefix: l.Prefix, After: at})
	if err != nil {
		return err
	}
	l.mu.Lock()
	p.split = false
	if p.Done || at <= string(p.After) || len(p.Until) > 0 && at >= string(p.Until) { // meanwhile
		l.free.Broadcast()
		l.mu.Unlock()
		return nil
	}
	upper := &part{After: []byte(at), Until: p.Until, busy: true, wide: true}
	within := objectsUntil(page, upper)
	p.Until = []byte(at)
	if len(within.Objects) == 0 {
		l.free.Broadcast() // the end is nearer now
		l.mu.Unlock()
		return nil
	}
	p.wide = true
	l.parts = append(l.parts, upper)
	l.mu.Unlock()
	return l.store(ctx, upper, within)
}

// read lists the next page of a part.
func (l *listing) read(ctx context.Context, p *part) error {
	page, err := l.caller.list(ctx, oss.Listing{Bucket: l.Bucket, Prefix: l.Prefix, After: string(p.After)})
	if err != nil {
		return err
	}
	return l.store(ctx, p, page)
}

// objectsUntil leaves out what is not in the part.
func objectsUntil(page oss.Page, p *part) oss.Page {
	if len(p.Until) == 0 {
		return page
	}
	for i, o := range page.Objects {
		if o.Key > string(p.Until) {
			return oss.Page{Objects: page.Objects[:i]}
		}
	}
	return page
}

// store copies a page of a part that this worker has, with how far the listing is, and gives it back.
func (l *listing) store(ctx context.Context, p *part, page oss.Page) error {
	l.saving.Lock() // before the parts are written down, so that a later page is not overtaken
	defer l.saving.Unlock()
	l.mu.Lock()
	page = objectsUntil(page, p) // which may have been split
	if n := len(page.Objects); n > 0 {
		p.After = []byte(page.Objects[n-1].Key)
	}
	p.Done = !page.More || len(p.Until) > 0 && string(p.After) >= string(p.Until)
	p.pages++
	l.pages++
	text, err := json.Marshal(l.withoutDone())
	l.mu.Unlock()
	if err != nil {
		return fmt.Errorf("write parts of the run: %w", err)
	}
	next := l.record
	next.parts = text
	next.counts.Listed += int64(len(page.Objects))
	rows := make([]object, 0, len(page.Objects))
	for _, o := range page.Objects {
		if !storable(o.Key) { // nobody issued an upload to it: the ledger cannot hold it either
			next.counts.Foreign++
			continue
		}
		rows = append(rows, object{key: o.Key, etag: o.ETag, size: &o.Size, modified: o.LastModified})
	}
	if err := l.commitLocked(ctx, next, func(tx pgx.Tx) error { return l.copy(ctx, tx, rows) }); err != nil {
		return err
	}
	l.report()
	l.mu.Lock()
	defer l.mu.Unlock()
	p.busy = false
	l.free.Broadcast()
	return nil
}

// An object is a row of reconcile_objects.
type object struct {
	key      string
	etag     string    // "" if it is not known
	size     *int64    // nil if it is not known
	modified time.Time // zero if it is not known
}

func (r *run) copy(ctx context.Context, tx pgx.Tx, rows []object) error {
	if len(rows) == 0 {
		return nil
	}
	_, err := tx.CopyFrom(ctx, pgx.Identifier{"upcall", "reconcile_objects"},
		[]string{"run_id", "object_key", "etag", "size", "last_modified"},
		pgx.CopyFromSlice(len(rows), func(i int) ([]any, error) {
			o := &rows[i]
			return []any{r.id, o.key, nullText(o.etag), o.size, nullTime(o.modified)}, nil
		}))
	if err != nil {
		return fmt.Errorf("store listing: %w", err)
	}
	return nil
}

func nullText(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func nullTime(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// storable reports whether PostgreSQL can hold a key.
func storable(key string) bool { return utf8.ValidString(key) && strings.IndexByte(key, 0) < 0 }
