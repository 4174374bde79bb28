// Package page is the issuer's upload page, and the module that it and other pages upload with.
//
// The page is one embedded document that requests uploads from the API, uploads files straight from the browser to OSS,
// and shows the callback's answer and the recorded row. The module is upcall-uploader.js, with its types beside it.
package page

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"time"
)

//go:embed page.html
var document []byte

//go:embed upcall-uploader.js
var module []byte

//go:embed upcall-uploader.d.ts
var types []byte

// Module serves upcall-uploader.js, or its types. Pages of any origin may import it: it holds no secret.
func Module(ofTypes bool) http.Handler {
	content, kind := module, "text/javascript; charset=utf-8"
	if ofTypes {
		content, kind = types, "text/plain; charset=utf-8"
	}
	sum := sha256.Sum256(content)
	tag := fmt.Sprintf(`"%x"`, sum[:8])
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header.Set("Access-Control-Allow-Origin", "*")
		header.Set("Content-Type", kind)
		header.Set("Cache-Control", "no-cache") // pages get the version of their issuer, or 304
		header.Set("Cross-Origin-Resource-Policy", "cross-origin")
		header.Set("ETag", tag)
		header.Set("X-Content-Type-Options", "nosniff")
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
	})
}

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

// policy lets the page run its own script and style, known by their digests, import the module, and connect to
// its own API and to OSS. If a file name or an answer ever got into the document as markup,
// it could not run, or send the API key elsewhere.
func policy(uploadTo []string) string {
	return strings.Join([]string{
		"default-src 'none'",
		"script-src 'self' " + digest(`script type="module"`, "script"),
		"style-src " + digest("style", "style"),
		"connect-src " + strings.Join(append([]string{"'self'"}, uploadTo...), " "),
		"base-uri 'none'",
		"form-action 'none'",
		"frame-ancestors 'none'",
	}, "; ")
}

// digest returns the source expression for the only element that starts so.
func digest(start, element string) string {
	_, rest, _ := bytes.Cut(document, []byte("<"+start+">"))
	content, _, found := bytes.Cut(rest, []byte("</"+element+">"))
	if !found || len(content) == 0 {
		panic("page: the document has no " + element) // a test would fail
	}
	sum := sha256.Sum256(content)
	return fmt.Sprintf("'sha256-%s'", base64.StdEncoding.EncodeToString(sum[:]))
}
