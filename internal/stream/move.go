package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"

	"upcall/internal/event"
	"upcall/internal/kept"
)

// tryAgain is the pause before the next attempt to move an event that could not be moved. Others have their turn
// meanwhile.
const tryAgain = 300 * time.Millisecond

// silence is how long the client waits for an answer to a request for messages that wait now.
const silence = time.Second

var errHandOut = errors.New("stream hands out no callbacks")

// handed is a message that was handed out to this receiver.
type handed struct {
	jetstream.Msg
	id     uuid.UUID
	record *kept.Record // nil if it cannot be decoded
	err    error        // from decoding or recording it
}

// Move calls record for up to most of the events that wait, all at once so that they can share a commit. It
// acknowledges those that are recorded to the stream, which then deletes them, and returns their number.
//
// An event that kept.Judge calls dead becomes a dead letter, and Move logs that. So does a message that cannot be
// decoded. An event that cannot be recorded now stays in the stream, and Move returns record's error: it is handed out
// again after a moment, so that it does not hold up the others, or at once to another receiver if ctx has ended.
func (s *Stream) Move(
	ctx context.Context, record func(context.Context, *event.Event) (duplicate bool, err error), most int,
) (moved int, err error) {
	events, err := s.fetch(ctx, most)
	var group sync.WaitGroup
	for _, w := range events {
		if w.record != nil {
			group.Go(func() { _, w.err = record(ctx, &w.record.Event) })
		}
	}
	group.Wait()
	for _, w := range events {
		done, problem := s.settle(ctx, w)
		if done {
			moved++
		}
		err = errors.Join(err, problem)
	}
	s.mu.Lock()
	s.stats.Queued = max(s.stats.Queued-moved, 0)
	s.mu.Unlock()
	return moved, err
}

// fetch has messages handed out that wait now.
func (s *Stream) fetch(ctx context.Context, most int) ([]*handed, error) {
	s.mu.Lock()
	queue := s.queue
	s.mu.Unlock()
	if queue == nil {
		return nil, fmt.Errorf("%w: %w", errHandOut, s.usable())
	}
	began := time.Now()
	batch, err := queue.FetchNoWait(most)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errHandOut, err)
	}
	var events []*handed
	for message := range batch.Messages() {
		events = append(events, receive(message))
	}
	if err := batch.Error(); err != nil && ctx.Err() == nil {
		return events, fmt.Errorf("%w: %w", errHandOut, err)
	}
	if len(events) == 0 && time.Since(began) >= silence {
		return nil, fmt.Errorf("%w: no answer", errHandOut)
	}
	return events, nil
}

// receive decodes a message. One that is no record at all gets an ID of its own, so that it can be a dead letter.
func receive(message jetstream.Msg) *handed {
	w := &handed{Msg: message}
	if h, err := kept.Check(message.Data()); err == nil {
		w.id = h.ID
	} else {
		w.id = uuid.NewSHA1(uuid.NameSpaceOID, message.Data())
	}
	w.record, w.err = kept.Decode(message.Data())
	return w
}

// settle does what an attempt has led to. done reports whether the event is recorded.
func (s *Stream) settle(ctx context.Context, w *handed) (done bool, err error) {
	verdict := kept.Dead // it cannot be decoded
	if w.record != nil {
		verdict = kept.Judge(w.err, s.refusedBefore(w.id))
	}
	switch {
	case verdict == kept.Moved:
		s.forget(w.id)
		_ = w.Ack() // else it is handed out again, and known
		return true, nil
	case w.record != nil && ctx.Err() != nil:
		_ = w.Nak() // else it is handed out again, only later
		return false, fmt.Errorf("move callbacks of the stream: %w", w.err)
	case verdict == kept.Refused:
		s.mu.Lock()
		s.refused[w.id]++
		s.mu.Unlock()
		_ = w.NakWithDelay(tryAgain)
		return false, nil
	case verdict == kept.Waits:
		_ = w.NakWithDelay(tryAgain)
		return false, fmt.Errorf("move callbacks of the stream: %w", w.err)
	case s.config.Refused != nil && isRefused(w.err):
		s.config.Refused(ctx, &w.record.Event, w.err)
		s.refusals.Add(1)
	default:
		if err := s.bury(context.WithoutCancel(ctx), w); err != nil {
			_ = w.NakWithDelay(tryAgain)
			return false, fmt.Errorf("keep a dead letter: %w", err)
		}
	}
	s.forget(w.id)
	_ = w.Ack()
	return false, nil
}

// isRefused reports whether PostgreSQL refused the event, as it does with a callback that was not acknowledged yet.
func isRefused(err error) bool {
	return errors.Is(err, event.ErrRevoked) || errors.Is(err, event.ErrOverused)
}

func (s *Stream) refusedBefore(id uuid.UUID) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refused[id]
}

func (s *Stream) forget(id uuid.UUID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.refused, id)
}

// buryTimeout bounds the keeping of a dead letter.
const buryTimeout = 5 * time.Second

// bury adds a dead letter. Its message has no ID: the servers could know it from the last time, and drop it. If it was
// added before, it is in the stream twice, and counts once.
func (s *Stream) bury(ctx context.Context, w *handed) error {
	frame := w.Data()
	if _, err := kept.Check(frame); err == nil {
		frame = kept.Flagged(frame, true)
	}
	if w.record != nil {
		r := *w.record
		s.erase(&r.Event) // it was handed out before that was asked for, perhaps
		r.Dead = &kept.DeadLetter{At: s.config.Now().UTC(), Reason: w.err.Error()}
		if encoded, err := kept.Encode(&r); err == nil && len(encoded) <= maxFrame {
			frame = encoded
		}
	}
	ctx, cancel := context.WithTimeout(ctx, buryTimeout)
	defer cancel()
	if _, _, err := s.publish(ctx, s.config.dead(w.id.String()), "", frame); err != nil {
		return err
	}
	s.mu.Lock()
	if _, there := s.dead[w.id]; !there {
		s.dead[w.id] = struct{}{}
		s.stats.DeadLetters++
	}
	s.mu.Unlock()
	s.config.Logger.WarnContext(ctx, "callback of the stream is a dead letter: receiver stream list shows it",
		slog.String("event_id", w.id.String()), slog.String("error", w.err.Error()))
	return nil
}
