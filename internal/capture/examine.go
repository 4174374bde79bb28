package capture

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"upcall/internal/doctor"
)

const (
	// patience is how long a list waits for verdicts. An examination may take a second of CPU time.
	patience = 50 * time.Millisecond
	// examinedOfList is how many captures of a list are examined because of it: the intake needs the CPU,
	// too. The others are examined when their reports are asked for.
	examinedOfList = 10
	// examinationTime limits an examination that fetches a trusted key.
	examinationTime = 5 * time.Second
)

// A Summary is a capture in a list. Verdict and Summary are null until it is examined. A list has
// the latest examined, and does not wait for that.
type Summary struct {
	Entry
	Verdict *doctor.Verdict `json:"verdict"`
	Summary *string         `json:"summary"`
}

// An Examiner has the doctor examine captures, when someone looks at them and not before: a flood of
// refused callbacks costs no examinations. It examines one at a time, each once.
type Examiner struct {
	dir    *Dir
	doctor *doctor.Doctor
	logger *slog.Logger

	mu      sync.Mutex
	reports map[string]*Report // of captures that are kept
	wanted  []Entry            // in the order in which they will be examined
	wake    chan struct{}
	changed chan struct{} // closed when there is another report
}

// NewExaminer returns an examiner of the captures in a directory, which checks as the receiver does.
// The error is about the configuration.
func NewExaminer(dir *Dir, cfg doctor.Config) (*Examiner, error) {
	d, err := doctor.New(cfg)
	if err != nil {
		return nil, err
	}
	return &Examiner{dir: dir, doctor: d, logger: dir.cfg.Logger, reports: make(map[string]*Report),
		wake: make(chan struct{}, 1), changed: make(chan struct{})}, nil
}

// Kept lists all captures, the latest first.
func (e *Examiner) Kept() ([]Entry, error) { return e.dir.entries() }

// List returns the latest captures, of one reason if it is not "".
func (e *Examiner) List(ctx context.Context, reason string, limit int) ([]Summary, error) {
	kept, err := e.kept()
	if err != nil {
		return nil, err
	}
	if reason != "" {
		kept = slices.DeleteFunc(kept, func(one Entry) bool { return one.Reason != reason })
	}
	kept = kept[:min(len(kept), limit)]
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	e.examined(ctx, kept[:min(len(kept), examinedOfList)])
	list := make([]Summary, 0, len(kept))
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, one := range kept {
		s := Summary{Entry: one}
		if r := e.reports[one.Name]; r != nil {
			s.Verdict, s.Summary = &r.Verdict, &r.Summary
		}
		list = append(list, s)
	}
	return list, nil
}

// Report returns what the doctor says about a capture. The error wraps ErrNotKept if there is none, and
// that of ctx if there is no report in its time.
func (e *Examiner) Report(ctx context.Context, name string) (*Report, error) {
	kept, err := e.kept()
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(kept, func(one Entry) bool { return one.Name == name })
	if i < 0 {
		return nil, ErrNotKept
	}
	if r := e.examined(ctx, kept[i:i+1])[name]; r != nil {
		return r, nil
	}
	return nil, fmt.Errorf("examine capture: %w", ctx.Err())
}

// kept lists all captures, the latest first, and drops the reports about others.
func (e *Examiner) kept() ([]Entry, error) {
	kept, err := e.dir.entries()
	if err != nil {
		return nil, err
	}
	names := make(map[string]bool, len(kept))
	for _, one := range kept {
		names[one.Name] = true
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	maps.DeleteFunc(e.reports, func(name string, _ *Report) bool { return !names[name] })
	return kept, nil
}

// examined waits until there is a report about each of these captures, or ctx ends. They come first in
// the queue, because someone waits for them; those asked for longest ago are left out.
func (e *Examiner) examined(ctx context.Context, some []Entry) map[string]*Report {
	for first := true; ; first = false {
		found, missing := make(map[string]*Report), []Entry(nil)
		e.mu.Lock()
		for _, one := range some {
			if r := e.reports[one.Name]; r != nil {
				found[one.Name] = r
			} else {
				missing = append(missing, one)
			}
		}
		if first && len(missing) > 0 {
			others := slices.DeleteFunc(e.wanted, func(w Entry) bool { return slices.Contains(missing, w) })
			e.wanted = append(slices.Clone(missing), others...)
			e.wanted = e.wanted[:min(len(e.wanted), DefaultMaxFiles)]
		}
		changed := e.changed
		e.mu.Unlock()
		if len(missing) == 0 {
			return found
		}
		select {
		case e.wake <- struct{}{}:
		default:
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return found
		}
	}
}

// Run examines what is asked for until ctx ends.
func (e *Examiner) Run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-e.wake:
		}
		for ctx.Err() == nil {
			one, ok := e.next()
			if !ok {
				break
			}
			report := e.examine(ctx, one)
			e.mu.Lock()
			e.reports[one.Name] = report
			close(e.changed)
			e.changed = make(chan struct{})
			e.mu.Unlock()
		}
	}
}

func (e *Examiner) next() (one Entry, ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.wanted) == 0 {
		return one, false
	}
	one, e.wanted = e.wanted[0], e.wanted[1:]
	return one, true
}

// examine returns the report about a capture. A stranger chose its bytes: what goes wrong with it is
// the report, and a panic must not cost the process.
func (e *Examiner) examine(ctx context.Context, of Entry) (report *Report) {
	cannot := func(why string) *Report {
		return &Report{Entry: of, Verdict: doctor.CannotCheck, Summary: why, Causes: []Cause{}, Oddities: []Finding{},
			Refusals: []Refusal{}, Notes: []string{}, Headers: []Header{}}
	}
	defer func() {
		if p := recover(); p != nil {
			e.logger.ErrorContext(ctx, "capture cannot be examined", slog.String("name", of.Name), slog.Any("panic", p))
			report = cannot("the doctor failed; the receiver's log says more")
		}
	}()
	file, err := e.dir.read(of.Name)
	if errors.Is(err, ErrNotKept) {
		return cannot("it is no longer kept")
	}
	if err != nil {
		e.logger.WarnContext(ctx, "capture cannot be read", slog.String("name", of.Name), slog.String("error", err.Error()))
		return cannot("the file cannot be read; the receiver's log says why")
	}
	parsed, err := doctor.Parse(file, doctor.Raw, 0)
	if err != nil {
		return cannot(err.Error()) // shows nothing of the file
	}
	parsed.At = of.At
	ctx, cancel := context.WithTimeout(ctx, examinationTime)
	defer cancel()
	found, err := e.doctor.Examine(ctx, parsed)
	if err != nil {
		return cannot(newMask(parsed).text(err.Error()))
	}
	return show(of, parsed, found)
}
