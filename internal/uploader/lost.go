package uploader

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/google/uuid"

	"upcall/internal/issue"
)

// A lost answer is one to a request that stores the object and has it reported, and that
// was most likely carried out: asking again shows it.
type lost struct {
	what  string           // the request, as in "completion"
	known string           // what asking again has shown
	m     *issue.Multipart // nil for a single PUT
}

// answerLost finds out what became of the object, and returns the file's CRC-64. Where
// the object is there as in the file, and nobody was to be called back, nothing is
// amiss. All else is an error that says what is known and what to do.
func (s *session) answerLost(ctx context.Context, l lost) (uint64, error) {
	_, crc, err := s.source.digest(ctx, piece{size: s.source.Size()})
	if err != nil {
		s.over = ctx.Err() == nil // else the next run finds it out
		return 0, err
	}
	fail := func(format string, args ...any) (uint64, error) {
		return 0, fmt.Errorf("%s: %w: %s, %s", l.what, ErrAnswerLost, l.known, fmt.Sprintf(format, args...))
	}
	if l.m == nil || l.m.Head == nil {
		return fail("so the object is most likely stored; look whether its CRC-64 is %d, and whether the upload was recorded, or upload it again", crc)
	}
	there, err := s.head(ctx, *l.m.Head)
	switch {
	case ctx.Err() != nil:
		s.over = false
		return 0, context.Cause(ctx)
	case errors.Is(err, errNoObject):
		return fail("and there is no object: the upload was aborted, or the object deleted since; upload it again")
	case err != nil:
		return fail("so the object is most likely stored, but OSS did not say what is there (%v); look whether its CRC-64 is %d, and whether the upload was recorded, or upload it again", err, crc)
	case there.size != s.source.Size() || there.crc != crc:
		return fail("and the object that is there is not the file: it has %d bytes with the CRC-64 %d, the file %d with %d; look what else is stored by this key, and upload the file again",
			there.size, there.crc, s.source.Size(), crc)
	case callsBack(l.m.Complete):
		return fail("and the object is there as in the file (%d bytes, CRC-64 %d), but what the callback's receiver answered is lost; %s, and upload it again only if there is none",
			there.size, crc, lookUp(l.m.ID))
	}
	s.over = true
	s.watcher.Remark(fmt.Sprintf("%s: %v, but the object is there as in the file", l.what, ErrAnswerLost))
	return crc, nil
}

// lookUp says how to find out whether an upload was recorded.
func lookUp(id uuid.UUID) string {
	if id == uuid.Nil {
		return "look for the upload's row at the receiver"
	}
	return fmt.Sprintf("look at the receiver for the row whose upload_id is %s", id)
}

// errNoObject means that there is no object by the key.
var errNoObject = errors.New("there is no object")

// A storedObject is what OSS says of an object.
type storedObject struct {
	size int64 // bytes
	crc  uint64
}

// head asks for the object. The error is errNoObject, or means that nobody knows.
func (s *session) head(ctx context.Context, request issue.PresignedRequest) (storedObject, error) {
	const what = "look at the object"
	a, _, err := s.send(ctx, message{what: what, request: request, patience: s.cfg.Stall})
	if status, ok := errors.AsType[*StatusError](err); ok && status.Status == http.StatusNotFound {
		return storedObject{}, errNoObject
	}
	if err != nil {
		return storedObject{}, err
	}
	size, badSize := strconv.ParseInt(a.header.Get("Content-Length"), 10, 64)
	crc, badCRC := strconv.ParseUint(a.header.Get(crcHeader), 10, 64)
	if badSize != nil || badCRC != nil {
		return storedObject{}, fmt.Errorf("%s: %w: it has no size or no %s", what, ErrNotOSS, crcHeader)
	}
	return storedObject{size, crc}, nil
}
