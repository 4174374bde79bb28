package uploader

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"

	"upcall/internal/issue"
)

// MaxManifest is the longest manifest, in bytes. One of 10,000 parts takes about eight
// million, and five times that where the key is as long as can be.
const MaxManifest = 64 << 20

// OSS's limits.
const (
	maxParts    = 10000
	listedParts = 1000 // in one answer
)

var (
	// ErrManifest means that a manifest is none, or asks for what no upload needs.
	ErrManifest = errors.New("bad manifest")
	// ErrSize means that the manifest is for a file of another size.
	ErrSize = errors.New("the manifest does not fit the file")
)

func badManifest(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrManifest}, args...)...)
}

// A Manifest allows one upload. Exactly one of its fields is set.
type Manifest struct {
	Put       *issue.Upload    // what `issuer put --format json` prints
	Multipart *issue.Multipart // what `issuer multipart create` prints
}

// ReadManifest reads a manifest, or a presigned URL alone, and checks it. The error
// wraps ErrManifest and never holds a URL, as whoever has that may upload.
func ReadManifest(r io.Reader) (Manifest, error) {
	var read bytes.Buffer
	if file, ok := r.(*os.File); ok {
		// A large one is not to be copied from buffer to larger buffer.
		if info, err := file.Stat(); err == nil && info.Mode().IsRegular() {
			read.Grow(int(min(info.Size(), MaxManifest)) + bytes.MinRead)
		}
	}
	if _, err := read.ReadFrom(io.LimitReader(r, MaxManifest+1)); err != nil {
		return Manifest{}, fmt.Errorf("read manifest: %w", err)
	}
	text := bytes.TrimSpace(read.Bytes())
	if read.Len() > MaxManifest {
		return Manifest{}, badManifest("it is longer than %d bytes; give the JSON of `issuer put` or `issuer multipart create`", MaxManifest)
	}
	if bytes.HasPrefix(text, []byte("http://")) || bytes.HasPrefix(text, []byte("https://")) {
		m := Manifest{Put: &issue.Upload{Method: http.MethodPut, URL: string(text)}}
		return m, m.Check()
	}
	// The two kinds share upload_id and more; what only one of them has tells them apart.
	var kind struct {
		URL   *present `json:"url"`
		Parts *present `json:"parts"`
	}
	if err := json.Unmarshal(text, &kind); err != nil {
		return Manifest{}, badManifest("it is neither a URL nor a JSON object; give the JSON of `issuer put --format json` or `issuer multipart create`")
	}
	var m Manifest
	var err error
	switch {
	case kind.URL != nil && kind.Parts != nil:
		return Manifest{}, badManifest("it has both a url and parts; give one upload")
	case kind.URL != nil:
		m.Put = new(issue.Upload)
		err = json.Unmarshal(text, m.Put)
	case kind.Parts != nil:
		m.Multipart = new(issue.Multipart)
		err = json.Unmarshal(text, m.Multipart)
	default:
		return Manifest{}, badManifest("it has neither a url nor parts; give the JSON of `issuer put --format json` or `issuer multipart create`")
	}
	if err != nil {
		return Manifest{}, badManifest("%s", jsonProblem(err))
	}
	return m, m.Check()
}

// present is a value of which nothing but that it is there is of interest.
type present struct{}

func (*present) UnmarshalJSON([]byte) error { return nil }

// jsonProblem says what is wrong with a document and nothing that stands in it.
func jsonProblem(err error) string {
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return fmt.Sprintf("%s is a %s, which it cannot be", cmp.Or(wrong.Field, "it"), wrong.Value)
	}
	return "a value has not the form that it must have, such as a UUID or an RFC 3339 time"
}

// Check returns an error that wraps ErrManifest for anything but the requests of one
// upload. Manifests come from elsewhere: one that names other methods, addresses or
// headers would have this machine send requests of somebody's choice, or the file to
// somebody's server.
func (m Manifest) Check() error {
	switch {
	case (m.Put == nil) == (m.Multipart == nil):
		return badManifest("it is for no upload, or for two")
	case m.Put != nil:
		_, err := checkRequest("the upload", issue.PresignedRequest{Method: m.Put.Method, URL: m.Put.URL, Headers: m.Put.Headers}, http.MethodPut)
		return err
	}
	return checkMultipart(m.Multipart)
}

func checkMultipart(m *issue.Multipart) error {
	switch {
	case m.OSSUploadID == "":
		return badManifest("it has no oss_upload_id")
	case len(m.Parts) == 0 || len(m.Parts) > maxParts:
		return badManifest("it has %d parts; OSS takes 1 to %d", len(m.Parts), maxParts)
	case m.PartSize <= 0:
		return badManifest("its part_size is %d", m.PartSize)
	}
	complete, err := checkRequest("complete", m.Complete, http.MethodPost)
	if err != nil {
		return err
	}
	o := oneUpload{m.OSSUploadID, complete}
	if _, err := o.check("complete", m.Complete, http.MethodPost); err != nil {
		return err
	}
	if _, err := o.check("abort", m.Abort, http.MethodDelete); err != nil {
		return err
	}
	if m.Head != nil {
		if _, err := o.sameObject("head", *m.Head, http.MethodHead); err != nil {
			return err
		}
	}
	if err := o.checkLists(m); err != nil {
		return err
	}
	return o.checkParts(m.Parts)
}

// oneUpload is what all requests of a manifest must be about.
type oneUpload struct {
	id       string   // OSS's
	complete *url.URL // the object's, with another query
}

