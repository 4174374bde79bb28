package spool

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"slices"
	"time"

	"upcall/internal/kept"
)

// bbolt's meta pages, the first two of a file (internal/common/meta.go of bbolt 1.5): a
// page header, then magic, version, page size and flags of 4 bytes each, root page and
// sequence, free list, number of pages, transaction of 8 bytes each, and the FNV-1a of
// all that, in the machine's byte order.
const (
	metaOffset   = 16 // in the page; what follows are offsets from there
	metaPageSize = 8
	metaPages    = 40
	metaSum      = 56
	metaSize     = 64
)

// checkMeta makes two checks that bbolt does not make. bbolt accepts a file with one good
// meta page, and if that is the older one, silently loses the last transaction. And it reads
// beyond the end of a truncated file.
func checkMeta(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	for page := range int64(2) {
		meta := make([]byte, metaSize)
		if _, err := f.ReadAt(meta, page*pageSize+metaOffset); err != nil {
			return fmt.Errorf("%w: read meta page %d: %w", ErrDamaged, page, err)
		}
		sum := fnv.New64a()
		sum.Write(meta[:metaSum])
		switch pages := binary.NativeEndian.Uint64(meta[metaPages:]); {
		case sum.Sum64() != binary.NativeEndian.Uint64(meta[metaSum:]):
			return fmt.Errorf("%w: meta page %d has the wrong checksum", ErrDamaged, page)
		case binary.NativeEndian.Uint32(meta[metaPageSize:]) != pageSize:
			return fmt.Errorf("%w: meta page %d has the wrong page size", ErrDamaged, page)
		case pages > uint64(info.Size())/pageSize:
			return fmt.Errorf("%w: it has %d bytes but should have %d pages of %d", ErrDamaged, info.Size(), pages, pageSize)
		}
	}
	return nil
}

// carveAge is the greatest age of a callback that is recovered from a damaged file. The
// callback may have been moved before, and is then recorded again. PostgreSQL recognizes it
// as a duplicate because it keeps IDs for at least 30 days.
const carveAge = 28 * 24 * time.Hour

// carve calls visit, in the order of arrival, for each intact record that arrived after
// since. It searches the whole file and also finds records that were removed long ago.
func carve(path string, since time.Time, visit func(kept.Head, []byte) error) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("read damaged file: %w", err)
	}
	defer f.Close()
	type place struct {
		receivedAt time.Time
		offset     int64
		size       int
	}
	var places []place
	err = findFrames(f, func(h kept.Head, offset int64, size int) {
		if h.ReceivedAt.After(since) {
			places = append(places, place{h.ReceivedAt, offset, size})
		}
	})
	if err != nil {
		return fmt.Errorf("read damaged file: %w", err)
	}
	slices.SortStableFunc(places, func(a, b place) int { return a.receivedAt.Compare(b.receivedAt) })
	for _, p := range places {
		frame := make([]byte, p.size)
		if _, err := f.ReadAt(frame, p.offset); err != nil {
			return fmt.Errorf("read damaged file: %w", err)
		}
		h, err := kept.Check(frame)
		if err != nil {
			return fmt.Errorf("read damaged file: %w", err)
		}
		if err := visit(h, frame); err != nil {
			return err
		}
	}
	return nil
}

// findFrames calls found for each intact frame.
func findFrames(r io.Reader, found func(h kept.Head, offset int64, size int)) error {
	in := bufio.NewReaderSize(r, kept.HeaderSize+kept.MaxPayload)
	var offset int64
	for {
		header, err := in.Peek(kept.HeaderSize)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		skip := 0
		if size := kept.Size(header); size > 0 {
			if frame, err := in.Peek(size); err == nil {
				if h, err := kept.Check(frame); err == nil {
					found(h, offset, size)
					skip = size
				}
			}
		}
		if skip == 0 { // skip to the next possible frame
			buffered, _ := in.Peek(in.Buffered())
			if next := bytes.Index(buffered[1:], []byte(kept.Magic)); next >= 0 {
				skip = 1 + next
			} else {
				skip = max(1, len(buffered)-len(kept.Magic)+1)
			}
		}
		n, err := in.Discard(skip)
		offset += int64(n)
		if err != nil {
			return err
		}
	}
}
