package policy

import (
	"strings"
	"unicode"
)

const (
	maxFilename  = 100 // bytes
	maxExtension = 16  // bytes, with its dot
)

// sanitize makes one harmless segment of a key from a file name. The uploader, who may be a
// stranger, chooses the name. It stops these attacks:
//
//   - ../../other-tenant/index.html, or the same with backslashes, leaves the template's
//     folder: only the text after the last separator is kept, without leading dots;
//   - a line break or another control character adds lines to logs and lists, and a
//     character that changes the direction of writing hides the true extension:
//     everything but letters, marks, digits and -_.~+@() becomes an underscore;
//   - a name of megabytes makes the key too long for OSS, which would refuse the upload:
//     100 bytes are kept, including the extension.
//
// If nothing is left, the name is "file".
func sanitize(name string) string {
	if i := strings.LastIndexAny(name, `/\`); i >= 0 {
		name = name[i+1:]
	}
	name = strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsMark(r) || unicode.IsDigit(r) || strings.ContainsRune("-_.~+@()", r) {
			return r
		}
		return '_' // also for invalid UTF-8, which arrives as U+FFFD
	}, name)
	name = strings.Trim(name, ".")
	if len(name) > maxFilename {
		extension := ""
		if i := strings.LastIndexByte(name, '.'); i > 0 && len(name)-i <= maxExtension {
			extension = name[i:]
		}
		name = strings.ToValidUTF8(name[:maxFilename-len(extension)], "") // drops a split character
		name = strings.TrimRight(name, ".") + extension
	}
	if name == "" {
		return "file"
	}
	return name
}
