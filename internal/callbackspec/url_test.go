package callbackspec_test

import (
	"errors"
	"strings"
	"testing"

	spec "upcall/internal/callbackspec"
)

func withURL(url string) spec.Parameter {
	p := valid()
	p.URLs = []string{"https://first.example/", url}
	return p
}

func TestURLRefused(t *testing.T) {
	t.Parallel()
	tests := []struct {
		url  string
		rule error
		says string
	}{
		{"http://h.example:/", spec.ErrPort, "write host:8080"},
		{"http://h.example:0/", spec.ErrPort, "1 to 65535"},
		{"http://h.example:65536/", spec.ErrPort, "1 to 65535"},
		{"http://h.example:-1/", spec.ErrPort, "1 to 65535"},
		{"http://h.example:+80/", spec.ErrPort, "1 to 65535"},
		{"http://h.example:http/", spec.ErrPort, "1 to 65535"},
		{"http://h.example:80:80/", spec.ErrPort, "1 to 65535"},
		{"h.example:8a/cb", spec.ErrPort, "1 to 65535"},
		{"http://h.example:80?a=1\u00e9", spec.ErrNotASCII, "percent-encode"},
		{"http://h.example/é", spec.ErrNotASCII, "percent-encode"},
		{"http://h.example/?name=张三", spec.ErrNotASCII, "'张'"},
		{"http://例え.example/", spec.ErrNotASCII, "Punycode"},
		{"http://１２７.0.0.1/", spec.ErrNotASCII, "Punycode"},
		{"http://h.example/a b", spec.ErrNotASCII, "percent-encode"},
		{" http://h.example/", spec.ErrNotASCII, "' '"},
		{"http://h.example/\r\nX: 1", spec.ErrNotASCII, `'\r'`},
		{"http://h.example/\x00", spec.ErrNotASCII, "percent-encode"},
		{"http://h.example/\xff", spec.ErrNotASCII, "percent-encode"},
		{"http://h.example/\x7f", spec.ErrNotASCII, "percent-encode"},
		{"http://h.example/;http://i.example/", spec.ErrURL, "%3B"},
		{"ftp://h.example/", spec.ErrURL, "use http or https"},
		{"://h.example/", spec.ErrURL, "use http or https"},
		{"file:///etc/passwd", spec.ErrURL, "use http or https"},
		{"http://", spec.ErrURL, "no host"},
		{"http:///path", spec.ErrURL, "no host"},
		{"//h.example/path", spec.ErrURL, "no host"},
		{"/path", spec.ErrURL, "no host"},
		{"http://?a=1", spec.ErrURL, "no host"},
		{"http://h.example/#top", spec.ErrURL, "fragment"},
		{"http://h.example#@127.0.0.1/", spec.ErrURL, "after #"},
		{"http://user@h.example/", spec.ErrURL, "user name"},
		{"http://h.example/%zz", spec.ErrURL, "percent-encode the path"},
		{"http://:80/", spec.ErrHost, "letters, digits"},
		{"http://a..example/", spec.ErrHost, "letters, digits"},
		{"http://.example/", spec.ErrHost, "letters, digits"},
		{`http://h.example\@127.0.0.1/`, spec.ErrURL, "user name"},
		{`http://127.0.0.1\.h.example/`, spec.ErrHost, "Punycode"},
		{"http://127%2e0.0.1/", spec.ErrHost, "Punycode"},
		{"http://%31%32%37.0.0.1/", spec.ErrHost, "Punycode"},
		{"http://*.example/", spec.ErrHost, "letters, digits"},
		{"http://" + strings.Repeat("a", 64) + ".example/", spec.ErrHost, "letters, digits"},
		{"http://" + strings.Repeat("a.", 127) + "example/", spec.ErrHost, "letters, digits"},
		{"http://[::1]/", spec.ErrIPv6, "A record"},
		{"http://[::1]:8080/", spec.ErrIPv6, "IPv4"},
		{"[2001:db8::1]/cb", spec.ErrIPv6, "IPv4"},
		{"http://2001:db8::1/", spec.ErrIPv6, "IPv4"},
		{"http://::1/", spec.ErrIPv6, "IPv4"},
		{"http://[::ffff:127.0.0.1]/", spec.ErrIPv6, "IPv4"},
		{"http://[::ffff:8.8.8.8]/", spec.ErrIPv6, "IPv4"},
		{"http://[fe80::1%25eth0]/", spec.ErrIPv6, "IPv4"},
		{"http://[::1/", spec.ErrIPv6, "IPv4"},
		{"http://[v1.x]/", spec.ErrIPv6, "IPv4"},
	}
	for _, tt := range tests {
		t.Run(tt.url, func(t *testing.T) {
			t.Parallel()
			for _, hosts := range []spec.Hosts{spec.PublicHosts, spec.AnyHost} {
				mustBreak(t, withURL(tt.url).Check(hosts), tt.rule, "callbackUrl", tt.says)
			}
		})
	}
}

