package event

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"upcall/internal/callbackspec"
)

// ErrMalformed says that a text is not an event's JSON as this package writes it.
var ErrMalformed = errors.New("not an event's JSON")

// timeLayout is RFC 3339 in UTC, with the microseconds that PostgreSQL keeps.
const timeLayout = "2006-01-02T15:04:05.000000Z"

// AppendJSON appends the event as a JSON object on one line. Its members are [Members]. The
// error wraps [ErrUnstorable].
func (e *Event) AppendJSON(dst []byte) ([]byte, error) {
	return e.appendJSON(dst, func(Column) bool { return false })
}

// appendJSON leaves out the members that are null and for which leaveOut reports true.
func (e *Event) appendJSON(dst []byte, leaveOut func(Column) bool) ([]byte, error) {
	if err := e.CheckTexts(); err != nil {
		return nil, err
	}
	if e.Source == "" {
		named := *e
		named.Source = SourceCallback
		e = &named
	}
	dst = append(dst, '{')
	for _, c := range Members {
		more, err := c.AppendMember(dst, e)
		if err != nil {
			return nil, err
		}
		if !leaveOut(c) || !bytes.HasSuffix(more, []byte(":null")) {
			dst = append(more, ',')
		}
	}
	dst[len(dst)-1] = '}'
	return dst, nil
}

// AppendMember appends the column as a member of the event's JSON. The error wraps
// [ErrUnstorable].
func (c Column) AppendMember(dst []byte, e *Event) ([]byte, error) {
	dst = append(callbackspec.AppendQuoted(dst, c.Member()), ':')
	quoted := true
	var digits [64]byte
	value := digits[:0]
	switch v := c.Field(e).(type) {
	case *map[string]json.RawMessage:
		return AppendVars(dst, *v)
	case *string:
		if *v != "" {
			return callbackspec.AppendQuoted(dst, *v), nil
		}
	case *uuid.UUID:
		value = append(value, v.String()...)
	case *uuid.NullUUID:
		if v.Valid {
			value = append(value, v.UUID.String()...)
		}
	case *time.Time:
		if year := v.UTC().Year(); year < 0 || year > 9999 {
			return nil, fmt.Errorf("%w: %s is of the year %d", ErrUnstorable, c.Name, year)
		}
		value = v.UTC().AppendFormat(value, timeLayout)
	case *netip.Addr:
		if v.IsValid() {
			value = v.WithZone("").AppendTo(value) // inet has no zone
		}
	case **uint64: // a string, because JavaScript's numbers are too small
		if *v != nil {
			value = strconv.AppendUint(value, **v, 10)
		}
	case **int64:
		if quoted = false; *v != nil {
			value = strconv.AppendInt(value, **v, 10)
		}
	case **int32:
		if quoted = false; *v != nil {
			value = strconv.AppendInt(value, int64(**v), 10)
		}
	}
	switch {
	case len(value) == 0:
		return append(dst, "null"...), nil
	case quoted:
		return append(append(append(dst, '"'), value...), '"'), nil
	default:
		return append(dst, value...), nil
	}
}

// AppendVars appends variables as a JSON object, sorted by name and without spaces between
// tokens. The error wraps [ErrUnstorable].
func AppendVars(dst []byte, vars map[string]json.RawMessage) ([]byte, error) {
	names, size := make([]string, 0, 16), len("{}")
	for name, value := range vars {
		names = append(names, name)
		size += len(name) + len(value) + len(`"":,`)
	}
	slices.Sort(names)
	dst = append(slices.Grow(dst, size), '{')
	for i, name := range names {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(callbackspec.AppendQuoted(dst, name), ':')
		value := len(dst)
		compact := bytes.NewBuffer(dst)
		if err := json.Compact(compact, vars[name]); err != nil {
			return nil, fmt.Errorf("%w: a variable is not JSON", ErrUnstorable)
		}
		if dst = compact.Bytes(); !utf8.ValidString(name) || !utf8.Valid(dst[value:]) {
			return nil, fmt.Errorf("%w: a variable is not UTF-8", ErrUnstorable)
		}
	}
	return append(dst, '}'), nil
}

// Parse reads what [Event.AppendJSON] wrote, byte for byte: it accepts only a text that
// AppendJSON would write again. But a member that can be null may be missing, because an
// earlier version of this program did not have its column. The error wraps [ErrMalformed].
func Parse(text []byte) (*Event, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(text, &members); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	isMissing := func(c Column) bool { return members[c.Member()] == nil && c.Name != "supersedes" }
	e := new(Event)
	for _, c := range Members {
		if isMissing(c) {
			continue
		}
		value, field := members[c.Member()], c.Field(e)
		if _, ok := field.(**uint64); ok {
			value = bytes.Trim(value, `"`)
		}
		if err := json.Unmarshal(value, field); err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrMalformed, c.Member(), err)
		}
	}
	if again, err := e.appendJSON(make([]byte, 0, len(text)), isMissing); err != nil || !bytes.Equal(again, text) {
		return nil, fmt.Errorf("%w: a member is missing, added or written differently", ErrMalformed)
	}
	return e, nil
}
