package doctor

import (
	"math/bits"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"upcall/internal/callbackspec"
)

// with is the reading with other members, because of a change of that kind.
func (r reading) with(kind Kind, members []member) reading {
	kinds := slices.Clone(r.kinds)
	if !slices.Contains(kinds, kind) {
		kinds = append(kinds, kind)
	}
	return reading{kinds, members}
}

// each is the reading with each member changed, and whether anything did.
func (r reading) each(kind Kind, change func(*member)) (reading, bool) {
	members := slices.Clone(r.members)
	for i := range members {
		change(&members[i])
	}
	return r.with(kind, members), !slices.Equal(members, r.members)
}

// renamed returns a reading with the names that its fields may have had.
func renamed(r reading) []reading {
	found := []reading{r}
	add := func(other reading, changed bool) {
		if changed {
			found = append(found, other)
		}
	}
	// What frameworks add of their own, or repeat.
	kept := slices.DeleteFunc(slices.Clone(r.members), func(m member) bool {
		return slices.Contains([]string{"controller", "action", "format", "_method", "_token", "_csrf", "utf8"}, m.name) ||
			m.bare && strings.HasPrefix(m.text, "{")
	})
	if len(kept) < len(r.members) && len(kept) > 1 {
		add(r.with(BodyFieldAdded, kept), true)
	}
	// A name that is like one of OSS's, but for its case and marks between its words; then all
	// names, as programs write those of their own fields.
	for _, change := range []func(string) string{func(name string) string { return name }, lowerFirst, snakeCase, camelCase} {
		add(r.each(BodyNames, func(m *member) {
			i := slices.IndexFunc(callbackspec.SystemVariables, func(v string) bool { return letters(v) == letters(m.name) })
			switch {
			case i >= 0:
				m.name = callbackspec.SystemVariables[i]
			case m.name != callbackspec.TokenField:
				m.name = change(m.name)
			}
		}))
	}
	// PHP writes _ for a dot, a space or an opening bracket. Any _ may have been one.
	var changed []int
	for i, m := range r.members {
		if strings.Contains(m.name, "_") && m.name != callbackspec.TokenField && len(changed) < maxPermuted {
			changed = append(changed, i)
		}
	}
	for set := (1 << len(changed)) - 1; set > 0; set-- {
		members := slices.Clone(r.members)
		for bit, i := range changed {
			if set>>bit&1 != 0 {
				members[i].name = strings.ReplaceAll(members[i].name, "_", ".")
			}
		}
		add(r.with(BodyNames, members), true)
	}
	return found
}

func lowerFirst(name string) string {
	if name == "" {
		return ""
	}
	return strings.ToLower(name[:1]) + name[1:]
}

var (
	upperLetter = regexp.MustCompile(`[A-Z]`)
	underscored = regexp.MustCompile(`_[a-z]`)
)

func snakeCase(name string) string {
	return upperLetter.ReplaceAllStringFunc(lowerFirst(name), func(s string) string { return "_" + strings.ToLower(s) })
}

func camelCase(name string) string {
	return underscored.ReplaceAllStringFunc(name, func(s string) string { return strings.ToUpper(s[1:]) })
}

// letters is a name without case and marks.
func letters(name string) string {
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune("._-[] ", r) {
			return -1
		}
		return r
	}, strings.ToLower(name))
}

// sizes are the usual names of fields that hold a number, or nothing if the object is no image.
var sizes = []string{"size", "crc64", "height", "width", "imageInfo.height", "imageInfo.width"}

// revalued returns a reading with the values that its fields may have had.
func revalued(r reading) []reading {
	found := []reading{r}
	add := func(other reading, changed bool) {
		if changed {
			found = append(found, other)
		}
	}
	// Text that was made a number in one language is text in the next, and the other way round.
	add(r.each(BodyJSONRewritten, func(m *member) {
		if number(m.text) && slices.Contains(sizes, m.name) {
			m.bare = true
		}
	}))
	add(r.each(BodyJSONRewritten, func(m *member) { m.bare = m.bare && !number(m.text) }))
	add(r.each(BodyNegative, func(m *member) {
		if n, err := strconv.ParseInt(m.text, 10, 64); err == nil && n < 0 {
			m.text = strconv.FormatUint(uint64(n), 10)
		}
	}))
	for _, base := range slices.Clone(found) {
		for _, empty := range []member{{bare: true, text: "null"}, {}} {
			add(base.each(BodyEmpties, func(m *member) {
				if m.isEmpty() || m.bare && m.text == "0" && m.name != "size" {
					m.text, m.bare = empty.text, empty.bare
				}
			}))
		}
	}
	return append(found, refilled(r)...)
}

func number(text string) bool {
	_, err := strconv.ParseUint(text, 10, 64)
	return err == nil
}

