package spool

import (
	"bytes"
	"testing"

	"upcall/internal/kept"
)

// FuzzFindFrames: a record is found whatever is before and after it.
func FuzzFindFrames(f *testing.F) {
	frame, err := kept.Encode(&kept.Record{Event: *numbered(1)})
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(nil), []byte(nil))
	f.Add([]byte(kept.Magic), []byte(kept.Magic))
	f.Add([]byte(kept.Magic+"\x02\x00\x00\xff\xff0000"), frame[:20])
	f.Add(frame, frame[:len(frame)-1])
	f.Fuzz(func(t *testing.T, before, after []byte) {
		found := false
		content := bytes.Join([][]byte{before, frame, after}, nil)
		err := findFrames(bytes.NewReader(content), func(h kept.Head, offset int64, size int) {
			if got, err := kept.Check(content[offset : int(offset)+size]); err != nil || got != h {
				t.Errorf("at %d, %d bytes: %+v, %v", offset, size, got, err)
			}
			found = found || int(offset) == len(before)
		})
		if err != nil || !found {
			t.Errorf("found %v, %v", found, err)
		}
	})
}
