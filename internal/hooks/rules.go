package hooks

import (
	"errors"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"code.dny.dev/ssrf"

	"upcall/internal/fault"
)

var (
	// ErrURL says that deliveries cannot go to a URL.
	ErrURL = errors.New("wrong URL")
	// ErrNetwork says that a text is not a network.
	ErrNetwork = errors.New("not a network")
)

// maxURL is the longest URL in bytes.
const maxURL = 2048

// Rules say where deliveries may go. The zero value admits https to public addresses only.
type Rules struct {
	AllowHTTP    bool           // UPCALL_HOOKS_ALLOW_HTTP
	AllowedCIDRs []netip.Prefix // UPCALL_HOOKS_ALLOW_CIDRS: private addresses that are allowed
}

// ParseCIDRs reads networks such as 10.0.0.0/8. The error wraps [ErrNetwork].
func ParseCIDRs(texts []string) ([]netip.Prefix, error) {
	var networks []netip.Prefix
	var faults fault.List
	for _, text := range texts {
		text = strings.TrimSpace(text)
		network, err := netip.ParsePrefix(text)
		switch {
		case err != nil:
			faults.AddNew(ErrNetwork, "", "write one like 10.0.0.0/8, or 127.0.0.1/32 for one address", "%s is not a network",
				fault.Quote(text))
		case network.Addr().Is4In6():
			faults.AddNew(ErrNetwork, "", "write it as IPv4", "%s is IPv4 written as IPv6", text)
		case network != network.Masked():
			faults.AddNew(ErrNetwork, "", "write "+network.Masked().String(), "%s has bits behind its length", text)
		default:
			networks = append(networks, network)
		}
	}
	return networks, faults.Err()
}

// guard returns what checks each address at the moment of connecting: a name may resolve to
// another address than it did when it was checked before.
func (r Rules) guard() *ssrf.Guardian {
	var v4, v6 []netip.Prefix
	for _, network := range r.AllowedCIDRs {
		if network.Addr().Is4() {
			v4 = append(v4, network)
		} else {
			v6 = append(v6, network)
		}
	}
	return ssrf.New(ssrf.WithAnyPort(), ssrf.WithAllowedV4Prefixes(v4...), ssrf.WithAllowedV6Prefixes(v6...))
}

// checkURL returns what is wrong with an endpoint's URL. The text of the error does not hold
// its path or query, which may hold secrets.
func (r Rules) checkURL(text string) error {
	bad := func(fix, problem string, args ...any) error { return fault.New(ErrURL, "", fix, problem, args...) }
	if text == "" {
		return bad("give one like https://app.example.com/hooks", "there is no URL")
	}
	if len(text) > maxURL {
		return bad("", "it has %d bytes; the most is %d", len(text), maxURL)
	}
	if strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return bad("percent-encode what is not ASCII, and write a host in Punycode", "it has a space or another character that no URL holds")
	}
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Opaque != "" || u.Scheme == "" || !slices.Contains([]string{"http", "https"}, u.Scheme):
		return bad("give one like https://app.example.com/hooks", "it is not a URL of https")
	case u.Scheme == "http" && !r.AllowHTTP:
		return bad("use https, or set UPCALL_HOOKS_ALLOW_HTTP=true here and for the receiver", "it is plain http")
	case u.User != nil:
		return bad("give it as a header: Authorization=Basic …", "it holds a user name or a password")
	case u.Fragment != "" || strings.Contains(text, "#"):
		return bad("leave out what begins with #", "it has a fragment, which is not sent")
	case u.Hostname() == "":
		return bad("give one like https://app.example.com/hooks", "it has no host")
	}
	if port := u.Port(); port != "" || strings.HasSuffix(u.Host, ":") {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return bad("give 1 to 65535, or none", "its port is not a port")
		}
	}
	return r.checkHost(u.Hostname())
}

// checkHost finds hosts that could never be connected to, so that the operator learns it at
// once. What protects is the guard: names are resolved later, and may change.
func (r Rules) checkHost(host string) error {
	private := func(what string) error {
		return fault.New(ErrURL, "", "set UPCALL_HOOKS_ALLOW_CIDRS here and for the receiver if it is yours", "its host is %s", what)
	}
	addr, err := netip.ParseAddr(host)
	switch {
	case err == nil && r.guard().SafeAddr(addr) != nil:
		return private("the address " + addr.String() + ", which is not public")
	case err == nil:
		return nil
	case strings.Contains(host, "%") || strings.Contains(host, ":"):
		return fault.New(ErrURL, "", "", "its host is not a name or an address")
	}
	name := strings.ToLower(strings.TrimSuffix(host, "."))
	if name == "localhost" || strings.HasSuffix(name, ".localhost") {
		loopback := func(n netip.Prefix) bool { return n.Addr().IsLoopback() || n.Bits() == 0 }
		if !slices.ContainsFunc(r.AllowedCIDRs, loopback) {
			return private(name + ", which is not public")
		}
	}
	if last := name[strings.LastIndexByte(name, '.')+1:]; last == "" || net.ParseIP(name) != nil {
		return fault.New(ErrURL, "", "", "its host is not a name or an address")
	}
	return nil
}
