package spool

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.uber.org/goleak"

	"upcall/internal/callbackspec"
	"upcall/internal/event"
	"upcall/internal/testing/logtest"
	"upcall/internal/testing/proc"
)

func TestMain(m *testing.M) {
	proc.Main(map[string]func(){"putter": putter, "discarder": discarder})
	goleak.VerifyTestMain(m)
}

// epoch has microseconds, as PostgreSQL keeps them.
var epoch = time.Date(2026, 11, 22, 12, 0, 0, 123456000, time.UTC)

// numbered returns the nth event of a test.
func numbered(n int) *event.Event {
	return &event.Event{
		ID:         uuid.NewSHA1(uuid.Nil, fmt.Append(nil, n)),
		ReceivedAt: epoch.Add(time.Duration(n) * time.Millisecond),
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

// config has a long LockTimeout because a process that another test forks also holds the lock
// until it calls exec.
func config(dir string) (Config, *logtest.Buffer) {
	l := new(logtest.Buffer)
	return Config{Dir: dir, MinFreeBytes: -1, LockTimeout: time.Minute,
		Logger: slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelInfo})),
		Now:    func() time.Time { return epoch.Add(time.Hour) }}, l
}

// open opens a spool, and closes it when the test ends.
func open(t testing.TB, c Config) *Spool {
	t.Helper()
	s, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// fill puts events into a spool.
func fill(t testing.TB, s *Spool, from, to int) {
	t.Helper()
	for n := from; n < to; n++ {
		if duplicate, err := s.Put(t.Context(), numbered(n)); err != nil || duplicate {
			t.Fatalf("put %d: %v, duplicate %v", n, err, duplicate)
		}
	}
}

// memory is a store that notes the order of its events.
type memory struct {
	mu     sync.Mutex
	order  []uuid.UUID
	events map[uuid.UUID]event.Event
	fail   func(*event.Event) error // nil means never
}

func (m *memory) Record(_ context.Context, e *event.Event) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		if err := m.fail(e); err != nil {
			return false, err
		}
	}
	if _, there := m.events[e.ID]; there {
		return true, nil
	}
	if m.events == nil {
		m.events = make(map[uuid.UUID]event.Event)
	}
	m.events[e.ID] = *e
	m.order = append(m.order, e.ID)
	return false, nil
}

// moveAll moves events until none wait.
func moveAll(t testing.TB, s *Spool, m *memory, most int) {
	t.Helper()
	for s.Stats().Queued > 0 {
		if _, err := s.Move(t.Context(), m.Record, most); err != nil {
			t.Fatal(err)
		}
	}
}
