package manifest

import (
	"cmp"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"upcall/internal/ossrule"
)

// Check returns an error that wraps ErrManifest for anything but the requests of one upload.
// Manifests come from elsewhere: other methods, addresses or headers could make this machine
// send a stranger's requests, or the file to a stranger's server.
func (m Manifest) Check() error {
	switch {
	case (m.Put == nil) == (m.Multipart == nil):
		return badManifest("it is for no upload, or for two")
	case m.Put != nil:
		_, err := checkRequest("the upload", m.Put.Request(), http.MethodPut)
		return err
	}
	return m.Multipart.Check()
}

// Check is [Manifest.Check] for a multipart upload.
func (m *Multipart) Check() error {
	switch {
	case m.Bucket == "" || m.Key == "" || m.OSSUploadID == "":
		return badManifest("it has no bucket, no key or no oss_upload_id")
	case len(m.Parts) == 0 || len(m.Parts) > ossrule.MaxParts:
		return badManifest("it has %d parts; OSS takes 1 to %d", len(m.Parts), ossrule.MaxParts)
	case m.PartSize <= 0:
		return badManifest("its part_size is %d", m.PartSize)
	}
	complete, err := checkRequest("complete", m.Complete, http.MethodPost)
	if err != nil {
		return err
	}
	o := oneUpload{m.OSSUploadID, complete}
	_, completeErr := o.check("complete", m.Complete, http.MethodPost)
	_, abortErr := o.check("abort", m.Abort, http.MethodDelete)
	var headErr error
	if m.Head != nil {
		_, headErr = o.sameObject("head", *m.Head, http.MethodHead)
	}
	_, _, callbackErr := m.CallbackDocuments()
	return cmp.Or(completeErr, abortErr, headErr, o.checkLists(m), o.checkParts(m.Parts), callbackErr)
}

// oneUpload is the upload that all requests of a manifest must belong to.
type oneUpload struct {
	id       string   // OSS's
	complete *url.URL // the object's, with another query
}

// sameObject checks that a request is about the object. Otherwise one part among thousands
// could go to a stranger's server.
func (o oneUpload) sameObject(what string, r PresignedRequest, method string) (url.Values, error) {
	u, err := checkRequest(what, r, method)
	if err != nil {
		return nil, err
	}
	if u.Scheme != o.complete.Scheme || u.Host != o.complete.Host || u.EscapedPath() != o.complete.EscapedPath() {
		return nil, badManifest("%s goes elsewhere than complete; all requests must be about one object", what)
	}
	return u.Query(), nil
}

// check is sameObject for requests that are also about the upload.
func (o oneUpload) check(what string, r PresignedRequest, method string) (url.Values, error) {
	query, err := o.sameObject(what, r, method)
	if err == nil && query.Get("uploadId") != o.id {
		err = badManifest("%s is not about the upload %.40q", what, o.id)
	}
	return query, err
}

// checkLists accepts fewer pages than the parts may need: a part that no page lists is sent
// again.
func (o oneUpload) checkLists(m *Multipart) error {
	pages := m.Lists()
	if most := (len(m.Parts) + ossrule.PageOfParts - 1) / ossrule.PageOfParts; len(pages) > most {
		return badManifest("it has %d lists in list_parts_next; %d parts take %d", len(m.ListPartsNext), len(m.Parts), most-1)
	}
	for i, page := range pages {
		what, after := "list_parts", ""
		if i > 0 {
			what, after = fmt.Sprintf("list_parts_next %d", i), strconv.Itoa(i*ossrule.PageOfParts)
		}
		query, err := o.check(what, page, http.MethodGet)
		switch {
		case err != nil:
			return err
		case query.Get("part-number-marker") != after:
			return badManifest("%s does not begin after part %d", what, i*ossrule.PageOfParts)
		}
	}
	return nil
}

func (o oneUpload) checkParts(parts []Part) error {
	for i, part := range parts {
		what := fmt.Sprintf("part %d", i+1)
		query, err := o.check(what, part.PresignedRequest, http.MethodPut)
		switch {
		case err != nil:
			return err
		case int(part.Number) != i+1 || query.Get("partNumber") != strconv.Itoa(i+1):
			return badManifest("the parts are not numbered 1, 2, 3 and so on: look at %s", what)
		}
	}
	return nil
}

func checkRequest(what string, r PresignedRequest, method string) (*url.URL, error) {
	u, err := url.Parse(r.URL)
	switch {
	case r.Method != method:
		return nil, badManifest("the method of %s is %.20q; it must be %s", what, r.Method, method)
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.Opaque != "",
		strings.ContainsFunc(r.URL, notInURL):
		return nil, badManifest("the URL of %s is not an http or https URL", what)
	case u.User != nil || u.Fragment != "":
		return nil, badManifest("the URL of %s has a user name or a fragment, which no presigned URL has", what)
	}
	for name, value := range r.Headers {
		if !signable(name) || strings.ContainsFunc(value, notInHeader) {
			return nil, badManifest("%s has a header %.40q that OSS does not sign", what, name)
		}
	}
	return u, nil
}

func notInURL(r rune) bool { return r <= ' ' || r >= 0x7f }

func notInHeader(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }

// signable keeps a manifest from setting Host, Authorization, Transfer-Encoding and other
// headers that change where a request goes or how it is read.
func signable(name string) bool {
	name = strings.ToLower(name)
	return ossrule.IsName(name) &&
		(strings.HasPrefix(name, "x-oss-") || strings.HasPrefix(name, "content-") || name == "cache-control" || name == "expires")
}
