package feed

import (
	"errors"
	"testing"

	"github.com/google/uuid"
)

func TestCursorText(t *testing.T) {
	t.Parallel()
	for _, c := range []Cursor{
		{7_400_000_000_000_000_000, 1, position{xid: 1}},
		{1, 7, position{xid: 1 << 40, id: uuid.MustParse("ffffffff-ffff-ffff-ffff-ffffffffffff")}},
		{1, 7, position{at: 1_700_000_000_000_000, id: uuid.MustParse("00000000-0000-0000-0000-000000000001")}},
		{1, 7, position{at: earliest}},
	} {
		text := c.String()
		got, err := ParseCursor(text)
		if err != nil || got != c || len(text) != textLength {
			t.Errorf("%v: got %v, %v", c, got, err)
		}
	}
	if text := (Cursor{}).String(); text != "" {
		t.Errorf("the zero cursor is %q", text)
	}
}

func TestParseCursorRejects(t *testing.T) {
	t.Parallel()
	good := Cursor{1, 1, position{xid: 9}}.String()
	for _, text := range []string{
		"", "now", good[:63], good + "A", " " + good[1:], good[:63] + "=", good[:63] + "+",
		good[:30] + "\n" + good[31:], good[:30] + "\n\n\n\n" + good[34:], swap(good, 3), swap(good, 63),
		Cursor{1, 0, position{xid: 9}}.String(), Cursor{1 << 63, 1, position{xid: 9}}.String(),
		Cursor{1, 1 << 31, position{xid: 9}}.String(), Cursor{1, 1, position{xid: 1 << 63}}.String(),
		Cursor{1, 1, position{xid: 9, at: 1}}.String(), Cursor{1, 1, position{at: latest + 1}}.String(),
	} {
		if c, err := ParseCursor(text); !errors.Is(err, ErrCursor) || c != (Cursor{}) {
			t.Errorf("%q: got %v, %v", text, c, err)
		}
	}
}

// swap replaces a letter by another.
func swap(text string, at int) string {
	other := byte('A')
	if text[at] == other {
		other = 'B'
	}
	return text[:at] + string(other) + text[at+1:]
}

func FuzzParseCursor(f *testing.F) {
	f.Add("")
	f.Add(Cursor{1, 1, position{xid: 9}}.String())
	f.Add(Cursor{1, 1, position{at: 9, id: uuid.UUID{1}}}.String())
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseCursor(text)
		if err != nil {
			if !errors.Is(err, ErrCursor) || c != (Cursor{}) {
				t.Errorf("got %v, %v", c, err)
			}
			return
		}
		if c.String() != text {
			t.Errorf("%q is read as %q", text, c)
		}
	})
}
