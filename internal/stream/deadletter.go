package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"

	"upcall/internal/kept"
)

// A deadMessage is a dead letter, as it is in the stream.
type deadMessage struct {
	id       uuid.UUID
	subject  string
	sequence uint64
	frame    []byte
}

// eachDead calls visit for each message under the subjects of dead letters, in their order. A dead letter that was
// kept twice has two.
func (s *Stream) eachDead(ctx context.Context, visit func(deadMessage) error) error {
	return s.each(ctx, s.config.dead("*"), func(m *jetstream.RawStreamMsg) error {
		id, err := uuid.Parse(s.config.deadID(m.Subject))
		if err != nil {
			return nil //nolint:nilerr // a stranger's
		}
		return visit(deadMessage{id, m.Subject, m.Sequence, m.Data})
	})
}

// each calls visit for the messages under a subject that are in the stream now. It takes none away from receivers.
func (s *Stream) each(ctx context.Context, subject string, visit func(*jetstream.RawStreamMsg) error) error {
	stream := s.handle()
	if stream == nil {
		return s.usable()
	}
	info, err := stream.Info(ctx)
	if err != nil {
		return err
	}
	for sequence := info.State.FirstSeq; sequence <= info.State.LastSeq; sequence++ {
		message, err := stream.GetMsg(ctx, sequence, jetstream.WithGetMsgSubject(subject))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if sequence = message.Sequence; sequence > info.State.LastSeq {
			return nil
		}
		if err := visit(message); err != nil {
			return err
		}
	}
	return nil
}

// Read calls visit for each callback in the stream: those that wait, in order, then the dead letters.
func (s *Stream) Read(ctx context.Context, visit func(kept.Entry) error) error {
	err := s.readWaiting(ctx, once(visit))
	if err == nil {
		err = s.ReadDead(ctx, visit)
	}
	if err != nil {
		return fmt.Errorf("read stream %s: %w", s.config.Name, err)
	}
	return nil
}

// readWaiting calls visit for each callback that waits.
func (s *Stream) readWaiting(ctx context.Context, visit func(kept.Entry) error) error {
	return s.each(ctx, s.config.waiting(), func(m *jetstream.RawStreamMsg) error {
		e := show(uuid.NewSHA1(uuid.NameSpaceOID, m.Data), m.Data)
		if e.Reason != "" { // what is no record will be a dead letter
			return nil
		}
		return visit(e)
	})
}

// once returns a visit that does nothing with an entry that it has seen before.
func once(visit func(kept.Entry) error) func(kept.Entry) error {
	seen := make(map[uuid.UUID]bool)
	return func(e kept.Entry) error {
		if seen[e.ID] {
			return nil
		}
		seen[e.ID] = true
		return visit(e)
	}
}

// ReadDead calls visit for each dead letter.
func (s *Stream) ReadDead(ctx context.Context, visit func(kept.Entry) error) error {
	visit = once(visit)
	return s.eachDead(ctx, func(d deadMessage) error { return visit(show(d.id, d.frame)) })
}

// show returns the entry of a message.
func show(id uuid.UUID, frame []byte) kept.Entry {
	e, err := kept.Show(frame)
	if err == nil {
		return e
	}
	line, jsonErr := json.Marshal(struct {
		ID       uuid.UUID         `json:"id"`
		Record   []byte            `json:"record"`
		Rejected map[string]string `json:"rejected"`
	}{id, frame, map[string]string{"reason": err.Error()}})
	if jsonErr != nil { // cannot happen
		line = []byte("{}")
	}
	return kept.Entry{ID: id, Reason: err.Error(), JSON: line}
}

// Retry queues dead letters again, and calls visit for each that is. Unless all IDs are those of dead letters, nothing
// changes, and the error wraps [ErrNoDeadLetter].
func (s *Stream) Retry(ctx context.Context, ids []uuid.UUID, visit func(kept.Entry) error) error {
	return s.change(ctx, "retry", ids, visit, func(d deadMessage) error {
		frame := d.frame
		if _, err := kept.Check(frame); err == nil {
			frame = kept.Flagged(frame, false)
		}
		if r, err := kept.Decode(d.frame); err == nil { // perhaps it is for another version to decode
			r.Dead = nil
			if encoded, err := kept.Encode(r); err == nil {
				frame = encoded
			}
		}
		// Without an ID: the servers may know that of the callback, and would drop the message.
		_, _, err := s.publish(ctx, s.config.waiting(), "", frame)
		return err
	})
}

// Discard deletes dead letters permanently, and calls visit for each. Its errors are those of [Stream.Retry].
func (s *Stream) Discard(ctx context.Context, ids []uuid.UUID, visit func(kept.Entry) error) error {
	return s.change(ctx, "discard", ids, visit, func(deadMessage) error { return nil })
}

// change changes dead letters, and logs that.
func (s *Stream) change(ctx context.Context, action string, ids []uuid.UUID, visit func(kept.Entry) error,
	work func(deadMessage) error,
) error {
	changed := 0
	err := s.takeAway(ctx, ids, func(e kept.Entry) error { changed++; return visit(e) }, work)
	attrs := []slog.Attr{slog.String("action", action), slog.Int("changed", changed)}
	if err != nil {
		attrs = append(attrs, slog.String("error", err.Error()))
	}
	s.config.Logger.LogAttrs(ctx, slog.LevelInfo, "dead letters changed on request", attrs...)
	return err
}

// takeAway works on each of the dead letters with these IDs, then takes it away, with all messages that there were of it.
func (s *Stream) takeAway(ctx context.Context, ids []uuid.UUID, visit func(kept.Entry) error, work func(deadMessage) error) error {
	last := make(map[uuid.UUID]deadMessage)
	err := s.eachDead(ctx, func(d deadMessage) error { last[d.id] = d; return nil })
	if err != nil {
		return fmt.Errorf("read dead letters of stream %s: %w", s.config.Name, err)
	}
	ids = slices.Clone(ids)
	for i, id := range ids {
		if _, there := last[id]; !there || slices.Contains(ids[:i], id) {
			return fmt.Errorf("%w: %s: receiver stream list shows all", ErrNoDeadLetter, id)
		}
	}
	for _, id := range ids {
		d := last[id]
		if err := work(d); err != nil {
			return fmt.Errorf("change dead letter %s: %w", id, err)
		}
		// Not what was added since: that is another one.
		err := s.handle().Purge(ctx, jetstream.WithPurgeSubject(d.subject), jetstream.WithPurgeSequence(d.sequence+1))
		if err != nil {
			return fmt.Errorf("take dead letter %s away: %w", id, err)
		}
		s.mu.Lock()
		if _, there := s.dead[id]; there {
			delete(s.dead, id)
			s.stats.DeadLetters--
		}
		s.mu.Unlock()
		if err := visit(show(id, d.frame)); err != nil {
			return err
		}
	}
	return nil
}

// DeadLetters returns the IDs of all dead letters.
func (s *Stream) DeadLetters(ctx context.Context) (ids []uuid.UUID, err error) {
	err = s.ReadDead(ctx, func(e kept.Entry) error { ids = append(ids, e.ID); return nil })
	return ids, err
}
