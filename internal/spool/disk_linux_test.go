package spool

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"upcall/internal/event"
	"upcall/internal/testing/fallbacktest"
	"upcall/internal/testing/toolchain"
)

// smallDisk mounts a disk with size bytes.
func smallDisk(t *testing.T, size int) string {
	t.Helper()
	toolchain.Need(t, "mount")
	dir := t.TempDir()
	if err := syscall.Mount("upcall-test", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		t.Fatalf("mount a small disk: %v", err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, 0) })
	return dir
}

// TestDiskFull: a full disk damages nothing, and the spool works again when there is room.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	disk := smallDisk(t, 1<<20)
	c, _ := config(filepath.Join(disk, "spool"))
	c.Now = nil
	s, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ballast := filepath.Join(disk, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 512<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var taken []int
	var group sync.WaitGroup
	for client := range 4 {
		group.Go(func() {
			for n := client; ; n += 4 {
				_, err := s.Put(t.Context(), numbered(n))
				if err != nil {
					if !errors.Is(err, event.ErrSpoolFull) && !errors.Is(err, event.ErrSpoolUnwritable) {
						t.Error(err)
					}
					return
				}
				mu.Lock()
				taken = append(taken, n)
				mu.Unlock()
			}
		})
	}
	group.Wait()
	if len(taken) < 100 {
		t.Errorf("%d accepted", len(taken))
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	for n := 1_000_000; ; n++ { // it works again after the pause
		if _, err := s.Put(t.Context(), numbered(n)); err == nil {
			break
		} else if strings.Contains(err.Error(), "start") || t.Context().Err() != nil {
			t.Fatal(err)
		}
	}
	m := new(fallbacktest.Memory)
	moveAll(t, s, m, 50)
	for _, n := range taken {
		if _, there := m.Events[numbered(n).ID]; !there {
			t.Errorf("%d was acknowledged and is lost", n)
		}
	}
}

// TestNoRoomForSalvage: without room for the intact records of a damaged file, the spool
// works without them, and a later start recovers them.
func TestNoRoomForSalvage(t *testing.T) {
	t.Parallel()
	const waiting = 1000
	content := image(t, waiting)
	clear(content[:pageSize])
	disk := smallDisk(t, len(content)+128<<10)
	if err := os.WriteFile(filepath.Join(disk, fileName), content, 0o600); err != nil {
		t.Fatal(err)
	}
	c, l := config(disk)
	for round := range 2 {
		s := open(t, c)
		if got := s.Stats(); got.Queued != round*3 || got.Damaged != 1 {
			t.Errorf("without room: stats %+v", got)
		}
		if !strings.Contains(l.String(), "could not be recovered") {
			t.Errorf("log: %s", l)
		}
		fill(t, s, 5000+round*3, 5003+round*3)
		s.Close()
	}
	if err := syscall.Mount("", disk, "", syscall.MS_REMOUNT, "size=16m"); err != nil {
		t.Fatal(err)
	}
	s := open(t, c)
	wantStats(t, s, waiting+6, 0)
	m := new(fallbacktest.Memory)
	moveAll(t, s, m, 100)
	for n := range waiting {
		if _, there := m.Events[numbered(n).ID]; !there {
			t.Fatalf("%d was acknowledged and is lost", n)
		}
	}
	s.Close()
	if got := open(t, c).Stats(); got.Damaged != 1 || got.Queued != 0 {
		t.Errorf("stats at the end %+v", got)
	}
}

// failSyncs replaces a file that this process has open by /dev/null. Writes still succeed, but
// each fsync fails, as on a failing disk. restore puts the file back.
func failSyncs(t *testing.T, path string) (restore func()) {
	t.Helper()
	links, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if target, err := os.Readlink(link); err != nil || target != path {
			continue
		}
		var fd int
		if _, err := fmt.Sscan(filepath.Base(link), &fd); err != nil {
			t.Fatal(err)
		}
		file, err := syscall.Dup(fd) // keeps bbolt's lock
		if err != nil {
			t.Fatal(err)
		}
		null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer null.Close()
		replace := func(with int) {
			if err := syscall.Dup3(with, fd, syscall.O_CLOEXEC); err != nil {
				t.Error(err)
			}
		}
		replace(int(null.Fd()))
		restore = sync.OnceFunc(func() { replace(file); syscall.Close(file) })
		t.Cleanup(restore)
		return restore
	}
	t.Fatalf("%s is not open", path)
	return nil
}

