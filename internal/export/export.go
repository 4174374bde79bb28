package export

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"upcall/internal/event"
	"upcall/internal/eventstore"
	"upcall/internal/fault"
)

// ErrDropped says that retention dropped events while they were read.
var ErrDropped = errors.New("events were dropped by retention while they were read")

// ErrOther says that a directory holds an export that this one must not mix with.
var ErrOther = errors.New("the directory holds another export")

// ErrTaken says that another process writes the same file.
var ErrTaken = errors.New("another process is writing it")

// A Source has the events: an [eventstore.Pages].
type Source interface {
	First(ctx context.Context, span eventstore.Span) (time.Time, bool, error)
	Next(ctx context.Context, span eventstore.Span, after eventstore.Place, limit int) ([]*event.Event, error)
	Month(ctx context.Context, at time.Time) (int64, error)
}

// Config is what to export. All fields but Since, Until, Bucket and Report are required.
type Config struct {
	Source Source
	Target Target
	Format Format

	// Since and Until bound received_at: from Since on, before Until. Zero is from the oldest
	// event, and until now. A target with a file for each day has whole days only.
	Since, Until time.Time
	Bucket       string // of this bucket only; default any

	Now    func() time.Time // the clock
	Report func(Progress)   // is called after each page
}

// Progress says how far an export is.
type Progress struct {
	Rows     int64
	Bytes    int64   // written, compressed if the format is
	Share    float64 // of the time between the first event and the end, from 0 to 1
	Continue bool    // the run continues one that was interrupted
}

// Check returns all mistakes, joined.
func (c Config) Check() error {
	var faults fault.List
	if !c.Since.IsZero() && !c.Until.IsZero() && !c.Since.Before(c.Until) {
		faults.AddAt("until", "%s is not after since", c.Until.UTC().Format(time.RFC3339))
	}
	if c.Target.daily {
		for _, bound := range []struct {
			name string
			at   time.Time
		}{{"since", c.Since}, {"until", c.Until}} {
			if !bound.at.IsZero() && !bound.at.Equal(dayOf(bound.at)) {
				// It would replace the file of a whole day by one of a part of it.
				faults.AddNew(nil, bound.name, "give a day such as 2026-11-26, or write to a file",
					"%s is within a day in UTC, and a directory has a file for each whole day", bound.at.UTC().Format(time.RFC3339))
			}
		}
	}
	return faults.Err()
}

// Run exports. It ends early, and leaves no incomplete file, if ctx ends.
func Run(ctx context.Context, cfg Config) (Progress, error) {
	if err := cfg.Check(); err != nil {
		return Progress{}, err
	}
	if cfg.Report == nil {
		cfg.Report = func(Progress) {}
	}
	run := &run{Config: cfg, span: eventstore.Span{Since: cfg.Since, Until: cfg.Until, Bucket: cfg.Bucket}}
	if cfg.Until.IsZero() {
		run.span.Until = cfg.Now()
	}
	var err error
	if cfg.Target.daily {
		err = run.days(ctx)
	} else {
		err = run.whole(ctx)
	}
	return run.progress, err
}

// A run is one export while it runs.
type run struct {
	Config
	span     eventstore.Span // with both bounds
	began    time.Time       // of the first event
	progress Progress
}

// whole writes everything to one file.
func (r *run) whole(ctx context.Context) error {
	f, err := r.Target.create(ctx, "")
	if err != nil {
		return err
	}
	return r.write(ctx, f, func(out encoder) error {
		return r.eachDay(ctx, func(day eventstore.Span) error { return r.copy(ctx, day, out) })
	})
}

// days writes a file for each day that has events, except those that are in the state.
func (r *run) days(ctx context.Context) error {
	s, err := r.resume(ctx)
	if err != nil {
		return err
	}
	r.span.Until = s.Until
	err = r.eachDay(ctx, func(day eventstore.Span) error {
		name := day.Since.Format(time.DateOnly)
		if _, done := s.Days[name]; done {
			return nil
		}
		f, err := r.Target.create(ctx, "day="+name+"/part-0."+r.Format.extension)
		if err != nil {
			return err
		}
		before := r.progress
		if err := r.write(ctx, f, func(out encoder) error { return r.copy(ctx, day, out) }); err != nil {
			return err
		}
		s.Days[name] = done{r.progress.Rows - before.Rows, r.progress.Bytes - before.Bytes}
		return r.Target.save(ctx, r.stateName(), s)
	})
	if err != nil {
		return err
	}
	ended := r.Now().UTC()
	s.EndedAt = &ended
	return r.Target.save(ctx, r.stateName(), s)
}

// eachDay calls visit for each day of the span that has events.
func (r *run) eachDay(ctx context.Context, visit func(eventstore.Span) error) error {
	for from := r.span.Since; ; {
		rest := r.span
		rest.Since = from
		first, there, err := r.Source.First(ctx, rest)
		if err != nil || !there {
			return err
		}
		if r.began.IsZero() {
			r.began = first
		}
		day := rest
		if begins := dayOf(first); begins.After(day.Since) {
			day.Since = begins
		}
		if ends := dayOf(first).AddDate(0, 0, 1); ends.Before(day.Until) {
			day.Until = ends
		}
		if err := visit(day); err != nil {
			return err
		}
		from = day.Until
		r.report(from)
	}
}

// write has fill write to a file, which is there afterwards only if all went well.
func (r *run) write(ctx context.Context, f file, fill func(encoder) error) (err error) {
	counted := &counter{w: f, n: &r.progress.Bytes}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.discard(context.WithoutCancel(ctx)))
		}
	}()
	out, err := r.Format.begin(counted)
	if err != nil {
		return fmt.Errorf("write %s: %w", r.Format.extension, err)
	}
	if err := fill(out); err != nil {
		return err
	}
	if err := out.end(); err != nil {
		return fmt.Errorf("write %s: %w", r.Format.extension, err)
	}
	return f.commit(ctx)
}

// copy writes the events of a day, or of a part of it.
func (r *run) copy(ctx context.Context, day eventstore.Span, out encoder) error {
	month, err := r.Source.Month(ctx, day.Since)
	if err != nil {
		return err
	}
	var after eventstore.Place
	for limit := firstPage; ; {
		page, err := r.Source.Next(ctx, day, after, limit)
		if err != nil {
			return err
		}
		if len(page) == 0 {
			break
		}
		for _, e := range page {
			if err := out.add(e); err != nil {
				return fmt.Errorf("write event %s: %w", e.ID, err)
			}
		}
		// Large events make small pages, and what was asked for in vain was read in vain.
		limit = 2 * len(page)
		last := page[len(page)-1]
		after = eventstore.Place{At: last.ReceivedAt, ID: last.ID}
		r.progress.Rows += int64(len(page))
		r.report(last.ReceivedAt)
	}
	// A page of a partition that is gone is empty, like the end of the day.
	now, err := r.Source.Month(ctx, day.Since)
	if err == nil && now != month {
		err = fault.New(ErrDropped, "", "export again with a later --since", "%s: %s", ErrDropped, day.Since.Format("2006-01"))
	}
	return err
}

const firstPage = 1024

func (r *run) report(through time.Time) {
	if all := r.span.Until.Sub(r.began); all > 0 {
		r.progress.Share = min(1, through.Sub(r.began).Seconds()/all.Seconds())
	}
	r.Report(r.progress)
}

func dayOf(t time.Time) time.Time { return t.UTC().Truncate(24 * time.Hour) }

// A counter counts bytes.
type counter struct {
	w io.Writer
	n *int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	*c.n += int64(n)
	return n, err
}
