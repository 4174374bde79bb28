package snippet

import "strings"

// Each of these functions makes a literal for s, which is printable ASCII; checkRequest has
// rejected anything else.

var doubleQuotes = strings.NewReplacer(`\`, `\\`, `"`, `\"`)

// doubleQuoted is a string of Go, Python, Java, JavaScript and C#, in none of which
// anything but these two characters is special between double quotes.
func doubleQuoted(s string) string {
	return `"` + doubleQuotes.Replace(s) + `"`
}

// inCPP is a string of C++, which up to 2014 reads two question marks and a third
// character as one: a backslash, say.
func inCPP(s string) string {
	return strings.ReplaceAll(doubleQuoted(s), "?", `\?`)
}

// inScript is a JavaScript string inside a page, where "</script>" and "<!--" would end
// the script or begin a comment even between quotes.
func inScript(s string) string {
	return strings.ReplaceAll(doubleQuoted(s), "<", `\u003c`)
}

var singleQuotes = strings.NewReplacer(`\`, `\\`, `'`, `\'`)

// singleQuoted is a string of PHP, which reads variables between double quotes.
func singleQuoted(s string) string {
	return `'` + singleQuotes.Replace(s) + `'`
}

// shellWord makes one word of s for a POSIX shell, which reads nothing inside single
// quotes.
func shellWord(s string) string {
	return `'` + strings.ReplaceAll(s, `'`, `'\''`) + `'`
}
