package doctor

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"math"
	"mime/multipart"
	"slices"
	"strconv"
	"strings"

	"upcall/internal/callbackspec"
)

// A member is a field of a body that a framework has parsed.
type member struct {
	name, text string
	bare       bool // text is JSON other than a string: a number, null, an object
}

func (m member) isEmpty() bool { return m.text == "" || m.bare && m.text == "null" }

// A reading is one way to read a body.
type reading struct {
	kinds   []Kind
	members []member
}

// maxMembers bounds what is guessed about the fields of a body.
const maxMembers = 30

// reparsed returns what may have been sent if a framework parsed the body and wrote it again:
// for each way to read it, what frameworks do to names and values is undone, alone and
// together, and the result is written as OSS writes a form and JSON.
func reparsed(body string, limit int) []variant {
	if len(body) > maxTwice {
		return nil
	}
	var found []variant
	seen := map[string]bool{body: true}
	add := func(text string, kinds []Kind) {
		if !seen[text] && len(found) < limit {
			seen[text] = true
			found = append(found, variant{text, kinds})
		}
	}
	for _, outer := range opened(body) {
		if len(outer.kinds) > 0 {
			add(outer.text, outer.kinds)
		}
		for _, read := range readings(outer.text) {
			for _, named := range renamed(read) {
				for _, valued := range revalued(named) {
					writeAll(outer, valued, add)
				}
			}
		}
	}
	return found
}

// writeAll writes a reading as a form and as JSON.
func writeAll(outer variant, r reading, add func(string, []Kind)) {
	printed := slices.Contains(r.kinds, BodyPrinted)
	isForm := !isJSON(outer.text) && !printed
	asForm, asJSON := r.kinds, r.kinds
	switch {
	case !isForm && !printed:
		asForm = append([]Kind{BodyFormAsJSON}, r.kinds...)
	case len(r.kinds) == 0:
		asForm = []Kind{BodyReencoded}
	}
	if len(asJSON) == 0 {
		asJSON = []Kind{BodyJSONRewritten}
	}
	for _, spell := range spellings[:2] { // OSS's are %20 and +
		add(asPairs(r.members, spell), slices.Concat(outer.kinds, asForm))
	}
	if isForm {
		asJSON = append([]Kind{BodyJSONAsForm}, r.kinds...)
	}
	add(asObject(r.members), slices.Concat(outer.kinds, asJSON))
	// OSS leaves the names as the template writes them.
	if bracketed := func(m member) bool { return strings.ContainsAny(m.name, "[]") }; slices.ContainsFunc(r.members, bracketed) {
		add(pairsOf(r.members, func(name string) string { return name }, spellings[0]), slices.Concat(outer.kinds, asForm))
	}
}

func asPairs(members []member, spell func(string) string) string {
	return pairsOf(members, spell, spell)
}

func pairsOf(members []member, spellName, spell func(string) string) string {
	pairs := make([]string, len(members))
	for i, m := range members {
		text := m.text
		if m.isEmpty() {
			text = ""
		}
		pairs[i] = spellName(m.name) + "=" + spell(text)
	}
	return strings.Join(pairs, "&")
}

func asObject(members []member) string {
	pairs := make([]string, len(members))
	for i, m := range members {
		text := m.text
		if !m.bare {
			text = quoteJSON(text, false, "")
		}
		pairs[i] = quoteJSON(m.name, false, "") + ":" + text
	}
	return "{" + strings.Join(pairs, ",") + "}"
}

// opened returns the body, and what a gateway has packed: as Base64, or into its own event.
func opened(body string) []variant {
	found := []variant{{text: body}}
	for i := 0; i < len(found) && len(found[i].kinds) < 3; i++ {
		from := found[i]
		for _, s := range []step{{BodyWrapped, unwrap}, {BodyBase64, decodeBase64}, {BodyBytes, decodeBytes}} {
			for _, text := range s.undo(from.text) {
				found = append(found, variant{text, append(slices.Clone(from.kinds), s.kind)})
			}
		}
	}
	return found
}

// wrappers are the names under which gateways and programs pass a body on.
var wrappers = []string{
	"body", "rawbody", "raw_body", "payload", "data", "content", "message", "text", "raw",
	"request", "event", "detail", "input", "value", "params",
}

// unwrap returns the body in a gateway's event, or in a field of another body.
func unwrap(b string) (found []string) {
	for _, f := range fieldsOf(b) {
		var text string
		if !slices.Contains(wrappers, strings.ToLower(f.name)) {
			continue
		}
		if json.Unmarshal([]byte(f.value), &text) == nil && text != "" {
			found = append(found, text)
		} else if isJSON(f.value) {
			found = append(append(found, f.value), unwrap(f.value)...)
		}
	}
	if isJSON(b) {
		return found
	}
	for pair := range strings.SplitSeq(b, "&") {
		name, value, _ := strings.Cut(pair, "=")
		text := decodeForm(value)
		if all := decodeForm(name); value == "" && strings.Contains(all, "=") { // the form as the name of a field
			found = append(found, all)
		}
		if slices.Contains(wrappers, strings.ToLower(name)) && (strings.Contains(text, "=") || isJSON(text)) {
			found = append(found, text)
		}
	}
	return found
}

