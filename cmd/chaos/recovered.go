package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"upcall/internal/event"
	"upcall/internal/eventstore"
)

// findAtOnce is how many events are recorded in one transaction, as folding does.
const findAtOnce = 32

// find records what notifications and listings have told, however often PostgreSQL fails meanwhile.
func (l *load) find(ctx context.Context, events []*event.Event) error {
	ctx, cancel := context.WithTimeout(ctx, settle)
	defer cancel()
	// Listings first; and no listing is in one transaction with a notification, because one may supersede the other.
	slices.SortStableFunc(events, func(a, b *event.Event) int { return strings.Compare(string(b.Source), string(a.Source)) })
	for len(events) > 0 {
		n := slices.IndexFunc(events, func(e *event.Event) bool { return e.Source != events[0].Source })
		if n < 0 {
			n = len(events)
		}
		n = min(n, findAtOnce)
		err := l.world.recover(ctx, events[:n])
		switch {
		case errors.Is(err, event.ErrUnavailable) && ctx.Err() == nil:
			time.Sleep(100 * time.Millisecond)
		case err != nil:
			return fmt.Errorf("record what was found: %w", err)
		default:
			events = events[n:]
		}
	}
	return nil
}

// recover records events past the proxy: its faults are for the receivers.
func (w *world) recover(ctx context.Context, events []*event.Event) error {
	pool, err := eventstore.Open(ctx, w.postgres.URL())
	if err != nil {
		return err
	}
	defer pool.Close()
	_, err = eventstore.Recover(ctx, pool, events)
	return err
}

// tell returns what tells of an upload beside its callback: a notification, with its token or without one; a listing;
// or both. Without a token, and in a listing, the upload may be taken for another that was issued for its key.
func (l *load) tell(number, how int, at time.Time) (events []*event.Event, err error) {
	told := func(source event.Source, of int) error {
		e, err := l.make.Event(number)
		if err != nil {
			return err
		}
		other, err := l.make.Event(of)
		if err != nil {
			return err
		}
		c := &e.Callback
		e.Source, e.UploadID, e.ReceivedAt = source, other.UploadID, at.Add(-2*time.Second)
		if source == event.SourceReconcile {
			c.RequestID, c.Operation = "", ""
		}
		e.ID = event.RecoveredID(source, c.Bucket, c.Object, c.RequestID, c.ETag, e.ReceivedAt)
		events = append(events, e)
		return nil
	}
	guess := number + max(l.make.Objects, 1)
	switch how % 6 {
	case 0:
		err = told(event.SourceNotification, number)
	case 1:
		err = told(event.SourceNotification, guess)
	case 2:
		err = told(event.SourceReconcile, number)
	case 3:
		err = told(event.SourceReconcile, guess)
	case 4:
		err = errors.Join(told(event.SourceReconcile, number), told(event.SourceNotification, number))
	case 5:
		err = errors.Join(told(event.SourceReconcile, guess), told(event.SourceNotification, number))
	}
	return events, err
}

// ranks are the sources, the best first.
var ranks = []event.Source{event.SourceCallback, event.SourceNotification, event.SourceReconcile}

// An account is which events tell of each upload, by its ETag, which is another for each.
type account map[string]map[event.Source]*event.Event

func (a account) add(e *event.Event) {
	of := a[e.Callback.ETag]
	if of == nil {
		of = make(map[event.Source]*event.Event)
		a[e.Callback.ETag] = of
	}
	of[e.Source] = e
}

// best returns how many uploads are to be counted by each source, how many events another takes the place of, and
// what is wrong with what events supersede.
func (a account) best() (counts map[event.Source]int, superseded int, wrong []string) {
	counts = make(map[event.Source]int)
	for etag, of := range a {
		var best *event.Event
		lesser := make(map[uuid.UUID]bool)
		for _, source := range ranks {
			e := of[source]
			switch {
			case e == nil:
			case best == nil:
				best = e
				counts[source]++
			default:
				lesser[e.ID] = true
			}
		}
		if best == nil {
			wrong = append(wrong, fmt.Sprintf("%s is of none of the sources", etag))
			continue
		}
		superseded += len(lesser)
		if s := best.Supersedes; s.Valid != (len(lesser) > 0) || s.Valid && !lesser[s.UUID] {
			wrong = append(wrong, fmt.Sprintf("the %s of %s supersedes %v, and %d events tell of the upload",
				best.Source, etag, s, len(of)))
		}
	}
	return counts, superseded, wrong
}
