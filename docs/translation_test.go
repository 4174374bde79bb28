package docs_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// translated ends the name of a page in Chinese; the same name without it is that of the original.
const translated = ".zh-CN.md"

var (
	block   = regexp.MustCompile("(?ms)^```.*?^```$")
	code    = regexp.MustCompile("`[^`]+`")
	heading = regexp.MustCompile(`(?m)^#+ `)
	target  = regexp.MustCompile(`\]\(([^)#]+)`)
)

// A skeleton is what a page and its translation must have in common.
type skeleton struct {
	Headings []string   // their levels, in order
	Blocks   []string   // commands, queries and output, in order
	Rows     [][]string // the code in each row of each table, sorted; a row without code is there, too
	Links    []string   // the pages linked to, sorted, each once
}

// outline returns the skeleton of a page.
func outline(page string) skeleton {
	var s skeleton
	s.Blocks = block.FindAllString(page, -1)
	prose := block.ReplaceAllString(page, "")
	s.Headings = heading.FindAllString(prose, -1)
	for line := range strings.Lines(prose) {
		if strings.HasPrefix(line, "|") {
			row := code.FindAllString(line, -1)
			slices.Sort(row)
			s.Rows = append(s.Rows, row)
		}
	}
	for _, link := range target.FindAllStringSubmatch(prose, -1) {
		s.Links = append(s.Links, strings.Replace(link[1], translated, ".md", 1))
	}
	slices.Sort(s.Links)
	s.Links = slices.Compact(s.Links)
	return s
}

// TestTranslations holds commands, tables, headings and links of each translated page equal to those of its original.
func TestTranslations(t *testing.T) {
	t.Parallel()
	all, found := pages(t), 0
	for path, text := range all {
		name, ok := strings.CutSuffix(path, translated)
		if !ok {
			continue
		}
		found++
		original, ok := all[name+".md"]
		if !ok {
			t.Errorf("%s translates no page", path)
			continue
		}
		if diff := cmp.Diff(outline(original), outline(text)); diff != "" {
			t.Errorf("%s differs from the page that it translates (-original +translation):\n%s", path, diff)
		}
	}
	if found == 0 {
		t.Error("no translated page was found")
	}
}

// TestOutline holds that a translation which left something out would be noticed.
func TestOutline(t *testing.T) {
	t.Parallel()
	const original = "# One\n\n## Two\n\n```sh\nmake demo\n```\n\n| `a` | b |\n|---|---|\n| `c` | `d` |\n\n[x](y.md#z)\n"
	for name, changed := range map[string]string{
		"a heading of another level": strings.Replace(original, "## Two", "### Two", 1),
		"a heading left out":         strings.Replace(original, "## Two", "Two", 1),
		"another command":            strings.Replace(original, "make demo", "make dev", 1),
		"another name in a table":    strings.Replace(original, "`d`", "`e`", 1),
		"a row left out":             strings.Replace(original, "| `c` | `d` |\n", "", 1),
		"a link left out":            strings.Replace(original, "[x](y.md#z)", "x", 1),
	} {
		if cmp.Equal(outline(original), outline(changed)) {
			t.Errorf("%s is not noticed", name)
		}
	}
	same := strings.NewReplacer("One", "一", "Two", "二", "b |", "乙 |", "y.md#z", "y.zh-CN.md#子").Replace(original)
	if diff := cmp.Diff(outline(original), outline(same)); diff != "" {
		t.Errorf("a faithful translation differs:\n%s", diff)
	}
}
