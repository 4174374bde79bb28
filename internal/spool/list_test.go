package spool

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"upcall/internal/event"
	"upcall/internal/kept"
	"upcall/internal/testing/fallbacktest"
)

func TestRead(t *testing.T) {
	t.Parallel()
	c, _ := config(t.TempDir())
	if err := Read(t.Context(), c.Dir, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an empty directory: %v", err)
	}
	s := open(t, c)
	fill(t, s, 0, 5)
	m := &fallbacktest.Memory{Fail: func(*event.Event) error { return event.ErrRevoked }}
	if _, err := s.Move(t.Context(), m.Record, 1); err != nil {
		t.Fatal(err)
	}
	check := func() {
		t.Helper()
		var entries []kept.Entry
		err := Read(t.Context(), c.Dir, func(e kept.Entry) error {
			var r kept.Record
			if err := json.Unmarshal(e.JSON, &r); err != nil || r.ID != e.ID {
				t.Errorf("JSON %s: %v", e.JSON, err)
			}
			entries = append(entries, e)
			return nil
		})
		if err != nil || len(entries) != 5 {
			t.Fatalf("%d entries, %v", len(entries), err)
		}
		if e := entries[4]; e.ID != numbered(0).ID || e.Reason != event.ErrRevoked.Error() {
			t.Errorf("the dead letter is %+v", e)
		}
		if e := entries[0]; e.ID != numbered(1).ID || e.Reason != "" || e.Object != "photos/<1>.jpg" ||
			!e.ReceivedAt.Equal(numbered(1).ReceivedAt) {
			t.Errorf("the first is %+v", e)
		}
	}
	check() // while the spool is open
	s.Close()
	check()

	// A damaged file can be read, too.
	path := filepath.Join(t.TempDir(), "aside")
	copyFile(t, filepath.Join(c.Dir, fileName), path)
	if err := os.Truncate(path, 3*pageSize); err != nil {
		t.Fatal(err)
	}
	if err := ReadDamaged(path, func(kept.Entry) error { return nil }); err != nil {
		t.Error(err)
	}
	if err := ReadDamaged(path+"x", nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

// TestReadWhileWriting: Read shows a snapshot of the spool, or returns an error.
func TestReadWhileWriting(t *testing.T) {
	t.Parallel()
	c, _ := config(t.TempDir())
	s := open(t, c)
	fill(t, s, 0, 50)
	stop := make(chan struct{})
	var group sync.WaitGroup
	group.Go(func() {
		for n := 50; ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := s.Put(t.Context(), numbered(n)); err != nil {
				t.Error(err)
			}
		}
	})
	shown := 0
	for range 10 {
		n := 0
		err := Read(t.Context(), c.Dir, func(e kept.Entry) error {
			if e.ID != numbered(n).ID {
				t.Errorf("entry %d is %+v", n, e)
			}
			n++
			return nil
		})
		if err == nil {
			shown++
		} else if !errors.Is(err, ErrDamaged) {
			t.Error(err)
		}
	}
	close(stop)
	group.Wait()
	t.Logf("%d of 10 reads succeeded", shown)
}
