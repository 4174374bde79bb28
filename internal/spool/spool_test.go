package spool

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"upcall/internal/event"
	"upcall/internal/testing/fallbacktest"
)

var sameEvent = fallbacktest.SameEvent

// TestKeepsOrderAcrossRestarts: a process moves the events that the last one left, in order.
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
	if _, err := s.Put(t.Context(), numbered(1)); !errors.Is(err, event.ErrSpoolUnwritable) {
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
	m := new(fallbacktest.Memory)
	if moved, err := s.Move(t.Context(), m.Record, 1); err != nil || moved != 1 {
		t.Fatalf("moved %d: %v", moved, err)
	}
	if s.Has(numbered(0).ID) || !s.Has(numbered(1).ID) {
		t.Error("the first still waits, or the second does not")
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
		if diff := cmp.Diff(put, m.Events[want[n]], sameEvent); diff != "" {
			t.Fatalf("event %d (-put +moved):\n%s", n, diff)
		}
	}
	if !slices.Equal(m.Order, want) {
		t.Error("they moved in another order")
	}
	if stats := s.Stats(); stats.Queued != 0 || !stats.Oldest.IsZero() {
		t.Errorf("stats at the end: %+v", stats)
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
		if _, err := s.Put(t.Context(), numbered(n)); errors.Is(err, event.ErrSpoolFull) {
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
	moveAll(t, s, new(fallbacktest.Memory), 16)
	if err := s.Ready(); err != nil {
		t.Errorf("after all has moved: %v", err)
	}
	fill(t, s, n, n+20)

	c, _ = config(t.TempDir())
	c.MinFreeBytes = math.MaxInt64 / 2
	s = open(t, c)
	if _, err := s.Put(t.Context(), numbered(1)); !errors.Is(err, event.ErrSpoolFull) || !errors.Is(s.Ready(), event.ErrSpoolFull) {
		t.Errorf("no free disk space allowed: put %v, ready %v", err, s.Ready())
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
	for name, tt := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"no directory":    {func(c *Config) { c.Dir = "" }, "Dir and Logger are required"},
		"no logger":       {func(c *Config) { c.Logger = nil }, "Dir and Logger are required"},
		"negative limit":  {func(c *Config) { c.MaxBytes = -1 }, "MaxBytes and LockTimeout must be positive"},
		"negative wait":   {func(c *Config) { c.LockTimeout = -1 }, "MaxBytes and LockTimeout must be positive"},
		"not a directory": {func(c *Config) { c.Dir = "/dev/null/x" }, "mkdir /dev/null: not a directory"},
	} {
		c := good
		tt.change(&c)
		s, err := Open(t.Context(), c)
		if err == nil {
			s.Close()
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %s", name, err, tt.want)
		}
	}
}

// TestMakesDirectory: the spool creates its directory and the parents for this user only.
func TestMakesDirectory(t *testing.T) {
	here := t.TempDir()
	t.Chdir(here)
	for _, dir := range []string{filepath.Join(here, "a", "b", "c"), "d", "./e/../e/f/", filepath.Join(here, "a", "g"), "."} {
		c, _ := config(dir)
		fill(t, open(t, c), 0, 1)
		if info, err := os.Stat(dir); err != nil || dir != "." && info.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v", dir, info, err)
		}
	}
}

// TestShrinks: an empty spool frees its disk space.
func TestShrinks(t *testing.T) {
	t.Parallel()
	c, _ := config(t.TempDir())
	s := open(t, c)
	fillLarge(t, s)
	moveAll(t, s, new(fallbacktest.Memory), 100)
	path := filepath.Join(c.Dir, fileName)
	if info, err := os.Stat(path); err != nil || info.Size() > 1<<20 {
		t.Errorf("an empty spool takes %d bytes, %v", info.Size(), err)
	}
	fill(t, s, 0, 3)
	s.Close()
	if got := open(t, c).Stats().Queued; got != 3 {
		t.Errorf("%d queued in the new file", got)
	}
}

// fillLarge fills a spool until its file is large enough to shrink.
func fillLarge(t *testing.T, s *Spool) {
	t.Helper()
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
	if info, err := os.Stat(s.path(fileName)); err != nil || info.Size() <= shrinkAbove {
		t.Fatalf("the test's file is too small: %v, %v", info.Size(), err)
	}
}

// BenchmarkPut measures durable puts by 128 clients.
func BenchmarkPut(b *testing.B) {
	dir, err := os.MkdirTemp(".", "bench-") // on a disk, which /tmp may not be
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
