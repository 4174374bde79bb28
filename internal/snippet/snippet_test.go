package snippet_test

import (
	"errors"
	"go/format"
	"maps"
	"slices"
	"strings"
	"testing"

	"upcall/internal/fault"
	"upcall/internal/manifest"
	"upcall/internal/snippet"
)

func good() manifest.PresignedRequest {
	return manifest.PresignedRequest{
		Method:  "PUT",
		URL:     "https://demo.oss-cn-hangzhou.aliyuncs.com/a/b.jpg?x-oss-expires=3600&x-oss-signature=00",
		Headers: map[string]string{"content-length": "5", "content-type": "image/jpeg", "x-oss-meta-a": "b"},
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	header := func(name, value string) func(*manifest.PresignedRequest) {
		return func(u *manifest.PresignedRequest) { u.Headers[name] = value }
	}
	address := func(s string) func(*manifest.PresignedRequest) {
		return func(u *manifest.PresignedRequest) { u.URL = s }
	}
	tests := []struct {
		name   string
		change func(*manifest.PresignedRequest)
		want   error
	}{
		{"line break in a value", header("x-oss-meta-b", "c\r\nx-oss-object-acl: public-read"), snippet.ErrHeader},
		{"line feed alone", header("x-oss-meta-b", "c\nd"), snippet.ErrHeader},
		{"NUL", header("x-oss-meta-b", "\x00"), snippet.ErrHeader},
		{"not ASCII", header("x-oss-meta-b", "é"), snippet.ErrHeader},
		{"line separator of JavaScript", header("x-oss-meta-b", "\u2028"), snippet.ErrHeader},
		{"not UTF-8", header("x-oss-meta-b", "\xff"), snippet.ErrHeader},
		{"DEL", header("x-oss-meta-b", "\x7f"), snippet.ErrHeader},
		{"empty value", header("x-oss-meta-b", ""), snippet.ErrHeader},
		{"space at the end", header("x-oss-meta-b", "c "), snippet.ErrHeader},
		{"empty name", header("", "c"), snippet.ErrHeader},
		{"colon in a name", header("x-oss-meta-b:", "c"), snippet.ErrHeader},
		{"quote in a name", header(`x-oss-meta-"`, "c"), snippet.ErrHeader},
		{"line break in a name", header("x-oss-meta-b\n", "c"), snippet.ErrHeader},
		{"capitals in a name", header("X-Oss-Meta-B", "c"), snippet.ErrHeader},
		{"POST", func(u *manifest.PresignedRequest) { u.Method = "POST" }, snippet.ErrMethod},
		{"no method", func(u *manifest.PresignedRequest) { u.Method = "" }, snippet.ErrMethod},
		{"no URL", address(""), snippet.ErrURL},
		{"relative URL", address("/a"), snippet.ErrURL},
		{"file URL", address("file:///etc/passwd"), snippet.ErrURL},
		{"script URL", address("javascript:alert(1)"), snippet.ErrURL},
		{"password in the URL", address("https://a:b@example.com/"), snippet.ErrURL},
		{"fragment", address("https://example.com/#a"), snippet.ErrURL},
		{"quote in the URL", address("https://example.com/'a"), snippet.ErrURL},
		{"markup in the URL", address("https://example.com/<a>"), snippet.ErrURL},
		{"line break in the URL", address("https://example.com/\na"), snippet.ErrURL},
		{"URL that is not ASCII", address("https://example.com/é"), snippet.ErrURL},
		{"bad escape", address("https://example.com/%zz"), snippet.ErrURL},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for _, language := range snippet.Languages() {
				u := good()
				tt.change(&u)
				program, err := snippet.Render(language, u)
				if !errors.Is(err, tt.want) || program != "" || strings.Contains(err.Error(), "\n") {
					t.Errorf("%s: %v", language, err)
				}
			}
		})
	}
}

func TestUnknownLanguage(t *testing.T) {
	t.Parallel()
	for _, language := range []string{"", "cobol", "Python", "text", "json", "../curl"} {
		if _, err := snippet.Render(language, good()); !errors.Is(err, snippet.ErrLanguage) {
			t.Errorf("%q: %v", language, err)
		}
		if err := snippet.Check(language, "k", "image/png"); !errors.Is(err, snippet.ErrLanguage) ||
			!strings.Contains(err.Error(), "curl, python") {
			t.Errorf("%q: %v", language, err)
		}
	}
}

