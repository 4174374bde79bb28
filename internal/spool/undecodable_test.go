package spool

import (
	"encoding/binary"
	"encoding/json"
	"hash/crc32"
	"slices"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"

	"upcall/internal/event"
	"upcall/internal/kept"
	"upcall/internal/testing/fallbacktest"
)

// framedText returns a frame of a numbered event with this text instead of its JSON.
func framedText(t *testing.T, n int, version byte, text string) []byte {
	t.Helper()
	frame, err := kept.Encode(&kept.Record{Event: *numbered(n)})
	if err != nil {
		t.Fatal(err)
	}
	frame = append(frame[:kept.HeaderSize+kept.HeadSize], text...)
	frame[len(kept.Magic)] = version
	payload := frame[kept.HeaderSize:]
	binary.BigEndian.PutUint32(frame[kept.HeaderSize-8:], uint32(len(payload)))
	binary.BigEndian.PutUint32(frame[kept.HeaderSize-4:], crc32.Checksum(payload, crc32.MakeTable(crc32.Castagnoli)))
	return frame
}

// TestUndecodable: an intact record that this program cannot decode does not stop those behind
// it. It becomes a dead letter with the same bytes, which is listed, and can be retried by a
// program that can decode it, or discarded.
func TestUndecodable(t *testing.T) {
	t.Parallel()
	good, err := kept.Encode(&kept.Record{Event: *numbered(0)})
	if err != nil {
		t.Fatal(err)
	}
	text := string(good[kept.HeaderSize+kept.HeadSize:])
	other, err := kept.Encode(&kept.Record{Event: *numbered(99)})
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		version byte
		text    string
		why     string
	}{
		"empty":                 {2, "", "unexpected end of JSON"},
		"binary":                {2, "\x00\xff\xfe", "invalid character"},
		"cut off":               {2, text[:len(text)-20], "unexpected end of JSON"},
		"other JSON":            {2, `[1]`, "cannot unmarshal"},
		"no event":              {2, `{}`, "not an event"},
		"unknown member":        {2, strings.Replace(text, `{"event":{`, `{"event":{"tenant":"x",`, 1), "not an event"},
		"wrong type":            {2, strings.Replace(text, `"source_addr":"198.51.100.7"`, `"source_addr":7`, 1), "cannot unmarshal"},
		"of another event":      {2, string(other[kept.HeaderSize+kept.HeadSize:]), "it is of event " + numbered(99).ID.String()},
		"version 1, not JSON":   {1, "x", "invalid character"},
		"version 1, a new name": {1, `{"tenant":1}`, `unknown member "tenant"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, l := config(t.TempDir())
			s := open(t, c)
			frame := framedText(t, 0, tt.version, tt.text)
			if err := s.update(func(tx *bolt.Tx) error { return appendQueued(tx, frame) }); err != nil {
				t.Fatal(err)
			}
			fill(t, s, 1, 4)
			s.Close()
			s = open(t, c) // a restart keeps it
			wantStats(t, s, 4, 0)
			wantListed(t, c.Dir, tt.text, tt.why)
			m := new(fallbacktest.Memory)
			for _, most := range []int{1, 1, 100} { // it is at the head, and alone
				if _, err := s.Move(t.Context(), m.Record, most); err != nil {
					t.Fatal(err)
				}
			}
			for _, id := range ids(1, 2, 3) {
				if !slices.Contains(m.Order, id) {
					t.Errorf("%s was not moved", id)
				}
			}
			wantStats(t, s, 0, 1)
			if !s.HasDeadLetter(numbered(0).ID) || s.Has(numbered(0).ID) || !strings.Contains(l.String(), "is a dead letter") {
				t.Errorf("it is no dead letter; log: %s", l)
			}
			wantListed(t, c.Dir, tt.text, tt.why)
			s.Close()
			s = open(t, c)
			wantStats(t, s, 0, 1)

			// A program that can decode it gets the same bytes.
			if err := s.Retry(ids(0)); err != nil {
				t.Fatal(err)
			}
			err := s.db.View(func(tx *bolt.Tx) error {
				if _, got := tx.Bucket(queuedBucket).Cursor().First(); string(got) != string(frame) {
					t.Errorf("it waits as %q, want %q", got, frame)
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			moveAll(t, s, m, 1)
			wantStats(t, s, 0, 1)
			if err := s.Discard(ids(0)); err != nil {
				t.Fatal(err)
			}
			wantStats(t, s, 0, 0)
		})
	}
}

// wantListed checks that event 0 is listed as dead, with the reason and its bytes.
func wantListed(t *testing.T, dir, text, why string) {
	t.Helper()
	found := false
	err := Read(t.Context(), dir, func(e kept.Entry) error {
		if e.ID != numbered(0).ID {
			return nil
		}
		found = true
		var line struct {
			Record   []byte
			Rejected struct{ Reason string }
		}
		if err := json.Unmarshal(e.JSON, &line); err != nil || string(line.Record) != text || line.Rejected.Reason != e.Reason {
			t.Errorf("it is exported as %s, %v", e.JSON, err)
		}
		if !e.ReceivedAt.Equal(numbered(0).ReceivedAt) || !strings.Contains(e.Reason, why) {
			t.Errorf("it is listed as %+v, want %q", e, why)
		}
		return nil
	})
	if err != nil || !found {
		t.Errorf("it is not listed: %v", err)
	}
}

// TestDeadLetterThatCannotBeEncoded: an event that was decoded, but cannot be encoded with the
// reason, does not stop the others, either.
func TestDeadLetterThatCannotBeEncoded(t *testing.T) {
	t.Parallel()
	c, _ := config(t.TempDir())
	s := open(t, c)
	fill(t, s, 0, 2)
	m := &fallbacktest.Memory{Fail: func(e *event.Event) error {
		if e.ID == numbered(0).ID {
			e.Callback.Object = "\xff"
			return event.ErrUnstorable
		}
		return nil
	}}
	moveAll(t, s, m, 2)
	wantStats(t, s, 0, 1)
	s.Close()
	err := Read(t.Context(), c.Dir, func(e kept.Entry) error {
		if e.ID != numbered(0).ID || e.Object != numbered(0).Callback.Object || e.Reason == "" {
			t.Errorf("it is listed as %+v", e)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
