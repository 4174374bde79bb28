package ossemu

import (
	"crypto/md5"
	"crypto/sha1"
	"encoding/base64"
	"math/big"
	"net/url"
	"strings"
)

// The emulator's key pair is fixed, so that receivers' key caches stay valid across
// restarts, and has 512 bits, because OSS's has. It is a TEST key: its private half is
// published here, so a receiver that trusts it trusts everyone.
const (
	testModulus = "b3c82b0a5d3b88be6e0ab0267da78599418141abf0288870456d109b2363c814" +
		"164267bee723c8d3abcad42412cf0d55531597592bac73f031f76dae869b44ef"
	testExponent = "90b456e05ab6a69410628df20d459f6501b296375c7063916a7024e39a12a061" +
		"2142181e666e08394ba1ab29ae77d8d3bce0c2ce6b6cf27565ef5a2022613d81"

	// PublicKeyPEM is the public half, as served under [PublicKeyPath].
	PublicKeyPEM = `-----BEGIN PUBLIC KEY-----
MFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBALPIKwpdO4i+bgqwJn2nhZlBgUGr8CiI
cEVtEJsjY8gUFkJnvucjyNOrytQkEs8NVVMVl1krrHPwMfdtroabRO8CAwEAAQ==
-----END PUBLIC KEY-----
`
)

// These start the DigestInfo of RFC 8017, section 9.2, for MD5 and SHA-1.
const (
	md5DigestInfo  = "\x30\x20\x30\x0c\x06\x08\x2a\x86\x48\x86\xf7\x0d\x02\x05\x05\x00\x04\x10"
	sha1DigestInfo = "\x30\x21\x30\x09\x06\x05\x2b\x0e\x03\x02\x1a\x05\x00\x04\x14"
)

// sign returns the callback's Authorization value: RSASSA-PKCS1-v1_5 with MD5, in Base64.
func sign(stringToSign []byte) string {
	sum := md5.Sum(stringToSign)
	return signDigest(md5DigestInfo + string(sum[:]))
}

// signSHA1 returns the Authorization value of a push by MNS, which has SHA-1 in it.
func signSHA1(stringToSign []byte) string {
	sum := sha1.Sum(stringToSign)
	return signDigest(sha1DigestInfo + string(sum[:]))
}

// signDigest signs a DigestInfo. crypto/rsa refuses keys under 1024 bits since Go 1.24, so the
// private operation is done here; it need not run in constant time, because the key is public.
func signDigest(info string) string {
	n, _ := new(big.Int).SetString(testModulus, 16)
	d, _ := new(big.Int).SetString(testExponent, 16)
	size := (n.BitLen() + 7) / 8
	tail := "\x00" + info
	block := "\x00\x01" + strings.Repeat("\xff", size-2-len(tail)) + tail
	signature := new(big.Int).Exp(new(big.Int).SetBytes([]byte(block)), d, n)
	return base64.StdEncoding.EncodeToString(signature.FillBytes(make([]byte, size)))
}

// stringToSign is the text that OSS signs: the path of the request target,
// percent-decoded once ("+" stays), then "?" and the raw query if there is one, one
// line feed, and the body. How OSS treats "+" and escapes in the path is not
// documented, so [Faults] can have it the other ways.
func stringToSign(target, body string, f Faults) string {
	path, query, hasQuery := strings.Cut(target, "?")
	if f.PathEscapes != PathEscapesRaw {
		if decoded, err := url.PathUnescape(path); err == nil {
			path = decoded
		}
	}
	if f.PathPlus == PathPlusSpace {
		path = strings.ReplaceAll(path, "+", " ")
	}
	if hasQuery {
		path += "?" + query
	}
	return path + "\n" + body
}
