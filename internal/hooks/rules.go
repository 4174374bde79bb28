package hooks

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"

	"code.dny.dev/ssrf"

	"upcall/internal/fault"
	"upcall/internal/webhook"
)

// ErrNetwork says that a text is not a network.
var ErrNetwork = errors.New("not a network")

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
	u, err := webhook.ParseURL(text)
	switch {
	case err != nil:
		return err
	case u.Scheme == "http" && !r.AllowHTTP:
		return fault.New(webhook.ErrURL, "", "use https, or set UPCALL_HOOKS_ALLOW_HTTP=true here and for the receiver", "it is plain http")
	}
	return r.checkHost(u.Hostname())
}

// checkHost finds hosts that could never be connected to, so that the operator learns it at
// once. What protects is the guard: names are resolved later, and may change.
func (r Rules) checkHost(host string) error {
	private := func(what string) error {
		return fault.New(webhook.ErrURL, "", "set UPCALL_HOOKS_ALLOW_CIDRS here and for the receiver if it is yours", "its host is %s", what)
	}
	addr, err := netip.ParseAddr(host)
	switch {
	case err == nil && r.guard().SafeAddr(addr) != nil:
		return private("the address " + addr.String() + ", which is not public")
	case err == nil:
		return nil
	case strings.Contains(host, "%") || strings.Contains(host, ":"):
		return fault.New(webhook.ErrURL, "", "", "its host is not a name or an address")
	}
	name := strings.ToLower(strings.TrimSuffix(host, "."))
	if name == "localhost" || strings.HasSuffix(name, ".localhost") {
		loopback := func(n netip.Prefix) bool { return n.Addr().IsLoopback() || n.Bits() == 0 }
		if !slices.ContainsFunc(r.AllowedCIDRs, loopback) {
			return private(name + ", which is not public")
		}
	}
	if last := name[strings.LastIndexByte(name, '.')+1:]; last == "" || net.ParseIP(name) != nil {
		return fault.New(webhook.ErrURL, "", "", "its host is not a name or an address")
	}
	return nil
}
