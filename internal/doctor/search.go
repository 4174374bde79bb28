package doctor

import (
	"crypto/md5"
	"slices"
	"strings"

	"upcall/internal/admission"
)

// Bounds of the search. Each candidate costs one MD5 of a callback.
const (
	maxCandidates = 8000
	maxPaths      = 400
	maxQueries    = 400
	maxBodies     = 1500
	maxReparsed   = 4000

	maxMade   = 24 << 20  // bytes of variants made of one part
	maxHashed = 256 << 20 // bytes of candidates hashed
	maxDeep   = 256 << 20 // bytes hashed of bodies in other orders or with other numbers
	maxTwice  = 16 << 10  // bytes: longer parts are changed once, not twice

	maxChanged = admission.MaxBody // bytes: longer parts are not changed, because the receiver refuses them
)

// A step undoes one kind of damage: from the text as received it makes the texts that
// may have been sent, likeliest first.
type step struct {
	kind Kind
	undo func(text string) []string
}

// once is a step with one result.
func once(kind Kind, undo func(string) string) step {
	return step{kind, func(text string) []string { return []string{undo(text)} }}
}

// A variant is a text that may have been sent, and what was undone to get it.
type variant struct {
	text  string
	kinds []Kind
}

// spread returns start and what the steps make of it: the results of one step before those
// of two, each text once, at most limit texts.
func spread(start string, steps []step, limit int) []variant {
	found := []variant{{text: start}}
	if len(start) > maxChanged {
		return found
	}
	seen := map[string]bool{start: true}
	made := 0
	for i := 0; i < len(found) && len(found) < limit && made < maxMade; i++ {
		from := found[i]
		if len(from.kinds) == 2 || len(from.kinds) == 1 && len(start) > maxTwice {
			break
		}
		for _, s := range steps {
			if slices.Contains(from.kinds, s.kind) {
				continue
			}
			for _, text := range s.undo(from.text) {
				made += len(text)
				if seen[text] || len(found) == limit {
					continue
				}
				seen[text] = true
				found = append(found, variant{text, append(slices.Clone(from.kinds), s.kind)})
			}
		}
	}
	return found
}

// A message is what a signature covers, as it is signed: the path decoded, the query
// without its question mark, and the body.
type message [3]string

const (
	thePath = iota
	theQuery
	theBody
)

// stringToSign builds what verify.StringToSign builds, but accepts any text.
func (m message) stringToSign() string { return m.joined(m[theQuery] != "", "\n") }

func (m message) joined(marked bool, separator string) string {
	mark := ""
	if marked {
		mark = "?"
	}
	return m[thePath] + mark + m[theQuery] + separator + m[theBody]
}

// A match is a message with the digest that was signed.
type match struct {
	message
	kinds  [3][]Kind // what was undone in each part
	sender Kind      // zero unless the sender itself builds another string
	signed string
}

// A search looks for the message with a digest.
type search struct {
	digest       [md5.Size]byte
	parts        [3][]variant // of each part, the first as received
	tried, limit int
}

// run tries changes to one part, then those of other signers, then combinations,
// likeliest first.
func (s *search) run() *match {
	size := len("\n")
	for _, variants := range s.parts {
		size += len(variants[0].text)
	}
	s.limit = s.tried + min(maxCandidates, max(100, maxHashed/size))
	if m := s.try([3]int{}); m != nil {
		return m
	}
	for part, variants := range s.parts {
		for i := 1; i < len(variants); i++ {
			var ranks [3]int
			ranks[part] = i
			if m := s.try(ranks); m != nil {
				return m
			}
		}
	}
	if m := s.senders(); m != nil {
		return m
	}
	return s.combinations()
}

// combinations tries changes to two or three parts by the sum of their ranks.
func (s *search) combinations() *match {
	paths, queries, bodies := len(s.parts[thePath]), len(s.parts[theQuery]), len(s.parts[theBody])
	for sum := 2; sum < paths+queries+bodies; sum++ {
		for i := 0; i <= min(sum, paths-1); i++ {
			for j := 0; j <= min(sum-i, queries-1); j++ {
				k := sum - i - j
				if k >= bodies || max(i, j, k) == sum { // only one part is changed
					continue
				}
				if s.tried >= s.limit {
					return nil
				}
				if m := s.try([3]int{i, j, k}); m != nil {
					return m
				}
			}
		}
	}
	return nil
}

// try compares the message made of the variants with these ranks.
func (s *search) try(ranks [3]int) *match {
	if s.tried >= s.limit {
		return nil
	}
	var m match
	for part, rank := range ranks {
		v := s.parts[part][rank]
		m.message[part], m.kinds[part] = v.text, v.kinds
	}
	m.signed = m.stringToSign()
	s.tried++
	if md5.Sum([]byte(m.signed)) != s.digest {
		return nil
	}
	return &m
}

// senders tries the mistakes of signers other than OSS, on the message as received.
func (s *search) senders() *match {
	var m message
	for part, variants := range s.parts {
		m[part] = variants[0].text
	}
	query, signed := m[theQuery] != "", m.stringToSign()
	sum := md5.Sum([]byte(signed))
	digits := hexOf(sum)
	for _, mistake := range []struct {
		kind Kind
		text string
	}{
		{SenderQueryMark, m.joined(!query, "\n")},
		{SenderSeparator, m.joined(query, "")},
		{SenderSeparator, m.joined(!query, "")},
		{SenderSeparator, m.joined(query, "\r\n")},
		{SenderSeparator, m.joined(!query, "\r\n")},
		{SenderSeparator, m.joined(query, "\r")},
		{SenderSeparator, m.joined(!query, "\r")},
		{SenderHexDigest, digits},
		{SenderHexDigest, strings.ToUpper(digits)},
	} {
		s.tried++
		if md5.Sum([]byte(mistake.text)) == s.digest {
			return &match{message: m, sender: mistake.kind, signed: mistake.text}
		}
	}
	slices.Reverse(sum[:])
	if sum == s.digest {
		return &match{message: m, sender: SenderReversedDigest, signed: signed}
	}
	return nil
}
