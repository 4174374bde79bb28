package kept

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"upcall/internal/event"
)

// framed returns a frame of a payload, with the right length and checksum.
func framed(v byte, payload []byte) []byte {
	frame := append(append([]byte(Magic), v), make([]byte, 8)...)
	binary.BigEndian.PutUint32(frame[HeaderSize-8:], uint32(len(payload)))
	binary.BigEndian.PutUint32(frame[HeaderSize-4:], crc32.Checksum(payload, castagnoli))
	return append(frame, payload...)
}

// FuzzDecode: whatever is in a spool's file or a stream's message, reading it ends in a record or an error, and what is
// read is written as the same again. The fuzzer gets past the checksum, because others may publish to a stream, too.
func FuzzDecode(f *testing.F) {
	good, err := Encode(&Record{Event: event.Event{Source: event.SourceCallback}})
	if err != nil {
		f.Fatal(err)
	}
	payload := good[HeaderSize:]
	f.Add(byte(version), payload)
	f.Add(byte(1), payload)
	f.Add(byte(1), slices.Concat(payload[:HeadSize],
		[]byte(`{"id":"00000000-0000-0000-0000-000000000000","crc64":18446744073709551615,"rejected":{"reason":"x"}}`)))
	f.Add(byte(version), slices.Concat(payload[:HeadSize],
		[]byte(`{"event":{},"source_addr":"::1%x","dead_letter":{"at":"2026-11-28T00:00:00Z"}}`)))
	f.Add(byte(0), []byte(nil))
	f.Fuzz(func(t *testing.T, v byte, payload []byte) {
		for _, frame := range [][]byte{payload, framed(v, payload)} {
			h, checkErr := Check(frame)
			r, err := Decode(frame)
			entry, showErr := Show(frame)
			if checkErr != nil {
				if err == nil || showErr == nil {
					t.Fatalf("a damaged frame: decode %v, show %v", err, showErr)
				}
				continue
			}
			if showErr != nil || entry.ID != h.ID || len(entry.JSON) == 0 || bytes.ContainsRune(entry.JSON, '\n') {
				t.Fatalf("an intact frame is shown as %+v, %s, %v", entry, entry.JSON, showErr)
			}
			if dead, err := Check(Flagged(frame, true)); err != nil || !dead.Dead || dead.ID != h.ID {
				t.Fatalf("flagged: %+v, %v", dead, err)
			}
			if err != nil {
				continue
			}
			again, err := Encode(r)
			if err != nil { // PostgreSQL could not hold it either
				continue
			}
			if r.Source == "" { // version 1 knew callbacks only
				r.Source = event.SourceCallback
			}
			same, err := Decode(again)
			if err != nil {
				t.Fatalf("what was written cannot be read: %v", err)
			}
			if diff := cmp.Diff(r, same, cmpopts.EquateComparable(r.SourceAddr), cmpopts.EquateEmpty()); diff != "" {
				t.Fatalf("(-read +read again)\n%s", diff)
			}
		}
	})
}
