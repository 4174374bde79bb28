package capture

import (
	"net/http"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"upcall/internal/doctor"
)

// A Report is what the doctor says about a capture, as it is shown to those who may look at
// everything but must not be able to use it. What it has of the request is masked: of a body, which
// may hold a token in any spelling, it has nothing but what refusals and notes name (bucket, object key,
// content type, size, names of fields), of a query no values, as in the log, and of headers only those
// that are no secrets.
type Report struct {
	Entry
	Verdict  doctor.Verdict `json:"verdict"`
	Accepted bool           `json:"accepted"` // nothing is wrong with it as far as the request itself tells
	Summary  string         `json:"summary"`
	Fix      string         `json:"fix"`
	Causes   []Cause        `json:"causes"`
	Oddities []Finding      `json:"oddities"`
	Refusals []Refusal      `json:"refusals"`
	Notes    []string       `json:"notes"`
	Key      string         `json:"key"` // whose key signed; "" if nobody's that is known

	ReceivedMD5 string   `json:"received_md5"` // of what the receiver checks
	SignedMD5   string   `json:"signed_md5"`   // of what was signed
	Method      string   `json:"method"`
	Target      string   `json:"target"`
	Headers     []Header `json:"headers"`
	BodyBytes   int      `json:"body_bytes"`
}

// A Finding is something about the request, and what to do.
type Finding struct {
	Kind string `json:"kind"`
	What string `json:"what"`
	Fix  string `json:"fix"`
}

// A Cause is one thing that was done to the request. Received and Signed are of its path, or of its
// query with short values only; of other parts they are "".
type Cause struct {
	Finding
	Received string `json:"received"`
	Signed   string `json:"signed"`
}

// A Refusal is what the receiver refuses although the signature is good.
type Refusal struct {
	Code   string `json:"code"`
	Reason string `json:"reason"`
	What   string `json:"what"`
	Fix    string `json:"fix"`
}

// A Header is a header of the request.
type Header struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Masked is shown in place of a secret.
const Masked = "<masked>"

// A mask hides the secrets of one request.
type mask struct{ secrets []string }

// newMask collects what the request has in headers that are not known to be harmless.
func newMask(c *doctor.Capture) *mask {
	m := new(mask)
	for _, h := range c.Headers {
		if len(h.Value) >= 8 && !harmless(h.Name) {
			m.secrets = append(m.secrets, h.Value, doctor.Mark(h.Value))
		}
	}
	return m
}

// long matches what may be a token, a signature or a key, also in Base64 or in hexadecimal digits.
// OSS's signature has 88 characters, and a token more than 80 after its dot.
var long = regexp.MustCompile(`[A-Za-z0-9+/_=-]{64,}`)

// text returns a text of the doctor's.
func (m *mask) text(text string) string {
	for _, secret := range m.secrets {
		text = strings.ReplaceAll(text, secret, Masked)
	}
	text = long.ReplaceAllString(text, Masked)
	return queryOf.ReplaceAllStringFunc(text, func(found string) string {
		mark := queryMark.FindString(found)
		return mark + maskValues(found[len(mark):], 1)
	})
}

// A callback URL may hold a secret of an application, such as ?key=hunter2. The question mark and the
// equals sign may be percent-encoded, more than once.
var (
	queryMark = regexp.MustCompile(`\?|%(?:25)*3[fF]`)
	queryOf   = regexp.MustCompile(`(?:` + queryMark.String() + `)\S+`)
	equals    = regexp.MustCompile(`=|%(?:25)*3[dD]`)
)

// maskValues hides the values of a query that have so many characters. What has no equals sign may be a
// value, too.
func maskValues(query string, least int) string {
	pairs := strings.Split(query, "&")
	for i, pair := range pairs {
		begin := 0
		if at := equals.FindStringIndex(pair); at != nil {
			begin = at[1]
		}
		if utf8.RuneCountInString(pair[begin:]) >= least {
			pairs[i] = pair[:begin] + Masked
		}
	}
	return strings.Join(pairs, "&")
}

