package verify

import (
	"context"
	"crypto/md5"
	"crypto/sha1"
	_ "embed"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"net/textproto"
	"regexp"
	"slices"
	"strings"
	"time"
)

// pushPEM is the key that MNS signs pushes with, for all customers: 512 bits, e = 65537. It is
// compiled in like that of callbacks. The certificate that MNS names holds it, expired in 2016,
// and is in a bucket, so a check of the certificate would say less than the key itself.
//
// Source: https://mnstest.oss-cn-hangzhou.aliyuncs.com/x509_public_certificate.pem, and a push
// of 2023-03-29 that it verifies.
//
//go:embed mns_pub_key.pem
var pushPEM []byte

// pushURL matches where MNS says that its certificate is ("Sign HTTP subscriptions" in the MNS
// documentation, 2024). It chooses no key: forgers who name such a URL gain nothing.
var pushURL = regexp.MustCompile(`^https?://(mnstest\.oss-cn-hangzhou|mns-cert\.oss-[a-z0-9-]+)\.aliyuncs\.com/`)

// pushWindow is how far the Date of a push may be from the clock, either way. MNS dates each
// attempt anew, so what is older was sent by someone who recorded it.
const pushWindow = 15 * time.Minute

// The headers that a signature of MNS covers, besides those that begin with mnsPrefix.
const (
	contentMD5Header = "Content-Md5"
	dateHeader       = "Date"
	certURLHeader    = "X-Mns-Signing-Cert-Url"
	mnsPrefix        = "x-mns-"
)

// Why a push is not accepted, besides the failures that callbacks have, too.
var (
	// ErrSignedHeader means a signed header that is there twice, or holds a control character.
	ErrSignedHeader = &Failure{NotSigned, "signed_header", "a header that MNS signs is malformed"}
	// ErrContentMD5 means that Content-MD5, which stands for the body in the signature, is
	// missing or that of another body.
	ErrContentMD5 = &Failure{NotSigned, "body_mismatch", "Content-MD5 is not that of the body"}
	// ErrDate means that there is no Date, or one that is not as HTTP has it.
	ErrDate = &Failure{NotSigned, "date_malformed", "the Date header is missing or malformed"}
	// ErrDateExpired means a genuine push that is not of the last 15 minutes: someone sends it
	// again, or a clock is wrong.
	ErrDateExpired = &Failure{NotSigned, "date_expired", "the Date header is more than 15 minutes off"}
	// ErrCertURL means that x-mns-signing-cert-url is neither one of MNS nor, letter by letter,
	// one of Config.TrustKeyURLs.
	ErrCertURL = &Failure{UntrustedKey, "cert_url_untrusted", "x-mns-signing-cert-url names a key that is not trusted"}
)

// A Push is a message that MNS (SMQ) posts to a subscriber, as it arrived.
type Push struct {
	Target string              // from the request line, e.g. "/oss/notify"
	Header map[string][]string // as of net/http: names in canonical form
	Body   []byte
}

// VerifyPush returns nil if a push was signed by MNS, or with a key of Config.TrustKeyURLs that
// x-mns-signing-cert-url names, has the body that was signed, and was sent around now.
// Otherwise the error matches one sentinel, as that of [Verifier.Verify]. The x-mns- headers
// are then genuine. MNS signs for every customer: the caller must compare the topic.
//
// Source: "Sign HTTP subscriptions" in the MNS documentation (2024), and a genuine push.
func (v *Verifier) VerifyPush(ctx context.Context, p Push, now time.Time) error {
	header := textproto.MIMEHeader(p.Header)
	signature, err := decodeSignature(header.Get("Authorization"))
	if err != nil {
		return err
	}
	signed, err := PushStringToSign(p.Target, p.Header)
	if err != nil {
		return err
	}
	// Last, so that a malformed request causes no fetch.
	key, err := v.pushKeyOf(ctx, header.Get(certURLHeader))
	if err != nil {
		return err
	}
	digest := sha1.Sum(signed)
	if err := key.check(&key.sha1, digest[:], signature); err != nil {
		return err
	}
	if !isMD5Of(header.Get(contentMD5Header), p.Body) {
		return ErrContentMD5
	}
	sent, err := time.Parse(http.TimeFormat, header.Get(dateHeader))
	if err != nil {
		return ErrDate
	}
	if off := now.Sub(sent).Abs(); off > pushWindow {
		return ErrDateExpired.with("%s, which is %s off", sent.Format(time.RFC3339), off.Round(time.Second))
	}
	return nil
}

// PushStringToSign returns what MNS signs of a POST: Content-MD5, Content-Type in lower case,
// Date, the headers that begin with x-mns- in order, and the request target. Of the body
// it holds only what Content-MD5 says. The error matches [ErrSignedHeader] or [ErrTarget].
func PushStringToSign(target string, header map[string][]string) ([]byte, error) {
	if strings.ContainsFunc(target, isControl) {
		return nil, ErrTarget
	}
	var lines []string
	for name, values := range header {
		lower := strings.ToLower(name)
		if !strings.HasPrefix(lower, mnsPrefix) {
			continue
		}
		value, err := signedValue(name, values)
		if err != nil {
			return nil, err
		}
		lines = append(lines, lower+":"+value)
	}
	slices.Sort(lines)
	signed := []string{http.MethodPost}
	for _, name := range []string{contentMD5Header, "Content-Type", dateHeader} {
		value, err := signedValue(name, header[name])
		if err != nil {
			return nil, err
		}
		if name == "Content-Type" {
			value = strings.ToLower(value)
		}
		signed = append(signed, value)
	}
	return []byte(strings.Join(slices.Concat(signed, lines, []string{target}), "\n")), nil
}

// signedValue returns the value of a header. With two, MNS and the caller could mean different
// ones; and a line break would move what follows into another header.
func signedValue(name string, values []string) (string, error) {
	switch {
	case len(values) == 0:
		return "", nil
	case len(values) > 1, strings.ContainsFunc(name+values[0], func(c rune) bool { return isControl(c) && c != '\t' }):
		return "", ErrSignedHeader.with("%.40q", name)
	}
	return values[0], nil
}

// pushKeyOf returns the key that a value of x-mns-signing-cert-url stands for. Unlike that of
// callbacks, it has as many values as MNS has regions, and all of them mean one key.
func (v *Verifier) pushKeyOf(ctx context.Context, header string) (*publicKey, error) {
	if key, ok := v.trusted[header]; ok {
		return key.get(ctx)
	}
	if header == "" {
		return v.push, nil
	}
	if len(header) > maxKeyURL {
		return nil, ErrCertURL.with("it is longer than 2 KiB")
	}
	url, ok := decodeBase64(header)
	switch {
	case !ok:
		return nil, ErrCertURL.with("it is not Base64")
	case !pushURL.Match(url):
		return nil, ErrCertURL.with("%.200q", url)
	}
	return v.push, nil
}

// isMD5Of reports whether text is the MD5 of body, in one of the spellings that MNS is known to
// use: genuine pushes have capital hexadecimal digits, the documentation Base64 of small ones,
// and RFC 1864 has Base64 of the bytes.
func isMD5Of(text string, body []byte) bool {
	sum := md5.Sum(body)
	digits := hex.EncodeToString(sum[:])
	return strings.EqualFold(text, digits) || // text of other letters folds to no digit
		text == base64.StdEncoding.EncodeToString([]byte(digits)) ||
		text == base64.StdEncoding.EncodeToString(sum[:])
}
