package stream

import (
	"context"
	"fmt"
	"slices"

	"upcall/internal/event"
	"upcall/internal/kept"
)

// Erase erases what the requests, which are all that there are, ask for from the dead letters. PostgreSQL does so for
// the callbacks that wait, when they are recorded; remains of those stay in the servers' files until they are
// compacted. It returns how many dead letters it has changed.
func (s *Stream) Erase(ctx context.Context, requests []event.Erasure) (erased int, err error) {
	sorted := slices.SortedStableFunc(slices.Values(requests), func(a, b event.Erasure) int { return b.Before.Compare(a.Before) })
	s.mu.Lock()
	s.erasures = sorted
	s.mu.Unlock()
	err = s.eachDead(ctx, func(d deadMessage) error {
		r, err := kept.Decode(d.frame)
		if err != nil || !s.erase(&r.Event) {
			return nil //nolint:nilerr // of another version: docs/stream.md says so
		}
		without, err := kept.Encode(r)
		if err != nil {
			return err
		}
		if _, _, err := s.publish(ctx, d.subject, "", without); err != nil {
			return err
		}
		if err := s.handle().SecureDeleteMsg(ctx, d.sequence); err != nil {
			return err
		}
		erased++
		return nil
	})
	if err != nil {
		return erased, fmt.Errorf("erase dead letters of the stream: %w", err)
	}
	return erased, nil
}

// erase erases what was asked for from an event that this process has for itself, and reports whether it changed.
func (s *Stream) erase(e *event.Event) bool {
	s.mu.Lock()
	erasures := s.erasures
	s.mu.Unlock()
	for _, x := range erasures {
		if !e.ReceivedAt.Before(x.Before) {
			return false
		}
		if x.Matches(e) && (len(e.Callback.Vars) > 0 || e.Callback.ClientIP.IsValid()) {
			e.Erase()
			return true
		}
	}
	return false
}
