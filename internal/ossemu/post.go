package ossemu

import (
	"crypto/subtle"
	"encoding/xml"
	"errors"
	"io"
	"mime/multipart"
	"net/http"
	"strings"

	"upcall/internal/ossrule"
)

// formFields are the fields of a PostObject before the file. Names compare without
// case, but x: variables keep theirs, as OSS refuses upper case there.
type formFields map[string]string

func (f formFields) get(name string) string { return f[strings.ToLower(name)] }

const (
	maxFormFields = 100
	maxFormBytes  = 1 << 20 // of all fields but the file
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
				return nil, nil, badArgument("file", "", "POST requires exactly one file upload per request.", "")
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
		if left < 0 || len(form) == maxFormFields {
			return nil, nil, errMalformedPost.saying("The form fields before the file are too large or too many.", "")
		}
		if _, twice := form[name]; twice {
			// Two values would let the policy check one and the upload use the other.
			return nil, nil, badArgument(name, string(value), "The form field stands more than once.", "")
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
	p, err := s.authenticateForm(form)
	if err != nil {
		return err
	}
	form["key"] = strings.ReplaceAll(form["key"], "${filename}", file.FileName())
	if err := p.check(c.bucket, form, s.cfg.Now()); err != nil {
		return err
	}
	if c.key = form["key"]; ossrule.CheckKey(c.key) != nil {
		return errInvalidObjectName.with("ObjectName", c.key)
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

// authenticateForm checks the V4 signature over the policy and returns the policy.
func (s *Server) authenticateForm(form formFields) (policy, error) {
	encoded := form.get("policy")
	if encoded == "" && form.get("x-oss-signature") == "" {
		return policy{}, errAccessDenied
	}
	if v := form.get("x-oss-signature-version"); v != algorithmV4 {
		return policy{}, badArgument("x-oss-signature-version", v, "Unsupported signature version: "+otherVersion, "")
	}
	cred, ok := parseCredential(form.get("x-oss-credential"))
	if !ok {
		return policy{}, badArgument("x-oss-credential", form.get("x-oss-credential"), "The x-oss-credential field is not well-formed.", "")
	}
	a := authorization{credential: cred, date: form.get("x-oss-date"), signature: form.get("x-oss-signature"),
		token: form.get("x-oss-security-token"), expires: maxExpires}
	if err := s.checkScope(cred, a.date, a.token); err != nil {
		return policy{}, err
	}
	if err := s.checkTime(a); err != nil {
		return policy{}, err
	}
	// Constant time, as in authenticate.
	if subtle.ConstantTimeCompare([]byte(signV4(s.cfg.AccessKeySecret, cred, encoded)), []byte(a.signature)) != 1 {
		return policy{}, errSignature.with("OSSAccessKeyId", cred.accessKeyID, "SignatureProvided", a.signature, "StringToSign", encoded)
	}
	return parsePolicy(encoded)
}

// storeFile stores the file of a form within the bounds of its policy.
func (s *Server) storeFile(c *call, p policy, next *plan, form formFields, file *multipart.Part) (*object, error) {
	meta, err := metadataFrom(form.get)
	if err != nil {
		return nil, err
	}
	if form.get("Content-Type") == "" && file.Header.Get("Content-Type") != "" {
		meta.ContentType = file.Header.Get("Content-Type")
	}
	for name, value := range form {
		if strings.HasPrefix(name, ossrule.MetaPrefix) {
			meta.Headers[name] = value
		}
	}
	limit := min(p.maxSize, s.cfg.MaxObjectSize)
	got, err := s.store.receive(file, limit)
	if errors.Is(err, errTooLarge) {
		return nil, errEntityTooLarge.with("MaxSizeAllowed", limit)
	} else if err != nil {
		return nil, s.receiveError(err)
	}
	if got.Size < p.minSize {
		return nil, errors.Join(errEntityTooSmall.with("ProposedSize", got.Size, "MinSizeAllowed", p.minSize),
			s.store.backend.remove(got.Blob))
	}
	o := &object{Content: got, ETag: got.etag(), Type: "Normal", Meta: meta}
	return o, s.keep(c, next, o, form.get("x-oss-forbid-overwrite"))
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