// TestFailedSync: after a failed fsync the spool accepts nothing more, not even when the next
// fsync would succeed, because that would not cover what the first one had to write.
func TestFailedSync(t *testing.T) {
	t.Parallel()
	c, l := config(t.TempDir())
	now := epoch
	c.Now = func() time.Time { return now } // called under the spool's locks, or by this test
	s := open(t, c)
	fill(t, s, 0, 40)
	if _, err := s.Move(t.Context(), new(fallbacktest.Memory).Record, 20); err != nil { // this leaves free pages
		t.Fatal(err)
	}
	restore := failSyncs(t, filepath.Join(c.Dir, fileName))
	refuses := func(n int, when string) {
		t.Helper()
		// The cause is the fsync, not a write or the growth of the file.
		if _, err := s.Put(t.Context(), numbered(n)); !errors.Is(err, event.ErrSpoolUnwritable) || !errors.Is(err, syscall.EINVAL) ||
			errors.As(err, new(*os.PathError)) {
			t.Errorf("put %s: %v", when, err)
		}
		if s.Has(numbered(n).ID) {
			t.Errorf("put %s: the spool claims to have it", when)
		}
		if err := s.Ready(); !errors.Is(err, event.ErrSpoolUnwritable) {
			t.Errorf("ready %s: %v", when, err)
		}
	}
	refuses(100, "while the sync fails")
	if !strings.Contains(l.String(), "level=ERROR") || !strings.Contains(l.String(), "restart the receiver") {
		t.Errorf("log: %s", l)
	}
	restore()
	refuses(100, "when it would succeed again")
	refuses(101, "when it would succeed again")
	now = now.Add(24 * time.Hour)
	refuses(102, "a day later")
	if err := s.Retry(nil); !errors.Is(err, event.ErrSpoolUnwritable) {
		t.Errorf("another write: %v", err)
	}
	m := new(fallbacktest.Memory)
	if _, err := s.Move(t.Context(), m.Record, 10); !errors.Is(err, event.ErrSpoolUnwritable) || len(m.Order) != 10 {
		t.Errorf("move: %d recorded, %v; want 10 recorded and none removed", len(m.Order), err)
	}
	if stats := s.Stats(); stats.Queued != 20 {
		t.Errorf("stats %+v", stats)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	// The next process reads what is really on the disk.
	s = open(t, c)
	for n := 20; n < 40; n++ {
		if !s.Has(numbered(n).ID) {
			t.Errorf("%d was acknowledged and is lost", n)
		}
	}
	if _, err := s.Put(t.Context(), numbered(100)); err != nil {
		t.Error(err)
	}
}

// TestFailedSyncOfDirectory: a new file has replaced the old one, but perhaps not on the disk.
// The spool accepts nothing more, and uses the new file, which has a name.
func TestFailedSyncOfDirectory(t *testing.T) {
	t.Parallel()
	c, l := config(t.TempDir())
	s := open(t, c)
	fillLarge(t, s)
	restore := failSyncs(t, c.Dir)
	moveAll(t, s, new(fallbacktest.Memory), 100)
	restore()
	if named, err := os.Stat(s.path(fileName)); err != nil || named.Size() > 1<<20 {
		t.Errorf("the file was not replaced: %v, %v", named, err)
	}
	if stats := s.Stats(); stats.Bytes > 1<<20 {
		t.Errorf("the spool still uses the old file: %+v", stats)
	}
	if _, err := s.Put(t.Context(), numbered(1)); !errors.Is(err, event.ErrSpoolUnwritable) || !errors.Is(err, syscall.EINVAL) {
		t.Errorf("put: %v", err)
	}
	if err := s.Ready(); !errors.Is(err, event.ErrSpoolUnwritable) {
		t.Errorf("ready: %v", err)
	}
	if !strings.Contains(l.String(), "level=ERROR") || !strings.Contains(l.String(), "restart the receiver") {
		t.Errorf("log: %s", l)
	}
	s.Close()
	s = open(t, c)
	fill(t, s, 0, 3)
	s.Close()
	wantStats(t, open(t, c), 3, 0)
}

// TestShrinkNotPossible: without room for a new file, the spool keeps the old one.
func TestShrinkNotPossible(t *testing.T) {
	t.Parallel()
	c, l := config(t.TempDir())
	s := open(t, c)
	fillLarge(t, s)
	if err := os.MkdirAll(filepath.Join(c.Dir, newFileName, "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	moveAll(t, s, new(fallbacktest.Memory), 100)
	if !strings.Contains(l.String(), "could not be shrunk") {
		t.Errorf("log: %s", l)
	}
	fill(t, s, 0, 3)
	s.Close()
	wantStats(t, open(t, c), 3, 0)
}