// often are fields that are empty for many uploads, and have other names in the templates of
// OSS's own examples.
var often = [][]string{
	{"imageInfo.height", "imageInfo.width"}, {"imageInfo.height", "imageInfo.width", "imageInfo.format"},
	{"imageInfo.format", "imageInfo.height", "imageInfo.width"}, {"height", "width"}, {"height", "width", "format"},
	{"width", "height"}, {"imageInfo.width", "imageInfo.height"}, {"format", "height", "width"},
	{"contentMd5"}, {"vpcId"}, {"clientIp"}, {"crc64"}, {"etag"}, {"operation"}, {"format"}, {"height"}, {"width"},
	{"imageInfo.format"}, {"imageInfo.height"}, {"imageInfo.width"}, {"mimeType"},
}

// refilled returns a reading with fields whose values were empty and that a framework left out:
// in the order of the default template, and then together, anywhere.
func refilled(r reading) (found []reading) {
	has := func(name string) bool {
		return slices.ContainsFunc(r.members, func(m member) bool { return m.name == name })
	}
	for _, empty := range []member{{}, {text: "null", bare: true}} {
		insert := func(names []string, at int) {
			var added []member
			for _, name := range names {
				added = append(added, member{name, empty.text, empty.bare})
			}
			found = append(found, r.with(BodyEmpties, slices.Insert(slices.Clone(r.members), at, added...)))
		}
		var absent []string
		for _, name := range []string{"imageInfo.height", "imageInfo.width", "imageInfo.format", "contentMd5", "vpcId", "clientIp"} {
			if !has(name) {
				absent = append(absent, name)
			}
		}
		for set := uint(1); set < 1<<len(absent); set++ {
			if bits.OnesCount(set) < 2 {
				continue // see below
			}
			members := slices.Clone(r.members)
			for i, name := range absent {
				if set>>i&1 != 0 {
					rank := templateRank(name)
					at := slices.IndexFunc(members, func(m member) bool { return templateRank(m.name) > rank })
					if at < 0 {
						at = len(members)
					}
					members = slices.Insert(members, at, member{name, empty.text, empty.bare})
				}
			}
			found = append(found, r.with(BodyEmpties, members))
		}
		for _, names := range often {
			if slices.ContainsFunc(names, has) {
				continue
			}
			for at := len(r.members); at >= 0; at-- {
				insert(names, at)
			}
		}
	}
	return found
}

// oneKey is the only name in a printed object.
var oneKey = regexp.MustCompile(`(?s)^[^'"]*('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")\s*(?::|=>)`)

// keyOfBody undoes a framework that took a JSON body for a form: all of it became the name of one
// field, up to an equals sign or an ampersand.
func keyOfBody(b string) []string {
	var pairs []member
	if fields := fieldsOf(b); fields != nil {
		pairs = readObject(fields)
	} else if printed := readPrinted(strings.TrimSpace(b)); printed == nil {
		if m := oneKey.FindStringSubmatch(strings.TrimSpace(b)); m != nil {
			name, _ := unprint(m[1])
			pairs = []member{{name: name}}
		} else {
			pairs = readPairs(b)
		}
	}
	if len(pairs) == 0 || len(pairs) > maxMembers || !isJSON(pairs[0].name) {
		return nil
	}
	parts, marked := make([]string, len(pairs)), make([]string, len(pairs)) // without = before nothing, and with
	for i, m := range pairs {
		parts[i], marked[i] = m.name+"="+m.text, m.name+"="+m.text
		if m.isEmpty() {
			parts[i], marked[i] = m.name, m.name+"="
		}
	}
	text := strings.Join(parts, "&")
	texts := []string{text, strings.ReplaceAll(text, " ", "+"), strings.ReplaceAll(text, "_", "."), strings.Join(marked, "&")}
	// PHP writes _ for dots and blanks, in all of what it takes for a name.
	var at []int
	for i := range len(text) {
		if text[i] == '_' && len(at) < 8 {
			at = append(at, i)
		}
	}
	for set := 1; set < 1<<len(at); set++ {
		changed := []byte(text)
		for bit, i := range at {
			if set>>bit&1 != 0 {
				changed[i] = '.'
			}
		}
		texts = append(texts, string(changed))
	}
	// OSS percent-encodes values in JSON whose type is that of a form, and the framework decoded them.
	for _, t := range texts[:3] {
		texts = append(texts, encodeStrings(t), encodeStrings(strings.ReplaceAll(t, "+", " ")))
	}
	return texts
}

// encodeStrings percent-encodes the values in a JSON object as OSS does in a form.
func encodeStrings(b string) string {
	fields := fieldsOf(b)
	parts := make([]string, len(fields))
	for i, f := range fields {
		if text, quoted := unprint(f.value); quoted {
			f.value = `"` + spellings[0](text) + `"`
		}
		parts[i] = quoteJSON(f.name, false, "") + ":" + f.value
	}
	return "{" + strings.Join(parts, ",") + "}"
}
