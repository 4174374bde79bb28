package snippet

import (
	"encoding/json"
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

// FuzzLiterals reads each literal as its language does: it must be complete, and its
// value must be what went in.
func FuzzLiterals(f *testing.F) {
	for _, s := range []string{"", `"`, `'`, `\`, `\\`, `\"`, `\'`, `'\''`, "$HOME ${x} `id` $(id)", "</script><!--", "a??/b???'c",
		`\u0022`, "%s\\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if !printable(s) {
			return // refused before
		}
		if got, err := strconv.Unquote(doubleQuoted(s)); err != nil || got != s {
			t.Errorf("Go: %s stands for %q: %v", doubleQuoted(s), got, err)
		}
		script, got := inScript(s), ""
		if err := json.Unmarshal([]byte(script), &got); err != nil || got != s || strings.Contains(script, "<") {
			t.Errorf("script: %s stands for %q: %v", script, got, err)
		}
		cpp := inCPP(s)
		if got, err := strconv.Unquote(strings.ReplaceAll(cpp, `\?`, "?")); strings.Contains(cpp, "??") || err != nil || got != s {
			t.Errorf("C++: %s stands for %q: %v", cpp, got, err)
		}
		if got, ok := readPHP(singleQuoted(s)); !ok || got != s {
			t.Errorf("PHP: %s stands for %q", singleQuoted(s), got)
		}
		if got, ok := readShell(shellWord(s)); !ok || got != s {
			t.Errorf("shell: %s stands for %q", shellWord(s), got)
		}
	})
}

// readPHP decodes one single-quoted string (PHP manual, Strings): a backslash escapes
// itself and the quote, and is itself before all else.
func readPHP(literal string) (string, bool) {
	inner, ok := strings.CutPrefix(literal, "'")
	var b strings.Builder
	for i := 0; ok && i < len(inner); i++ {
		switch c := inner[i]; {
		case c == '\'':
			return b.String(), i == len(inner)-1
		case c == '\\' && i+1 < len(inner) && strings.IndexByte(`\'`, inner[i+1]) >= 0:
			i++
			b.WriteByte(inner[i])
		default:
			b.WriteByte(c)
		}
	}
	return "", false
}

// readShell decodes one word (POSIX, Shell Command Language, 2.2).
func readShell(word string) (string, bool) {
	var b strings.Builder
	quoted := false
	for i := 0; i < len(word); i++ {
		switch c := word[i]; {
		case c == '\'':
			quoted = !quoted
		case quoted:
			b.WriteByte(c)
		case c == '\\' && i+1 < len(word):
			i++
			b.WriteByte(word[i])
		default:
			return "", false // a bare character might end the word or begin a command
		}
	}
	return b.String(), !quoted
}

// TestShellWord holds readShell against a real shell.
func TestShellWord(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"", "a b", "it's", `\`, "''", "$HOME `id` !! \"", "-n", "*", "~", "#x", "a;b|c&d>e"} {
		out, err := exec.CommandContext(t.Context(), "sh", "-c", "printf %s "+shellWord(s)).Output()
		if err != nil || string(out) != s {
			t.Errorf("%q came out as %q: %v", s, out, err)
		}
	}
}
