package reconcile

import (
	"strings"
	"unicode/utf8"
)

// A part is a range of keys that one worker lists. Bytes, because JSON cannot hold all that a key may.
type part struct {
	After []byte `json:"after,omitempty"` // keys up to this one are listed
	Until []byte `json:"until,omitempty"` // keys up to this one, and none after it; empty is the end
	Done  bool   `json:"done,omitempty"`

	pages int  // that were read in this process
	wide  bool // there are siblings of the directory that it is in
	busy  bool // a worker reads it
	split bool // a worker looks for a place to split it
}

const (
	// splitAfter is how many pages of a part are read before it is split, and pagesForSplit how many pages
	// of all are worth one look for a place: a small bucket is not listed sooner in parts.
	splitAfter, pagesForSplit = 2, 3
	// maxParts bounds the parts of a run, which are all written with each page.
	maxParts = 64

	// maxName comes after all names in a directory, or nearly: any key is a good place to split.
	maxName = string(utf8.MaxRune)
)

// splitKey returns a key between two others, such that there are likely keys on both sides of it. It is
// tried by listing what comes after it: if that is nothing, it is the new end, and the next place is
// nearer. After is the last key that was listed.
//
// Directories differ in size, and keys use few of all bytes. So the first places are the ends of the
// directories that the key is in, from the outermost, which takes one look each. If there is something
// behind such an end, it becomes a part, and that is wide: what it has is halved by the letters in which
// names differ.
func splitKey(prefix, after, until string, wide bool) (string, bool) {
	inside := func(key string) bool { return key > after && (until == "" || key < until) }
	begins := len(prefix)
	if len(after) < begins || !strings.HasPrefix(after, prefix) {
		return "", false
	}
	for {
		slash := strings.IndexByte(after[begins:], '/')
		if slash < 0 {
			return halve(after, until, begins)
		}
		end := begins + slash + 1
		if key := after[:end] + maxName; inside(key) {
			if wide {
				return halve(after, until, begins)
			}
			return key, true
		}
		begins = end
	}
}

// halve looks for a place among the keys that have the first bytes of after in common.
func halve(after, until string, common int) (string, bool) {
	const ascii = utf8.RuneSelf - 1
	for common < len(after) {
		low, size := utf8.DecodeRuneInString(after[common:])
		if low == utf8.RuneError {
			return "", false
		}
		high := rune(utf8.MaxRune)
		if until != "" && strings.HasPrefix(until, after[:common]) {
			if r, n := utf8.DecodeRuneInString(until[common:]); n > 0 && r != utf8.RuneError {
				high = r
			}
		}
		middle := low + (high-low)/2
		if low < ascii && high > ascii {
			middle = ascii // most keys have nothing beyond
		}
		for !utf8.ValidRune(middle) { // surrogates
			middle++
		}
		if key := after[:common] + string(middle); middle > low && middle < high && key > after && (until == "" || key < until) {
			return key, true
		}
		common += size
	}
	return "", false
}
