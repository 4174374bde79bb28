package uploader

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"upcall/internal/manifest"
)

// A storedPart is a part that OSS has.
type storedPart struct {
	PartNumber    int
	ETag          string // with its quotes, as OSS wants it back
	Size          int64
	HashCrc64ecma string
}

// multipart sends the parts that are not there yet, then has OSS merge them.
func (s *session) multipart(ctx context.Context, m *manifest.Multipart, pieces []piece) (Result, error) {
	result, err := s.resume(ctx, m, pieces)
	if s.over || errors.Is(err, ErrUploadGone) {
		err = errors.Join(err, s.state.Remove())
	}
	return result, err
}

// completed is what an upload that is gone means after the completion was sent.
const completed = "OSS was asked to merge the parts, and the upload is over now"

func lostCompletion(m *manifest.Multipart, known string) lost {
	return lost{"completion", known, m.Head, m.ID, callsBack(m.Complete)}
}

func (s *session) resume(ctx context.Context, m *manifest.Multipart, pieces []piece) (Result, error) {
	there, err := s.listParts(ctx, m)
	if errors.Is(err, ErrUploadGone) && s.state.Completing {
		s.over = true
		crc, err := s.answerLost(ctx, lostCompletion(m, completed))
		return Result{CRC64: crc, Parts: len(pieces)}, err
	}
	if err != nil {
		return Result{}, err
	}
	parts, kept, err := s.sendParts(ctx, pieces, there)
	if err != nil {
		return Result{}, err
	}
	// Nothing is merged, and nothing reported, that is a mixture of two files.
	if err := s.source.unchanged(); err != nil {
		return Result{}, err
	}
	var crc uint64
	for i, part := range parts {
		crc = combineCRC(crc, part.crc, pieces[i].size)
	}
	said, err := s.complete(ctx, m, parts, crc)
	if err != nil {
		return Result{}, err
	}
	return Result{Answer: said, CRC64: crc, Parts: len(parts), Kept: kept}, nil
}

// listParts returns what OSS has, by number. Of a part that no page lists nobody says
// that it is there, and it is sent again.
func (s *session) listParts(ctx context.Context, m *manifest.Multipart) (map[int]storedPart, error) {
	const what = "list of parts"
	there := make(map[int]storedPart)
	for _, page := range m.Lists() {
		a, _, err := s.send(ctx, message{what: what, request: page, patience: s.cfg.Stall})
		if err != nil {
			return nil, err
		}
		var list struct {
			XMLName     xml.Name `xml:"ListPartsResult"`
			UploadId    string
			IsTruncated bool
			Part        []storedPart
		}
		if err := xml.Unmarshal(a.body, &list); err != nil || list.UploadId != m.OSSUploadID {
			return nil, fmt.Errorf("%s: %w: it is no list of this upload's parts; look at what stands between here and OSS", what, ErrNotOSS)
		}
		for _, part := range list.Part {
			there[part.PartNumber] = part
		}
		if !list.IsTruncated {
			break
		}
	}
	return there, nil
}

// A sentPart is one that OSS has, and that is the same as in the file.
type sentPart struct {
	etag string // as OSS spelt it
	crc  uint64
	kept bool // it was there already
}

func (s *session) sendParts(ctx context.Context, pieces []piece, there map[int]storedPart) (parts []sentPart, kept int, err error) {
	parts = make([]sentPart, len(pieces))
	within, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var group sync.WaitGroup
	for i, p := range pieces {
		if err := s.slots.Acquire(within, 1); err != nil {
			break // another part failed, or ctx ended
		}
		group.Go(func() {
			defer s.slots.Release(1)
			var err error
			if parts[i], err = s.sendPart(within, p, there[p.number]); err != nil {
				stop(err) // while the slot is held, so that no part begins after one that failed
			}
		})
	}
	group.Wait()
	if err := context.Cause(within); err != nil {
		return nil, 0, err
	}
	for _, part := range parts {
		if part.kept {
			kept++
		}
	}
	return parts, kept, nil
}

// sendPart sends a part unless the one that is there is the same. Its ETag is the MD5
// of what OSS has; where it is not, as with some kinds of encryption, the part is sent
// again.
func (s *session) sendPart(ctx context.Context, p piece, there storedPart) (sentPart, error) {
	if there.PartNumber == p.number && there.Size == p.size {
		etag, crc, err := s.source.digest(ctx, p)
		if err != nil {
			return sentPart{}, err
		}
		sameCRC := there.HashCrc64ecma == "" || there.HashCrc64ecma == strconv.FormatUint(crc, 10)
		if strings.EqualFold(strings.Trim(there.ETag, `"`), etag) && sameCRC {
			s.watcher.Sent(p.size)
			return sentPart{there.ETag, crc, true}, nil
		}
	}
	what := fmt.Sprintf("part %d", p.number)
	a, _, err := s.send(ctx, message{what: what, request: p.request, piece: &p, patience: s.cfg.Stall})
	if err != nil {
		return sentPart{}, err
	}
	etag := a.header.Get("ETag")
	if etag == "" {
		return sentPart{}, fmt.Errorf("%s: %w: it has no ETag; look at what stands between here and OSS", what, ErrNotOSS)
	}
	return sentPart{etag, a.crc, false}, nil
}

// complete has OSS merge the parts and call back. That it was asked is written down
// first: when the upload is over the next time, it was most likely this.
func (s *session) complete(ctx context.Context, m *manifest.Multipart, parts []sentPart, crc uint64) ([]byte, error) {
	const what = "completion"
	type listed struct {
		PartNumber int
		ETag       string
	}
	list := struct {
		XMLName xml.Name `xml:"CompleteMultipartUpload"`
		Part    []listed
	}{}
	for i, part := range parts {
		list.Part = append(list.Part, listed{i + 1, part.etag})
	}
	document, err := xml.Marshal(list)
	if err != nil {
		return nil, fmt.Errorf("write list of parts: %w", err)
	}
	askedBefore := s.state.Completing
	s.state.Completing = true
	if err := s.state.Save(); err != nil {
		return nil, err
	}
	a, maybe, err := s.send(ctx, message{what: what, request: m.Complete, document: document, patience: 3 * s.cfg.Stall})
	s.over = err == nil || errors.Is(err, ErrCallbackFailed) || errors.Is(err, ErrUploadGone)
	switch {
	case errors.Is(err, ErrUploadGone) && (maybe || askedBefore):
		_, err := s.answerLost(ctx, lostCompletion(m, completed))
		return nil, err
	case taken(err) && (maybe || askedBefore):
		_, err := s.answerLost(ctx, lostCompletion(m, "OSS was asked to merge the parts before, and the key is taken now"))
		return nil, err
	case errors.Is(err, ErrCallbackFailed) && a.header.Get(crcHeader) != "":
		return nil, errors.Join(err, checkCRC(what, a, crc))
	case err != nil:
		return nil, err
	}
	if err := checkCRC(what, a, crc); err != nil {
		return nil, err
	}
	return receiverAnswer(what, m.Complete, a)
}
