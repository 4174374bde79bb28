package policy_test

import (
	"strconv"
	"strings"
	"testing"

	"upcall/internal/callbackspec"
	"upcall/internal/policy"
)

// badSegments are parts of keys that some programs read differently, with what is said of them.
var badSegments = map[string]string{
	".":               "the segment .,",
	"..":              "the segment ..,",
	"...":             "the segment",
	".. ":             "the segment",
	"..;x=1":          "the segment",
	"%2e":             "percent-decoded, it holds the segment .,",
	"%2E%2e":          "percent-decoded, it holds the segment ..,",
	".%2e":            "percent-decoded, it holds the segment ..,",
	"%252e%252E":      "percent-decoded, it holds the segment ..,",
	"%25252e.":        "percent-decoded, it holds the segment ..,",
	"x%2f..%2Fy":      "percent-decoded, it holds the segment ..,",
	"%2fx":            "percent-decoded, it holds an empty segment",
	"x%2F":            "percent-decoded, it holds an empty segment",
	"":                "it holds an empty segment",
	`..\..`:           "a backslash",
	"..%5c..":         "percent-decoded, it holds a backslash",
	"%c0%ae%C0%AE":    "never UTF-8",
	"%c1%9c":          "never UTF-8",
	"a\nb":            "a control or formatting character",
	"a\x7fb":          "a control or formatting character",
	"a\x00b":          "a control or formatting character",
	"a%00b":           "percent-decoded, it holds a control or formatting character",
	"a%0d%0Ab":        "percent-decoded, it holds a control or formatting character",
	"a%e2%80%aegpj.x": "percent-decoded, it holds a control or formatting character",
	"\xff":            "not UTF-8",
	"\xc0\xae":        "not UTF-8",
}

// goodSegments look like those, and are allowed.
var goodSegments = []string{
	".hidden", "..b", "a..", "a.b", "50%", "50%.png", "%", "%2", "%zz", "100%25", "r%e9sum%e9.pdf", "a%20b", "a%2Fb", "a+b",
	" ", "．．", "{..}", "a;b", ";", "%u002e%u002e", "é", "-", "~",
}

// TestKeySpellings tries each segment wherever a key or a template comes in.
func TestKeySpellings(t *testing.T) {
	t.Parallel()
	photos := parse(t, good).Policy("photos")
	apply := func(key, template string) string {
		r := goodRequest()
		r.Key, r.KeyTemplate, r.Filename = key, template, "cat.jpg"
		_, violations := photos.Apply(r, evening)
		if len(violations) == 0 {
			return ""
		}
		if violations[0].Rule != policy.RuleKey {
			t.Errorf("%q %q: %v", key, template, violations)
		}
		return violations[0].Detail
	}
	// file makes the policy's own prefix or template end in a segment.
	file := func(field, segment string) string {
		old := map[string]string{
			"key_prefixes":  `"photos/${apikey.id}/"`,
			"key_templates": `"photos/${apikey.id}/${date}/${uuid}-${filename}"`,
		}[field]
		text := "photos/${apikey.id}/" + segment
		if field == "key_prefixes" {
			text += "/"
		} else {
			text += "/${uuid}"
		}
		_, err := policy.Parse([]byte(strings.Replace(good, old, strconv.Quote(text), 1)), callbackspec.AnyHost)
		if err == nil {
			return ""
		}
		return err.Error()
	}
	for segment, want := range badSegments {
		for door, got := range map[string]string{
			"key":             apply("photos/web/"+segment+"/x", ""),
			"key's end":       apply("photos/web/"+segment, ""),
			"template":        apply("", "photos/${apikey.id}/"+segment+"/${uuid}"),
			"template's end":  apply("", "photos/${apikey.id}/"+segment),
			"policy prefix":   file("key_prefixes", segment),
			"policy template": file("key_templates", segment),
		} {
			if strings.HasPrefix(door, "policy") && want == "not UTF-8" {
				continue // YAML's escapes are characters
			}
			if !strings.Contains(got, want) || got == "" {
				t.Errorf("%q as %s: %q, want %q in it", segment, door, got, want)
			}
		}
	}
	for _, segment := range goodSegments {
		for door, got := range map[string]string{
			"key":             apply("photos/web/"+segment+"/x", ""),
			"key's end":       apply("photos/web/"+segment, ""),
			"template":        apply("", "photos/${apikey.id}/"+segment+"/${uuid}"),
			"policy prefix":   file("key_prefixes", segment),
			"policy template": file("key_templates", segment),
		} {
			if got != "" {
				t.Errorf("%q as %s: %s", segment, door, got)
			}
		}
	}
	// A file name completes what the template begins.
	r := goodRequest()
	r.Key, r.KeyTemplate, r.Filename = "", "photos/${apikey.id}/%2${filename}", "e"
	if grant, violations := photos.Apply(r, evening); len(violations) != 1 || violations[0].Field != "filename" {
		t.Errorf("%q, %v", grant.Key, violations)
	}
}
