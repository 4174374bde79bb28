package httpserver

import (
	"net/http"
	"net/netip"
	"strings"

	"upcall/internal/fault"
)

// Proxies are the networks of our own proxies, whose X-Forwarded-For is believed. Nil
// believes nobody, because anyone can set the header.
type Proxies []netip.Prefix

// ParseProxies reads networks such as 10.0.0.0/8 and single addresses. The error lists all
// mistakes.
func ParseProxies(list []string) (Proxies, error) {
	var proxies Proxies
	var faults fault.List
	for _, text := range list {
		text = strings.TrimSpace(text)
		network, err := netip.ParsePrefix(text)
		if addr, single := netip.ParseAddr(text); single == nil {
			addr = plain(addr)
			network, err = netip.PrefixFrom(addr, addr.BitLen()), nil
		}
		switch {
		case text == "":
		case err != nil:
			faults.AddAt("UPCALL_TRUSTED_PROXIES", "%q is not a network such as 10.0.0.0/8, or an address", text)
		case network.Bits() == 0:
			faults.AddAt("UPCALL_TRUSTED_PROXIES", "%s trusts everyone; name the networks of your proxies only", text)
		case network.Addr().Is4In6():
			faults.AddAt("UPCALL_TRUSTED_PROXIES", "%s is an IPv4 network written as IPv6; write it as IPv4", text)
		default:
			proxies = append(proxies, network.Masked())
		}
	}
	if len(faults) > 0 {
		return nil, faults
	}
	return proxies, nil
}

// Source returns the address that a request comes from: the peer's or, if that is one of the
// proxies, the last address in X-Forwarded-For that is not. Each proxy appends the address of
// its own peer, so what is to the left of that one is only what a stranger says. If a proxy
// appended something that is not an address, the sender is unknown, and the proxy stands for it.
//
// X-Real-IP and Forwarded are ignored: a proxy that does not set them itself passes on what a
// stranger sent, and X-Real-IP names one hop only.
//
// The zero Addr stands for a peer without an address.
func (p Proxies) Source(r *http.Request) netip.Addr {
	peer, _ := netip.ParseAddrPort(r.RemoteAddr) // net/http sets it
	source := plain(peer.Addr())
	if !p.trust(source) {
		return source
	}
	fields := r.Header["X-Forwarded-For"]
	for i := len(fields) - 1; i >= 0; i-- {
		for rest, more := fields[i], true; more; {
			var hop string
			rest, hop, more = cutLast(rest)
			if hop == "" {
				continue // an empty element of a list means nothing
			}
			addr, ok := parseHop(hop)
			if !ok {
				return source
			}
			if source = addr; !p.trust(source) {
				return source
			}
		}
	}
	return source
}

// Remote returns the sender of a request for its log line and, if there are proxies, the peer
// as well, else "".
func (p Proxies) Remote(r *http.Request) (remote, peer string) {
	if len(p) == 0 {
		return r.RemoteAddr, ""
	}
	return p.Source(r).String(), r.RemoteAddr
}

func (p Proxies) trust(addr netip.Addr) bool {
	for _, network := range p {
		if network.Contains(addr) {
			return true
		}
	}
	return false
}

// cutLast cuts the last element off a list.
func cutLast(list string) (rest, last string, more bool) {
	comma := strings.LastIndexByte(list, ',')
	return list[:max(comma, 0)], strings.Trim(list[comma+1:], " \t"), comma >= 0
}

// parseHop reads an element of X-Forwarded-For: an address, which some gateways write in
// brackets or with a port.
func parseHop(hop string) (netip.Addr, bool) {
	if addr, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(hop, "["), "]")); err == nil {
		return plain(addr), true
	}
	from, err := netip.ParseAddrPort(hop)
	return plain(from.Addr()), err == nil
}

// plain is the address as networks and PostgreSQL's inet know it: an IPv4 address as such,
// and without a zone.
func plain(addr netip.Addr) netip.Addr { return addr.Unmap().WithZone("") }
