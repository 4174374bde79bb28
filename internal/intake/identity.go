package intake

import (
	"crypto/sha256"
	"net/http"
	"net/netip"

	"github.com/google/uuid"

	"upcall/internal/callbackspec"
	"upcall/internal/verify"
)

// identify returns the identity of a callback: the first 128 bits of the SHA-256 of
// what OSS signed, so that one signed callback is one row however often and through
// however many receivers it comes.
//
// The default template holds ${reqId}, which differs for each upload. Where a custom
// template lacks it, two uploads of the same content sign alike, and the header
// x-oss-request-id joins the digest to tell them apart.
func identify(signed verify.Request, callback callbackspec.Callback, requestID string) (uuid.UUID, error) {
	content, err := verify.StringToSign(signed.Target, signed.Body)
	if err != nil {
		return uuid.UUID{}, err
	}
	digest := sha256.New()
	digest.Write(content)
	if callback.RequestID == "" && requestID != "" {
		// The signed content ends with the body, which holds no NUL.
		digest.Write([]byte{0})
		digest.Write([]byte(requestID))
	}
	return uuid.UUID(digest.Sum(nil)[:16]), nil
}

// sourceAddr returns the address of whoever is connected: OSS, a proxy of ours, or a
// stranger. Headers in which a proxy names another are whatever the sender wrote.
func sourceAddr(r *http.Request) netip.Addr {
	// net/http sets it; where it is none, the zero Addr says that it is not known.
	from, _ := netip.ParseAddrPort(r.RemoteAddr)
	return from.Addr().Unmap()
}
