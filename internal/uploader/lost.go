package uploader

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/google/uuid"

	"upcall/internal/manifest"
)

// A lost answer is the answer to a request that stores and reports the object. A later
// request has shown that it was most likely carried out.
type lost struct {
	what      string                     // the request, as in "completion"
	known     string                     // what the later request has shown
	head      *manifest.PresignedRequest // asks for the object; nil if the manifest has none
	uploadID  uuid.UUID                  // ours
	callsBack bool                       // the upload has a callback
}

func (l lost) fail(format string, args ...any) (Result, error) {
	return Result{}, fmt.Errorf("%s: %w: %s, %s", l.what, ErrAnswerLost, l.known, fmt.Sprintf(format, args...))
}

// A content is what the stored object should hold.
type content struct {
	of   string // "the file"
	size int64
	crc  func(context.Context) (*uint64, error) // nil if it is not known
}

// answerLost finds out whether the object is stored. It succeeds if the object is right and
// there was no callback. Otherwise the error says what is known and what to do. The upload is
// not over if the next run may find out.
func (s *session) answerLost(ctx context.Context, l lost) (Result, error) {
	if l.head == nil {
		return s.neverKnown(ctx, l, "")
	}
	there, err := s.head(ctx)
	switch {
	case ctx.Err() != nil:
		s.over = false
		return Result{}, context.Cause(ctx)
	case errors.Is(err, errNoObject):
		return l.fail("but there is no object: the upload was aborted, or the object was deleted since; upload it again")
	case retryable(err) || errors.Is(err, ErrNetwork):
		s.over = false
		return l.fail("so the object is most likely stored, but OSS did not say what is there (%v); "+
			"upload again later, which checks for the object first", err)
	case err != nil:
		return s.neverKnown(ctx, l, fmt.Sprintf(", but OSS did not say what is there (%v)", err))
	case there.size != s.want.size:
		return l.fail("but the stored object is not %[1]s: it has %[2]d bytes, %[1]s %[3]d; %[4]s",
			s.want.of, there.size, s.want.size, lookAndRepeat)
	}
	crc, err := s.want.crc(ctx)
	switch {
	case err != nil:
		return Result{}, err
	case crc != nil && there.crc != *crc:
		return l.fail("but the stored object is not %[1]s: it has as many bytes, but the CRC-64 %[2]d, %[1]s %[3]d; %[4]s",
			s.want.of, there.crc, *crc, lookAndRepeat)
	case l.callsBack:
		return l.fail("and the object is stored as in %s (%d bytes, CRC-64 %d), but the receiver's answer to the callback is lost; "+
			"%s, and upload it again only if there is none", s.want.of, there.size, there.crc, lookUp(l.uploadID))
	}
	s.over = true
	s.watcher.Remark(fmt.Sprintf("%s: %v, but the object is stored as in %s", l.what, ErrAnswerLost, s.want.of))
	return Result{ETag: there.etag, CRC64: there.crc}, nil
}

// lookAndRepeat says what to do if another object is stored.
const lookAndRepeat = "check what else is stored by this key, then upload the file again"

// neverKnown returns the error for an object that this program cannot ask for.
func (s *session) neverKnown(ctx context.Context, l lost, why string) (Result, error) {
	crc, err := s.want.crc(ctx)
	if err != nil {
		return Result{}, err
	}
	find := "it exists"
	if crc != nil {
		find = fmt.Sprintf("its CRC-64 is %d", *crc)
	}
	if l.callsBack {
		find += " and whether the upload was recorded"
	}
	return l.fail("so the object is most likely stored%s; check whether %s, or upload it again", why, find)
}

// fileCRC returns the CRC-64 of the file, which it reads.
func (s *session) fileCRC(ctx context.Context) (*uint64, error) {
	_, crc, err := s.source.digest(ctx, piece{size: s.source.Size()})
	if ctx.Err() != nil {
		s.over = false // the next run finds out
	}
	return &crc, err
}

// lookUp says how to find out whether an upload was recorded.
func lookUp(id uuid.UUID) string {
	if id == uuid.Nil {
		return "look for the upload's row at the receiver"
	}
	return fmt.Sprintf("look at the receiver for the row whose upload_id is %s", id)
}

var errNoObject = errors.New("there is no object")

type storedObject struct {
	size int64 // bytes
	crc  uint64
	etag string
}

// head asks for the object. The error is errNoObject, or means that it is not known.
func (s *session) head(ctx context.Context) (storedObject, error) {
	const what = "look at the object"
	of := func(m *manifest.Multipart) manifest.PresignedRequest { return *m.Head }
	a, _, err := s.send(ctx, message{what: what, of: of, patience: s.cfg.Stall})
	if status, ok := errors.AsType[*StatusError](err); ok && status.Status == http.StatusNotFound {
		return storedObject{}, errNoObject
	}
	if err != nil {
		return storedObject{}, err
	}
	size, badSize := strconv.ParseInt(a.header.Get("Content-Length"), 10, 64)
	crc, ok := a.storedCRC()
	if badSize != nil || !ok {
		return storedObject{}, fmt.Errorf("%s: %w: it has no size or no %s", what, ErrNotOSS, crcHeader)
	}
	return storedObject{size, crc, a.header.Get("ETag")}, nil
}
