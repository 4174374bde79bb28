package uploader

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc64"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync"
)

// ErrChanged means that the file changed after the upload began.
var ErrChanged = errors.New("the file changed while it was uploaded")

// A Source is a file that is open for uploading.
type Source struct {
	file *os.File
	info fs.FileInfo // when it was opened
}

// OpenSource opens a regular file. Other files have no size, or cannot be read again for
// another attempt.
func OpenSource(path string) (*Source, error) {
	info, err := os.Stat(path) // before opening: opening a named pipe waits for its writer
	if err == nil && !info.Mode().IsRegular() {
		reason := "is not a regular file; copy it to one first"
		if info.IsDir() {
			reason = "is a directory; pass the files in it, or give --recursive"
		}
		err = &fs.PathError{Op: "open", Path: path, Err: errors.New(reason)}
	}
	if err != nil {
		return nil, err
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if info, err = file.Stat(); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return &Source{file: file, info: info}, nil
}

// Size is the file's size in bytes when it was opened.
func (s *Source) Size() int64 { return s.info.Size() }

// Close closes the file.
func (s *Source) Close() error { return s.file.Close() }

// unchanged looks at size and modification time.
func (s *Source) unchanged() error {
	now, err := s.file.Stat()
	if err != nil {
		return fmt.Errorf("look at file: %w", err)
	}
	if now.Size() != s.info.Size() || !now.ModTime().Equal(s.info.ModTime()) {
		return ErrChanged
	}
	return nil
}

// digest reads a section and returns the ETag and CRC-64 that OSS would give it.
func (s *Source) digest(ctx context.Context, p piece) (etag string, crc uint64, err error) {
	md, sum := md5.New(), crc64.New(crcTable)
	section := io.NewSectionReader(s.file, p.offset, p.size)
	n, err := io.Copy(io.MultiWriter(md, sum), readerFunc(func(b []byte) (int, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		return section.Read(b)
	}))
	switch {
	case err != nil:
		return "", 0, fmt.Errorf("read file: %w", err)
	case n != p.size:
		return "", 0, ErrChanged
	}
	return strings.ToUpper(hex.EncodeToString(md.Sum(nil))), sum.Sum64(), nil
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

// A body is one attempt to send a section of a file. Its CRC-64 is that of the very bytes
// that are sent.
type body struct {
	source *Source
	moved  func(n int64)            // called after each n bytes
	pace   func(n int) (int, error) // waits until some of n bytes may be sent; nil does not

	mu      sync.Mutex // net/http may continue to read after an early answer
	section *io.SectionReader
	sent    int64
	crc     uint64
	err     error // why reading ended too early
}

func newBody(s *Source, p piece, moved func(int64)) *body {
	return &body{source: s, section: io.NewSectionReader(s.file, p.offset, p.size), moved: moved}
}

// Read returns the last bytes only if the file has not changed, so that OSS never gets, stores
// or reports a whole section that mixes two versions of the file.
func (b *body) Read(p []byte) (int, error) {
	p, err := b.wait(p)
	if err != nil {
		return 0, err // the attempt is over, and says why itself
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	left := b.section.Size() - b.sent
	switch {
	case b.err != nil:
		return 0, b.err
	case left == 0:
		return 0, io.EOF
	}
	n, err := b.section.Read(p)
	switch {
	case errors.Is(err, io.EOF) && int64(n) < left:
		b.err = ErrChanged // it became shorter
	case err != nil && !errors.Is(err, io.EOF):
		b.err = fmt.Errorf("read file: %w", err)
	case int64(n) == left:
		b.err = b.source.unchanged()
	}
	if b.err != nil {
		return 0, b.err
	}
	b.sent += int64(n)
	b.crc = crc64.Update(b.crc, crcTable, p[:n])
	b.moved(int64(n))
	return n, nil
}

// wait waits for its turn, without the lock, which finish needs. It returns what may be read then.
func (b *body) wait(p []byte) ([]byte, error) {
	if b.pace == nil {
		return p, nil
	}
	b.mu.Lock()
	n := int(min(int64(len(p)), b.section.Size()-b.sent))
	if b.err != nil {
		n = 0
	}
	b.mu.Unlock()
	if n == 0 {
		return p, nil
	}
	n, err := b.pace(n)
	return p[:n], err
}

// Close does nothing: the file is needed again.
func (b *body) Close() error { return nil }

// finish ends reading. It returns the CRC-64 of what was read, its size, and what is wrong
// with the file.
func (b *body) finish() (crc uint64, sent int64, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	err = b.err
	b.err = errFinished
	return b.crc, b.sent, err
}

var errFinished = errors.New("the attempt is over")
