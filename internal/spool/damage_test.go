package spool

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"upcall/internal/testing/fallbacktest"

	"github.com/google/uuid"
)

// damaged returns a directory with a spool file whose content change has modified.
func damaged(t *testing.T, content []byte, change func([]byte) []byte) string {
	t.Helper()
	dir := t.TempDir()
	bad := change(append([]byte(nil), content...))
	if err := os.WriteFile(filepath.Join(dir, fileName), bad, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// image returns the content of a spool file in which events wait.
func image(t *testing.T, waiting int) []byte {
	t.Helper()
	c, _ := config(t.TempDir())
	s := open(t, c)
	fill(t, s, 0, waiting)
	s.Close()
	content, err := os.ReadFile(filepath.Join(c.Dir, fileName))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// TestDamage: however the file is damaged, the spool opens, works, and holds the intact
// records. It keeps the damaged file, and logs and counts it.
func TestDamage(t *testing.T) {
	t.Parallel()
	const waiting = 300
	content := image(t, waiting)
	zero := func(from, to int) func([]byte) []byte {
		return func(b []byte) []byte { clear(b[from:to]); return b }
	}
	for name, tt := range map[string]struct {
		change func([]byte) []byte
		least  int // intact records
	}{
		"empty":             {func(b []byte) []byte { return nil }, 0},
		"one byte":          {func(b []byte) []byte { return b[:1] }, 0},
		"half a page":       {func(b []byte) []byte { return b[:2048] }, 0},
		"cut after meta":    {func(b []byte) []byte { return b[:2*pageSize] }, 0},
		"cut in the middle": {func(b []byte) []byte { return b[:len(b)/2] }, 0},
		"cut by a byte":     {func(b []byte) []byte { return b[:len(b)-1] }, 0},
		"all zero":          {func(b []byte) []byte { clear(b); return b }, 0},
		"first meta":        {zero(0, pageSize), waiting},
		"second meta":       {zero(pageSize, 2*pageSize), waiting},
		"both metas":        {zero(0, 2*pageSize), waiting},
		"text":              {func([]byte) []byte { return []byte(strings.Repeat("hello\n", 10000)) }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, l := config(damaged(t, content, tt.change))
			s := open(t, c)
			stats := s.Stats()
			if name == "cut by a byte" && stats.Damaged == 0 && stats.Queued == waiting {
				return // the last page was not used
			}
			if stats.Damaged != 1 || stats.Queued < tt.least {
				t.Errorf("stats %+v, want one damaged file and %d callbacks", stats, tt.least)
			}
			if !strings.Contains(l.String(), fileName+".damaged-20261122T130000Z") {
				t.Errorf("log: %s", l)
			}
			fill(t, s, 1000, 1005)
			m := new(fallbacktest.Memory)
			moveAll(t, s, m, 64)
			if len(m.Order) != stats.Queued+5 {
				t.Errorf("%d moved", len(m.Order))
			}
			s.Close()
			if again := open(t, c).Stats(); again.Damaged != 1 || again.Queued != 0 {
				t.Errorf("stats after a restart %+v", again)
			}
		})
	}
}

// TestFlippedBits: a flipped bit or a page of zeros destroys only the records that it hits.
func TestFlippedBits(t *testing.T) {
	t.Parallel()
	const waiting = 100
	content := image(t, waiting)
	dice := rand.New(rand.NewPCG(1, 2))
	const rounds = 150
	set := 0
	for round := range rounds {
		at, bit, page := dice.IntN(len(content)), dice.IntN(8), round%10 == 0
		if page {
			at = at / pageSize * pageSize
		} else if round%3 == 0 {
			at = at/pageSize*pageSize + dice.IntN(64) // page headers matter most
		}
		name := fmt.Sprintf("round %d: bit %d of byte %d, whole page %v", round, bit, at, page)
		dir := damaged(t, content, func(b []byte) []byte {
			if page {
				clear(b[at:min(at+pageSize, len(b))])
			} else {
				b[at] ^= 1 << bit
			}
			return b
		})
		c, _ := config(dir)
		s, err := Open(t.Context(), c)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		missing := 0
		for n := range waiting {
			if !s.Has(numbered(n).ID) {
				missing++
			}
		}
		most := 1
		if page {
			most = 10 // a page holds several
		}
		if stats := s.Stats(); missing > most || missing > 0 && stats.Damaged == 0 {
			t.Errorf("%s: %d are missing, stats %+v", name, missing, stats)
		}
		set += s.Stats().Damaged
		m := new(fallbacktest.Memory)
		moveAll(t, s, m, waiting)
		for id, e := range m.Events {
			if id == uuid.Nil || e.Callback.Bucket != "demo" {
				t.Errorf("%s: a strange event %+v", name, e)
			}
		}
		s.Close()
		os.RemoveAll(dir)
	}
	if set == 0 || set == rounds {
		t.Errorf("%d of %d files were damaged", set, rounds)
	}
}

// TestInterruptedSalvage: if the process is killed at any point between the damaged file and
// the new one, the next process recovers the intact records once and overwrites no other file.
func TestInterruptedSalvage(t *testing.T) {
	t.Parallel()
	const waiting = 50
	intact := image(t, waiting)
	bad := bytes.Clone(intact)
	clear(bad[:pageSize])
	empty := image(t, 0)
	const first = damagedName + "20261122T130000Z" // the name for the test's time
	for name, tt := range map[string]struct {
		files   map[string][]byte
		damaged int
	}{
		"before":                     {map[string][]byte{fileName: bad}, 1},
		"before, with an older file": {map[string][]byte{fileName: bad, first: empty}, 2},
		"set aside":                  {map[string][]byte{first + unreadName: bad}, 1},
		"while a file is built":      {map[string][]byte{first + unreadName: bad, newFileName: bad[:len(bad)/2]}, 1},
		"built":                      {map[string][]byte{first + unreadName: bad, fileName: intact}, 1},
		"no room, and later enough":  {map[string][]byte{first + unreadName: bad, fileName: empty}, 1},
		"damaged again":              {map[string][]byte{first + unreadName: bad, fileName: bad}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, l := config(t.TempDir())
			for file, content := range tt.files {
				if err := os.WriteFile(filepath.Join(c.Dir, file), content, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			s := open(t, c)
			wantStats(t, s, waiting, 0)
			if got := s.Stats().Damaged; got != tt.damaged || !strings.Contains(l.String(), "intact callbacks recovered") {
				t.Errorf("%d damaged files, want %d; log: %s", got, tt.damaged, l)
			}
			if content, there := tt.files[first]; there {
				if now, err := os.ReadFile(s.path(first)); err != nil || !bytes.Equal(now, content) {
					t.Errorf("the damaged file was changed: %v", err)
				}
			}
			m := new(fallbacktest.Memory)
			moveAll(t, s, m, 64)
			if len(m.Order) != waiting {
				t.Errorf("%d moved", len(m.Order))
			}
			s.Close()
			s = open(t, c) // all records have been recovered
			wantStats(t, s, 0, 0)
			if got := s.Stats().Damaged; got != tt.damaged {
				t.Errorf("%d damaged files after a restart, want %d", got, tt.damaged)
			}
		})
	}
}

// TestCarveSkipsOldRecords: a record is not recovered if it may have been moved so long ago
// that PostgreSQL no longer has its ID.
func TestCarveSkipsOldRecords(t *testing.T) {
	t.Parallel()
	c, _ := config(damaged(t, image(t, 20), func(b []byte) []byte { clear(b[:pageSize]); return b }))
	c.Now = func() time.Time { return numbered(9).ReceivedAt.Add(carveAge) }
	if got := open(t, c).Stats(); got.Queued != 10 || got.Damaged != 1 {
		t.Errorf("stats %+v", got)
	}
}

// TestNoRoomForCopy: the spool uses a file that it cannot copy.
func TestNoRoomForCopy(t *testing.T) {
	t.Parallel()
	dir := damaged(t, image(t, 20), func(b []byte) []byte { return b })
	if err := os.MkdirAll(filepath.Join(dir, newFileName, "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	c, l := config(dir)
	s := open(t, c)
	if got := s.Stats(); got.Queued != 20 || !strings.Contains(l.String(), "could not be copied") {
		t.Errorf("stats %+v, log %s", got, l)
	}
	fill(t, s, 20, 30)
	m := new(fallbacktest.Memory)
	moveAll(t, s, m, 7)
	if len(m.Order) != 30 {
		t.Errorf("%d moved", len(m.Order))
	}
}
