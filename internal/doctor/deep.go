package doctor

import (
	"bytes"
	"cmp"
	"crypto/md5"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"
)

// deep looks for a body whose parts are known but for their order, or but for the digits of a
// number: more candidates than a search can hold.
type deep struct {
	before []byte // what is signed before the body; nothing if the digest is that of the body
	digest [md5.Size]byte
	limit  int // bytes that may be hashed
	tried  int
	buffer []byte
}

// maxOrdered is the number of fields up to which every order is tried: 9! = 362,880.
const maxOrdered = 9

// run tries the body, and then what may have been sent if it was parsed and written again, with
// the fewest changes first.
func (d *deep) run(body string, parsed []variant) (variant, bool) {
	if len(body) > maxTwice {
		return variant{}, false
	}
	byKinds := func(a, b variant) int { return cmp.Compare(len(a.kinds), len(b.kinds)) }
	for _, h := range holes(body) {
		if v, ok := d.fill(h); ok {
			return v, true
		}
	}
	seen := make(map[string]bool)
	for _, v := range append([]variant{{text: body}}, slices.SortedStableFunc(slices.Values(parsed), byKinds)...) {
		pieces, open, separator, end := fieldsIn(v.text)
		key := strings.Join(slices.Sorted(slices.Values(pieces)), separator)
		if len(pieces) < 2 || seen[key] {
			continue
		}
		seen[key] = true
		d.buffer = append(append(d.buffer[:0], d.before...), open...)
		if !d.orders(pieces, separator, end) {
			continue
		}
		return variant{string(d.buffer[len(d.before):]), append(slices.Clone(v.kinds), BodyReordered)}, true
	}
	return variant{}, false
}

// fieldsIn cuts a form or a JSON object into its fields.
func fieldsIn(b string) (pieces []string, open, separator, end string) {
	if !isJSON(b) {
		return strings.Split(b, "&"), "", "&", ""
	}
	for _, f := range fieldsOf(b) {
		pieces = append(pieces, quoteJSON(f.name, false, "")+":"+f.value)
	}
	return pieces, "{", ",", "}"
}

// orders appends the pieces to the buffer in each order, until it fits. It leaves the buffer as
// it was if none does.
func (d *deep) orders(pieces []string, separator, end string) bool {
	start := len(d.buffer)
	if len(pieces) > maxOrdered {
		join := func(order []string) string { return strings.Join(order, separator) }
		name := func(piece string) string { name, _, _ := strings.Cut(piece, "="); return strings.Trim(name, `"`) }
		for _, text := range reorderAll(pieces, join, name) {
			if d.buffer = append(append(d.buffer[:start], text...), end...); d.fits() {
				return true
			}
		}
		d.buffer = d.buffer[:start]
		return false
	}
	for i, piece := range pieces {
		d.buffer = append(d.buffer[:start], piece...)
		pieces[0], pieces[i] = pieces[i], pieces[0]
		if len(pieces) == 1 {
			d.buffer = append(d.buffer, end...)
			if d.fits() {
				return true
			}
		} else {
			d.buffer = append(d.buffer, separator...)
			if d.orders(pieces[1:], separator, end) {
				return true
			}
		}
		pieces[0], pieces[i] = pieces[i], pieces[0]
		if d.limit <= 0 {
			break
		}
	}
	d.buffer = d.buffer[:start]
	return false
}

// fits reports whether the buffer has the digest.
func (d *deep) fits() bool {
	if d.limit <= 0 {
		return false
	}
	d.limit -= len(d.buffer)
	d.tried++
	return md5.Sum(d.buffer) == d.digest
}

// A hole is a body of which the digits of one number are unknown.
type hole struct {
	variant         // with the mark in place of the digits
	lowest, highest uint64
}

// digitsMark stands for digits. Neither forms nor JSON change it.
const digitsMark = "digitsWereRounded"

func (d *deep) fill(h hole) (variant, bool) {
	start, end, _ := strings.Cut(h.text, digitsMark)
	d.buffer = append(append(d.buffer[:0], d.before...), start...)
	from := len(d.buffer)
	for n := h.lowest; n <= h.highest && d.limit > 0; n++ {
		d.buffer = append(strconv.AppendUint(d.buffer[:from], n, 10), end...)
		if d.fits() {
			return variant{string(bytes.Clone(d.buffer[len(d.before):])), h.kinds}, true
		}
		if n == math.MaxUint64 {
			break
		}
	}
	return variant{}, false
}

// maxHoles bounds the bodies with a rounded number, each of which stands for thousands.
const maxHoles = 60

// holes returns what may have been sent if a number in a parsed body was rounded.
func holes(body string) []hole {
	var found []hole
	for _, outer := range opened(body) {
		for _, read := range readings(outer.text) {
			for i, m := range read.members {
				lowest, highest, ok := rounded(m.text)
				if !ok {
					continue
				}
				members := slices.Clone(read.members)
				members[i].text = digitsMark
				for _, named := range renamed(read.with(BodyRounded, members)) {
					for _, valued := range revalued(named) {
						writeAll(outer, valued, func(text string, kinds []Kind) {
							found = append(found, hole{variant{text, kinds}, lowest, highest})
						})
					}
				}
			}
		}
	}
	slices.SortStableFunc(found, func(a, b hole) int { return cmp.Compare(len(a.kinds), len(b.kinds)) })
	return found[:min(len(found), maxHoles)]
}

// rounded returns the integers of 64 bits that may have become that number: those with the
// nearest float, or with the 14 digits that some programs (Lua) keep.
func rounded(text string) (lowest, highest uint64, ok bool) {
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || f < 1<<53 || f > 1<<64 {
		return 0, 0, false
	}
	mantissa, exponent, scientific := strings.Cut(strings.ToLower(text), "e")
	if !scientific && strconv.FormatFloat(f, 'f', -1, 64) != text && strconv.FormatFloat(f, 'f', 0, 64) != text {
		return 0, 0, false // all digits are there
	}
	const kept = 14
	half := math.Ceil((f - math.Nextafter(f, 0)))
	if power, err := strconv.Atoi(exponent); err == nil && len(strings.Trim(mantissa, "0.")) <= kept+1 {
		half = max(half, math.Pow10(power-kept+1)/2)
	}
	at := func(delta float64) uint64 {
		exact, _ := new(big.Float).SetPrec(128).Add(big.NewFloat(f), big.NewFloat(delta)).Uint64() // clamps
		return exact
	}
	return at(-half), at(half), true
}
