package doctor

import (
	"encoding/base64"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"upcall/internal/testing/vectors"
)

// A vector is one of the test vectors of package verify.
type vector struct{ vectors.Vector }

func loadVectors(t testing.TB) map[string]vector {
	t.Helper()
	all := make(map[string]vector)
	for id, v := range vectors.Load(t) {
		all[id] = vector{v}
	}
	return all
}

func readFile(t testing.TB, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// capture is the vector as a recording without any loss.
func (v vector) capture() *Capture {
	c := &Capture{Format: Raw, Method: "POST", Target: v.Target, Body: []byte(v.Body)}
	for name, value := range map[string]string{
		"Authorization": v.Authorization, "x-oss-pub-key-url": v.PubKeyURL,
		"x-oss-signature-version": v.SignatureVersion, "Content-Type": v.ContentType,
	} {
		if value != "" {
			c.Headers = append(c.Headers, Header{name, value})
		}
	}
	for name, value := range v.Headers {
		c.Headers = append(c.Headers, Header{name, value})
	}
	return c
}

// expectation is the verdict on a vector and the kinds of the causes.
type expectation struct {
	verdict Verdict
	kinds   []Kind
}

func repaired(kinds ...Kind) expectation { return expectation{Repaired, kinds} }
func mistake(kind Kind) expectation      { return expectation{Refused, []Kind{kind}} }

var refused = expectation{Refused, nil}

// expectations are the findings about each vector that does not verify.
var expectations = map[string]expectation{
	"body-as-json":            repaired(BodyFormAsJSON),
	"body-bom":                repaired(BodyBOMAdded),
	"body-decoded":            repaired(BodyReencoded),
	"body-extra-field":        repaired(BodyFieldAdded),
	"body-fields-reordered":   repaired(BodyReordered),
	"body-leading-lf":         repaired(BodyLeadingNewline),
	"body-lower-case-hex":     repaired(BodyReencoded),
	"body-trailing-lf":        repaired(BodyNewlineAdded),
	"body-truncated":          repaired(BodyCutShort),
	"body-content-swapped":    refused, // other content
	"body-empty":              refused, // nothing is left to repair
	"body-other-bucket":       refused,
	"body-size-changed":       refused,
	"block-digest-bit":        refused,
	"block-digest-of-hex":     mistake(SenderHexDigest),
	"block-digest-of-nothing": mistake(SenderNothing),
	"block-digest-reversed":   mistake(SenderReversedDigest),

	"boundary-moved-into-path":  repaired(BoundaryMoved),
	"boundary-moved-into-query": repaired(BoundaryMoved),
	"decoded-never":             repaired(PathDecoded),
	"decoded-twice":             repaired(PathEncodedAgain),
	"plus-as-space":             repaired(PathPlus),
	"path-case":                 repaired(PathCase),
	"path-dot-segment":          repaired(PathDotSegments),
	"path-doubled-slash":        repaired(PathSlashes),
	"path-final-slash-dropped":  repaired(PathTrailingSlash),
	"path-prefixed-by-proxy":    repaired(PathPrefixAdded),
	"path-stripped-by-proxy":    repaired(PathPrefixStripped),
	"query-added":               repaired(QueryAdded),
	"query-decoded":             mistake(QueryEncoding),
	"query-dropped":             refused, // but see TestHints
	"query-mark-escaped":        repaired(PathQueryMark),
	"query-re-encoded":          repaired(QueryEncoding),
	"query-reordered":           repaired(QueryReordered),
	"query-mark-always":         mistake(SenderQueryMark),
	"query-mark-never":          mistake(SenderQueryMark),
	"separator-cr":              mistake(SenderSeparator),
	"separator-crlf":            mistake(SenderSeparator),
	"separator-none":            mistake(SenderSeparator),
	"separator-cr-in-target":    repaired(QueryControlBytes),

	"target-asterisk":       refused,
	"target-authority":      refused,
	"target-empty":          refused,
	"target-other-scheme":   refused,
	"target-escape-cut":     refused, // the query is lost, too
	"target-escape-lone":    refused,
	"target-escape-not-hex": refused,
	"target-escape-unicode": refused,
	"target-escaped-del":    repaired(PathControlBytes),
	"target-escaped-nul":    repaired(PathControlBytes),
	"target-no-host":        repaired(TargetForm),
	"target-no-slash":       repaired(PathSlashes),
	"target-raw-del":        repaired(PathControlBytes),
	"target-raw-lf":         repaired(QueryControlBytes),
	"target-raw-nul":        repaired(PathControlBytes),
	"target-raw-space":      repaired(QueryControlBytes),

	"signature-absent":              refused,
	"signature-all-ones":            refused,
	"signature-bit-flipped":         refused,
	"signature-block-itself":        refused,
	"signature-huge":                refused,
	"signature-n":                   refused,
	"signature-n-minus-one":         refused,
	"signature-not-base64":          refused,
	"signature-one":                 refused,
	"signature-one-byte":            refused,
	"signature-plus-n":              refused,
	"signature-short":               refused,
	"signature-zero":                refused,
	"test-key-signature-plus-n":     refused,
	"signature-of-another-callback": refused,
	"signature-final-line-break":    repaired(SignatureBlanks),
	"signature-line-break":          repaired(SignatureBlanks),
	"signature-space":               repaired(SignatureBlanks),
	"signature-hex":                 repaired(SignatureHex),
	"signature-leading-zero":        repaired(SignatureExtraBytes),
	"signature-trailing-byte":       repaired(SignatureExtraBytes),
	"signature-twice":               repaired(SignatureExtraBytes),
	"signature-overpadded":          repaired(SignaturePadding),
	"signature-unpadded":            repaired(SignaturePadding),
	"signature-reversed":            repaired(SignatureReversed),
	"signature-scheme-prefix":       repaired(SignatureScheme),
	"signature-trailing-bits":       repaired(SignatureLastBits),
	"signature-url-alphabet":        repaired(SignatureAlphabet),

	"pinned-under-test-key": repaired(KeyURL),
	"test-key-under-pinned": refused, // the key is not given, but see TestSettings
	"key-server-untrusted":  refused,
	"version-1":             repaired(SignatureVersion),
	"version-2.0":           repaired(SignatureVersion),
	"version-list":          repaired(SignatureVersion),
	"version-padded":        repaired(SignatureVersion),
}

// expected returns the expected finding about a vector; some groups share one.
func expected(v vector) (expectation, bool) {
	if want, ok := expectations[v.ID]; ok {
		return want, true
	}
	switch {
	case v.Expect == "ok":
		return expectation{Verifies, nil}, true
	case strings.HasPrefix(v.ID, "block-"):
		return refused, true
	case strings.HasPrefix(v.ID, "key-url-"): // the signatures are genuine
		return repaired(KeyURL), true
	case strings.HasPrefix(v.ID, "key-server-"):
		return expectation{CannotCheck, nil}, true
	}
	return expectation{}, false
}

func kindsOf(r *Report) []Kind {
	var kinds []Kind
	for _, c := range r.Causes {
		kinds = append(kinds, c.Kind)
	}
	return kinds
}

func TestVectors(t *testing.T) {
	t.Parallel()
	all := loadVectors(t)
	for id := range expectations {
		if _, ok := all[id]; !ok {
			t.Errorf("vector %s does not exist", id)
		}
	}
	for id, v := range all {
		t.Run(id, func(t *testing.T) {
			t.Parallel()
			want, ok := expected(v)
			if !ok {
				t.Fatal("no finding is expected of this vector")
			}
			var cfg Config
			if v.KeyServer != nil {
				url, _ := v.KeyServer.Start(t)
				v.PubKeyURL = base64.StdEncoding.EncodeToString([]byte(url))
				if !v.KeyServer.Untrusted {
					cfg.TrustKeyURLs = []string{url}
				}
			}
			report := examine(t, cfg, v.capture())
			if report.Verdict != want.verdict || !slices.Equal(kindsOf(report), want.kinds) {
				t.Errorf("%s %v, want %s %v: %s", report.Verdict, kindsOf(report), want.verdict, want.kinds, report.Summary)
			}
			if wantReason := strings.TrimPrefix(v.Expect, "ok"); string(report.Reason) != wantReason {
				t.Errorf("reason %q, want %q", report.Reason, wantReason)
			}
			if report.Candidates > 3*maxCandidates {
				t.Errorf("%d candidates", report.Candidates)
			}
			if report.Verdict == Repaired || report.Verdict == Verifies {
				if report.Signed.MD5 == "" || report.Signed.String == "" || report.Key == "" {
					t.Errorf("the report does not show what was signed: %+v", report)
				}
			} else if report.Fix == "" && len(report.Causes) == 0 {
				t.Error("the report does not say what to do")
			}
			checkWritten(t, report)
		})
	}
}

// checkWritten checks that a report is safe to print, and short.
func checkWritten(t *testing.T, r *Report) {
	t.Helper()
	var out strings.Builder
	if err := r.Write(&out); err != nil {
		t.Fatal(err)
	}
	for _, c := range out.String() {
		if c != '\n' && (c < ' ' || c >= 0x7f && c < 0xa0) {
			t.Fatalf("control byte %q in\n%s", c, &out)
		}
	}
	if len(out.String()) > 8<<10 || !strings.HasPrefix(out.String(), headlines[r.Verdict]+": ") {
		t.Errorf("report:\n%s", &out)
	}
	for _, c := range r.Causes {
		if c.What == "" || c.Fix == "" {
			t.Errorf("%s is not explained", c.Kind)
		}
	}
}

func examine(t testing.TB, cfg Config, c *Capture) *Report {
	t.Helper()
	d, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	report, err := d.Examine(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// TestFormats: a vector reads the same from every format that can express it.
func TestFormats(t *testing.T) {
	t.Parallel()
	written := 0
	for id, v := range loadVectors(t) {
		c := v.capture()
		if !plainLine(c) {
			continue
		}
		if origin.MatchString(c.Target) {
			c.Target = cutOrigin(c.Target) // an archive has whole URLs, whatever the request line had
		}
		written++
		for format, text := range map[Format][]byte{Raw: writeRaw(c), HAR: writeHAR(t, c), Curl: writeTrace(c)} {
			got, err := Parse(text, Auto, 0)
			if err != nil {
				t.Errorf("%s as %s: %v", id, format, err)
				continue
			}
			if got.Format != format || len(got.Notes) > 0 {
				t.Errorf("%s as %s: read as %s, notes %q", id, format, got.Format, got.Notes)
			}
			said := func(c *Capture) []any { return []any{c.Method, c.Target, c.Headers, string(c.Body)} }
			if diff := cmp.Diff(said(c), said(got)); diff != "" {
				t.Errorf("%s as %s: %s", id, format, diff)
			}
		}
	}
	if written < 100 {
		t.Errorf("only %d vectors were written", written)
	}
}

// plainLine reports whether the capture's head fits the lines of a message.
func plainLine(c *Capture) bool {
	plain := func(s string) bool {
		return !strings.ContainsAny(s, "\r\n\x00\x7f") && strings.TrimSpace(s) == s
	}
	unfit := func(h Header) bool { return !plain(h.Value) || h.Value == "" }
	return c.Target != "" && plain(c.Target) && !slices.ContainsFunc(c.Headers, unfit)
}
