// Package fallbacktest has the tests that each fallback of the recorder must pass: the spool and the stream.
package fallbacktest

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"upcall/internal/callbackspec"
	"upcall/internal/event"
	"upcall/internal/kept"
	"upcall/internal/recorder"
)

// A Subject is a fallback in a place of its own, under test. It is closed when the test ends.
type Subject interface {
	recorder.Fallback
	Ready() error
	Erase(ctx context.Context, requests []event.Erasure) (erased int, err error)

	// Next closes it, and returns one of the same place, as the next process opens it.
	Next(t testing.TB) Subject
	// Held returns how many events wait, and how many dead letters there are. What others might have changed is counted.
	Held(t testing.TB) (waiting, dead int)
	// Letters returns the dead letters as commands show them.
	Letters(t testing.TB) []kept.Entry
	// Again queues dead letters again, Drop deletes them.
	Again(t testing.TB, ids ...uuid.UUID) error
	Drop(t testing.TB, ids ...uuid.UUID) error
}

// A Kind is a kind of fallback.
type Kind struct {
	// Open returns an empty one that holds at most so many bytes, or 64 MiB if they are 0.
	Open func(t testing.TB, maxBytes int64) Subject
	// MaxBytes is the least limit.
	MaxBytes int64
	// NoDeadLetter is the error for an ID of none, and Full that of Put and Ready.
	NoDeadLetter, Full error
}

// Epoch is when the first event arrives. It has microseconds, as PostgreSQL keeps them.
var Epoch = time.Date(2026, 11, 22, 12, 0, 0, 123456000, time.UTC)

// Numbered returns the nth event of a test. Each of its fields has a value.
func Numbered(n int) *event.Event {
	return &event.Event{
		ID:         uuid.NewSHA1(uuid.Nil, fmt.Append(nil, n)),
		ReceivedAt: Epoch.Add(time.Duration(n) * time.Millisecond),
		UploadID:   uuid.NullUUID{UUID: uuid.NewSHA1(uuid.Max, fmt.Append(nil, n)), Valid: true},
		Supersedes: uuid.NullUUID{UUID: uuid.NewSHA1(uuid.Max, fmt.Append(nil, -n)), Valid: true},
		Source:     event.SourceCallback,
		SourceAddr: netip.MustParseAddr("198.51.100.7"),
		Callback: callbackspec.Callback{
			Bucket: "demo", Object: fmt.Sprintf("photos/<%d>.jpg", n), ETag: "D8E8FCA2DC0F896FD7CB4CB0031BA249",
			Size: new(int64(n)), MimeType: "image/jpeg", ImageHeight: new(int32(1)), ImageWidth: new(int32(2)),
			ImageFormat: "jpg", CRC64: new(^uint64(0)), ContentMD5: "2Oj8otwPiW/Xy0ywAxuiSQ==", VPCID: "1",
			ClientIP: netip.MustParseAddr("2001:db8::1"), RequestID: fmt.Sprint("R", n), Operation: "PutObject",
			Vars: map[string]json.RawMessage{"user": json.RawMessage(`{"id":12345678901234567890}`)},
		},
	}
}

// IDs returns those of numbered events.
func IDs(numbers ...int) (ids []uuid.UUID) {
	for _, n := range numbers {
		ids = append(ids, Numbered(n).ID)
	}
	return ids
}

// A Memory is a store in the place of PostgreSQL, which notes its events and their order.
type Memory struct {
	// Fail returns the error for an event; nil never fails.
	Fail func(*event.Event) error

	mu     sync.Mutex
	Order  []uuid.UUID
	Events map[uuid.UUID]event.Event
	Repeat int // events that it had
}

// Record takes an event.
func (m *Memory) Record(_ context.Context, e *event.Event) (duplicate bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.Fail != nil {
		if err := m.Fail(e); err != nil {
			return false, err
		}
	}
	if _, there := m.Events[e.ID]; there {
		m.Repeat++
		return true, nil
	}
	if m.Events == nil {
		m.Events = make(map[uuid.UUID]event.Event)
	}
	m.Events[e.ID] = *e
	m.Order = append(m.Order, e.ID)
	return false, nil
}

// Has reports whether it has the nth event.
func (m *Memory) Has(n int) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, there := m.Events[Numbered(n).ID]
	return there
}

// Context gives a call more time than a callback has, because the machine is busy.
func Context(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// Fill puts numbered events into a fallback.
func Fill(t testing.TB, f recorder.Fallback, from, to int) {
	t.Helper()
	var group sync.WaitGroup
	for n := from; n < to; n++ {
		group.Go(func() {
			if duplicate, err := f.Put(Context(t), Numbered(n)); err != nil || duplicate {
				t.Errorf("put %d: %v, duplicate %v", n, err, duplicate)
			}
		})
	}
	group.Wait()
}
