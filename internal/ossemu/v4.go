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

	maxSkew    = 15 * time.Minute
	maxExpires = int(ossrule.MaxExpiry / time.Second)

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

// An authorization is a signature with what it says about itself, from the header or
// from the query.
type authorization struct {
	credential
	date       string   // x-oss-date as sent
	expires    int      // seconds; 0 in the header form, which has a fixed skew instead
	additional []string // signed headers beyond those that always are: lower case, sorted
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

func stringToSignV4(a authorization, canonical string) string {
	sum := sha256.Sum256([]byte(canonical))
	return algorithmV4 + "\n" + a.date + "\n" + a.scope() + "\n" + hex.EncodeToString(sum[:])
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

// authenticate checks the signature of a request.
func (s *Server) authenticate(c *call) error {
	inHeader := c.r.Header.Get("Authorization") != ""
	inQuery := c.query.has("x-oss-signature-version") || c.query.has("x-oss-signature") || c.query.has("x-oss-credential")
	var a authorization
	var err error
	switch {
	case inHeader && inQuery:
		// Two signatures would let a checker and a reader pick different ones.
		return errAmbiguousSignature
	case inHeader:
		a, err = parseHeaderAuthorization(c.r.Header)
	case inQuery:
		a, err = parseQueryAuthorization(c.query)
	case c.query.has("Signature") || c.query.has("OSSAccessKeyId"):
		return errInvalidArgument.saying("This server takes signature version 4 only.", "")
	default:
		return errAccessDenied
	}
	if err != nil {
		return err
	}
	if err := s.checkScope(a.credential, a.date, a.token); err != nil {
		return err
	}
	if err := s.checkTime(a); err != nil {
		return err
	}
	if v := c.r.Header.Get("x-oss-content-sha256"); v != unsignedPayload && (v != "" || inHeader) {
		return badArgument("x-oss-content-sha256", v, "The x-oss-content-sha256 header must be "+unsignedPayload+".", "0002-00000214")
	}
	for _, name := range a.additional {
		if name != "host" && len(c.r.Header.Values(name)) == 0 {
			return badArgument("x-oss-additional-headers", name, "A header listed in the additional headers is missing from the request.", "")
		}
	}
	canonical := canonicalRequest(c.r.Method, c.bucket, c.key, c.query, c.r.Header, c.r.Host, a.additional)
	text := stringToSignV4(a, canonical)
	// Constant time: the time of a plain comparison tells how much of a guessed
	// signature is right.
	if subtle.ConstantTimeCompare([]byte(signV4(s.cfg.AccessKeySecret, a.credential, text)), []byte(a.signature)) != 1 {
		return errSignature.with("OSSAccessKeyId", a.accessKeyID, "SignatureProvided", a.signature,
			"StringToSign", text, "CanonicalRequest", canonical)
	}
	return nil
}

// checkScope checks everything in a credential against this server and the request's
// date. It is shared with PostObject.
func (s *Server) checkScope(c credential, date, token string) error {
	switch {
	case !isDate(c.date):
		return badArgument("x-oss-credential", c.scope(), "Invalid signing date in Authorization header.", "0002-00000223")
	case !strings.HasPrefix(date, c.date):
		return badArgument("x-oss-credential", c.scope(), "Invalid signing date in Authorization header.", "")
	case c.region != s.cfg.Region:
		return badArgument("x-oss-credential", c.scope(), "Invalid signing region in Authorization header.", "0002-00000226")
	case c.product != productV4:
		return badArgument("x-oss-credential", c.scope(), "Invalid signing product in Authorization header.", "")
	case c.request != requestV4:
		return badArgument("x-oss-credential", c.scope(), "Invalid signing request version in Authorization header.", "")
	case c.accessKeyID != s.cfg.AccessKeyID:
		return errAccessKeyID.with("OSSAccessKeyId", c.accessKeyID)
	}
	// A temporary key is nothing without its token, and a permanent one has none.
	if subtle.ConstantTimeCompare([]byte(token), []byte(s.cfg.SecurityToken)) != 1 {
		return errSecurityToken
	}
	return nil
}

func isDate(s string) bool {
	_, err := time.Parse(isoDate, s)
	return err == nil
}

// checkTime bounds replay: a header signature lives 15 minutes, a presigned URL from
// 15 minutes before its date until it expires.
func (s *Server) checkTime(a authorization) error {
	signed, err := time.Parse(isoTime, a.date)
	if err != nil {
		return errNoDate
	}
	now := s.cfg.Now().UTC()
	server := now.Format(time.RFC3339)
	if a.expires == 0 {
		if skew := now.Sub(signed); skew > maxSkew || skew < -maxSkew {
			return errSkewed.with("MaxAllowedSkewMilliseconds", "900000",
				"RequestTime", signed.Format(time.RFC3339), "ServerTime", server)
		}
		return nil
	}
	if signed.After(now.Add(maxSkew)) {
		return errNotYetValid.with("RequestTime", signed.Format(time.RFC3339), "ServerTime", server)
	}
	if end := signed.Add(time.Duration(a.expires) * time.Second); now.After(end) {
		return errExpired.with("Expires", end.Format(time.RFC3339), "ServerTime", server)
	}
	return nil
}
