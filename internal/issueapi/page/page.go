// Package page is the issuer's upload page: one embedded document that issues uploads
// through the API, uploads files straight to OSS from the browser, and shows the
// callback's answer and the recorded row.
//
// It imports the standard library only; the issuer serves it where it was asked to.
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

// Handler serves the page at "/" and nothing else. uploadTo are the origins that files are uploaded to, as
// Content-Security-Policy sources: "https://bucket.oss-cn-hangzhou.aliyuncs.com".
func Handler(uploadTo []string) http.Handler {
	policy := policy(uploadTo)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/" {
			http.Error(w, "there is nothing at this path", http.StatusNotFound)
			return
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "the page is read with GET", http.StatusMethodNotAllowed)
			return
		}
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

// policy lets the page run its own script and style, known by their digests, talk to
// the API that it came from and to OSS, and nothing else. So a name of a file or an
// answer that were to slip into the document as markup could not run, nor send the API
// key anywhere.
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

// digest returns the source expression for the one element of that name.
func digest(element string) string {
	_, rest, _ := bytes.Cut(document, []byte("<"+element+">"))
	content, _, found := bytes.Cut(rest, []byte("</"+element+">"))
	if !found || len(content) == 0 {
		panic("page: the document has no " + element) // a test sees to it
	}
	sum := sha256.Sum256(content)
	return fmt.Sprintf("'sha256-%s'", base64.StdEncoding.EncodeToString(sum[:]))
}
