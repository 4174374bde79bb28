package ossemu

import (
	"cmp"
	"crypto/md5"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// An upload is a multipart upload that is neither completed nor aborted.
type upload struct {
	ID, Bucket, Key string
	Meta            metadata
	Sequential      bool // the parts come in order, so OSS knows the MD5 of the whole
	Initiated       time.Time

	parts      map[int]*part
	completing bool // its parts are being joined: nothing may touch it
}

type part struct {
	UploadID     string
	Number       int
	Content      content
	LastModified time.Time
}

func (p *part) recordName() string { return fmt.Sprintf("part-%s-%05d", p.UploadID, p.Number) }

func uploadRecord(id string) string { return "upload-" + id }

// sorted returns the parts in the order of their numbers.
func (u *upload) sorted() []*part {
	return slices.SortedFunc(maps.Values(u.parts), func(a, b *part) int { return cmp.Compare(a.Number, b.Number) })
}

// initiate opens an upload and gives it its id.
func (s *store) initiate(u *upload) error {
	u.ID, u.parts = strings.ToUpper(randomHex(16)), make(map[int]*part)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.backend.saveRecord(uploadRecord(u.ID), u); err != nil {
		return fmt.Errorf("save upload: %w", err)
	}
	s.uploads[u.ID] = u
	return nil
}

// findUpload returns an upload under the lock. An id is not valid with another key.
func (s *store) findUpload(id, bucket, key string) (*upload, error) {
	u := s.uploads[id]
	if u == nil || u.completing || u.Bucket != bucket || u.Key != key {
		return nil, errNoSuchUpload.with("UploadId", id)
	}
	return u, nil
}

// putPart adds a part or replaces the one with its number. On an error its content is
// dropped.
func (s *store) putPart(bucket, key string, p *part) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	u, err := s.findUpload(p.UploadID, bucket, key)
	if err == nil {
		err = s.backend.saveRecord(p.recordName(), p)
	}
	if err != nil {
		return errors.Join(err, s.backend.remove(p.Content.Blob))
	}
	old := u.parts[p.Number]
	u.parts[p.Number] = p
	if old != nil {
		return s.backend.remove(old.Content.Blob)
	}
	return nil
}

// listParts returns an upload's metadata and its parts in order.
func (s *store) listParts(id, bucket, key string) (*upload, []*part, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	u, err := s.findUpload(id, bucket, key)
	if err != nil {
		return nil, nil, err
	}
	return u, u.sorted(), nil
}

// listUploads returns the uploads of a bucket by key, then id.
func (s *store) listUploads(bucket, prefix string) []*upload {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var found []*upload
	for _, u := range s.uploads {
		if u.Bucket == bucket && strings.HasPrefix(u.Key, prefix) {
			found = append(found, u)
		}
	}
	slices.SortFunc(found, func(a, b *upload) int {
		return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.ID, b.ID))
	})
	return found
}

// begin reserves an upload for completion, end gives it back.
func (s *store) begin(id, bucket, key string) (*upload, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u, err := s.findUpload(id, bucket, key)
	if err != nil {
		return nil, err
	}
	u.completing = true
	return u, nil
}

func (s *store) end(u *upload) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u.completing = false
}

// join copies the parts of a reserved upload into one new blob and returns it with the
// object's ETag.
func (s *store) join(parts []*part, limit int64) (content, string, error) {
	r := &partReader{backend: s.backend, parts: parts}
	defer r.close()
	joined, err := s.receive(r, limit)
	if err != nil {
		return content{}, "", err
	}
	return joined, multipartETag(parts), nil
}

// multipartETag is OSS's: the MD5 of the parts' ETags as they are written, in upper-case
// hex, then a hyphen and their number. (S3's is over the raw MD5s.)
func multipartETag(parts []*part) string {
	sum := md5.New()
	for _, p := range parts {
		_, _ = io.WriteString(sum, p.Content.etag()) // never fails
	}
	return fmt.Sprintf("%X-%d", sum.Sum(nil), len(parts))
}

// forget removes an upload with its parts: part records first, so that no record of a
// part ever outlives its upload.
func (s *store) forget(u *upload) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.remove(u)
}

// remove is forget under the lock.
func (s *store) remove(u *upload) error {
	var errs []error
	for _, p := range u.parts {
		errs = append(errs, s.backend.removeRecord(p.recordName()), s.backend.remove(p.Content.Blob))
	}
	errs = append(errs, s.backend.removeRecord(uploadRecord(u.ID)))
	delete(s.uploads, u.ID)
	return errors.Join(errs...)
}

// A partReader reads parts one after the other and opens each when its turn comes:
// there may be ten thousand.
type partReader struct {
	backend backend
	parts   []*part
	open    io.ReadCloser
}

func (r *partReader) Read(p []byte) (int, error) {
	for {
		if r.open == nil {
			if len(r.parts) == 0 {
				return 0, io.EOF
			}
			f, err := r.backend.open(r.parts[0].Content.Blob)
			if err != nil {
				return 0, fmt.Errorf("open part %d: %w", r.parts[0].Number, err)
			}
			r.open, r.parts = f, r.parts[1:]
		}
		n, err := r.open.Read(p)
		if err != io.EOF {
			return n, err
		}
		r.close()
		if n > 0 {
			return n, nil
		}
	}
}

func (r *partReader) close() {
	if r.open != nil {
		_ = r.open.Close() // only read
		r.open = nil
	}
}