func TestURLAccepted(t *testing.T) {
	t.Parallel()
	for _, url := range []string{
		"http://h.example", "https://h.example/", "HTTPS://H.Example/", "h.example", "h.example:1", "h.example:65535/",
		"121.101.166.30/test.php", "121.43.113.8:23456/index.html", // without a scheme, as in the Callback reference
		"http://h.example/?next=http://10.0.0.1:x/@[::1]", "h.example/?next=http://10.0.0.1/", "h.example/a:b@c",
		"http://h.example/%E5%BC%A0?name=%E4%B8%89", "http://h.example./", "http://xn--r8jz45g.example/",
		"http://a_b.example/", "http://http.example/http", "http://1.2.3.4.example/", "http://0x7f.example/",
	} {
		if err := withURL(url).Check(spec.PublicHosts); err != nil {
			t.Errorf("%s: %v", url, err)
		}
	}
}

var privateHosts = []string{
	"127.0.0.1", "127.0.0.1.", "127.255.255.254", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1",
	"169.254.169.254", "100.64.0.1", "100.100.100.200", "0.0.0.0", "0.1.2.3", "198.18.0.1", "192.0.0.8",
	"224.0.0.1", "240.0.0.1", "255.255.255.255",
	// spellings that inet_aton, and programs built on it, read as 127.0.0.1 or 10.0.0.1
	"2130706433", "0x7f000001", "017700000001", "127.1", "127.0.1", "0x7f.1", "0X7F.1", "0177.0.0.1",
	"127.0.0.01", "127.0.0.0x1", "0x7f.0x0.0x0.0x1", "10.1", "0xa.1", "012.0.0.1", "127.0.0.1..", "0", "0x",
	"127.0.0.0x", "1.2.3.4.5", "256.0.0.1",
	"localhost", "LOCALHOST", "LocalHost.", "localhost..", "a.localhost", "a.LOCALHOST.",
	"receiver", "receiver.", "printer.local", "host.docker.internal", "",
}

func TestPrivateHost(t *testing.T) {
	t.Parallel()
	for _, host := range append(privateHosts, "::1", "[::1]", "::", "fe80::1", "fe80::1%eth0", "fd00::1",
		"::ffff:127.0.0.1", "[::ffff:10.0.0.1]", "::ffff:7f00:1", "ff02::1") {
		if !spec.PrivateHost(host) {
			t.Errorf("%q passes for public", host)
		}
	}
	for _, host := range []string{
		"8.8.8.8", "8.8.8.8.", "11.0.0.1", "172.15.0.1", "172.32.0.1", "192.169.0.1", "100.63.255.255", "100.128.0.1",
		"203.0.113.9", "upcall.example.com", "UPCALL.EXAMPLE.COM.", "localhost.example.com", "127.0.0.1.example.com",
		"0x7f.example", "local.example", "2606:4700::1111", "[2606:4700::1111]", "::ffff:8.8.8.8", "a.0xg",
	} {
		if spec.PrivateHost(host) {
			t.Errorf("%q passes for private", host)
		}
	}
}

func TestPrivateURL(t *testing.T) {
	t.Parallel()
	for _, host := range privateHosts {
		for _, url := range []string{"http://" + host + "/cb", "https://" + host + ":8443", host} {
			err := withURL(url).Check(spec.PublicHosts)
			if host == "" || strings.HasSuffix(host, "..") { // no host name at all
				if !errors.Is(err, spec.ErrURL) && !errors.Is(err, spec.ErrHost) {
					t.Errorf("%q: %v", url, err)
				}
				continue
			}
			mustBreak(t, err, spec.ErrPrivateAddress, "callbackUrl", "reachable from the Internet", host)
			if err := withURL(url).Check(spec.AnyHost); err != nil {
				t.Errorf("%q for an emulator: %v", url, err)
			}
		}
	}
}

func TestURLErrorShowsNoSecrets(t *testing.T) {
	t.Parallel()
	for url, rule := range map[string]error{
		"https://user:hunter2@h.example/": spec.ErrURL, "https://user:hunter2@h.example:x/": spec.ErrURL,
		"https://user:hun/ter2@h.example/": spec.ErrPort, "https://h.example:x/?key=hunter2": spec.ErrPort,
		"https://10.0.0.1/?key=hunter2@x": spec.ErrPrivateAddress, "https://user:hunter2@h.example/é": spec.ErrNotASCII,
	} {
		err := withURL(url).Check(spec.PublicHosts)
		if !errors.Is(err, rule) || strings.Contains(err.Error(), "ter2") {
			t.Errorf("%s: %v", url, err)
		}
	}
}
