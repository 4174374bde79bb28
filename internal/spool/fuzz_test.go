package spool

import (
	"bytes"
	"testing"
)

// FuzzFindFrames: a record is found whatever is before and after it.
func FuzzFindFrames(f *testing.F) {
	frame, err := encode(&record{Event: *numbered(1)})
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(nil), []byte(nil))
	f.Add([]byte(magic), []byte(magic))
	f.Add([]byte(magic+"\x02\x00\x00\xff\xff0000"), frame[:20])
	f.Add(frame, frame[:len(frame)-1])
	f.Fuzz(func(t *testing.T, before, after []byte) {
		found := false
		content := bytes.Join([][]byte{before, frame, after}, nil)
		err := findFrames(bytes.NewReader(content), func(h head, offset int64, size int) {
			if got, err := check(content[offset : int(offset)+size]); err != nil || got != h {
				t.Errorf("at %d, %d bytes: %+v, %v", offset, size, got, err)
			}
			found = found || int(offset) == len(before)
		})
		if err != nil || !found {
			t.Errorf("found %v, %v", found, err)
		}
	})
}
