package spool

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/google/uuid"

	"upcall/internal/eventstore"
)

var sameEvent = cmp.Options{cmpopts.EquateComparable(numbered(0).SourceAddr)}

// TestRecordHoldsWholeEvent fails, too, when an event gets a field that records lack.
func TestRecordHoldsWholeEvent(t *testing.T) {
	t.Parallel()
	e := numbered(7)
	for _, v := range []reflect.Value{reflect.ValueOf(*e), reflect.ValueOf(e.Callback)} {
		for i := range v.NumField() {
			if name := v.Type().Field(i).Name; v.Field(i).IsZero() && name != "Token" && name != "Acknowledged" {
				t.Errorf("the test's event has no %s", name)
			}
		}
	}
	e.Acknowledged = true // what comes out of the spool always was
	withToken := *e
	withToken.Acknowledged = false
	withToken.Callback.Token = "secret"
	frame, err := encode(newRecord(&withToken))
	if err != nil {
		t.Fatal(err)
	}
	r, err := decode(frame)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(*e, r.event(), sameEvent); diff != "" {
		t.Errorf("event (-put +got):\n%s", diff)
	}
	if strings.Contains(string(frame), "secret") {
		t.Error("the token is on disk")
	}
	for i := range frame {
		bad := slices.Clone(frame)
		bad[i] ^= 1
		if _, err := decode(bad); err == nil {
			t.Fatalf("byte %d was changed and nothing noticed", i)
		}
	}
	for _, bad := range [][]byte{nil, frame[:5], frame[:len(frame)-1], append(slices.Clone(frame), 0)} {
		if _, err := decode(bad); err == nil {
			t.Errorf("%d bytes are a record", len(bad))
		}
	}
}

