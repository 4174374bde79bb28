package ossemu

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"upcall/internal/ossrule"
)

// putObject stores the body, then calls back.
func (s *Server) putObject(c *call) error {
	// Everything that the request says is checked before anything is stored.
	plan, err := s.planFromRequest(c)
	if err != nil {
		return err
	}
	meta, err := metadataFrom(c.r.Header.Get)
	if err != nil {
		return err
	}
	meta.addUserMetadata(c.r.Header)
	got, err := s.receiveBody(c)
	if err != nil {
		return err
	}
	o := &object{Content: got, ETag: got.etag(), Type: "Normal", Meta: meta}
	if err := s.keep(c, plan, o, c.r.Header.Get("x-oss-forbid-overwrite")); err != nil {
		return err
	}
	c.describe(o)
	return s.finish(c, plan, o, "PutObject", func() error { return c.writeNothing(http.StatusOK) })
}

// keep makes the object of an upload visible, and reads what its callback is to tell.
func (s *Server) keep(c *call, p *plan, o *object, forbidOverwrite string) error {
	if err := s.inspect(p, o.Content.Blob); err != nil {
		return err
	}
	o.Bucket, o.Key, o.LastModified = c.bucket, c.key, s.cfg.Now().UTC()
	return s.store.put(o, forbidOverwrite == "true")
}

// receiveBody stores the body of a PutObject or UploadPart and checks its MD5.
func (s *Server) receiveBody(c *call) (content, error) {
	if c.r.ContentLength > s.cfg.MaxObjectSize {
		return content{}, s.tooLarge(c.r.ContentLength)
	}
	got, err := s.store.receive(c.r.Body, s.cfg.MaxObjectSize)
	if err != nil {
		return content{}, s.receiveError(err)
	}
	if want := c.r.Header.Get("Content-MD5"); want != "" && want != got.contentMD5() {
		return content{}, errors.Join(
			errInvalidDigest.saying("The Content-MD5 you specified did not match what we received.", "").
				with("ExpectedDigest", want, "CalculatedDigest", got.contentMD5()),
			s.store.backend.remove(got.Blob))
	}
	return got, nil
}

// receiveError tells what the uploader did wrong from the emulator's own trouble.
func (s *Server) receiveError(err error) error {
	switch {
	case errors.Is(err, errTooLarge):
		return s.tooLarge(s.cfg.MaxObjectSize + 1)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return errIncompleteBody
	}
	return fmt.Errorf("receive body: %w", err)
}

func (s *Server) tooLarge(proposed int64) error {
	return errEntityTooLarge.with("ProposedSize", proposed, "MaxSizeAllowed", s.cfg.MaxObjectSize)
}

// describe sets the headers that tell the uploader what was stored.
func (c *call) describe(o *object) {
	h := c.w.Header()
	h["ETag"] = []string{`"` + o.ETag + `"`} // as OSS spells it
	h.Set("x-oss-hash-crc64ecma", strconv.FormatUint(o.Content.CRC64, 10))
	if o.Type == "Normal" {
		h.Set("Content-MD5", o.Content.contentMD5())
	}
}

// metadataFrom reads an upload's metadata from its headers or form fields.
func metadataFrom(get func(name string) string) (metadata, error) {
	m := metadata{
		ContentType:  cmp.Or(get("Content-Type"), "application/octet-stream"),
		Headers:      make(map[string]string),
		StorageClass: cmp.Or(get("x-oss-storage-class"), "Standard"),
		ACL:          get("x-oss-object-acl"),
		Tagging:      get("x-oss-tagging"),
	}
	if !slices.Contains(ossrule.StorageClasses, m.StorageClass) {
		return metadata{}, badArgument("x-oss-storage-class", m.StorageClass,
			"no such storage class: use one of "+strings.Join(ossrule.StorageClasses, ", "), "")
	}
	if m.ACL != "" && !slices.Contains(ossrule.ACLs, m.ACL) {
		return metadata{}, badArgument("x-oss-object-acl", m.ACL, "no such bucket access control exists", "")
	}
	if _, err := parseQuery(m.Tagging); err != nil {
		return metadata{}, badArgument("x-oss-tagging", m.Tagging, "The tagging is not a query string of unique keys.", "")
	}
	for _, name := range ossrule.StoredHeaders {
		if v := get(name); v != "" {
			m.Headers[name] = v
		}
	}
	if v := get("x-oss-forbid-overwrite"); v != "" && v != "true" && v != "false" {
		return metadata{}, badArgument("x-oss-forbid-overwrite", v, "The value must be true or false.", "")
	}
	return m, nil
}

// addUserMetadata keeps the x-oss-meta-* headers.
func (m metadata) addUserMetadata(header http.Header) {
	for name, values := range header {
		if lower := strings.ToLower(name); strings.HasPrefix(lower, ossrule.MetaPrefix) {
			m.Headers[lower] = strings.Join(values, ",")
		}
	}
}
