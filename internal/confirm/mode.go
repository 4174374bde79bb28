package confirm

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"math"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"upcall/internal/fault"
)

// ErrMode says that a text is not a [Mode].
var ErrMode = errors.New("not a mode of confirmation")

// A Mode says which events are confirmed. The zero value is off.
type Mode struct{ share float64 }

// All confirms every event.
var all = Mode{1}

// ParseMode reads off, all, or sample:SHARE, where the share is more than 0 and at most 1. "" is off. The
// error wraps [ErrMode].
func ParseMode(text string) (Mode, error) {
	switch text {
	case "", "off":
		return Mode{}, nil
	case "all":
		return all, nil
	}
	number, ok := strings.CutPrefix(text, "sample:")
	share, err := strconv.ParseFloat(number, 64)
	if !ok || err != nil || !(share > 0 && share <= 1) || strings.Trim(number, "0123456789.") != "" {
		return Mode{}, fault.New(ErrMode, "", "write off, all, or sample:0.01 for one in a hundred",
			"%s is none of them", fault.Quote(text))
	}
	return Mode{share}, nil
}

// On reports whether any event is confirmed.
func (m Mode) On() bool { return m.share > 0 }

// includes reports whether an event is confirmed. That depends on its id alone, so that all receivers
// agree, whenever they read it; a larger sample has all events of a smaller one.
func (m Mode) includes(id uuid.UUID) bool {
	if m.share >= 1 {
		return true
	}
	digest := sha256.Sum256(id[:])
	return float64(binary.BigEndian.Uint64(digest[:]))/math.MaxUint64 < m.share
}
