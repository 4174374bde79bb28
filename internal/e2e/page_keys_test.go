package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"upcall/internal/testing/toolchain"
)

// TestPageKeys names folders that some programs read as others.
func TestPageKeys(t *testing.T) {
	t.Parallel()
	toolchain.Need(t, "chromium")
	s := newSite(t)
	v := visit(t, s)
	for folder, says := range map[string]string{
		"inbox/..":                    "segment ..",
		"inbox/./":                    "segment .",
		"inbox/%2e%2e/":               "segment ..",
		"inbox/%252E%2e/":             "segment ..",
		"inbox//a":                    "empty segment",
		"/inbox":                      "empty segment",
		`inbox/a\b`:                   "backslash",
		"inbox/a\tb":                  "control",
		"inbox/a\x00b":                "control",
		"inbox/a%00b":                 "control",
		"other":                       "prefixes",
		strings.Repeat("inbox/", 200): "1023",
		"inbox":                       "Uploaded and recorded",
		"inbox/50% a+b?c#d&":          "Uploaded and recorded",
	} {
		outcome := ".bad"
		if strings.HasPrefix(says, "Uploaded") {
			outcome = ".good"
		}
		v.do(chromedp.Evaluate[chromedp.Void](fmt.Sprintf(
			`document.getElementById("uploads").replaceChildren(); document.getElementById("prefix").value = %q`, folder)))
		v.choose(1)
		v.do(chromedp.WaitVisible(chromedp.CSS("#uploads li " + outcome)))
		if got := v.states()[0]; !strings.Contains(got, says) {
			t.Errorf("%q: the page says %s", folder, got)
		}
	}
	if rows := s.rows(t); rows != 2 {
		t.Errorf("%d rows", rows)
	}
}
