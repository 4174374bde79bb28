package verify

import (
	"errors"
	"net/url"
	"regexp"
	"strings"
	"testing"
)

func TestStringToSign(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		target, body string
		want         string // "" if the target is refused
	}{
		{"", "b", ""},
		{"p", "b", ""},
		{"*", "b", ""},
		{"?q", "b", ""},
		{"host:80", "b", ""},
		{"http://", "b", ""},
		{"http:///p", "b", ""},
		{"http://?q", "b", ""},
		{"HTTP://host/p", "b", ""},
		{"mailto:a@b", "b", ""},
		{"/%", "b", ""},
		{"/%4", "b", ""},
		{"/%4?1", "b", ""},
		{"/%+1", "b", ""},
		{"/%4g", "b", ""},
		{"/%0a", "b", ""},
		{"/%1F", "b", ""},
		{"/%7f", "b", ""},
		{"/\n", "b", ""},
		{"/?\r", "b", ""},
		{"/?\x00", "b", ""},
		{"/p q", "b", ""},
		{"http://host\n/p", "b", ""},

		{"/", "", "/\n"},
		{"/p", "b", "/p\nb"},
		{"/p?", "b", "/p\nb"},
		{"/p??", "b", "/p??\nb"},
		{"/p?a=%zz&%0a+%", "b", "/p?a=%zz&%0a+%\nb"},
		{"/p?a?b#c", "b", "/p?a?b#c\nb"},
		{"/%2525", "b", "/%25\nb"},
		{"/%2f%2F%3f", "b", "///?\nb"},
		{"/a+b%20c", "b", "/a+b c\nb"},
		{"/%ff\xfe", "\x00\xff\r\n", "/\xff\xfe\n\x00\xff\r\n"},
		{"//host/p", "b", "//host/p\nb"},
		{"http://host", "b", "/\nb"},
		{"https://host?q", "b", "/?q\nb"},
		{"http://user@host:80/p?http://x/y", "b", "/p?http://x/y\nb"},
	} {
		got, err := StringToSign(test.target, []byte(test.body))
		switch {
		case test.want == "" && !errors.Is(err, ErrTarget):
			t.Errorf("%q: got %q, %v, want ErrTarget", test.target, got, err)
		case test.want != "" && (err != nil || string(got) != test.want):
			t.Errorf("%q: got %q, %v, want %q", test.target, got, err, test.want)
		}
	}
}

var (
	absoluteForm = regexp.MustCompile(`(?s)^https?://[^/?]+(.*)$`)
	controlByte  = regexp.MustCompile(`[\x00-\x1f\x7f]`)
)

// plainStringToSign is StringToSign by means of the library, without regard to speed.
func plainStringToSign(target, body string) (string, bool) {
	if controlByte.MatchString(target) || strings.Contains(target, " ") {
		return "", false
	}
	if parts := absoluteForm.FindStringSubmatch(target); parts != nil {
		target = parts[1]
		if !strings.HasPrefix(target, "/") {
			target = "/" + target
		}
	}
	path, query, _ := strings.Cut(target, "?")
	decoded, err := url.PathUnescape(path)
	if err != nil || controlByte.MatchString(decoded) || !strings.HasPrefix(path, "/") {
		return "", false
	}
	if query != "" {
		query = "?" + query
	}
	return decoded + query + "\n" + body, true
}

func FuzzStringToSign(f *testing.F) {
	for _, v := range loadVectors(f) {
		f.Add(v.Target, v.Body)
	}
	f.Fuzz(func(t *testing.T, target, body string) {
		got, err := StringToSign(target, []byte(body))
		if err != nil && reason(t, err) != ErrTarget.Reason() {
			t.Errorf("%q: %v is not ErrTarget", target, err)
		}
		want, ok := plainStringToSign(target, body)
		if ok != (err == nil) || string(got) != want {
			t.Errorf("%q: got %q, %v, want %q, %t", target, got, err, want, ok)
		}
	})
}
