package callbackspec

import (
	"net/netip"
	"slices"
	"strings"
)

// unreachable are networks without public hosts that package netip does not know (IANA
// IPv4 Special-Purpose Address Registry). The documentation networks are not among them:
// examples use those as public addresses.
var unreachable = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),     // this network
	netip.MustParsePrefix("100.64.0.0/10"), // carrier NAT, and the metadata service of Alibaba Cloud
	netip.MustParsePrefix("192.0.0.0/24"),  // protocol assignments
	netip.MustParsePrefix("198.18.0.0/15"), // benchmarks
	netip.MustParsePrefix("240.0.0.0/4"),   // reserved, and broadcast
}

// PrivateHost reports whether OSS cannot reach a host (without its port): a loopback,
// private, link-local or reserved address, localhost, a name in a local domain, or a name
// without a dot, as containers have. OSS refuses such a callback URL with "Private address
// is forbidden to callback." (EC 0007-00000008); only an emulator on the same machine or
// network reaches it.
//
// A number that is not a plain IPv4 address, such as 2130706433, 0x7f.1 or 0177.0.0.1,
// counts as private, whatever it means: some resolvers read such spellings as 127.0.0.1,
// and no public name ends in a number.
//
// Names are not resolved here: OSS resolves them itself and refuses those of private
// addresses.
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
	hex, isHex := strings.CutPrefix(top, "0x")
	isNumber := isDigits(top) || isHex && strings.Trim(hex, "0123456789abcdef") == ""
	return dot < 0 || isNumber || top == "localhost" || top == "local" || top == "internal"
}

func isDigits(s string) bool { return strings.Trim(s, "0123456789") == "" }

// isHostName reports whether host is a DNS name or an IPv4 address by its characters.
// Underscores are allowed, as in resolvers.
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
