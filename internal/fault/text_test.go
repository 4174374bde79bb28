package fault_test

import (
	"strings"
	"testing"

	"upcall/internal/fault"
)

func TestText(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ text, quote, name, line string }{
		{"", `""`, "", ""},
		{"a b", `"a b"`, "a b", "a b"},
		{`a"b`, `"a\"b"`, `a"b`, `a"b`},
		{" 键\r\n\tb ", `" 键\r\n\tb "`, " 键???b ", "键 b"},
		{"\x1b[2J", `"\x1b[2J"`, "?[2J", "[2J"},
		{"caf\xe9", `"caf\xe9"`, "caf?", "caf\uFFFD"},
	} {
		if got := fault.Quote(tt.text); got != tt.quote {
			t.Errorf("Quote(%q) is %s, want %s", tt.text, got, tt.quote)
		}
		if got := fault.Name(tt.text); got != tt.name {
			t.Errorf("Name(%q) is %s, want %s", tt.text, got, tt.name)
		}
		if got := fault.Line(tt.text); got != tt.line {
			t.Errorf("Line(%q) is %q, want %q", tt.text, got, tt.line)
		}
	}
}

func TestReadable(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{"a b/猫.jpg": "a b/猫.jpg", "a\nb": `"a\nb"`, "\x1b[2J": `"\x1b[2J"`, "\xff": `"\xff"`} {
		if got := fault.Readable(text); got != want {
			t.Errorf("%q is shown as %s, want %s", text, got, want)
		}
	}
}

func TestShort(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		strings.Repeat("a", 80):        strings.Repeat("a", 80),
		strings.Repeat("a", 81):        strings.Repeat("a", 80) + "…",
		"a" + strings.Repeat("ä", 100): "a" + strings.Repeat("ä", 39) + "…",
	} {
		if got := fault.Short(text); got != want {
			t.Errorf("Short(%q) is %q, want %q", text, got, want)
		}
	}
}
