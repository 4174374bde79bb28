package callbackspec

import (
	"net/netip"
	"slices"
	"strings"
)

// unreachable are the networks besides those that package netip knows where no
// public host lives (IANA IPv4 Special-Purpose Address Registry). The documentation
// networks are not among them: examples use those in the place of public addresses.
var unreachable = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),     // this network
	netip.MustParsePrefix("100.64.0.0/10"), // carrier NAT, and the metadata service of Alibaba Cloud
	netip.MustParsePrefix("192.0.0.0/24"),  // protocol assignments
	netip.MustParsePrefix("198.18.0.0/15"), // benchmarks
	netip.MustParsePrefix("240.0.0.0/4"),   // reserved, and broadcast
}

// PrivateHost reports whether a host, without its port, lies where OSS cannot reach
// it: a loopback, private, link-local or reserved address, localhost, a name of a
// local domain, or a name without a dot, as containers have. OSS answers such a
// callback URL with "Private address is forbidden to callback." (EC 0007-00000008);
// an emulator on the same machine or network is the only caller that reaches it.
//
// A number that is no plain IPv4 address, such as 2130706433, 0x7f.1 or 0177.0.0.1,
// counts as private whatever it denotes: some resolvers read such spellings as
// 127.0.0.1, and no public name ends in a number.
//
// Names are not resolved here: OSS resolves them itself and refuses those that lead
// to private addresses.
func PrivateHost(host string) bool {
	host = strings.ToLower(strings.TrimRight(strings.Trim(host, "[]"), "."))
	dot := strings.LastIndexByte(host, '.')
	top := host[dot+1:]
	if strings.Contains(host, ":") || isDigits(top) { // no other host is an address
		if addr, err := netip.ParseAddr(host); err == nil {
			addr = addr.Unmap().WithZone("")
			return !addr.IsGlobalUnicast() || addr.IsPrivate() ||
				slices.ContainsFunc(unreachable, func(p netip.Prefix) bool { return p.Contains(addr) })
		}
	}
	switch {
	case dot < 0:
		return true
	case top == "localhost", top == "local", top == "internal":
		return true
	case isDigits(top):
		return true
	default:
		hex, ok := strings.CutPrefix(top, "0x")
		return ok && strings.Trim(hex, "0123456789abcdef") == ""
	}
}

func isDigits(s string) bool {
	return !strings.ContainsFunc(s, func(c rune) bool { return c < '0' || c > '9' })
}

// isHostName reports whether host is a DNS name or an IPv4 address by its characters.
// Underscores are let pass, as resolvers do.
func isHostName(host string) bool {
	host = strings.TrimSuffix(host, ".")
	if len(host) > 253 {
		return false
	}
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || len(label) > 63 || strings.ContainsFunc(label, notInLabel) {
			return false
		}
	}
	return true
}

func notInLabel(c rune) bool {
	return !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_')
}