func TestPutRefusesWhatPostgresCannotHold(t *testing.T) {
	t.Parallel()
	c, _ := config(t.TempDir())
	s := open(t, c)
	for name, change := range map[string]func(*eventstore.Event){
		"not UTF-8":          func(e *eventstore.Event) { e.Callback.Object = "\xff" },
		"NUL":                func(e *eventstore.Event) { e.Callback.RequestID = "a\x00" },
		"variable not JSON":  func(e *eventstore.Event) { e.Callback.Vars["x"] = []byte("{") },
		"variable not UTF-8": func(e *eventstore.Event) { e.Callback.Vars["x"] = []byte("\"\xff\"") },
	} {
		e := numbered(1)
		change(e)
		if _, err := s.Put(t.Context(), e); !errors.Is(err, eventstore.ErrRejected) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if got := s.Stats().Queued; got != 0 {
		t.Errorf("%d queued", got)
	}
}

// TestKeepsOrderAcrossRestarts: what one process leaves the next one moves, in order.
func TestKeepsOrderAcrossRestarts(t *testing.T) {
	t.Parallel()
	c, l := config(t.TempDir())
	s := open(t, c)
	fill(t, s, 0, 150)
	if duplicate, err := s.Put(t.Context(), numbered(5)); err != nil || !duplicate {
		t.Errorf("a repeat: %v, duplicate %v", err, duplicate)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Put(t.Context(), numbered(1)); !errors.Is(err, ErrUnwritable) {
		t.Errorf("put after close: %v", err)
	}
	s = open(t, c)
	if !strings.Contains(l.String(), "queued=150") {
		t.Errorf("log: %s", l)
	}
	if stats := s.Stats(); stats.Queued != 150 || !stats.Oldest.Equal(numbered(0).ReceivedAt) || stats.Bytes < 150*400 {
		t.Errorf("stats %+v", stats)
	}
	if duplicate, err := s.Put(t.Context(), numbered(149)); err != nil || !duplicate {
		t.Errorf("a repeat: %v, duplicate %v", err, duplicate)
	}
	fill(t, s, 150, 200)
	m := new(memory)
	if moved, err := s.Move(t.Context(), m, 1); err != nil || moved != 1 {
		t.Fatalf("moved %d: %v", moved, err)
	}
	if s.Has(numbered(0).ID) || !s.Has(numbered(1).ID) {
		t.Error("the first is there, or the second is not")
	}
	if got := s.Stats().Oldest; !got.Equal(numbered(1).ReceivedAt) {
		t.Errorf("oldest %s", got)
	}
	moveAll(t, s, m, 1)
	want := make([]uuid.UUID, 200)
	for n := range want {
		want[n] = numbered(n).ID
		put := *numbered(n)
		put.Acknowledged = true
		if diff := cmp.Diff(put, m.events[want[n]], sameEvent); diff != "" {
			t.Fatalf("event %d (-put +moved):\n%s", n, diff)
		}
	}
	if !slices.Equal(m.order, want) {
		t.Error("they moved in another order")
	}
	if stats := s.Stats(); stats.Queued != 0 || !stats.Oldest.IsZero() {
		t.Errorf("stats at the end: %+v", stats)
	}
}

func TestMoveKeepsWhatIsNotTaken(t *testing.T) {
	t.Parallel()
	c, l := config(t.TempDir())
	s := open(t, c)
	fill(t, s, 0, 10)
	away := fmt.Errorf("%w: gone", eventstore.ErrUnavailable)
	m := &memory{fail: func(e *eventstore.Event) error {
		switch e.ID {
		case numbered(2).ID, numbered(9).ID:
			return away
		case numbered(4).ID:
			return eventstore.ErrRejected
		case numbered(5).ID:
			return eventstore.ErrRevoked
		}
		return nil
	}}
	moved, err := s.Move(t.Context(), m, 8)
	if moved != 5 || !errors.Is(err, eventstore.ErrUnavailable) {
		t.Errorf("moved %d: %v", moved, err)
	}
	if stats := s.Stats(); stats.Queued != 3 || stats.Rejected != 2 || !stats.Oldest.Equal(numbered(2).ReceivedAt) {
		t.Errorf("stats %+v", stats)
	}
	if got := strings.Count(l.String(), "set aside"); got != 2 || !strings.Contains(l.String(), numbered(4).ID.String()) {
		t.Errorf("log: %s", l)
	}
	// The same again is one record among the refused, and that survives a restart.
	fill(t, s, 4, 5)
	away = nil
	moveAll(t, s, m, 8)
	s.Close()
	s = open(t, c)
	if stats := s.Stats(); stats.Queued != 0 || stats.Rejected != 2 {
		t.Errorf("stats after a restart %+v", stats)
	}
	if s.Has(numbered(4).ID) {
		t.Error("a refused callback counts as one that waits")
	}
	if len(m.order) != 8 {
		t.Errorf("%d moved", len(m.order))
	}
}

// TestInterruptedMove: the process ends between the store's commit and ours. The next
// one moves the same again, which the store knows.
func TestInterruptedMove(t *testing.T) {
	t.Parallel()
	c, _ := config(t.TempDir())
	s := open(t, c)
	fill(t, s, 0, 20)
	m := new(memory)
	before := t.TempDir()
	var once sync.Once
	m.fail = func(*eventstore.Event) error {
		once.Do(func() { copyFile(t, filepath.Join(c.Dir, fileName), filepath.Join(before, fileName)) })
		return nil
	}
	if _, err := s.Move(t.Context(), m, 10); err != nil {
		t.Fatal(err)
	}
	c, _ = config(before)
	again := open(t, c)
	if got := again.Stats().Queued; got != 20 {
		t.Fatalf("%d queued in the copy", got)
	}
	moveAll(t, again, m, 7)
	if len(m.order) != 20 {
		t.Errorf("%d events for 20", len(m.order))
	}
}

func copyFile(t testing.TB, from, to string) {
	t.Helper()
	content, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, content, 0o600)
	}
	if err != nil {
		t.Error(err)
	}
}

// TestMoveStopped: when the receiver stops, nothing is taken for refused.
func TestMoveStopped(t *testing.T) {
	t.Parallel()
	c, _ := config(t.TempDir())
	s := open(t, c)
	fill(t, s, 0, 3)
	ctx, cancel := context.WithCancel(t.Context())
	m := &memory{fail: func(*eventstore.Event) error { cancel(); return ctx.Err() }}
	if moved, err := s.Move(ctx, m, 3); moved != 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("moved %d: %v", moved, err)
	}
	if stats := s.Stats(); stats.Queued != 3 || stats.Rejected != 0 {
		t.Errorf("stats %+v", stats)
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	c, _ := config(t.TempDir())
	c.MaxBytes = 64 << 10
	s := open(t, c)
	if err := s.Ready(); err != nil {
		t.Error(err)
	}
	n := 0
	for ; ; n++ {
		if _, err := s.Put(t.Context(), numbered(n)); errors.Is(err, ErrFull) {
			break
		} else if err != nil || n > 1000 {
			t.Fatalf("put %d: %v", n, err)
		}
	}
	if n < 20 {
		t.Errorf("full after %d", n)
	}
	if got := s.Stats().Bytes; got > c.MaxBytes+pageSize {
		t.Errorf("%d bytes used of %d", got, c.MaxBytes)
	}
	if duplicate, err := s.Put(t.Context(), numbered(0)); err != nil || !duplicate {
		t.Errorf("a repeat while full: %v, duplicate %v", err, duplicate)
	}
	moveAll(t, s, new(memory), 16)
	if err := s.Ready(); err != nil {
		t.Errorf("after all has moved: %v", err)
	}
	fill(t, s, n, n+20)

	c, _ = config(t.TempDir())
	c.MinFreeBytes = math.MaxInt64 / 2
	s = open(t, c)
	if _, err := s.Put(t.Context(), numbered(1)); !errors.Is(err, ErrFull) || !errors.Is(s.Ready(), ErrFull) {
		t.Errorf("a disk that is to stay free: put %v, ready %v", err, s.Ready())
	}
}

