package hooks

import (
	"errors"
	"regexp"
	"strings"
	"unicode/utf8"
)

// Why a text is not a glob, as advice.
var (
	errStars  = errors.New("write a/**/*.jpg for what is below a/ at any depth: ** stands alone between slashes")
	errClass  = errors.New("write classes like [a-z] or [!0-9], without a slash, and \\[ for the character itself")
	errBraces = errors.New("write alternatives like {png,jpg}, and \\{ for the character itself")
	errEscape = errors.New("write \\\\ for a backslash at the end")
)

// compileGlob translates a glob to a regular expression, because Go's take linear time whatever
// the pattern: one that backtracks can be made to take years, and would stop all hooks.
//
//   - any characters but /
//     **     any folders, alone between slashes
//     ?      a character but /
//     [a-z]  one of these; [!a-z] and [^a-z] any other but /
//     {a,b}  either
//     \      takes the next character for itself
func compileGlob(glob string) (*regexp.Regexp, error) {
	var re strings.Builder
	re.WriteString(`(?s)\A`)
	depth := 0
	for i := 0; i < len(glob); {
		r, size := utf8.DecodeRuneInString(glob[i:])
		rest := glob[i+size:]
		switch r {
		case '*':
			if !strings.HasPrefix(rest, "*") {
				re.WriteString("[^/]*")
				break
			}
			size = 2
			switch rest = rest[1:]; {
			case i > 0 && glob[i-1] != '/':
				return nil, errStars
			case rest == "":
				re.WriteString(".*")
			case rest[0] == '/':
				re.WriteString("(?:.*/)?")
				size = 3
			default:
				return nil, errStars
			}
		case '?':
			re.WriteString("[^/]")
		case '[':
			end := strings.IndexByte(rest, ']')
			if end < 1 {
				return nil, errClass
			}
			class, err := compileClass(rest[:end])
			if err != nil {
				return nil, err
			}
			re.WriteString(class)
			size = end + 2
		case '{':
			depth++
			re.WriteString("(?:")
		case '}':
			if depth--; depth < 0 {
				return nil, errBraces
			}
			re.WriteByte(')')
		case '\\':
			if rest == "" {
				return nil, errEscape
			}
			_, next := utf8.DecodeRuneInString(rest)
			re.WriteString(regexp.QuoteMeta(rest[:next]))
			size += next
		default:
			if r == ',' && depth > 0 {
				re.WriteByte('|')
				break
			}
			re.WriteString(regexp.QuoteMeta(glob[i : i+size]))
		}
		i += size
	}
	if depth > 0 {
		return nil, errBraces
	}
	compiled, err := regexp.Compile(re.String() + `\z`)
	if err != nil { // nested too deeply
		return nil, errBraces
	}
	return compiled, nil
}

// compileClass translates what stands between [ and ].
func compileClass(class string) (string, error) {
	negated := class[0] == '!' || class[0] == '^'
	if negated {
		class = class[1:]
	}
	runes := []rune(class)
	if len(runes) == 0 || strings.ContainsAny(class, `/[\`) {
		return "", errClass
	}
	var re strings.Builder
	if re.WriteByte('['); negated {
		re.WriteString("^/")
	}
	for i := 0; i < len(runes); i++ {
		low, high := runes[i], runes[i]
		if i+2 < len(runes) && runes[i+1] == '-' {
			high = runes[i+2]
			i += 2
		}
		if low > high || low < '/' && high > '/' { // a range across the slash
			return "", errClass
		}
		re.WriteString(quoteRune(low) + "-" + quoteRune(high))
	}
	re.WriteByte(']')
	return re.String(), nil
}

// quoteRune makes a character safe in a class of a regular expression.
func quoteRune(r rune) string {
	if r < utf8.RuneSelf && !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9') {
		return `\x{` + hex(r) + `}`
	}
	return string(r)
}

func hex(r rune) string {
	const digits = "0123456789abcdef"
	return string([]byte{digits[r>>4&15], digits[r&15]})
}
