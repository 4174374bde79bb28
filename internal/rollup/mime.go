package rollup

import "strings"

const (
	// otherType is what types are counted as that are too many or too long.
	otherType = "other"
	// maxTypes is how many content types of an hour and bucket are counted apart.
	maxTypes = 200
	// mostThere is how many of them a worker remembers.
	mostThere = 10_000
	// maxName bounds bucket names and content types, which are in an index. No bucket of OSS
	// has more than 63 bytes, and no registered type more than 255.
	maxName = 255
)

// mimeType returns a content type in lower case and without parameters.
func mimeType(given string) string {
	name, _, _ := strings.Cut(given, ";")
	name = lower(strings.Trim(name, " \t"))
	switch {
	case name == "image/jpg" || name == "image/pjpeg":
		return "image/jpeg"
	case len(name) > maxName:
		return otherType
	}
	return name
}

// lower is for ASCII only, as lower() of PostgreSQL with COLLATE "C".
func lower(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}
