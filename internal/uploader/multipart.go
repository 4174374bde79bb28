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

// A storedPart is a part as OSS lists it.
type storedPart struct {
	PartNumber    int
	ETag          string // with its quotes, as OSS wants it back
	Size          int64
	HashCrc64ecma string
}

// multipart sends the parts that OSS lacks, then completes the upload.
func (s *session) multipart(ctx context.Context, m *manifest.Multipart, pieces []piece) (Result, error) {
	result, err := s.resume(ctx, m, pieces)
	if s.over || errors.Is(err, ErrUploadGone) {
		err = errors.Join(err, s.state.Remove())
	}
	return result, err
}

// completed says what is known about an upload that is gone after OSS was asked to complete it.
const completed = "OSS was asked to complete the upload, which is over now"

func lostCompletion(m *manifest.Multipart, known string) lost {
	return lost{"completion", known, m.Head, m.ID, callsBack(m.Complete)}
}

func (s *session) resume(ctx context.Context, m *manifest.Multipart, pieces []piece) (Result, error) {
	there, _, err := s.listParts(ctx, m)
	if errors.Is(err, ErrUploadGone) && s.state.Completing {
		s.over = true
		result, err := s.answerLost(ctx, lostCompletion(m, completed))
		result.Parts = len(pieces)
		return result, err
	}
	if err != nil {
		return Result{}, err
	}
	parts, err := s.sendParts(ctx, pieces, there)
	if err != nil {
		return Result{}, err
	}
	// An object that mixes two versions of the file is neither stored nor reported.
	if err := s.source.unchanged(); err != nil {
		return Result{}, err
	}
	var crc uint64
	var kept int
	etags := make([]string, len(parts))
	for i, part := range parts {
		crc = combineCRC(crc, part.crc, pieces[i].size)
		etags[i] = part.etag
		if part.kept {
			kept++
		}
	}
	result, err := s.complete(ctx, m, etags, &crc)
	result.Size, result.Parts, result.Kept = s.want.size, len(parts), kept
	return result, err
}

// listParts returns the parts that OSS has, by number, and whether there are more than the
// manifest has lists for. A part that no list holds counts as missing.
func (s *session) listParts(ctx context.Context, m *manifest.Multipart) (there map[int]storedPart, more bool, err error) {
	const what = "list of parts"
	there = make(map[int]storedPart)
	for page := range m.Lists() {
		of := func(m *manifest.Multipart) manifest.PresignedRequest { return m.Lists()[page] }
		a, _, err := s.send(ctx, message{what: what, of: of, patience: s.cfg.Stall})
		if err != nil {
			return nil, false, err
		}
		var list struct {
			XMLName     xml.Name `xml:"ListPartsResult"`
			UploadId    string
			IsTruncated bool
			Part        []storedPart
		}
		if err := xml.Unmarshal(a.body, &list); err != nil || list.UploadId != m.OSSUploadID {
			return nil, false, fmt.Errorf("%s: %w: it is not a list of this upload's parts; %s", what, ErrNotOSS, lookBetween)
		}
		for _, part := range list.Part {
			there[part.PartNumber] = part
		}
		if more = list.IsTruncated; !more {
			break
		}
	}
	return there, more, nil
}

// A sentPart is one that OSS has as it is in the file.
type sentPart struct {
	etag string // as OSS spells it
	crc  uint64
	kept bool // it was there already
}

func (s *session) sendParts(ctx context.Context, pieces []piece, there map[int]storedPart) ([]sentPart, error) {
	parts := make([]sentPart, len(pieces))
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
	return parts, context.Cause(within)
}

// sendPart sends a part unless OSS has the same one. The ETag is usually the MD5 of the
// stored part; where it is not, as with some kinds of encryption, the part is sent again.
func (s *session) sendPart(ctx context.Context, p piece, there storedPart) (sentPart, error) {
	if there.PartNumber == p.number && there.Size == p.size {
		etag, crc, err := s.source.digest(ctx, p)
		if err != nil {
			return sentPart{}, err
		}
		sameCRC := there.HashCrc64ecma == "" || there.HashCrc64ecma == strconv.FormatUint(crc, 10)
		if strings.EqualFold(strings.Trim(there.ETag, `"`), etag) && sameCRC {
			s.watcher.Kept(p.size)
			return sentPart{there.ETag, crc, true}, nil
		}
	}
	what := fmt.Sprintf("part %d", p.number)
	of := func(m *manifest.Multipart) manifest.PresignedRequest { return m.Parts[p.number-1].PresignedRequest }
	a, _, err := s.send(ctx, message{what: what, of: of, piece: &p, patience: s.cfg.Stall})
	if err != nil {
		return sentPart{}, err
	}
	etag := a.header.Get("ETag")
	if etag == "" {
		return sentPart{}, fmt.Errorf("%s: %w: it has no ETag; %s", what, ErrNotOSS, lookBetween)
	}
	return sentPart{etag, a.crc, false}, nil
}

// complete has OSS complete the upload from the parts with these ETags, and call back. The
// state records the request first: if the next run finds the upload over, this request is
// the likely cause. If the object is stored although something failed, the result has its
// ETag.
func (s *session) complete(ctx context.Context, m *manifest.Multipart, etags []string, crc *uint64) (Result, error) {
	const what = "completion"
	type part struct {
		PartNumber int
		ETag       string
	}
	list := struct {
		XMLName xml.Name `xml:"CompleteMultipartUpload"`
		Part    []part
	}{}
	for i, etag := range etags {
		list.Part = append(list.Part, part{i + 1, etag})
	}
	document, err := xml.Marshal(list)
	if err != nil {
		return Result{}, fmt.Errorf("write list of parts: %w", err)
	}
	askedBefore := s.state.Completing
	s.state.Completing = true
	if err := s.state.Save(); err != nil {
		return Result{}, err
	}
	of := func(m *manifest.Multipart) manifest.PresignedRequest { return m.Complete }
	a, maybe, err := s.send(ctx, message{what: what, of: of, document: document, patience: 3 * s.cfg.Stall})
	s.over = err == nil || errors.Is(err, ErrCallbackFailed) || errors.Is(err, ErrUploadGone)
	switch {
	case errors.Is(err, ErrUploadGone) && (maybe || askedBefore):
		return s.answerLost(ctx, lostCompletion(m, completed))
	case taken(err) && (maybe || askedBefore):
		return s.answerLost(ctx, lostCompletion(m, "OSS was asked to complete the upload before, and the key is taken now"))
	case err != nil && !errors.Is(err, ErrCallbackFailed):
		return Result{}, err
	}
	stored, known := a.storedCRC()
	result := Result{ETag: a.header.Get("ETag"), CRC64: stored}
	if known || err == nil {
		err = errors.Join(err, checkCRC(what, a, crc))
	}
	if err == nil {
		result.Answer, err = receiverAnswer(what, m.Complete, a)
	}
	return result, err
}
