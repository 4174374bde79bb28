package uploader

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"upcall/internal/manifest"
)

// ErrSize means that the manifest is for a file of another size.
var ErrSize = errors.New("the manifest does not fit the file")

// A piece is a section of the file that one request sends.
type piece struct {
	number       int // 1 for a single PUT
	offset, size int64
	request      manifest.PresignedRequest
}

// Fit returns an error that wraps ErrSize if the manifest is not for a file of size
// bytes. [manifest.Manifest.Check] comes first.
func Fit(m manifest.Manifest, size int64) error {
	_, err := divide(m, size)
	return err
}

// divide divides a file of size bytes.
func divide(m manifest.Manifest, size int64) ([]piece, error) {
	var pieces []piece
	if m.Put != nil {
		pieces = []piece{{1, 0, size, m.Put.Request()}}
	} else {
		var err error
		if pieces, err = parts(m.Multipart, size); err != nil {
			return nil, err
		}
	}
	for _, p := range pieces {
		for name, value := range p.request.Headers {
			if strings.EqualFold(name, "content-length") && value != strconv.FormatInt(p.size, 10) {
				return nil, fmt.Errorf("%w: it allows %.20q bytes, but there are %d to send; get another one", ErrSize, value, p.size)
			}
		}
	}
	return pieces, nil
}

func parts(m *manifest.Multipart, size int64) ([]piece, error) {
	if m.Size != nil && *m.Size != size {
		return nil, fmt.Errorf("%w: it is for %d bytes, but the file has %d; get another one", ErrSize, *m.Size, size)
	}
	// Parts that were only counted have one size, as large as the file requires.
	count := int64(len(m.Parts))
	each := max(m.PartSize, (size+count-1)/count)
	var pieces []piece
	var offset int64
	for i, part := range m.Parts {
		n := min(each, size-offset)
		if part.Size != nil {
			n = *part.Size
		}
		if n < 0 || n == 0 && i > 0 || n > size-offset { // 0: the file needs fewer parts than were counted
			break
		}
		pieces = append(pieces, piece{i + 1, offset, n, part.PresignedRequest})
		offset += n
	}
	if offset != size || len(pieces) < len(m.Parts) && m.Parts[len(pieces)].Size != nil {
		return nil, fmt.Errorf("%w: its %d parts do not add up to the file's %d bytes; get another one", ErrSize, count, size)
	}
	return pieces, nil
}

// callsBack reports whether OSS answers the request with a callback receiver's answer. It
// looks at what is sent, not at the manifest's description.
func callsBack(r manifest.PresignedRequest) bool {
	for name := range r.Headers {
		if strings.EqualFold(name, "x-oss-callback") {
			return true
		}
	}
	u, err := url.Parse(r.URL)
	return err == nil && u.Query().Has("callback")
}
