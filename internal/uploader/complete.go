package uploader

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"upcall/internal/manifest"
)

// ErrIncomplete means that parts are missing or have the wrong size, and that OSS was not
// asked to complete the upload.
var ErrIncomplete = errors.New("the upload is not complete")

// Complete completes an upload from the parts that OSS has, sent by any client, and waits
// for the callback. It checks first that no part is missing and that they make the CRC-64
// want, unless that is nil, so that no wrong object replaces another or is reported. Then it
// compares the stored object.
//
// The error is as of [Uploader.Upload], or wraps ErrIncomplete. If the object is stored
// although something failed, the result has its ETag, and its CRC-64 if OSS sent it.
func (u *Uploader) Complete(ctx context.Context, m *manifest.Multipart, want *uint64, w Watcher) (Result, error) {
	if err := m.Check(); err != nil {
		return Result{}, err
	}
	s := u.session(Task{Watcher: w})
	s.sign(m, nil)
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
		return Result{}, fmt.Errorf("%w: the parts make %d instead of %d, so the upload was not completed: "+
			"upload the right parts, or abort",
			ErrChecksum, crc, *want)
	}
	result, err := s.complete(ctx, m, etags, want)
	result.Size, result.Parts = s.want.size, expected
	return result, err
}

// checkListed compares the parts that OSS has with those of the manifest. OSS itself
// completes an upload from any parts, whatever their sizes and the gaps between them.
func checkListed(m *manifest.Multipart, there map[int]storedPart, more bool, expected int) error {
	if len(there) == 0 {
		return fmt.Errorf("%w: no part was uploaded; upload them first", ErrIncomplete)
	}
	for number := range there {
		more = more || number > len(m.Parts)
	}
	if more {
		return fmt.Errorf("%w: OSS has parts beyond the %d of the manifest; abort, then start again", ErrIncomplete, len(m.Parts))
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
