// Package page is the issuer's upload page: one embedded document that requests uploads from
// the API, uploads files straight from the browser to OSS, and shows the callback's answer
// and the recorded row.
package page

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
)

//go:embed page.html
var document []byte

// Handler serves the page, whatever the path and the method. uploadTo are the origins that
// the page may upload to, as Content-Security-Policy sources, for example
// "https://bucket.oss-cn-hangzhou.aliyuncs.com".
func Handler(uploadTo []string) http.Handler {
	policy := policy(uploadTo)
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		header := w.Header()
		header.Set("Content-Security-Policy", policy)
		header.Set("Content-Type", "text/html; charset=utf-8")
		header.Set("Cache-Control", "no-store")
		header.Set("Referrer-Policy", "no-referrer")
		header.Set("X-Content-Type-Options", "nosniff")
		header.Set("X-Frame-Options", "DENY")
		w.Write(document)
	})
}

// policy lets the page run its own script and style, known by their digests, and connect to
// its own API and to OSS. If a file name or an answer ever got into the document as markup,
// it could not run, or send the API key elsewhere.
func policy(uploadTo []string) string {
	return strings.Join([]string{
		"default-src 'none'",
		"script-src " + digest("script"),
		"style-src " + digest("style"),
		"connect-src " + strings.Join(append([]string{"'self'"}, uploadTo...), " "),
		"base-uri 'none'",
		"form-action 'none'",
		"frame-ancestors 'none'",
	}, "; ")
}

// digest returns the source expression for the only element with that name.
func digest(element string) string {
	_, rest, _ := bytes.Cut(document, []byte("<"+element+">"))
	content, _, found := bytes.Cut(rest, []byte("</"+element+">"))
	if !found || len(content) == 0 {
		panic("page: the document has no " + element) // a test would fail
	}
	sum := sha256.Sum256(content)
	return fmt.Sprintf("'sha256-%s'", base64.StdEncoding.EncodeToString(sum[:]))
}
