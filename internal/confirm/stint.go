package confirm

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"

	"upcall/internal/event"
	"upcall/internal/feed"
)

// A stint is the work under one lease.
type stint struct {
	*Worker
	lease   *feed.Lease
	entries []feed.Entry // outlines that were read, are in the sample, and are not settled
	read    feed.Cursor  // after the last of them
	end     bool         // there were no more when they were read
}

// work confirms until the lease or ctx ends, or something goes wrong.
func (w *Worker) work(ctx context.Context, lease *feed.Lease) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(lease.Context(), cancel)()
	defer w.cursor.Store(nil)
	s := &stint{Worker: w, lease: lease, read: lease.Cursor()}
	for ctx.Err() == nil {
		cursor := lease.Cursor()
		w.cursor.Store(&cursor)
		if err := s.retry(ctx); err != nil {
			return err
		}
		if err := s.fill(ctx); err != nil {
			return err
		}
		settled, err := s.next(ctx)
		if err != nil {
			return err
		}
		if settled == 0 && (s.end || len(s.entries) > 0) {
			sleep(ctx, s.config.tick)
		}
	}
	return nil
}

// fill reads on if nothing is left. What comes of an event is in this database, so that its outline is
// enough.
func (s *stint) fill(ctx context.Context) error {
	if len(s.entries) > 0 {
		return nil
	}
	page, err := s.config.Log.Outline(ctx, s.read, pageSize)
	if gone := new(feed.GoneError); errors.As(err, &gone) {
		s.config.Logger.ErrorContext(ctx, "events were dropped before they were confirmed")
		page.Next, err = gone.Oldest, nil
	}
	if err != nil {
		return err
	}
	s.end = len(page.Entries) < pageSize
	for _, e := range page.Entries {
		if s.config.Mode.includes(e.Event.ID) {
			s.entries = append(s.entries, e)
		}
	}
	if s.read = page.Next; len(s.entries) == 0 && len(page.Entries) > 0 {
		s.lease.Skip(s.read)
	}
	return nil
}

// next settles the first events that are old enough, and returns how many.
func (s *stint) next(ctx context.Context) (n int, err error) {
	for n < min(chunk, len(s.entries)) && s.config.Now().Sub(s.entries[n].Event.ReceivedAt) >= s.config.Wait {
		n++
	}
	if n == 0 {
		return 0, nil
	}
	subjects, err := s.load(ctx, s.entries[:n])
	if err != nil {
		return 0, err
	}
	to := s.read
	if n < len(s.entries) {
		to = s.entries[n-1].Cursor
	}
	if err := s.settle(ctx, subjects, to); err != nil {
		return 0, err
	}
	s.entries = s.entries[n:]
	return n, nil
}

// retry looks again at events that are due.
func (s *stint) retry(ctx context.Context) error {
	for ctx.Err() == nil {
		due, err := s.due(ctx, s.config.Now(), chunk)
		if err != nil || len(due) == 0 {
			return err
		}
		if err := s.settle(ctx, due, s.lease.Cursor()); err != nil || len(due) < chunk {
			return err
		}
	}
	return nil
}

// settle looks at events and commits what became of them, with the cursor.
func (s *stint) settle(ctx context.Context, subjects []*subject, to feed.Cursor) error {
	if err := s.look(ctx, subjects); err != nil {
		return err
	}
	now := s.config.Now()
	bounded, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	err := s.lease.Commit(bounded, to, func(tx pgx.Tx) error { return write(bounded, tx, subjects, now) })
	if err != nil {
		return err
	}
	for _, one := range subjects {
		s.report(ctx, one)
	}
	return nil
}

// commitTimeout bounds a commit.
const commitTimeout = 5 * time.Second

// report counts what became of an event, and logs what people should know.
func (w *Worker) report(ctx context.Context, s *subject) {
	attrs := []any{slog.String("event_id", s.event.ID.String()), slog.String("bucket", s.event.Callback.Bucket),
		slog.String("object_key", s.event.Callback.Object)}
	if s.outcome == "" {
		if s.dueAt.IsZero() {
			w.metrics.dead.Inc()
			w.config.Logger.ErrorContext(ctx, "upload cannot be confirmed", append(attrs, slog.String("problem", s.problem))...)
		}
		return
	}
	w.metrics.outcomes.WithLabelValues(string(s.outcome)).Inc()
	if s.findingID() != nil {
		w.config.Logger.WarnContext(ctx, "upload is "+string(s.outcome), append(attrs, slog.String("found", string(s.found)))...)
	}
}

// load returns the events of outlines, without those that name no object, and those that have an outcome, or
// wait for one: they were read before. One that cannot be read has its problem.
func (s *stint) load(ctx context.Context, entries []feed.Entry) ([]*subject, error) {
	subjects, err := s.loadAll(ctx, entries)
	if unreadable := new(pgx.ScanArgError); !errors.As(err, unreadable) {
		return subjects, err
	} else if len(entries) == 1 {
		one := &event.Event{ID: entries[0].Event.ID, ReceivedAt: entries[0].Event.ReceivedAt}
		return []*subject{{event: one, problem: err.Error()}}, nil
	}
	for i := range entries {
		one, err := s.load(ctx, entries[i:i+1])
		if err != nil {
			return nil, err
		}
		subjects = append(subjects, one...)
	}
	return subjects, nil
}
