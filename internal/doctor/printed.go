package doctor

import (
	"regexp"
	"strconv"
	"strings"
)

var (
	// quotedPair is a name and a value as Python, Ruby, JavaScript and PHP print them.
	quotedPair = regexp.MustCompile(`(?s)('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[A-Za-z_$][\w$]*)\s*(?::|=>|,)\s*(?:array \(\s*0 => )?\[?` +
		`(u?'(?:[^'\\]|\\.)*'|u?"(?:[^"\\]|\\.)*"|-?[0-9][0-9.eE+]*n?|None|nil|null|NULL|undefined)`)
	printedStart = regexp.MustCompile(`^(?:[{\[<(#]|array \(|[A-Za-z]*(?:Dict|Data|Params|Parameters)\()`)

	printR   = regexp.MustCompile(`(?m)^ *\[([^\]\n]+)\] => (.*)$`) // PHP
	javaName = regexp.MustCompile(`(?:^|, )([\w.:$\[\]-]+)=`)
	varDump  = regexp.MustCompile(`(?s)\["([^"\n]+)"\]=>\s*(?:string\(\d+\) "(.*?)"|(?:int|float)\((.*?)\)|(NULL))\n`)
	phpPair  = regexp.MustCompile(`(?s)s:\d+:"(.*?)";(?:s:\d+:"(.*?)"|[id]:(.*?)|(N));`) // serialize
	goPair   = regexp.MustCompile(`([^\s:\[\]]+):\[([^\]]*)\]`)
)

// readPrinted reads the parsed body as a program prints its variables.
func readPrinted(b string) []member {
	var members []member
	b = strings.TrimPrefix(b, "[Object: null prototype] ") // Node
	switch {
	case strings.HasPrefix(b, "map["):
		for _, pair := range goPair.FindAllStringSubmatch(b[len("map["):], -1) {
			members = append(members, member{name: pair[1], text: pair[2]})
		}
	case strings.HasPrefix(b, "Array"), strings.HasPrefix(b, "stdClass"):
		for _, pair := range printR.FindAllStringSubmatch(b, -1) {
			members = append(members, member{name: pair[1], text: pair[2]})
		}
	case varDump.MatchString(b):
		members = phpValues(varDump, b)
	case strings.HasPrefix(b, "a:"):
		members = phpValues(phpPair, b)
	case !printedStart.MatchString(b):
	case quotedPair.MatchString(b):
		for _, pair := range quotedPair.FindAllStringSubmatch(b, -1) {
			value, quoted := unprint(pair[2])
			name, _ := unprint(pair[1])
			members = append(members, member{name, value, !quoted})
		}
	case b[0] == '{' && b[len(b)-1] == '}':
		inner := b[1 : len(b)-1]
		names := javaName.FindAllStringSubmatchIndex(inner, -1)
		for i, at := range names {
			end := len(inner)
			if i+1 < len(names) {
				end = names[i+1][0]
			}
			value := inner[at[1]:end]
			if strings.HasPrefix(value, "[") && strings.HasSuffix(value, "]") {
				value = value[1 : len(value)-1]
			}
			members = append(members, member{name: inner[at[2]:at[3]], text: value})
		}
	}
	if len(members) < 2 {
		return nil
	}
	return members
}

// phpValues reads names, and values that are text, a number or null.
func phpValues(pair *regexp.Regexp, b string) []member {
	var members []member
	for _, m := range pair.FindAllStringSubmatch(b, -1) {
		switch {
		case m[3] != "":
			members = append(members, member{m[1], m[3], true})
		case m[4] != "":
			members = append(members, member{m[1], "null", true})
		default:
			members = append(members, member{name: m[1], text: m[2]})
		}
	}
	return members
}

// unprint undoes the quotes of a printed text. Without quotes it is a number, a name, or nothing.
func unprint(s string) (text string, quoted bool) {
	switch s {
	case "None", "nil", "NULL", "undefined":
		return "null", false
	}
	s = strings.TrimSuffix(s, "n") // JavaScript's BigInt
	bare := strings.TrimPrefix(s, "u")
	if len(bare) < 2 || bare[0] != '\'' && bare[0] != '"' {
		return s, false
	}
	inner := bare[1 : len(bare)-1]
	if bare[0] == '\'' {
		inner = strings.ReplaceAll(strings.ReplaceAll(inner, `\'`, `'`), `"`, `\"`)
	}
	if plain, err := strconv.Unquote(`"` + inner + `"`); err == nil {
		return plain, true
	}
	return bare[1 : len(bare)-1], true
}
