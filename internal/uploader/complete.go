package uploader

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"upcall/internal/manifest"
)

// ErrIncomplete means that parts are missing, or have the wrong size. Nothing was merged.
var ErrIncomplete = errors.New("the upload is not complete")

// Complete merges the parts that OSS has, from any client, and waits for the callback. Parts
// that are missing, or that do not make the CRC-64 want, if that is not nil, are found
// before the merge, so that no wrong object replaces another and no callback is made for it.
// The stored object is compared after it.
//
// The error is as of [Uploader.Upload], or wraps ErrIncomplete. An object that is stored
// although something failed has an ETag in the result, and a CRC-64 unless OSS did not say it.
func (u *Uploader) Complete(ctx context.Context, m *manifest.Multipart, want *uint64, w Watcher) (Result, error) {
	if err := m.Check(); err != nil {
		return Result{}, err
	}
	s := u.session(Task{Watcher: w})
	there, more, err := s.listParts(ctx, m)
	if err != nil {
		return Result{}, err
	}
	expected := len(m.Parts)
	if m.Size == nil {
		expected = len(there)
	}
	if err := checkListed(m, there, more, expected); err != nil {
		return Result{}, err
	}
	s.want = content{of: "the parts", crc: func(context.Context) (*uint64, error) { return want, nil }}
	etags := make([]string, expected)
	crc, known := uint64(0), true // of the whole
	for i := range etags {
		part := there[i+1]
		one, err := strconv.ParseUint(part.HashCrc64ecma, 10, 64)
		crc, known = combineCRC(crc, one, part.Size), known && err == nil
		s.want.size += part.Size
		etags[i] = part.ETag
	}
	switch {
	case !known:
	case want == nil:
		want = &crc
	case crc != *want:
		return Result{}, fmt.Errorf("%w: the parts make %d instead of %d, and nothing was merged: upload the right parts again, or abort",
			ErrChecksum, crc, *want)
	}
	result, err := s.complete(ctx, m, etags, want)
	result.Size, result.Parts = s.want.size, expected
	return result, err
}

// checkListed compares what OSS has with what there is to be. OSS itself merges any parts
// that it is told to, with gaps between them and whatever their sizes.
func checkListed(m *manifest.Multipart, there map[int]storedPart, more bool, expected int) error {
	if len(there) == 0 {
		return fmt.Errorf("%w: no part was uploaded; upload them first", ErrIncomplete)
	}
	for number := range there {
		more = more || number > len(m.Parts)
	}
	if more {
		return fmt.Errorf("%w: OSS has parts beyond the %d of the manifest; abort, and begin again", ErrIncomplete, len(m.Parts))
	}
	for number := 1; number <= expected; number++ {
		part, ok := there[number]
		if !ok {
			return fmt.Errorf("%w: part %d of %d was not uploaded; upload it first", ErrIncomplete, number, expected)
		}
		if size := m.Parts[number-1].Size; size != nil && *size != part.Size {
			return fmt.Errorf("%w: part %d has %d bytes instead of %d; upload it again", ErrIncomplete, number, part.Size, *size)
		}
	}
	return nil
}
