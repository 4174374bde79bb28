package e2e

import (
	"encoding/xml"
	"os"
	"slices"
	"strings"
	"testing"
)

// TestDocumentedCORSRule checks that the rule in the documentation allows what pages send, and
// exposes what they read.
func TestDocumentedCORSRule(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/uploads.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "```xml\n")
	document, _, found := strings.Cut(rest, "```")
	var rule struct {
		Methods []string `xml:"CORSRule>AllowedMethod"`
		Headers []string `xml:"CORSRule>AllowedHeader"`
		Exposed []string `xml:"CORSRule>ExposeHeader"`
	}
	if err := xml.Unmarshal([]byte(document), &rule); err != nil || !found {
		t.Fatalf("%v in %s", err, document)
	}
	for _, method := range []string{"PUT", "POST", "GET", "HEAD", "DELETE"} { // of a manifest
		if !slices.Contains(rule.Methods, method) {
			t.Errorf("%s is not allowed", method)
		}
	}
	for _, name := range []string{"ETag", "x-oss-request-id", "x-oss-hash-crc64ecma", "Retry-After"} {
		if !slices.Contains(rule.Exposed, name) {
			t.Errorf("%s is not exposed", name)
		}
	}
	if !slices.Equal(rule.Headers, []string{"*"}) || slices.Contains(rule.Exposed, "*") { // OSS takes no * there
		t.Errorf("headers %v, exposed %v", rule.Headers, rule.Exposed)
	}
}