// sameObject checks a request. Were it allowed to be about another object, one part among
// thousands could go to a server of somebody else's.
func (o oneUpload) sameObject(what string, r issue.PresignedRequest, method string) (url.Values, error) {
	u, err := checkRequest(what, r, method)
	if err != nil {
		return nil, err
	}
	if u.Scheme != o.complete.Scheme || u.Host != o.complete.Host || u.EscapedPath() != o.complete.EscapedPath() {
		return nil, badManifest("%s goes elsewhere than complete; all requests must be about one object", what)
	}
	return u.Query(), nil
}

// check is sameObject for the requests that are about the upload as well.
func (o oneUpload) check(what string, r issue.PresignedRequest, method string) (url.Values, error) {
	query, err := o.sameObject(what, r, method)
	if err == nil && query.Get("uploadId") != o.id {
		err = badManifest("%s is not about the upload %.40q", what, o.id)
	}
	return query, err
}

// checkLists accepts fewer pages than there may be parts for: what no page lists is sent
// again.
func (o oneUpload) checkLists(m *issue.Multipart) error {
	pages := listPages(m)
	if most := (len(m.Parts) + listedParts - 1) / listedParts; len(pages) > most {
		return badManifest("it has %d lists in list_parts_next; %d parts take %d", len(m.ListPartsNext), len(m.Parts), most-1)
	}
	for i, page := range pages {
		what, after := "list_parts", ""
		if i > 0 {
			what, after = fmt.Sprintf("list_parts_next %d", i), strconv.Itoa(i*listedParts)
		}
		query, err := o.check(what, page, http.MethodGet)
		switch {
		case err != nil:
			return err
		case query.Get("part-number-marker") != after:
			return badManifest("%s does not begin behind part %d", what, i*listedParts)
		}
	}
	return nil
}

func (o oneUpload) checkParts(parts []issue.Part) error {
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

// listPages are the requests that list the parts which are there.
func listPages(m *issue.Multipart) []issue.PresignedRequest {
	return append([]issue.PresignedRequest{m.ListParts}, m.ListPartsNext...)
}

func checkRequest(what string, r issue.PresignedRequest, method string) (*url.URL, error) {
	u, err := url.Parse(r.URL)
	switch {
	case r.Method != method:
		return nil, badManifest("the method of %s is %.20q; it must be %s", what, r.Method, method)
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.Opaque != "" || strings.ContainsFunc(r.URL, notInURL):
		return nil, badManifest("the URL of %s is no http or https URL", what)
	case u.User != nil || u.Fragment != "":
		return nil, badManifest("the URL of %s has a user name or a fragment, which no presigned URL has", what)
	}
	for name, value := range r.Headers {
		if !signable(name) || !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value) {
			return nil, badManifest("%s has a header %.40q that OSS does not sign", what, name)
		}
	}
	return u, nil
}

func notInURL(r rune) bool { return r <= ' ' || r >= 0x7f }

// signable keeps a manifest from setting Host, Authorization, Transfer-Encoding and
// whatever else changes where a request goes or how it is read.
func signable(name string) bool {
	name = strings.ToLower(name)
	return strings.HasPrefix(name, "x-oss-") || strings.HasPrefix(name, "content-") || name == "cache-control" || name == "expires"
}

// callsBack says whether OSS will answer with what a callback's receiver said. It looks
// at what is sent, not at what the manifest says of it.
func callsBack(r issue.PresignedRequest) bool {
	for name := range r.Headers {
		if strings.EqualFold(name, "x-oss-callback") {
			return true
		}
	}
	u, err := url.Parse(r.URL)
	return err == nil && u.Query().Has("callback")
}

// A piece is a section of the file that one request sends.
type piece struct {
	number       int // 1 for a single PUT
	offset, size int64
	request      issue.PresignedRequest
}

// Fit returns an error that wraps ErrSize if the manifest is not for a file of size
// bytes. [Manifest.Check] comes first.
func (m Manifest) Fit(size int64) error {
	_, err := m.pieces(size)
	return err
}

// pieces divides a file of size bytes.
func (m Manifest) pieces(size int64) ([]piece, error) {
	var pieces []piece
	if m.Put != nil {
		pieces = []piece{{1, 0, size, issue.PresignedRequest{Method: m.Put.Method, URL: m.Put.URL, Headers: m.Put.Headers}}}
	} else {
		var err error
		if pieces, err = parts(m.Multipart, size); err != nil {
			return nil, err
		}
	}
	for _, p := range pieces {
		for name, value := range p.request.Headers {
			if strings.EqualFold(name, "content-length") && value != strconv.FormatInt(p.size, 10) {
				return nil, fmt.Errorf("%w: it allows %.20q bytes, and there are %d to send; get another one", ErrSize, value, p.size)
			}
		}
	}
	return pieces, nil
}

func parts(m *issue.Multipart, size int64) ([]piece, error) {
	if m.Size != nil && *m.Size != size {
		return nil, fmt.Errorf("%w: it is for %d bytes, and the file has %d; get another one", ErrSize, *m.Size, size)
	}
	// Where parts were only counted, they are of one size, and as large as it takes.
	count := int64(len(m.Parts))
	each := max(m.PartSize, (size+count-1)/count)
	var pieces []piece
	var offset int64
	for i, part := range m.Parts {
		n := min(each, size-offset)
		if part.Size != nil {
			n = *part.Size
		} else if n == 0 && i > 0 {
			break // fewer parts than were counted
		}
		if n < 0 || n == 0 && i > 0 || n > size-offset {
			break
		}
		pieces = append(pieces, piece{i + 1, offset, n, part.PresignedRequest})
		offset += n
	}
	if offset != size || len(pieces) < len(m.Parts) && m.Parts[len(pieces)].Size != nil {
		return nil, fmt.Errorf("%w: the sizes of its %d parts do not make up the file's %d bytes; get another one", ErrSize, count, size)
	}
	return pieces, nil
}
