package callbackspec

import (
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"upcall/internal/fault"
)

// checkURL applies OSS's rules to one callback URL. They are stricter than package
// net/url, so that all readers of an accepted URL see the same host in it.
func checkURL(raw string, hosts Hosts) error {
	wrong := func(rule error, fix, problem string, args ...any) error {
		return fault.New(rule, "callbackUrl", fix, "%q "+problem, append([]any{withoutSecrets(raw)}, args...)...)
	}
	for _, c := range raw {
		if c <= ' ' || c >= 0x7f {
			return wrong(ErrNotASCII, "percent-encode it in the path or the query; write a host name in Punycode",
				"holds the character %q", c)
		}
	}
	scheme, authority, path := splitURL(raw)
	switch {
	case strings.Contains(raw, ";"):
		return wrong(ErrURL, "give each URL on its own, or write %3B", "holds a semicolon, which separates URLs")
	case !strings.EqualFold(scheme, "http") && !strings.EqualFold(scheme, "https"):
		return wrong(ErrURL, "use http or https", "has the scheme %s", fault.Quote(scheme))
	case strings.Contains(authority, "@"):
		return wrong(ErrURL, "leave them out: a callback is authenticated by its signature", "holds a user name or password")
	case strings.Contains(raw, "#"):
		return wrong(ErrURL, "leave the part after # out", "has a fragment, which is never sent")
	case authority == "":
		return wrong(ErrURL, "write it as https://host/path", "has no host")
	}
	host, rule := splitHostPort(authority)
	switch rule {
	case ErrIPv6:
		return wrong(rule, "use an IPv4 address or a name with an A record", "has an IPv6 address, which OSS does not call")
	case ErrPort:
		return wrong(rule, "write host:8080, say", "has a port that is not a number from 1 to 65535")
	case ErrHost:
		return wrong(rule, "use letters, digits, hyphens and dots; write other scripts in Punycode",
			"has a host that is not a host name")
	}
	if hosts == PublicHosts && PrivateHost(host) {
		return wrong(ErrPrivateAddress, "use an address that is reachable from the Internet",
			"is private: OSS cannot reach %s", host)
	}
	if !strings.Contains(path, "%") {
		return nil // nothing else in it can be wrong
	}
	if _, err := url.Parse("http://host" + path); err != nil {
		return wrong(ErrURL, "percent-encode the path", "cannot be parsed")
	}
	return nil
}

// splitURL cuts a URL before its host and after its port. A missing scheme, as in
// "example.com/path", is "http".
func splitURL(raw string) (scheme, authority, path string) {
	scheme, rest, found := strings.Cut(raw, "://")
	if !found || strings.ContainsAny(scheme, "/?#") { // as in host/path?next=http://…
		scheme, rest = "http", raw
	}
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		return scheme, rest[:i], rest[i:]
	}
	return scheme, rest, ""
}

// splitHostPort returns the host of "host" or "host:8080", or the rule that it breaks.
func splitHostPort(authority string) (host string, rule error) {
	if strings.HasPrefix(authority, "[") {
		return "", ErrIPv6
	}
	host, port, found := strings.Cut(authority, ":")
	if found {
		if addr, err := netip.ParseAddr(authority); err == nil && addr.Is6() {
			return "", ErrIPv6
		}
	}
	if n, err := strconv.ParseUint(port, 10, 16); found && (err != nil || n == 0) {
		return "", ErrPort
	}
	if !isHostName(host) {
		return "", ErrHost
	}
	return host, nil
}

// withoutSecrets shortens a URL to what an error may show: no password and no query.
func withoutSecrets(raw string) string {
	shown, _, hadQuery := strings.Cut(raw, "?")
	if i := strings.LastIndexByte(shown, '@'); i >= 0 {
		shown = "…" + shown[i:]
	}
	shown = fault.Short(shown)
	if hadQuery {
		shown += "?…"
	}
	return shown
}
