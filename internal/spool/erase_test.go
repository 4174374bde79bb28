package spool

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"

	"upcall/internal/event"
	"upcall/internal/kept"
)

// Texts that are nowhere else in a spool.
const theirName, theirAddress = "erin-71b0c2", "203.0.113.177"

// theirs returns the nth event of a user.
func theirs(n int) *event.Event {
	e := numbered(n)
	e.Callback.ClientIP = netip.MustParseAddr(theirAddress)
	e.Callback.Vars = map[string]json.RawMessage{"uid": json.RawMessage(`"` + theirName + `"`)}
	return e
}

// asked asks to erase what they sent before a time.
func asked(before time.Time) []event.Erasure {
	salt := []byte("salt")
	return []event.Erasure{
		{Before: before.Add(-time.Hour), Upload: uuid.NullUUID{UUID: uuid.New(), Valid: true}},
		{Before: before, Variable: "uid", Salt: salt, Digest: event.ErasureDigest(salt, theirName)},
		{Before: before.Add(time.Hour), Variable: "other", Salt: salt, Digest: event.ErasureDigest(salt, theirName)},
	}
}

// remains reports whether something of them is in the directory's files.
func remains(t *testing.T, dir string) (found []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "spool*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no files: %v", err)
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{theirName, theirAddress} {
			if n := bytes.Count(content, []byte(text)); n > 0 {
				found = append(found, filepath.Base(file)+" has "+text)
			}
		}
	}
	return found
}

func mustPut(t *testing.T, s *Spool, events ...*event.Event) {
	t.Helper()
	for _, e := range events {
		if _, err := s.Put(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
}

// moveOut moves all events, of which those with an error become dead letters.
func moveOut(t *testing.T, s *Spool, dead func(*event.Event) error) (moved map[uuid.UUID]*event.Event) {
	t.Helper()
	all := make(chan *event.Event, 10_000)
	for s.Depth() > 0 {
		if _, err := s.Move(t.Context(), func(_ context.Context, e *event.Event) (bool, error) {
			if err := dead(e); err != nil {
				return false, err
			}
			all <- e
			return false, nil
		}, 100); err != nil {
			t.Fatal(err)
		}
	}
	close(all)
	moved = make(map[uuid.UUID]*event.Event)
	for e := range all {
		moved[e.ID] = e
	}
	return moved
}

func none(*event.Event) error { return nil }

// TestErase erases events that wait, dead letters, and the remains of those that were moved, in files
// that are rewritten at once, and in large ones.
func TestErase(t *testing.T) {
	t.Parallel()
	for name, below := range map[string]int64{"small": rewriteBelow, "large": 0} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, _ := config(t.TempDir())
			s := open(t, c)
			s.rewriteBelow = below
			mustPut(t, s, theirs(1), theirs(2), numbered(3))
			moveOut(t, s, func(e *event.Event) error { // 2 is a dead letter
				if e.ID == theirs(2).ID {
					return event.ErrUnstorable
				}
				return nil
			})
			var others []*event.Event
			for n := 10; n < 10+2*eraseAtOnce; n++ {
				others = append(others, numbered(n))
			}
			late := theirs(6000) // received after
			mustPut(t, s, others[:eraseAtOnce]...)
			mustPut(t, s, theirs(4))
			mustPut(t, s, others[eraseAtOnce:]...)
			mustPut(t, s, theirs(5))
			if found := remains(t, c.Dir); len(found) != 2 {
				t.Fatalf("before: %v", found)
			}
			n, err := s.Erase(t.Context(), asked(epoch.Add(5*time.Second)))
			if err != nil || n != 3 {
				t.Errorf("erased %d, %v", n, err)
			}
			if found := remains(t, c.Dir); name == "small" && len(found) > 0 {
				t.Errorf("after: %v", found)
			}
			if n, err := s.Erase(t.Context(), asked(epoch.Add(5*time.Second))); err != nil || n != 0 {
				t.Errorf("once more: %d, %v", n, err)
			}
			mustPut(t, s, theirs(7), late) // that are still on their way
			s.rewriteBelow = rewriteBelow
			if err := s.Retry([]uuid.UUID{theirs(2).ID}); err != nil {
				t.Fatal(err)
			}
			moved := moveOut(t, s, none)
			for _, n := range []int{2, 4, 5, 7} {
				if e := moved[theirs(n).ID]; len(e.Callback.Vars) > 0 || e.Callback.ClientIP.IsValid() || e.Callback.Object != theirs(n).Callback.Object {
					t.Errorf("%d came out as %+v", n, e)
				}
			}
			if e := moved[late.ID]; len(e.Callback.Vars) != 1 || !e.Callback.ClientIP.IsValid() {
				t.Errorf("one that was received later came out as %+v", e)
			}
			for _, e := range others {
				if got := moved[e.ID]; got == nil || len(got.Callback.Vars) != 1 || got.Callback.ClientIP != e.Callback.ClientIP {
					t.Fatalf("one of others came out as %+v", got)
				}
			}
		})
	}
}

// TestErasedFileIsRewritten lets a large spool become small.
func TestErasedFileIsRewritten(t *testing.T) {
	t.Parallel()
	c, _ := config(t.TempDir())
	s := open(t, c)
	s.rewriteBelow = 0
	for n := range 100 {
		mustPut(t, s, theirs(n))
	}
	mustPut(t, s, numbered(100))
	if n, err := s.Erase(t.Context(), asked(epoch.Add(time.Hour))); err != nil || n != 100 {
		t.Fatalf("erased %d, %v", n, err)
	}
	if len(remains(t, c.Dir)) == 0 {
		t.Fatal("a large file is clean already: nothing is tested")
	}
	s.rewriteBelow = rewriteBelow
	if moved, err := s.Move(t.Context(), func(context.Context, *event.Event) (bool, error) { return false, nil }, 1); moved != 1 || err != nil {
		t.Fatal(moved, err)
	}
	if found := remains(t, c.Dir); len(found) > 0 {
		t.Errorf("after it became small: %v", found)
	}
	if got := moveOut(t, s, none); len(got) != 100 {
		t.Errorf("%d are left", len(got))
	}
}

// TestEraseMeetsMove erases while an event is being moved that then becomes a dead letter, and while
// another waits for the disk.
func TestEraseMeetsMove(t *testing.T) {
	t.Parallel()
	c, _ := config(t.TempDir())
	s := open(t, c)
	mustPut(t, s, theirs(1))
	reading, erased := make(chan struct{}), make(chan struct{})
	done := make(chan error, 1)
	go func() {
		_, err := s.Move(context.WithoutCancel(t.Context()), func(context.Context, *event.Event) (bool, error) {
			close(reading)
			<-erased
			return false, event.ErrUnstorable
		}, 1)
		done <- err
	}()
	<-reading
	p := &put{id: theirs(2).ID, record: kept.Record{Event: *theirs(2)}, answer: make(chan answer, 1)}
	var err error
	if p.frame, err = kept.Encode(&p.record); err != nil {
		t.Fatal(err)
	}
	_, err = s.Erase(t.Context(), asked(epoch.Add(time.Hour)))
	close(erased)
	if err := errors.Join(err, <-done, s.enqueue(p), (<-p.answer).err); err != nil {
		t.Fatal(err)
	}
	if !s.HasDeadLetter(theirs(1).ID) || !s.Has(theirs(2).ID) {
		t.Error("they are not in the spool")
	}
	if found := remains(t, c.Dir); len(found) > 0 {
		t.Errorf("it holds %v", found)
	}
}
