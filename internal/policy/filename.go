package policy

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxFilename  = 100 // bytes
	maxExtension = 16  // bytes, with its dot
)

// sanitize makes one harmless segment of a key out of a file's name, which an uploader
// chooses and who may be nobody the application knows. It stops these attacks:
//
//   - ../../other-tenant/index.html, or the same with backslashes, climbs out of the
//     template's folder: only what follows the last separator is kept, and no leading dot;
//   - a line break or another control character adds lines to logs and lists, and a
//     character that turns the direction of writing around hides the true extension:
//     whatever is no letter, mark, digit or one of -_.~+@() becomes an underscore;
//   - a name of megabytes makes the key too long for OSS, which would refuse the upload:
//     100 bytes are kept, the extension among them.
//
// A name of which nothing is left is "file".
func sanitize(name string) string {
	if i := strings.LastIndexAny(name, `/\`); i >= 0 {
		name = name[i+1:]
	}
	name = strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsMark(r) || unicode.IsDigit(r) || strings.ContainsRune("-_.~+@()", r) {
			return r
		}
		return '_' // what is not UTF-8 comes here, too, as U+FFFD
	}, name)
	name = strings.Trim(name, ".")
	if len(name) > maxFilename {
		extension := ""
		if i := strings.LastIndexByte(name, '.'); i > 0 && len(name)-i <= maxExtension {
			extension = name[i:]
		}
		name = strings.TrimRight(cut(name, maxFilename-len(extension)), ".") + extension
	}
	if name == "" {
		return "file"
	}
	return name
}

// cut returns at most n bytes of s, which is UTF-8, and no part of a character.
func cut(s string, n int) string {
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
