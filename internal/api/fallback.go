package api

import (
	"bytes"
	"context"
	"errors"
	"slices"

	"github.com/google/uuid"

	"upcall/internal/fault"
	"upcall/internal/kept"
	"upcall/internal/spool"
	replicated "upcall/internal/stream"
)

// A Fallback is where callbacks wait while PostgreSQL does not take them, as [OfSpool] or [OfStream] returns it. The two
// differ in what they can tell, and in whom they have to ask.
type Fallback interface {
	// state returns what it holds. It asks no server.
	state() SpoolState
	// letters returns dead letters, at most so many.
	letters(ctx context.Context, most int) ([]kept.Entry, error)
	// change retries or discards dead letters, all of them or those with these IDs, and returns their number.
	change(ctx context.Context, action string, all bool, ids []uuid.UUID) (changed int, err error)
}

// OfSpool returns the spool of this receiver.
func OfSpool(s *spool.Spool) Fallback { return spoolFallback{s} }

// OfStream returns the stream that all receivers share.
func OfStream(s *replicated.Group) Fallback { return streamFallback{s} }

// Waits returns the kind of where callbacks wait: "spool", "stream", or "" without either.
func (s *Server) Waits() string {
	if s.cfg.Fallback == nil {
		return ""
	}
	return s.cfg.Fallback.state().Kind
}

type spoolFallback struct{ *spool.Spool }

func (s spoolFallback) state() SpoolState {
	stats := s.Stats()
	state := SpoolState{Kind: "spool", Waiting: stats.Queued, Bytes: stats.Bytes, DeadLetters: stats.DeadLetters, Damaged: stats.Damaged}
	if !stats.Oldest.IsZero() {
		state.Oldest = new(stats.Oldest.UTC())
	}
	state.explain(s.Ready())
	return state
}

func (s spoolFallback) letters(_ context.Context, most int) ([]kept.Entry, error) {
	return s.Spool.DeadLetters(most)
}

func (s spoolFallback) change(ctx context.Context, action string, all bool, ids []uuid.UUID) (changed int, err error) {
	err = s.Change(ctx, spool.Request{Action: action, All: all, Events: ids}, func(kept.Entry) error { changed++; return nil })
	if errors.Is(err, spool.ErrNoDeadLetter) {
		return changed, &problem{kind: kindNotFound, detail: fault.Line(err.Error())}
	}
	return changed, err
}

type streamFallback struct{ *replicated.Group }

func (s streamFallback) state() SpoolState {
	stats := s.Stats()
	state := SpoolState{Kind: "stream", Waiting: stats.Queued, Bytes: stats.Bytes,
		DeadLetters: stats.DeadLetters, Replicas: new(stats.Replicas)}
	if !stats.Oldest.IsZero() {
		state.Oldest = new(stats.Oldest.UTC())
	}
	for _, p := range s.Parts() {
		state.Streams = append(state.Streams, StreamState{p.Name, p.Stats.Replicas, p.Stats.Queued, p.Stats.Bytes, p.Stats.DeadLetters})
	}
	state.explain(s.Trouble())
	return state
}

var errEnough = errors.New("enough dead letters")

func (s streamFallback) letters(ctx context.Context, most int) (letters []kept.Entry, err error) {
	err = s.ReadDead(ctx, func(e kept.Entry) error {
		if letters = append(letters, e); len(letters) == most {
			return errEnough
		}
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return nil, silent(err)
	}
	return letters, nil
}

func (s streamFallback) change(ctx context.Context, action string, all bool, ids []uuid.UUID) (changed int, err error) {
	work := s.Retry
	if action == spool.ActionDiscard {
		work = s.Discard
	}
	if all {
		if ids, err = s.Group.DeadLetters(ctx); err != nil {
			return 0, silent(err)
		}
	}
	ids = slices.Clone(ids)
	slices.SortFunc(ids, func(a, b uuid.UUID) int { return bytes.Compare(a[:], b[:]) })
	err = work(ctx, slices.Compact(ids), func(kept.Entry) error { changed++; return nil })
	if errors.Is(err, replicated.ErrNoDeadLetter) {
		return changed, &problem{kind: kindNotFound, detail: fault.Line(err.Error())}
	} else if err != nil {
		return changed, silent(err)
	}
	return changed, nil
}

// silent returns the problem of servers that do not answer.
func silent(err error) error {
	return &problem{kind: kindUnavailable, detail: "the stream did not answer in time; try again, or use receiver stream", cause: err}
}

// explain says why no callback is taken.
func (s *SpoolState) explain(err error) {
	if err != nil {
		s.Problem = new(fault.Line(err.Error()))
	}
}