// longValue is how many characters a value of a query has that is not shown even where the query is
// what was changed.
const longValue = 8

// part returns a part of the request as the doctor marks it.
func (m *mask) part(text string) string { return m.text(doctor.Mark(text)) }

// shownHeaders are those whose values are shown: what OSS sends, and what proxies say about the way.
// Anything else may be a secret of a proxy or an application, as Authorization and Cookie are.
var shownHeaders = []string{
	"Accept", "Accept-Encoding", "Connection", "Content-Encoding", "Content-Length", "Content-Md5", "Content-Type", "Date", "Expect",
	"Forwarded", "Host", "User-Agent", "Via", "X-Envoy-Original-Path", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Path",
	"X-Forwarded-Port", "X-Forwarded-Prefix", "X-Forwarded-Proto", "X-Forwarded-Uri", "X-Original-Uri", "X-Original-Url",
	"X-Oss-Bucket", "X-Oss-Owner", "X-Oss-Pub-Key-Url", "X-Oss-Request-Id", "X-Oss-Requester", "X-Oss-Signature-Version", "X-Oss-Tag",
	"X-Real-Ip", "X-Replaced-Path", "X-Rewrite-Url",
}

func harmless(name string) bool { return slices.Contains(shownHeaders, http.CanonicalHeaderKey(name)) }

// inTarget reports whether what a cause is about is in the request line, where no token is.
func inTarget(kind string) bool {
	for _, prefix := range []string{"path_", "query_", "public_url", "target_"} {
		if strings.HasPrefix(kind, prefix) {
			return true
		}
	}
	return false
}

// show returns the report about a capture with its secrets masked.
func show(of Entry, c *doctor.Capture, r *doctor.Report) *Report {
	m := newMask(c)
	shown := &Report{Entry: of, Verdict: r.Verdict, Accepted: r.Accepted, Summary: m.text(r.Summary), Fix: m.text(r.Fix),
		Causes: []Cause{}, Oddities: []Finding{}, Refusals: []Refusal{}, Notes: []string{}, Headers: []Header{}, Key: m.text(r.Key),
		ReceivedMD5: r.Received.MD5, SignedMD5: r.Signed.MD5, Method: m.part(c.Method), Target: m.part(c.Target), BodyBytes: len(c.Body)}
	for _, cause := range r.Causes {
		kind := cause.Kind.String()
		one := Cause{Finding: Finding{kind, m.text(cause.What), m.text(cause.Fix)}}
		if inTarget(kind) {
			one.Received, one.Signed = m.text(cause.Received), m.text(cause.Signed)
		}
		if strings.HasPrefix(kind, "query_") { // a query without its question mark
			one.Received, one.Signed = maskValues(one.Received, longValue), maskValues(one.Signed, longValue)
		}
		shown.Causes = append(shown.Causes, one)
	}
	for _, odd := range r.Oddities {
		shown.Oddities = append(shown.Oddities, Finding{odd.Kind.String(), m.text(odd.What), m.text(odd.Fix)})
	}
	for _, refusal := range r.Refusals {
		shown.Refusals = append(shown.Refusals,
			Refusal{string(refusal.Code), string(refusal.Reason), m.text(refusal.What), m.text(refusal.Fix)})
	}
	for _, note := range r.Notes {
		shown.Notes = append(shown.Notes, m.text(note))
	}
	for _, h := range c.Headers {
		value := Masked
		switch {
		case http.CanonicalHeaderKey(h.Name) == "X-Oss-Pub-Key-Url": // the Base64 of a URL, and long
			value = doctor.Mark(h.Value)
		case harmless(h.Name):
			value = m.part(h.Value)
		}
		shown.Headers = append(shown.Headers, Header{m.part(h.Name), value})
	}
	return shown
}
