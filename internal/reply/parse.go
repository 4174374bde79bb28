package reply

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"
)

var (
	errTooLarge = errors.New("the answer is longer than 64 KiB")
	errInvalid  = errors.New("the answer is not a JSON object")
)

// parse returns the object in an answer without the spaces around it, and otherwise as it came:
// numbers keep their digits, and members their order. OSS fails a callback whose answer is not
// JSON (Object Storage Service, "Callback", 2025-09-19), so what it would not take must not pass.
// The error wraps errTooLarge or errInvalid.
func parse(text []byte) ([]byte, error) {
	if len(text) > maxReply {
		return nil, errTooLarge
	}
	object := bytes.Trim(text, " \t\r\n")
	switch {
	case len(object) == 0:
		return nil, fmt.Errorf("%w: it is empty", errInvalid)
	case !utf8.Valid(object): // which json.Valid ignores
		return nil, fmt.Errorf("%w: it is not UTF-8", errInvalid)
	case object[0] != '{':
		return nil, fmt.Errorf("%w: it does not begin with {", errInvalid)
	case !json.Valid(object):
		return nil, errInvalid
	}
	return object, nil
}
