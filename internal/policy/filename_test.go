package policy

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestSanitize(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("ä", 200)
	for _, tt := range []struct{ name, want string }{
		{"cat.jpg", "cat.jpg"},
		{"猫の写真.jpg", "猫の写真.jpg"},
		{"a-b_c~d+e@f(1).tar.gz", "a-b_c~d+e@f(1).tar.gz"},
		{"my cat, asleep.jpg", "my_cat__asleep.jpg"},
		{"/etc/passwd", "passwd"},
		{"../../etc/passwd", "passwd"},
		{`..\..\windows\win.ini`, "win.ini"},
		{`C:\fakepath\cat.jpg`, "cat.jpg"},
		{"a/", "file"},
		{"", "file"},
		{".", "file"},
		{"..", "file"},
		{"...", "file"},
		{".htaccess", "htaccess"},
		{"a..", "a"},
		{"a\x00b", "a_b"},
		{"a\r\nSet-Cookie: x", "a__Set-Cookie__x"},
		{"a\u202egpj.exe", "a_gpj.exe"},
		{"a\u2028b", "a_b"},
		{"a\u200db", "a_b"},
		{"\xff\xfe", "__"},
		{"<script>", "_script_"},
		{"${uuid}", "__uuid_"},
		{"a%2f..%2fb", "a_2f.._2fb"},
		{"?x=1#y", "_x_1_y"},
		{`'";|&*`, "______"},
		{strings.Repeat("a", 300) + ".jpg", strings.Repeat("a", 96) + ".jpg"},
		{strings.Repeat("a", 300) + "." + strings.Repeat("b", 40), strings.Repeat("a", 100)},
		{long + ".jpg", strings.Repeat("ä", 48) + ".jpg"},
		{"a" + long, "a" + strings.Repeat("ä", 49)},
		{strings.Repeat("a.", 200) + "jpg", strings.Repeat("a.", 47) + "a.jpg"},
	} {
		if got := sanitize(tt.name); got != tt.want {
			t.Errorf("sanitize(%.60q) is %q, want %q", tt.name, got, tt.want)
		}
	}
}

func FuzzSanitize(f *testing.F) {
	f.Add("../a\\b\x00c.jpg")
	f.Add(strings.Repeat("ä.", 100))
	f.Fuzz(func(t *testing.T, name string) {
		got := sanitize(name)
		if got == "" || len(got) > maxFilename || !utf8.ValidString(got) || strings.ContainsAny(got, "/\\ \x00\n") ||
			strings.HasPrefix(got, ".") || strings.HasSuffix(got, ".") {
			t.Errorf("sanitize(%q) is %q", name, got)
		}
		if strings.ContainsFunc(got, unprintable) {
			t.Errorf("sanitize(%q) is %q, which has a character that keys must not have", name, got)
		}
		if again := sanitize(got); again != got {
			t.Errorf("sanitize(%q) is %q, and sanitizing that gives %q", name, got, again)
		}
	})
}
