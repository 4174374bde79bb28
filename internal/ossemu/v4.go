package ossemu

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"net/http"
	"slices"
	"strings"
	"time"

	"upcall/internal/ossrule"
)

const (
	algorithmV4     = "OSS4-HMAC-SHA256"
	requestV4       = "aliyun_v4_request"
	productV4       = "oss"
	unsignedPayload = "UNSIGNED-PAYLOAD"
	isoTime         = "20060102T150405Z"
	isoDate         = "20060102"

	maxSkew = 15 * time.Minute

	otherVersion = "this server takes " + algorithmV4 + " only."
)

// A credential is the scope of a signature:
// <access key id>/<yyyymmdd>/<region>/oss/aliyun_v4_request.
type credential struct {
	accessKeyID, date, region, product, request string
}

func (c credential) scope() string {
	return c.date + "/" + c.region + "/" + c.product + "/" + c.request
}

// parseCredential only splits; what the pieces must be depends on the server.
func parseCredential(s string) (credential, bool) {
	p := strings.Split(s, "/")
	if len(p) != 5 || slices.Contains(p, "") {
		return credential{}, false
	}
	return credential{p[0], p[1], p[2], p[3], p[4]}, true
}

// A carrier is a place for a signature, with OSS's EC numbers for the mistakes there (EC
// pages 0002-…, 2023 to 2026).
type carrier struct {
	credential, date     string // a malformed credential, or a wrong date in its scope
	emptyList, emptyName string // in the list of additional headers
	missingName          string // a listed header that the request lacks, or that cannot exist
	mismatch             string // a wrong signature
	noCredential         string
	noSignature          string
	signature            string // a text that cannot be a signature
	version              string // another version of signatures
}

var (
	inHeader = carrier{noCredential: "0002-00000205", credential: "0002-00000213", date: "0002-00000212",
		noSignature: "0002-00000207", signature: "0002-00000208", mismatch: "0002-00000040",
		emptyList: "0002-00000209", emptyName: "0002-00000210", missingName: "0002-00000211"}
	inQuery = carrier{noCredential: "0002-00000217", credential: "0002-00000224", date: "0002-00000223",
		version: "0002-00000066", mismatch: "0002-00000040",
		emptyList: "0002-00000076", emptyName: "0002-00000077", missingName: "0002-00000078"}
	inForm = carrier{credential: "0002-00000710", date: "0002-00000709",
		version: "0002-00000701", noSignature: "0002-00000703", signature: "0002-00000704", mismatch: "0002-00000705"}
)

// An authorization is a signature with what it says about itself.
type authorization struct {
	credential
	from       carrier
	date       string // as sent: it is part of what is signed
	signed     time.Time
	expires    time.Duration // 0 in the header form, which has a fixed skew instead
	additional []string      // signed headers beyond those that always are: lower case, sorted
	signature  string
	token      string // STS token, "" if none
}

// canonicalRequest is the request as both sides hash it. The URI is always
// /bucket/key, whatever the style of the URL (add-signatures-to-urls, 2025).
func canonicalRequest(method, bucket, key string, q query, header http.Header, host string, additional []string) string {
	uri := "/"
	if bucket != "" {
		uri += bucket + "/" + key
	}
	var b strings.Builder
	b.WriteString(method + "\n" + escapePath(uri) + "\n" + q.canonical() + "\n")
	for _, line := range canonicalHeaders(header, host, additional) {
		b.WriteString(line + "\n")
	}
	payload := header.Get("x-oss-content-sha256")
	if payload == "" {
		payload = unsignedPayload
	}
	b.WriteString("\n" + strings.Join(additional, ";") + "\n" + payload)
	return b.String()
}

// escapePath leaves slashes as they are.
func escapePath(path string) string { return strings.ReplaceAll(ossrule.Escape(path), "%2F", "/") }

// canonicalHeaders lists name:value of every header that must be signed, sorted.
// Signing every x-oss-* header, Content-Type and Content-MD5 that was sent stops an
// uploader from adding a callback, a type or an ACL of their own to a presigned URL.
func canonicalHeaders(header http.Header, host string, additional []string) []string {
	var lines []string
	for name, values := range header {
		lower := strings.ToLower(name)
		if !alwaysSigned(lower) && !slices.Contains(additional, lower) {
			continue
		}
		trimmed := make([]string, len(values))
		for i, v := range values {
			trimmed[i] = strings.TrimSpace(v)
		}
		lines = append(lines, lower+":"+strings.Join(trimmed, ","))
	}
	if slices.Contains(additional, "host") {
		lines = append(lines, "host:"+host)
	}
	// By name alone: ":" sorts after "-", so whole lines would sort wrongly.
	slices.SortFunc(lines, func(a, b string) int {
		a, _, _ = strings.Cut(a, ":")
		b, _, _ = strings.Cut(b, ":")
		return strings.Compare(a, b)
	})
	return lines
}

func alwaysSigned(lower string) bool {
	return strings.HasPrefix(lower, "x-oss-") || lower == "content-type" || lower == "content-md5"
}

