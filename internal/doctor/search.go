package doctor

import (
	"bytes"
	"crypto/md5"
	"slices"

	"upcall/internal/admission"
)

// Bounds of the search. Each candidate costs one MD5 of a callback.
const (
	maxCandidates = 4000
	maxPaths      = 400
	maxQueries    = 400
	maxBodies     = 1500

	maxMade   = 24 << 20  // bytes of variants of one part that are made
	maxHashed = 256 << 20 // bytes of candidates that are hashed
	maxTwice  = 16 << 10  // bytes: longer parts are changed once, not twice

	maxChanged = admission.MaxBody // bytes: longer parts are not changed; the receiver takes none so long
)

// A step undoes one kind of damage: from text as it was received it makes the texts
// that may have been sent, likeliest first.
type step struct {
	kind Kind
	undo func(text string) []string
}

// once is the step that has one result.
func once(kind Kind, undo func(string) string) step {
	return step{kind, func(text string) []string { return []string{undo(text)} }}
}

// A variant is a text that may have been sent, and what was undone to get it.
type variant struct {
	text  string
	kinds []Kind
}

// spread returns start and what the steps make of it, one step before two, each text
// once, at most limit of them.
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

// A message is what a signature is about, in the form that is signed: the path is
// decoded, and the query lacks its question mark.
type message struct{ path, query, body string }

// stringToSign is as verify.StringToSign makes it; unlike that, it takes any text.
func (m message) stringToSign() []byte {
	return m.joined(m.query != "", "\n")
}

func (m message) joined(mark bool, separator string) []byte {
	out := make([]byte, 0, len(m.path)+len(m.query)+len(m.body)+3)
	out = append(out, m.path...)
	if mark {
		out = append(out, '?')
	}
	out = append(out, m.query...)
	out = append(out, separator...)
	return append(out, m.body...)
}

// A match is a message that has the digest that was signed.
type match struct {
	message
	pathKinds, queryKinds, bodyKinds []Kind // what was undone in each part
	sender                           Kind   // zero unless the sender itself builds another string
	signed                           []byte
}

// A search looks for the message that has a digest.
type search struct {
	digest                 [md5.Size]byte
	paths, queries, bodies []variant
	tried, limit           int
}

// run tries one damaged part after the other, then combinations, likeliest first.
func (s *search) run() *match {
	s.limit = s.tried + min(maxCandidates, max(100, maxHashed/len(s.paths[0].text+s.queries[0].text+s.bodies[0].text+"\n")))
	if m := s.try(0, 0, 0); m != nil {
		return m
	}
	for i := 1; i < len(s.paths); i++ {
		if m := s.try(i, 0, 0); m != nil {
			return m
		}
	}
	for j := 1; j < len(s.queries); j++ {
		if m := s.try(0, j, 0); m != nil {
			return m
		}
	}
	for k := 1; k < len(s.bodies); k++ {
		if m := s.try(0, 0, k); m != nil {
			return m
		}
	}
	if m := s.senders(); m != nil {
		return m
	}
	return s.combinations()
}

// combinations tries changes to two or three parts by the sum of their ranks.
func (s *search) combinations() *match {
	for sum := 2; sum < len(s.paths)+len(s.queries)+len(s.bodies); sum++ {
		for i := 0; i <= min(sum, len(s.paths)-1); i++ {
			for j := 0; j <= min(sum-i, len(s.queries)-1); j++ {
				k := sum - i - j
				if k >= len(s.bodies) || i == 0 && j == 0 || i == 0 && k == 0 || j == 0 && k == 0 {
					continue
				}
				if s.tried >= s.limit {
					return nil
				}
				if m := s.try(i, j, k); m != nil {
					return m
				}
			}
		}
	}
	return nil
}

func (s *search) try(i, j, k int) *match {
	if s.tried >= s.limit {
		return nil
	}
	m := message{s.paths[i].text, s.queries[j].text, s.bodies[k].text}
	signed := m.stringToSign()
	s.tried++
	if md5.Sum(signed) != s.digest {
		return nil
	}
	return &match{message: m, pathKinds: s.paths[i].kinds, queryKinds: s.queries[j].kinds, bodyKinds: s.bodies[k].kinds, signed: signed}
}

// senders tries the mistakes of other signers than OSS, on the message as it came.
func (s *search) senders() *match {
	m := message{s.paths[0].text, s.queries[0].text, s.bodies[0].text}
	found := func(kind Kind, signed []byte) *match {
		return &match{message: m, sender: kind, signed: signed}
	}
	for _, separator := range []string{"\n", "", "\r\n", "\r"} {
		for _, mark := range []bool{m.query != "", m.query == ""} {
			signed := m.joined(mark, separator)
			s.tried++
			switch {
			case md5.Sum(signed) != s.digest:
			case separator != "\n":
				return found(SenderSeparator, signed)
			default:
				return found(SenderQueryMark, signed)
			}
		}
	}
	sum := md5.Sum(m.stringToSign())
	slices.Reverse(sum[:])
	if sum == s.digest {
		return found(SenderReversedDigest, m.stringToSign())
	}
	slices.Reverse(sum[:])
	for _, digits := range [][]byte{hexOf(sum), bytes.ToUpper(hexOf(sum))} {
		if md5.Sum(digits) == s.digest {
			return found(SenderHexDigest, digits)
		}
	}
	return nil
}
