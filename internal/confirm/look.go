package confirm

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"upcall/internal/event"
	"upcall/internal/fault"
	"upcall/internal/feed"
	"upcall/internal/oss"
	"upcall/internal/ossrule"
	"upcall/internal/rollup"
)

// An outcome is what is known of an event in the end. The view's words are the same.
type outcome string

const (
	confirmed   outcome = "confirmed"
	disputed            = outcome(event.Disputed)
	gone                = outcome(event.Gone)
	overwritten outcome = "overwritten" // the object is that of a later upload
)

// What an outcome rests on.
const (
	object       = "object"
	notification = "notification"
	listing      = "listing"
)

// A subject is an event that is to be confirmed, and what became of it.
type subject struct {
	event    *event.Event
	again    bool // it has a row of upcall.confirm_retries
	attempts int  // that failed, one after the other
	differed bool // the object was another one

	head   *oss.Head // the object, if it is there
	seenAt time.Time // when it was asked for

	outcome  outcome // "" if it waits
	lookedAt string
	found    json.RawMessage // nil unless it is a finding
	dueAt    time.Time       // when to look again; zero for a dead letter
	problem  string          // why
}

func (s *subject) is(o outcome, lookedAt string) { s.outcome, s.lookedAt = o, lookedAt }

// findingID returns the id of the finding that the outcome is; nil if it is none.
func (s *subject) findingID() *uuid.UUID {
	if s.outcome != disputed && s.outcome != gone {
		return nil
	}
	id := event.FindingID(s.event.ID, event.Kind(s.outcome))
	return &id
}

// schedule is when an event is looked at again after OSS could not say.
var schedule = []time.Duration{time.Minute, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 6 * time.Hour,
	12 * time.Hour, 24 * time.Hour, 24 * time.Hour}

const (
	// atOnce is how many requests are in flight at most.
	atOnce = 8
	// tries is how often an object is asked for at once while OSS cannot be reached.
	tries = 3
	// firstPause is the first pause while OSS throttles, and slowest the longest.
	firstPause, slowest = 250 * time.Millisecond, 30 * time.Second
	// rollupTime is how long an answer waits for the roll-ups to have read what was recorded before it, and
	// rollupAgain when they are looked at again after that.
	rollupTime, rollupPause, rollupAgain = 5 * time.Second, 50 * time.Millisecond, time.Minute
)

// look settles events, or says when to look again. The error is about the database; what OSS answers is
// never one.
func (w *Worker) look(ctx context.Context, subjects []*subject) error {
	told, err := w.notifications(ctx, subjects)
	if err != nil {
		return err
	}
	var asked []*subject
	for _, s := range subjects {
		switch n := told[s.event.ID]; {
		case s.problem != "": // it could not be read
		case s.event.Source == event.SourceNotification:
			s.is(confirmed, notification)
		case s.event.Source == event.SourceReconcile:
			s.is(confirmed, listing)
		case n != nil && n.agrees(s.event) && !s.differed:
			s.is(confirmed, notification)
		default:
			asked = append(asked, s)
		}
	}
	if err := w.ask(ctx, asked); err != nil {
		return err
	}
	return w.weigh(ctx, slices.DeleteFunc(asked, func(s *subject) bool { return s.outcome != "" || s.problem != "" }))
}

// ask asks OSS for objects. Those that are as they should be are confirmed; those without an answer get
// their problem.
func (w *Worker) ask(ctx context.Context, subjects []*subject) error {
	var group sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	for _, s := range subjects {
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			w.askFor(ctx, s)
		})
	}
	group.Wait()
	return ctx.Err()
}

