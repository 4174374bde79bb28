package doctor

import (
	"encoding/hex"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/japanese"
	"golang.org/x/text/encoding/korean"
	"golang.org/x/text/encoding/simplifiedchinese"
	"golang.org/x/text/encoding/traditionalchinese"
	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/unicode/norm"

	"upcall/internal/callbackspec"
)

var charsets = []encoding.Encoding{
	simplifiedchinese.GB18030, simplifiedchinese.GBK, charmap.ISO8859_1, charmap.Windows1252,
	traditionalchinese.Big5, japanese.ShiftJIS, korean.EUCKR,
}

// recode undoes a change of charset, in the text itself and in percent escapes: from
// UTF-8 to another, or from UTF-8 that was read as another.
func recode(b string) []string {
	var out []string
	for _, order := range []unicode.Endianness{unicode.LittleEndian, unicode.BigEndian} { // a byte order mark goes first
		text, err := unicode.UTF16(order, unicode.UseBOM).NewDecoder().String(b)
		if err == nil && len(b)%2 == 0 && strings.Contains(b, "\x00") {
			out = append(out, text)
		}
	}
	for _, charset := range charsets {
		change := func(s string) string {
			convert := charset.NewDecoder().String
			if utf8.ValidString(s) {
				convert = charset.NewEncoder().String
			}
			changed, err := convert(s)
			if err != nil || !utf8.ValidString(changed) || strings.ContainsRune(changed, utf8.RuneError) {
				return s
			}
			return changed
		}
		out = append(out, change(b))
		if !isJSON(b) && strings.Contains(b, "%") {
			for _, spell := range spellings[:2] {
				out = append(out, eachHalf(b, func(half string) string { return spell(change(decodeForm(half))) }))
			}
		}
	}
	return out
}

// normalize undoes a change of letters with accents, which Unicode has as one character and as
// a letter and a mark, in the text itself and in percent escapes.
func normalize(b string) (found []string) {
	for _, form := range []norm.Form{norm.NFC, norm.NFD} {
		found = append(found, form.String(b))
		if !isJSON(b) && strings.Contains(b, "%") {
			for _, spell := range spellings[:2] {
				found = append(found, eachHalf(b, func(half string) string { return spell(form.String(decodeForm(half))) }))
			}
		}
	}
	return found
}

var (
	numbers = regexp.MustCompile(`-?[0-9]{1,3}`)
	allHex  = regexp.MustCompile(`^(?:0x|<Buffer )?((?:[0-9a-fA-F]{2}[ \n]?)+)>?$`)
)

// decodeBytes undoes how programs write bytes: as hexadecimal digits, as a list of numbers, or as
// JavaScript's Buffer and typed arrays in JSON.
func decodeBytes(b string) []string {
	text := strings.TrimSpace(b)
	if digits := allHex.FindStringSubmatch(text); digits != nil && len(text) > 8 {
		plain, err := hex.DecodeString(strings.NewReplacer(" ", "", "\n", "").Replace(digits[1]))
		return storable(plain, err == nil)
	}
	var plain []byte
	if fields := fieldsOf(text); len(fields) > 0 {
		if fields[0].name == "type" && fields[0].value == `"Buffer"` && len(fields) == 2 {
			return decodeBytes(fields[1].value)
		}
		for i, f := range fields {
			n, err := strconv.ParseUint(f.value, 10, 8)
			if err != nil || f.name != strconv.Itoa(i) {
				return nil
			}
			plain = append(plain, byte(n))
		}
		return storable(plain, true)
	}
	if len(text) < 2 || text[0] != '[' || text[len(text)-1] != ']' || strings.Trim(text[1:len(text)-1], "0123456789-, \r\n") != "" {
		return nil
	}
	for _, number := range numbers.FindAllString(text, -1) {
		n, err := strconv.Atoi(number)
		if err != nil || n < -128 || n > 255 {
			return nil
		}
		plain = append(plain, byte(n))
	}
	return storable(plain, len(plain) > 1)
}

func storable(plain []byte, ok bool) []string {
	if !ok || !callbackspec.Storable(string(plain)) {
		return nil
	}
	return []string{string(plain)}
}