// TestDotSegments: where a client would resolve them, the key is refused, however
// it is spelled.
func TestDotSegments(t *testing.T) {
	t.Parallel()
	keeps := map[string]bool{"curl": true, "java": true, "go": true, "cpp": true, "php": true}
	for _, language := range snippet.Languages() {
		for path, dots := range map[string]bool{"a/../b": true, "a/./b": true, "a/..": true, "..": true, ".": true,
			"a/.b/..c/d...": false, "a//b": false} {
			u := good()
			want := dots && !keeps[language]
			for _, spelled := range []string{path, strings.ReplaceAll(path, ".", "%2e")} {
				u.URL = "https://demo.example.com/" + spelled + "?x=/../"
				if _, err := snippet.Render(language, u); errors.Is(err, snippet.ErrDotSegment) != want {
					t.Errorf("%s: %s: %v", language, spelled, err)
				}
			}
			if err := snippet.Check(language, path, "image/png"); errors.Is(err, snippet.ErrDotSegment) != want {
				t.Errorf("%s: %s: %v", language, path, err)
			}
		}
	}
}

// TestAllMistakes: all mistakes are reported at once, one a line.
func TestAllMistakes(t *testing.T) {
	t.Parallel()
	u := manifest.PresignedRequest{Method: "POST", URL: "x", Headers: map[string]string{"a": "", "b": ""}}
	_, err := snippet.Render("browser", u)
	var rules []error
	for _, f := range fault.Of(err) {
		rules = append(rules, f.Rule)
	}
	want := []error{snippet.ErrMethod, snippet.ErrHeader, snippet.ErrHeader, snippet.ErrURL, snippet.ErrContentType}
	if !slices.Equal(rules, want) {
		t.Errorf("got %v", err)
	}
}

// TestShape holds what all programs have in common.
func TestShape(t *testing.T) {
	t.Parallel()
	for _, language := range snippet.Languages() {
		for _, scheme := range []string{"http", "https"} {
			u := good()
			u.URL = strings.Replace(u.URL, "https", scheme, 1)
			before := maps.Clone(u.Headers)
			program, err := snippet.Render(language, u)
			if err != nil {
				t.Fatal(err)
			}
			if !maps.Equal(u.Headers, before) {
				t.Errorf("%s changes the caller's headers", language)
			}
			for _, needed := range []string{"x-oss-meta-a", "image/jpeg", "203 CallbackFailed"} {
				if !strings.Contains(program, needed) {
					t.Errorf("%s does not hold %q", language, needed)
				}
			}
			if strings.Contains(program, "<no value>") || strings.Contains(program, "\t \n") || strings.Contains(program, " \n") ||
				!strings.HasSuffix(program, "\n") {
				t.Errorf("%s is not tidy:\n%s", language, program)
			}
			if formatted, err := format.Source([]byte(program)); language == "go" && (err != nil || string(formatted) != program) {
				t.Errorf("gofmt: %v\n%s", err, formatted)
			}
		}
	}
}

// FuzzRender: a program is made whole or not at all, even from a request that presigning
// does not make today.
func FuzzRender(f *testing.F) {
	f.Add("https://demo.example.com/k?a=b", "x-oss-meta-a", `"'\<`+"`")
	f.Add("http://127.0.0.1:9000/demo/%C3%A9/?a=b", "content-type", "text/plain; charset=utf-8")
	f.Add("https://demo.example.com/k??/", "content-length", "\r\n")
	f.Fuzz(func(t *testing.T, url, name, value string) {
		u := manifest.PresignedRequest{Method: "PUT", URL: url, Headers: map[string]string{"content-type": "image/png", name: value}}
		for _, language := range snippet.Languages() {
			program, err := snippet.Render(language, u)
			if err != nil {
				if program != "" {
					t.Fatalf("%s: %v, and a program", language, err)
				}
				continue
			}
			// Nothing of the values can have added a line, or anything but ASCII; the
			// template itself has one such character.
			plain, err := snippet.Render(language, manifest.PresignedRequest{Method: "PUT", URL: "https://example.com/k",
				Headers: map[string]string{"content-type": "image/png", "a": "b"}})
			if err != nil {
				t.Fatal(err)
			}
			if lines := strings.Count(program, "\n") - strings.Count(plain, "\n"); lines > 0 {
				t.Errorf("%s: %d lines more than a plain one has", language, lines)
			}
			if language == "browser" && (strings.Count(program, "</script") != 1 || strings.Count(program, "<script") != 1 ||
				strings.Count(program, "<!--") != 1) {
				t.Errorf("the page's script does not end where it should:\n%s", program)
			}
			if _, err := format.Source([]byte(program)); language == "go" && err != nil {
				t.Errorf("gofmt: %v\n%s", err, program)
			}
		}
	})
}