// stringToSignV4 takes the date in the form in which it was sent.
func stringToSignV4(date string, c credential, canonical string) string {
	sum := sha256.Sum256([]byte(canonical))
	return algorithmV4 + "\n" + date + "\n" + c.scope() + "\n" + hex.EncodeToString(sum[:])
}

// signV4 returns the lower-case hex signature of text in the scope of c.
func signV4(secret string, c credential, text string) string {
	key := []byte("aliyun_v4" + secret)
	for _, step := range []string{c.date, c.region, c.product, c.request} {
		key = hmacSHA256(key, step)
	}
	return hex.EncodeToString(hmacSHA256(key, text))
}

func hmacSHA256(key []byte, text string) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(text))
	return mac.Sum(nil)
}

// authorizationOf reads a request's signature; nil means that it is anonymous.
func authorizationOf(c *call) (*authorization, error) {
	header := c.r.Header.Get("Authorization") != ""
	query := c.query.has("x-oss-signature-version") || c.query.has("x-oss-signature") || c.query.has("x-oss-credential")
	switch {
	case header && query:
		// Two signatures would let a checker and a reader pick different ones.
		return nil, errAmbiguousSignature
	case header:
		return parseHeaderAuthorization(c.r.Header)
	case query:
		return parseQueryAuthorization(c.query)
	case c.query.has("Signature") || c.query.has("OSSAccessKeyId"):
		return nil, errInvalidArgument.saying("This server takes signature version 4 only.", "")
	}
	return nil, nil
}

// verify checks the signature of a request.
func (s *Server) verify(c *call, a *authorization) error {
	secret, err := s.checkScope(a)
	if err != nil {
		return err
	}
	if err := s.checkTime(a); err != nil {
		return err
	}
	if v := c.r.Header.Get("x-oss-content-sha256"); v != unsignedPayload && (v != "" || a.from == inHeader) {
		return badArgument("x-oss-content-sha256", v, "The x-oss-content-sha256 header must be "+unsignedPayload+".", "0002-00000214")
	}
	for _, name := range a.additional {
		if name != "host" && len(c.r.Header.Values(name)) == 0 {
			return badArgument("x-oss-additional-headers", name,
				"A header listed in the additional headers is missing from the request.", a.from.missingName)
		}
	}
	canonical := canonicalRequest(c.r.Method, c.bucket, c.key, c.query, c.r.Header, c.r.Host, a.additional)
	text := stringToSignV4(a.date, a.credential, canonical)
	if !a.signs(text, secret) {
		return errSignature.with("OSSAccessKeyId", a.accessKeyID, "SignatureProvided", a.signature,
			"StringToSign", text, "CanonicalRequest", canonical)
	}
	return nil
}

// signs reports whether the signature is that of text.
func (a *authorization) signs(text, secret string) bool {
	// Constant time: the time of a plain comparison tells how much of a guessed
	// signature is right.
	return subtle.ConstantTimeCompare([]byte(signV4(secret, a.credential, text)), []byte(a.signature)) == 1
}

// checkScope checks everything in a credential against this server and the request's
// date, and returns the secret of the access key.
func (s *Server) checkScope(a *authorization) (secret string, err error) {
	c := a.credential
	switch {
	case c.date != a.signed.Format(isoDate):
		return "", badArgument("x-oss-credential", c.scope(), "Invalid signing date in Authorization header.", a.from.date)
	case c.region != s.cfg.Region:
		return "", badArgument("x-oss-credential", c.scope(), "Invalid signing region in Authorization header.", "0002-00000226")
	case c.product != productV4:
		return "", badArgument("x-oss-credential", c.scope(), "Invalid signing product in Authorization header.", a.from.credential)
	case c.request != requestV4:
		return "", badArgument("x-oss-credential", c.scope(), "Invalid signing request version in Authorization header.", a.from.credential)
	}
	return s.secretFor(c.accessKeyID, a.token)
}

// checkTime bounds replay: a header signature lives 15 minutes, a presigned URL from
// 15 minutes before its date until it expires.
func (s *Server) checkTime(a *authorization) error {
	now := s.cfg.Now()
	requested := []any{"RequestTime", formatTime(a.signed), "ServerTime", formatTime(now)}
	if a.expires == 0 {
		if skew := now.Sub(a.signed); skew > maxSkew || skew < -maxSkew {
			return errSkewed.with("MaxAllowedSkewMilliseconds", "900000").with(requested...)
		}
		return nil
	}
	if a.signed.After(now.Add(maxSkew)) {
		return errNotYetValid.with(requested...)
	}
	if end := a.signed.Add(a.expires); now.After(end) {
		return errExpired.with("Expires", formatTime(end), "ServerTime", formatTime(now))
	}
	return nil
}

// parseDate reads x-oss-date in ISO 8601 or a Date header in the form of HTTP. OSS refuses
// either in the form of the other (EC 0002-00000502).
func parseDate(layout, text string) (time.Time, error) {
	t, err := time.Parse(layout, text)
	if err != nil {
		return time.Time{}, errWrongDate
	}
	return t, nil
}
