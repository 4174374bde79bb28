package callbackspec

import (
	"net/netip"
	"strings"
)

// carrierNAT is the shared address space of RFC 6598, private to a provider.
var carrierNAT = netip.MustParsePrefix("100.64.0.0/10")

// PrivateHost reports whether a host, without its port, lies where OSS cannot reach
// it: a loopback, private, link-local or unspecified address, localhost, or a name
// without a dot, as containers have. OSS answers such a callback URL with
// "Private address is forbidden to callback." (EC 0007-00000008); an emulator on the
// same machine or network is the only caller that reaches it.
//
// Names are not resolved here: OSS resolves them itself and refuses those that lead
// to private addresses.
func PrivateHost(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return host == "localhost" || strings.HasSuffix(host, ".localhost") || !strings.Contains(host, ".")
	}
	addr = addr.Unmap()
	return addr.IsLoopback() || addr.IsPrivate() || addr.IsLinkLocalUnicast() || addr.IsMulticast() ||
		addr.IsUnspecified() || carrierNAT.Contains(addr)
}
