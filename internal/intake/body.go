package intake

import (
	"io"
	"net/http"
	"strings"
	"unicode/utf8"
)

// Limits on what is read. A template has at most 5 KB and an object key 1023 bytes, so
// that percent-encoding included no callback of OSS comes near them.
const (
	maxBody    = 64 << 10 // bytes
	maxHeaders = 64 << 10 // bytes, names and values
)

// readBody returns the raw body. It is the one reading of the message: these bytes are
// verified, and these bytes are parsed.
func readBody(r *http.Request) ([]byte, error) {
	size := 0
	for name, values := range r.Header {
		for _, value := range values {
			size += len(name) + len(value)
		}
	}
	if size > maxHeaders {
		return nil, &refusal{codeTooLarge, "the headers are larger than 64 KiB", "headers", nil}
	}
	// OSS compresses nothing, and to unpack first would be a second reading of the
	// message, and a bomb.
	if encoding := r.Header.Get("Content-Encoding"); encoding != "" && !strings.EqualFold(encoding, "identity") {
		return nil, &refusal{codeUnsupportedType, "a callback has no content encoding", "content_encoding", nil}
	}
	if r.ContentLength > maxBody {
		return nil, errBodyTooLarge
	}
	// Limited whatever the length says: a chunked body has none and may never end.
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	switch {
	case len(body) > maxBody:
		return nil, errBodyTooLarge
	case err != nil:
		return nil, &refusal{codeMalformed, "the body ended early or came too slowly", "body_cut_short", err}
	}
	return body, nil
}

var errBodyTooLarge = &refusal{codeTooLarge, "the body is larger than 64 KiB", "body", nil}

// storable reports whether PostgreSQL can hold s as text.
func storable(s string) bool { return utf8.ValidString(s) && !strings.ContainsRune(s, 0) }