func TestOneProcess(t *testing.T) {
	t.Parallel()
	c, _ := config(t.TempDir())
	s := open(t, c)
	c.LockTimeout = time.Millisecond
	if _, err := Open(t.Context(), c); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), c.Dir) {
		t.Errorf("got %v, want ErrInUse and the directory", err)
	}
	fill(t, s, 0, 1)
	s.Close()
	c.LockTimeout = time.Minute
	if got := open(t, c).Stats().Queued; got != 1 {
		t.Errorf("%d queued", got)
	}
}

func TestOpenRefusesBadConfig(t *testing.T) {
	t.Parallel()
	good, _ := config(t.TempDir())
	for name, change := range map[string]func(*Config){
		"no directory":    func(c *Config) { c.Dir = "" },
		"no logger":       func(c *Config) { c.Logger = nil },
		"negative limit":  func(c *Config) { c.MaxBytes = -1 },
		"negative queue":  func(c *Config) { c.Queue = -1 },
		"not a directory": func(c *Config) { c.Dir = "/dev/null/x" },
	} {
		c := good
		change(&c)
		if s, err := Open(t.Context(), c); err == nil {
			s.Close()
			t.Errorf("%s: it opened", name)
		}
	}
}

// TestShrinks: after an outage the disk gets its space back.
func TestShrinks(t *testing.T) {
	t.Parallel()
	c, _ := config(t.TempDir())
	s := open(t, c)
	var group sync.WaitGroup
	pad := []byte(`"` + strings.Repeat("x", 64<<10) + `"`)
	for n := range 600 {
		group.Go(func() {
			e := numbered(n)
			e.Callback.Vars["pad"] = pad
			if _, err := s.Put(t.Context(), e); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	path := filepath.Join(c.Dir, fileName)
	if info, err := os.Stat(path); err != nil || info.Size() <= shrinkAbove {
		t.Fatalf("the test's file is too small: %v, %v", info.Size(), err)
	}
	moveAll(t, s, new(memory), 100)
	if info, err := os.Stat(path); err != nil || info.Size() > 1<<20 {
		t.Errorf("an empty spool takes %d bytes, %v", info.Size(), err)
	}
	fill(t, s, 0, 3)
	s.Close()
	if got := open(t, c).Stats().Queued; got != 3 {
		t.Errorf("%d queued in the new file", got)
	}
}

// TestPutAndMoveAtOnce: many put, with repeats, while others move. Nothing is lost, and
// nothing but repeats is put twice.
func TestPutAndMoveAtOnce(t *testing.T) {
	t.Parallel()
	c, _ := config(t.TempDir())
	s := open(t, c)
	const clients, each = 16, 40
	m := new(memory)
	var putters, mover sync.WaitGroup
	done := make(chan struct{})
	mover.Go(func() {
		for {
			if _, err := s.Move(t.Context(), m, 10); err != nil {
				t.Error(err)
				return
			}
			select {
			case <-done:
				return
			default:
			}
		}
	})
	for client := range clients {
		putters.Go(func() {
			for i := range each {
				n := client/2*each + i // two clients put the same
				if _, err := s.Put(t.Context(), numbered(n)); err != nil {
					t.Error(err)
				}
				s.Stats()
			}
		})
	}
	putters.Wait()
	close(done)
	mover.Wait()
	moveAll(t, s, m, 100)
	if len(m.events) != clients/2*each {
		t.Errorf("%d events, want %d", len(m.events), clients/2*each)
	}
}

// BenchmarkPut is durable puts by 128 clients.
func BenchmarkPut(b *testing.B) {
	dir, err := os.MkdirTemp(".", "bench-") // a disk: /tmp may be none
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	c, _ := config(dir)
	s := open(b, c)
	var next sync.Mutex
	n := 0
	var group sync.WaitGroup
	b.ResetTimer()
	started := time.Now()
	for range 128 {
		group.Go(func() {
			for {
				next.Lock()
				n++
				mine := n
				next.Unlock()
				if mine > b.N {
					return
				}
				if _, err := s.Put(b.Context(), numbered(mine)); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
	b.ReportMetric(float64(b.N)/time.Since(started).Seconds(), "puts/s")
}
