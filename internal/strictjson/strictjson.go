// Package strictjson reads the bodies of requests: JSON objects whose mistakes are all found, and
// never passed over. Ignoring a misspelt or duplicate member could drop a limit that a caller
// meant to set.
package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"unicode/utf8"
)

var (
	// ErrMediaType says that a request is not plain JSON.
	ErrMediaType = errors.New("not plain JSON")
	// ErrTooLarge says that a body is larger than the limit.
	ErrTooLarge = errors.New("too large")
	// ErrCut says that a body ended early or came too slowly.
	ErrCut = errors.New("the body ended early or came too slowly")
)

// Body returns the body of a request, which must be declared as JSON and have at most so many
// bytes. The error wraps a sentinel of this package.
func Body(r *http.Request, most int64) ([]byte, error) {
	kind, parameters, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	charset := parameters["charset"]
	if err != nil || kind != "application/json" || charset != "" && !strings.EqualFold(charset, "utf-8") {
		return nil, fmt.Errorf("%w: send it with Content-Type: application/json", ErrMediaType)
	}
	// A compressed body may unpack to a thousand times its size.
	if encoding := r.Header.Get("Content-Encoding"); encoding != "" && !strings.EqualFold(encoding, "identity") {
		return nil, fmt.Errorf("%w: send it without a content encoding", ErrMediaType)
	}
	if r.ContentLength > most {
		return nil, tooLarge(most)
	}
	// The limit holds whatever the length says: a chunked body has none and may never end.
	body, err := io.ReadAll(io.LimitReader(r.Body, most+1))
	switch {
	case int64(len(body)) > most:
		return nil, tooLarge(most)
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrCut, err)
	}
	return body, nil
}

func tooLarge(most int64) error {
	return fmt.Errorf("%w: the body is larger than %d KiB", ErrTooLarge, most>>10)
}

// Object calls each for every member of a JSON object, and note for every mistake in its form,
// with the name of the member or "" for the whole. It refuses duplicate names, of which one
// reader takes the first and another the last; invalid UTF-8, which encoding/json would replace;
// and anything after the object.
func Object(doc []byte, note func(name, wrong string), each func(name string, raw json.RawMessage)) {
	if !utf8.Valid(doc) {
		note("", "is not UTF-8")
		return
	}
	dec := json.NewDecoder(bytes.NewReader(doc))
	token, err := dec.Token()
	if err != nil || token != json.Delim('{') {
		note("", "is not a JSON object")
		return
	}
	seen := make(map[string]bool)
	for dec.More() {
		token, err := dec.Token()
		name, ok := token.(string)
		var raw json.RawMessage
		if err == nil && ok {
			err = dec.Decode(&raw)
		}
		if err != nil || !ok {
			note("", "is not valid JSON: "+where(err, dec))
			return
		}
		if seen[name] {
			note(name, "is given twice; leave one out")
			continue
		}
		seen[name] = true
		each(name, raw)
	}
	if _, err := dec.Token(); err != nil {
		note("", "is not valid JSON: "+where(err, dec))
		return
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		note("", "continues after the JSON object")
	}
}

// where says at which byte a document becomes invalid, and does not show what is there.
func where(err error, dec *json.Decoder) string {
	at := dec.InputOffset()
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		at = syntax.Offset
	}
	return "error at byte " + strconv.FormatInt(at, 10)
}

// A Reader reads the value of a member and returns what is wrong with it, or "". It refuses
// null: to omit a member, leave it out.
type Reader func(raw json.RawMessage) (wrong string)

// AnyText returns a Reader of a string that may hold U+FFFD.
func AnyText(to *string) Reader {
	return func(raw json.RawMessage) string {
		if raw[0] != '"' || json.Unmarshal(raw, to) != nil {
			return "is not a string"
		}
		return ""
	}
}

// Text returns a Reader of a string. It refuses half a surrogate pair, which encoding/json
// replaces with U+FFFD: the text would not be the one that was meant.
func Text(to *string) Reader {
	return func(raw json.RawMessage) string {
		if wrong := AnyText(to)(raw); wrong != "" {
			return wrong
		}
		if strings.ContainsRune(*to, utf8.RuneError) {
			return "holds U+FFFD or half a surrogate pair, which stand for text that was lost"
		}
		return ""
	}
}

// Whole returns a Reader of a whole number.
func Whole(to **int64) Reader {
	return func(raw json.RawMessage) string {
		n, err := strconv.ParseInt(string(raw), 10, 64)
		if err != nil {
			return "is not a whole number; write, for example, 1048576"
		}
		*to = &n
		return ""
	}
}

// Texts returns a Reader of a list of strings.
func Texts(to *[]string) Reader {
	return func(raw json.RawMessage) string {
		var items []json.RawMessage
		if raw[0] != '[' || json.Unmarshal(raw, &items) != nil {
			return "is not a list of strings"
		}
		*to = make([]string, len(items))
		for i, item := range items {
			if wrong := Text(&(*to)[i])(item); wrong != "" {
				return fmt.Sprintf("is not a list of strings: item %d %s", i+1, wrong)
			}
		}
		return ""
	}
}
