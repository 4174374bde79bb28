package ossemu

import (
	"encoding/xml"
	"errors"
	"io"
	"math"
	"mime/multipart"
	"net/http"
	"strings"
	"time"

	"upcall/internal/ossrule"
)

// formFields are the fields of a PostObject before the file. Names compare without
// case, but x: variables keep theirs, because OSS refuses upper case there.
type formFields map[string]string

func (f formFields) get(name string) string { return f[strings.ToLower(name)] }

const (
	maxFormFields = 100
	maxFormBytes  = 8 << 20 // of all fields but the file, as with OSS
)

// readForm reads a form up to its file, which must be the last field, and leaves the
// file to be streamed.
func readForm(r *multipart.Reader) (formFields, *multipart.Part, error) {
	form := formFields{}
	left := maxFormBytes
	for {
		p, err := r.NextRawPart()
		if err != nil {
			if errors.Is(err, io.EOF) {
				return nil, nil, badArgument("file", "", "POST requires exactly one file upload per request.", "0006-00000107")
			}
			return nil, nil, errMalformedPost
		}
		name := p.FormName()
		if name == "file" {
			return form, p, nil
		}
		if !strings.HasPrefix(strings.ToLower(name), "x:") {
			name = strings.ToLower(name)
		}
		value, err := io.ReadAll(io.LimitReader(p, int64(left)+1))
		if err != nil || name == "" {
			return nil, nil, errMalformedPost
		}
		left -= len(value)
		if left < 0 {
			return nil, nil, errMalformedPost.saying("The form fields before the file take more than 8 MB.", "0006-00000112")
		}
		if len(form) == maxFormFields {
			return nil, nil, errMalformedPost.saying("The form has too many fields before the file.", "")
		}
		if _, twice := form[name]; twice {
			// Two values would let the policy check one and the upload use the other.
			return nil, nil, badArgument(name, string(value), "The form field appears more than once.", "")
		}
		form[name] = string(value)
	}
}

// postObject takes an HTML form's upload: the policy is checked, then the file stored.
func (s *Server) postObject(c *call) error {
	reader, err := c.r.MultipartReader()
	if err != nil {
		return errMalformedPost
	}
	form, file, err := readForm(reader)
	if err != nil {
		return err
	}
	p, err := s.authenticateForm(c.bucket, form)
	if err != nil {
		return err
	}
	form["key"] = strings.ReplaceAll(form["key"], "${filename}", file.FileName())
	if err := p.check(c.bucket, form, s.cfg.Now()); err != nil {
		return err
	}
	c.key = form["key"]
	if err := checkKey(c.key); err != nil {
		return err
	}
	if form.get("success_action_redirect") != "" {
		// A redirect to wherever the form says would make this an open redirector.
		return errNotImplemented.with("Header", "success_action_redirect")
	}
	plan, err := s.planFromForm(c, form)
	if err != nil {
		return err
	}
	o, err := s.storeFile(c, p, plan, form, file)
	if err != nil {
		return err
	}
	c.describe(o)
	return s.finish(c, plan, o, "PostObject", func() error { return c.answerForm(form.get("success_action_status"), o) })
}

// authenticateForm checks the V4 signature over the policy and returns the policy. A bucket
// that anyone may write to needs neither.
func (s *Server) authenticateForm(bucket string, form formFields) (policy, error) {
	encoded := form.get("policy")
	if encoded == "" && form.get("x-oss-signature") == "" {
		b, err := s.store.bucket(bucket)
		if err == nil && (b.ACL != aclPublicReadWrite || b.blocksPublic()) {
			err = errAccessDenied
		}
		return policy{expiration: s.cfg.Now().Add(time.Hour), maxSize: math.MaxInt64}, err
	}
	if v := form.get("x-oss-signature-version"); v != algorithmV4 {
		return policy{}, badArgument("x-oss-signature-version", v, "Unsupported signature version: "+otherVersion, inForm.version)
	}
	cred, ok := parseCredential(form.get("x-oss-credential"))
	if !ok {
		return policy{}, badArgument("x-oss-credential", form.get("x-oss-credential"),
			"The x-oss-credential field is not well-formed.", inForm.credential)
	}
	a := &authorization{credential: cred, from: inForm, date: form.get("x-oss-date"), signature: form.get("x-oss-signature"),
		token: form.get("x-oss-security-token"), expires: ossrule.MaxExpiry}
	if a.signature == "" {
		ec := inForm.noSignature
		if _, given := form["x-oss-signature"]; given {
			ec = inForm.signature
		}
		return policy{}, badArgument("x-oss-signature", "", "The x-oss-signature field is missing or empty.", ec)
	}
	if a.date == "" {
		return policy{}, errNoDate
	}
	var err error
	if a.signed, err = parseDate(isoTime, a.date); err != nil {
		return policy{}, err
	}
	secret, err := s.checkScope(a)
	if err != nil {
		return policy{}, err
	}
	if err := s.checkTime(a); err != nil {
		return policy{}, err
	}
	if !a.signs(encoded, secret) {
		return policy{}, errSignature.numbered(inForm.mismatch).
			with("OSSAccessKeyId", cred.accessKeyID, "SignatureProvided", a.signature, "StringToSign", encoded)
	}
	return parsePolicy(encoded)
}

// storeFile stores the file of a form within the bounds of its policy.
func (s *Server) storeFile(c *call, p policy, next *plan, form formFields, file *multipart.Part) (*object, error) {
	user := make(map[string]string)
	for name, value := range form {
		if strings.HasPrefix(name, ossrule.MetaPrefix) {
			user[name] = value
		}
	}
	meta, err := s.metadata(c.bucket, form.get, user, "0006-00000117")
	if err != nil {
		return nil, err
	}
	if form.get("Content-Type") == "" && file.Header.Get("Content-Type") != "" {
		meta.ContentType = file.Header.Get("Content-Type")
	}
	limit := min(p.maxSize, s.cfg.MaxObjectSize)
	got, err := s.store.receive(s.limited(c, file), limit)
	if errors.Is(err, errTooLarge) {
		return nil, errEntityTooLarge.numbered("0006-00000003").with("MaxSizeAllowed", limit)
	} else if err != nil {
		return nil, receiveError(err)
	}
	if got.Size < p.minSize {
		return nil, errors.Join(errEntityTooSmall.numbered("0006-00000004").with("ProposedSize", got.Size, "MinSizeAllowed", p.minSize),
			s.store.backend.remove(got.Blob))
	}
	o := &object{Content: got, ETag: got.etag(), Type: normalObject, WholeMD5: true, Meta: meta}
	return o, s.keep(c, next, o, form.get("x-oss-forbid-overwrite"), "")
}

// answerForm is the answer to a form without a callback.
func (c *call) answerForm(status string, o *object) error {
	switch status {
	case "201":
		return c.writeXML(http.StatusCreated, struct {
			XMLName                     xml.Name `xml:"PostResponse"`
			Bucket, Location, Key, ETag string
		}{Bucket: o.Bucket, Location: c.location(), Key: o.Key, ETag: `"` + o.ETag + `"`})
	case "200":
		return c.writeNothing(http.StatusOK)
	}
	return c.writeNothing(http.StatusNoContent)
}