func (w *Worker) askFor(ctx context.Context, s *subject) {
	c := &s.event.Callback
	if err := fault.Join(ossrule.CheckBucket(c.Bucket), ossrule.CheckKey(c.Object)); err != nil {
		s.problem = fault.Line(err.Error()) // nothing can be asked, ever
		return
	}
	for n := 1; ctx.Err() == nil; n++ {
		sent, err := w.pace.wait(ctx)
		if err != nil {
			return
		}
		s.seenAt = w.config.Now()
		head, err := w.config.OSS.Head(ctx, c.Bucket, c.Object)
		answer, answered := errors.AsType[*oss.ServiceError](err)
		switch {
		case err == nil:
			w.metrics.requests.WithLabelValues("found").Inc()
			w.pace.fine(sent, head.Delay)
			if s.head = &head; len(differs(s.event, &head.Size, head.ETag, head.CRC64)) == 0 {
				s.is(confirmed, object)
			}
			return
		case errors.Is(err, oss.ErrNoObject) && answer.RequestID != "": // else it is not from OSS
			w.metrics.requests.WithLabelValues("missing").Inc()
			w.pace.fine(sent, 0)
			return
		case errors.Is(err, oss.ErrThrottled):
			w.metrics.requests.WithLabelValues("throttled").Inc()
			w.pace.slow(sent, answer.Delay)
			n = 0 // however long it takes
			continue
		}
		w.metrics.requests.WithLabelValues("failed").Inc()
		if ctx.Err() != nil {
			return
		}
		w.warn(ctx, "object cannot be looked at", err)
		if away := !answered || answer.Status >= 500; !away || n >= tries {
			s.problem = fault.Line(err.Error())
			s.wait(w.config.Now(), schedule)
			return
		}
		sleep(ctx, firstPause<<n)
	}
}

// wait has the event looked at again after the next step of a schedule, if there is one.
func (s *subject) wait(now time.Time, steps []time.Duration) {
	if s.dueAt = (time.Time{}); s.attempts < len(steps) {
		s.dueAt = now.Add(steps[s.attempts])
	}
	s.attempts++
}

// weigh decides on events whose objects are not there, or differ.
func (w *Worker) weigh(ctx context.Context, suspects []*subject) error {
	if len(suspects) == 0 {
		return nil
	}
	caughtUp, err := w.rollupsCaughtUp(ctx)
	if err != nil {
		return err
	}
	if !caughtUp {
		for _, s := range suspects {
			s.problem, s.dueAt = "roll-ups are behind", w.config.Now().Add(rollupAgain)
		}
		return nil
	}
	over, err := w.overwritten(ctx, suspects)
	if err != nil {
		return err
	}
	for _, s := range suspects {
		switch {
		case over[s.event.ID]:
			s.is(overwritten, object)
		case s.head == nil:
			s.is(gone, object)
			s.found = found(nil, nil)
		case s.differed:
			s.is(disputed, object)
			s.found = found(s.head, differs(s.event, &s.head.Size, s.head.ETag, s.head.CRC64))
		default:
			s.differed, s.attempts, s.problem = true, 0, "the object is another one; a later upload may explain it"
			s.dueAt = w.config.Now().Add(w.config.Grace)
		}
	}
	return nil
}

// rollupsCaughtUp waits until the roll-ups have read what is in the log now, but not long.
func (w *Worker) rollupsCaughtUp(ctx context.Context) (bool, error) {
	now, err := w.config.Log.Now(ctx)
	if err != nil {
		return false, err
	}
	for began := time.Now(); time.Since(began) < rollupTime; {
		consumers, err := feed.ListConsumers(ctx, w.config.Pool)
		if err != nil {
			return false, err
		}
		i := slices.IndexFunc(consumers, func(c feed.Consumer) bool { return c.Name == rollup.Consumer })
		if i >= 0 {
			lag, err := w.config.Log.Lag(ctx, consumers[i].Cursor)
			if err != nil {
				return false, err
			}
			if lag.Events == 0 || consumers[i].Cursor.Covers(now) {
				return true, nil
			}
		}
		if !sleep(ctx, rollupPause) {
			return false, ctx.Err()
		}
	}
	return false, nil
}

// warn logs trouble, but not the same all the time.
func (w *Worker) warn(ctx context.Context, what string, err error) {
	w.mu.Lock()
	recently := time.Since(w.warned[what]) < warnEvery
	if !recently {
		w.warned[what] = time.Now()
	}
	w.mu.Unlock()
	if !recently {
		w.config.Logger.WarnContext(ctx, what, slog.String("error", err.Error()))
	}
}
