package hooks

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"upcall/internal/webhook"
)

func TestSettingsReject(t *testing.T) {
	t.Parallel()
	good := Settings{Name: "app", URL: "https://app.example.com/hooks"}
	headers := func(name, value string) func(*Settings) {
		return func(s *Settings) { s.Headers = map[string]string{name: value} }
	}
	url := func(u string) func(*Settings) { return func(s *Settings) { s.URL = u } }
	for _, tt := range []struct {
		name   string
		change func(*Settings)
		want   error
		says   string
	}{
		{"no URL", url(""), webhook.ErrURL, "url: there is no URL"},
		{"plain http", url("http://app.example.com/"), webhook.ErrURL, "url: it is plain http; use https, or set UPCALL_HOOKS_ALLOW_HTTP=true"},
		{"another scheme", url("ftp://app.example.com/"), webhook.ErrURL, "not a URL of https"},
		{"no scheme", url("app.example.com/hooks"), webhook.ErrURL, "not a URL of https"},
		{"opaque", url("https:app.example.com"), webhook.ErrURL, "not a URL of https"},
		{"no host", url("https:///hooks"), webhook.ErrURL, "no host"},
		{"only a port", url("https://:443/"), webhook.ErrURL, "no host"},
		{"user", url("https://user:hunter2@app.example.com/"), webhook.ErrURL, "user name"},
		{"fragment", url("https://app.example.com/#a"), webhook.ErrURL, "fragment"},
		{"empty fragment", url("https://app.example.com/#"), webhook.ErrURL, "fragment"},
		{"port 0", url("https://app.example.com:0/"), webhook.ErrURL, "port"},
		{"port 65536", url("https://app.example.com:65536/"), webhook.ErrURL, "port"},
		{"port without a number", url("https://app.example.com:/"), webhook.ErrURL, "port"},
		{"space", url("https://app.example.com/a b"), webhook.ErrURL, "space"},
		{"line break", url("https://app.example.com/\nx"), webhook.ErrURL, "space"},
		{"not ASCII", url("https://bücher.example/"), webhook.ErrURL, "Punycode"},
		{"bad escape", url("https://app.example.com/%zz"), webhook.ErrURL, "not a URL"},
		{"too long", url("https://app.example.com/" + strings.Repeat("x", 2048)), webhook.ErrURL, "2072 bytes"},
		{"private", url("https://10.0.0.1/"), webhook.ErrURL, "its host is the address 10.0.0.1, which is not public; set UPCALL_HOOKS_ALLOW_CIDRS"},
		{"localhost", url("https://LOCALHOST./"), webhook.ErrURL, "localhost"},
		{"below localhost", url("https://app.localhost/"), webhook.ErrURL, "not public"},
		{"name of an id", func(s *Settings) { s.Name = "11111111-2222-3333-4444-555555555555" }, ErrName, "name: "},
		{"name with a space", func(s *Settings) { s.Name = "my app" }, ErrName, `name: "my app" is not a name`},
		{"name like a flag", func(s *Settings) { s.Name = "-app" }, ErrName, "is not a name"},
		{"long name", func(s *Settings) { s.Name = strings.Repeat("n", 64) }, ErrName, "up to 63"},
		{"none in flight", func(s *Settings) { s.MaxInFlight = -1 }, ErrLimit, "max_in_flight: -1 is not between 1 and 64"},
		{"too many in flight", func(s *Settings) { s.MaxInFlight = 65 }, ErrLimit, "between 1 and 64"},
		{"header with a space", headers("X App", "1"), ErrHeader, `headers: "X App" is not the name of a header`},
		{"header without a name", headers("", "1"), ErrHeader, "is not the name"},
		{"header that splits", headers("X-App", "1\r\nX-Other: 2"), ErrHeader, "the value of X-App is not"},
		{"header of ours", headers("content-type", "text/plain"), ErrHeader, "is set by each delivery"},
		{"header of the signature", headers("Webhook-Signature", "v1,x"), ErrHeader, "is set by each delivery"},
		{"host", headers("Host", "other"), ErrHeader, "is set by each delivery"},
		{"long header", headers("X-App", strings.Repeat("x", 4097)), ErrHeader, "4096"},
		{"filter", func(s *Settings) { s.MimeTypes = []string{"x"} }, ErrFilter, "mime_types: "},
	} {
		s := good
		tt.change(&s)
		err := s.Check(Rules{})
		if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.says) || strings.ContainsAny(err.Error(), "\r\n") {
			t.Errorf("%s: %v", tt.name, err)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the error holds a password: %v", tt.name, err)
		}
	}
	both := Settings{URL: "http://x/", MaxInFlight: 99}
	if err := both.Check(Rules{}); !errors.Is(err, webhook.ErrURL) || !errors.Is(err, ErrLimit) {
		t.Errorf("not all mistakes at once: %v", err)
	}
}

func TestSettingsAccept(t *testing.T) {
	t.Parallel()
	for _, url := range []string{
		"https://app.example.com", "https://app.example.com:8443/a?b=c%20d", "https://93.184.216.34/", "https://[2606:2800:220:1::1]/",
		"https://app/",
	} {
		if err := (Settings{URL: url}).Check(Rules{}); err != nil {
			t.Errorf("%s: %v", url, err)
		}
	}
	for _, url := range []string{"http://127.0.0.1:9000/", "http://localhost:9000/"} {
		if err := (Settings{URL: url}).Check(loopback); err != nil {
			t.Errorf("%s: %v", url, err)
		}
	}
}

func TestParseCIDRs(t *testing.T) {
	t.Parallel()
	got, err := ParseCIDRs([]string{"10.0.0.0/8", " fd00::/8"})
	if err != nil || len(got) != 2 || got[1] != netip.MustParsePrefix("fd00::/8") {
		t.Errorf("%v, %v", got, err)
	}
	for _, text := range []string{"", "10.0.0.0", "10.0.0.1/8", "10.0.0.0/33", "::ffff:10.0.0.0/104", "fe80::%lo/10", "any"} {
		if _, err := ParseCIDRs([]string{text}); !errors.Is(err, ErrNetwork) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestParseStart(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"": true, "now": true, "oldest": true, "2026-11-27T08:00:00Z": true, "2026-11-27T08:00:00+08:00": true,
		"NOW": false, "yesterday": false, "2026-11-27": false, "2026-11-27T08:00:00": false,
		"10000-01-01T00:00:00Z": false, "0001-01-01T00:00:00Z": false,
	} {
		if _, err := ParseStart(text); (err == nil) != want || err != nil && !errors.Is(err, ErrFrom) {
			t.Errorf("%q: %v", text, err)
		}
	}
}
