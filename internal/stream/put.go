package stream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"upcall/internal/event"
	"upcall/internal/kept"
)

const (
	// tryTimeout is how long an answer may take before the message is sent again: its leader may have ended.
	tryTimeout = 700 * time.Millisecond
	// tryPause is before it is sent again.
	tryPause = 30 * time.Millisecond
)

// Put returns when a majority of the servers has the event on disk. duplicate reports whether an event with the same ID
// is in the stream already.
//
// An error wraps [event.ErrStreamFull], [event.ErrStreamUnwritable], or [event.ErrUnstorable] for an event that
// PostgreSQL could not hold. When ctx ends, the event may still get into the stream.
func (s *Stream) Put(ctx context.Context, e *event.Event) (duplicate bool, err error) {
	frame, err := s.encode(e)
	if err != nil {
		return false, err
	}
	duplicate, err = s.add(ctx, e.ID, frame)
	if err != nil {
		s.failures.Add(1)
	}
	return duplicate, err
}

// encode returns the record of an event that was received just now.
func (s *Stream) encode(e *event.Event) ([]byte, error) {
	r := kept.Record{Event: *e}
	s.erase(&r.Event) // received before that was asked for
	frame, err := kept.Encode(&r)
	if err != nil {
		return nil, err
	}
	if len(frame) > maxFrame {
		return nil, fmt.Errorf("%w: it has more than %d bytes", event.ErrUnstorable, maxFrame)
	}
	return frame, nil
}

// add puts a record into the stream and counts it.
func (s *Stream) add(ctx context.Context, id uuid.UUID, frame []byte) (duplicate bool, err error) {
	if err := s.usable(); err != nil {
		return false, err
	}
	duplicate, err = s.put(ctx, id, frame)
	if err == nil && !duplicate {
		s.mu.Lock()
		s.stats.Queued++ // until it is measured
		s.puts++
		s.mu.Unlock()
	}
	return duplicate, err
}

// put publishes a record under its ID.
//
// The servers remember IDs for two minutes. That they know an ID says only that it was there: it may have been deleted
// since, even without having been recorded. So that is not believed unless the message is still there; otherwise
// the record is published again without an ID.
func (s *Stream) put(ctx context.Context, id uuid.UUID, frame []byte) (duplicate bool, err error) {
	ack, tries, err := s.publish(ctx, s.config.waiting(), id.String(), frame)
	if err != nil || !ack.Duplicate {
		return false, err
	}
	there, err := s.holds(ctx, ack.Sequence, id)
	if err != nil {
		return false, fmt.Errorf("%w: %w", event.ErrStreamUnwritable, err)
	}
	if there {
		return tries == 1, nil // else it is our own
	}
	_, _, err = s.publish(ctx, s.config.waiting(), "", frame)
	return false, err
}

// holds reports whether a message of the stream is the record with this ID.
func (s *Stream) holds(ctx context.Context, sequence uint64, id uuid.UUID) (bool, error) {
	message, err := s.handle().GetMsg(ctx, sequence)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	h, err := kept.Check(message.Data)
	return err == nil && h.ID == id && s.config.isWaiting(message.Subject), nil
}

// publish returns when a majority has the message on disk. It tries again until ctx ends. An error wraps
// event.ErrStreamFull or event.ErrStreamUnwritable.
func (s *Stream) publish(ctx context.Context, subject, id string, frame []byte) (ack *jetstream.PubAck, tries int, err error) {
	for {
		tries++
		ack, err = s.publishOnce(ctx, subject, id, frame)
		if err == nil || !isPassing(err) || ctx.Err() != nil {
			break
		}
		select {
		case <-time.After(tryPause):
		case <-ctx.Done():
		}
	}
	switch {
	case err == nil:
		return ack, tries, nil
	case isFull(err):
		return nil, tries, fmt.Errorf("%w: %w", event.ErrStreamFull, err)
	}
	return nil, tries, fmt.Errorf("%w: %w", event.ErrStreamUnwritable, s.because(err))
}

func (s *Stream) publishOnce(ctx context.Context, subject, id string, frame []byte) (*jetstream.PubAck, error) {
	ctx, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	message := &nats.Msg{Subject: subject, Data: frame}
	options := []jetstream.PublishOpt{jetstream.WithExpectStream(s.config.Name), jetstream.WithRetryAttempts(0)}
	if id != "" {
		options = append(options, jetstream.WithMsgID(id))
	}
	return s.js.PublishMsg(ctx, message, options...)
}

// The codes of errors, of server/errors.json of nats-server.
const (
	codeAccountFull  = 10002 // JSAccountResourcesExceededErr
	codeInsufficient = 10023 // JSInsufficientResourcesErr
	codeMemoryFull   = 10028 // JSMemoryResourcesExceededErr
	codeStorageFull  = 10047 // JSStorageResourcesExceededErr
	codeStoreFailed  = 10077 // JSStreamStoreFailedF
	codeInProcess    = 10158 // JSStreamDuplicateMessageConflict: the same ID is about to be stored
	codeTooMany      = 10167 // JSStreamTooManyRequests
)

// isFull reports whether the stream or its servers have no room.
func isFull(err error) bool {
	api, ok := errors.AsType[*jetstream.APIError](err)
	if !ok {
		return false
	}
	if api.ErrorCode == codeStoreFailed {
		return strings.Contains(api.Description, "maximum")
	}
	return slices.Contains([]jetstream.ErrorCode{codeAccountFull, codeInsufficient, codeMemoryFull, codeStorageFull}, api.ErrorCode)
}

// isPassing reports whether it may be different in a moment: no answer, or one from a stream that has no leader.
func isPassing(err error) bool {
	api, ok := errors.AsType[*jetstream.APIError](err)
	return !ok || api.ErrorCode == codeInProcess || api.ErrorCode == codeTooMany || api.Code == 503 && !isFull(err)
}