// decodeBase64 returns the text in Base64 of any alphabet, padded or not, wrapped or not.
func decodeBase64(b string) []string {
	text := strings.Trim(blanks.ReplaceAllString(b, ""), `"`)
	_, after, isURL := strings.Cut(text, ";base64,")
	if isURL {
		text = after
	}
	text = strings.TrimRight(strings.NewReplacer("-", "+", "_", "/", `\/`, "/", "%2B", "+", "%2F", "/", "%3D", "").Replace(text), "=")
	if len(text) < 8 {
		return nil
	}
	plain, err := base64.RawStdEncoding.DecodeString(text)
	if err != nil || !callbackspec.Storable(string(plain)) {
		return nil
	}
	return []string{string(plain)}
}

// readings returns the ways to read a text as fields.
func readings(b string) []reading {
	var found []reading
	add := func(kinds []Kind, members []member) {
		if len(members) > 0 && len(members) <= maxMembers {
			found = append(found, reading{kinds, members})
		}
	}
	switch text := strings.TrimSpace(b); {
	case strings.HasPrefix(text, "--"):
		add([]Kind{BodyMultipart}, readMultipart(text))
	case fieldsOf(text) != nil:
		members := readObject(fieldsOf(text))
		add(nil, members)
		for _, join := range nestings {
			if flat := flatten(members, join, 0); len(flat) != len(members) || !slices.Equal(flat, members) {
				add([]Kind{BodyNames}, flat)
			}
		}
	case strings.HasPrefix(text, "[{"):
		add([]Kind{BodyFormAsJSON}, readKeyValues(text))
	default:
		if printed := readPrinted(text); printed != nil {
			add([]Kind{BodyPrinted}, printed)
		} else if strings.Contains(text, "=") {
			add(nil, readPairs(text))
		}
	}
	return found
}

func readPairs(b string) []member {
	var members []member
	for pair := range strings.SplitSeq(b, "&") {
		name, value, _ := strings.Cut(pair, "=")
		members = append(members, member{name: decodeForm(name), text: decodeForm(value)})
	}
	return members
}

// readObject takes the first element of a list: where names may repeat, frameworks make a list
// of each value.
func readObject(fields []field) []member {
	members := make([]member, len(fields))
	for i, f := range fields {
		var list []json.RawMessage
		if json.Unmarshal([]byte(f.value), &list) == nil && len(list) == 1 {
			f.value = string(list[0])
		}
		var text string
		if f.value[0] == '"' && json.Unmarshal([]byte(f.value), &text) == nil {
			members[i] = member{name: f.name, text: text}
		} else {
			members[i] = member{f.name, integral(f.value), true}
		}
	}
	return members
}

// integral writes an integer without the fraction or exponent that programs give to a float.
func integral(value string) string {
	const exact = 1 << 53
	if f, err := strconv.ParseFloat(value, 64); err == nil && f == math.Trunc(f) && math.Abs(f) < exact {
		return strconv.FormatFloat(f, 'f', -1, 64)
	}
	return value
}

// readKeyValues reads a form as ASP.NET serializes its IFormCollection.
func readKeyValues(b string) []member {
	var pairs []struct {
		Key   string
		Value json.RawMessage
	}
	if json.Unmarshal([]byte(b), &pairs) != nil {
		return nil
	}
	var fields []field
	for _, p := range pairs {
		if len(p.Value) > 0 {
			fields = append(fields, field{p.Key, string(p.Value)})
		}
	}
	return readObject(fields)
}

// nestings are the names that a field of a template has where parsers make a nested object of it.
var nestings = []func(outer, inner string) string{
	func(outer, inner string) string { return outer + "." + inner },
	func(outer, inner string) string { return outer + "[" + inner + "]" },
}

// flatten joins the names of nested objects.
func flatten(members []member, join func(outer, inner string) string, depth int) []member {
	var flat []member
	for _, m := range members {
		inner := []field(nil)
		if m.bare && depth < 3 {
			inner = fieldsOf(m.text)
		}
		if inner == nil {
			flat = append(flat, m)
			continue
		}
		below := readObject(inner)
		for i := range below {
			below[i].name = join(m.name, below[i].name)
		}
		flat = append(flat, flatten(below, join, depth+1)...)
	}
	return flat
}

func readMultipart(b string) []member {
	boundary, _, _ := strings.Cut(b, "\n")
	parts := multipart.NewReader(strings.NewReader(b), strings.TrimSpace(boundary)[2:])
	var members []member
	for len(members) <= maxMembers {
		part, err := parts.NextRawPart()
		if err != nil {
			break
		}
		text, err := io.ReadAll(part)
		if err != nil {
			break
		}
		members = append(members, member{name: part.FormName(), text: string(text)})
	}
	return members
}
