package console

import (
	"cmp"
	"embed"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
)

// languages are those that pages are in. The first is what templates are written in.
var languages = []string{"en", "zh"}

//go:embed zh.json
var chineseFile embed.FS

// chinese are the translations of texts in templates.
var chinese = func() map[string]string {
	texts := make(map[string]string)
	file, err := chineseFile.ReadFile("zh.json")
	if err == nil {
		err = json.Unmarshal(file, &texts)
	}
	if err != nil {
		panic(err) // it is compiled in
	}
	return texts
}()

// translate returns a text in a language. A text without a translation stays as it is.
func translate(language, text string) string {
	if language == "zh" {
		return cmp.Or(chinese[text], text)
	}
	return text
}

// languageOf returns the language that a browser prefers of those that there are (RFC 9110, 12.5.4).
func languageOf(header string) string {
	type wish struct {
		language string
		weight   float64
	}
	var wishes []wish
	for part := range strings.SplitSeq(header, ",") {
		tag, parameter, _ := strings.Cut(strings.TrimSpace(part), ";")
		weight := 1.0
		if q, ok := strings.CutPrefix(strings.TrimSpace(parameter), "q="); ok {
			weight, _ = strconv.ParseFloat(q, 64)
		}
		primary, _, _ := strings.Cut(strings.ToLower(tag), "-")
		if slices.Contains(languages, primary) && weight > 0 {
			wishes = append(wishes, wish{primary, weight})
		}
	}
	slices.SortStableFunc(wishes, func(a, b wish) int { return cmp.Compare(b.weight, a.weight) })
	if len(wishes) == 0 {
		return languages[0]
	}
	return wishes[0].language
}
