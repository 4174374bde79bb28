package ossemu

import (
	"cmp"
	"crypto/md5"
	"encoding/base64"
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
	meta, err := s.metadataFrom(c)
	if err != nil {
		return err
	}
	got, err := s.receiveBody(c)
	if err != nil {
		return err
	}
	o := &object{Content: got, ETag: got.etag(), Type: normalObject, WholeMD5: true, Meta: meta}
	if err := s.keep(c, plan, o, c.r.Header.Get("x-oss-forbid-overwrite"), errFileAlreadyExists.ec); err != nil {
		return err
	}
	c.describe(o)
	return s.finish(c, plan, o, "PutObject", func() error { return c.writeNothing(http.StatusOK) })
}

// Types of objects.
const (
	normalObject    = "Normal"
	multipartObject = "Multipart"
)

// keep makes the object of an upload visible, and reads the image values of its callback. ec
// is the EC number of errFileAlreadyExists.
func (s *Server) keep(c *call, p *plan, o *object, forbidOverwrite, ec string) error {
	if err := s.inspect(p, o.Content.Blob); err != nil {
		return err
	}
	o.Bucket, o.Key, o.LastModified = c.bucket, c.key, s.cfg.Now().UTC()
	err := s.store.put(o, forbidOverwrite == "true")
	if errors.Is(err, errFileAlreadyExists) {
		return errFileAlreadyExists.numbered(ec)
	}
	return err
}

// receiveBody stores the body of a PutObject or UploadPart and checks its MD5.
func (s *Server) receiveBody(c *call) (content, error) {
	// Neither a length nor chunks: net/http takes that for an empty body.
	if c.r.ContentLength == 0 && c.r.Header.Get("Content-Length") == "" && len(c.r.TransferEncoding) == 0 {
		return content{}, errContentLength
	}
	if c.r.ContentLength > s.cfg.MaxObjectSize {
		return content{}, tooLarge(c.r.ContentLength, s.cfg.MaxObjectSize)
	}
	got, err := s.store.receive(s.limited(c, c.r.Body), s.cfg.MaxObjectSize)
	if errors.Is(err, errTooLarge) {
		return content{}, tooLarge(s.cfg.MaxObjectSize+1, s.cfg.MaxObjectSize)
	}
	if err != nil {
		return content{}, receiveError(err)
	}
	if err := checkMD5(c.r.Header.Get("Content-MD5"), got.contentMD5()); err != nil {
		return content{}, errors.Join(err, s.store.backend.remove(got.Blob))
	}
	return got, nil
}

// checkMD5 compares a Content-MD5, if there is one, with that of what came.
func checkMD5(want, got string) error {
	if want == "" || want == got {
		return nil
	}
	if sum, err := base64.StdEncoding.DecodeString(want); err != nil || len(sum) != md5.Size {
		return errInvalidDigest
	}
	return errInvalidDigest.saying("The Content-MD5 you specified did not match what we received.", "0017-00000503").
		with("ExpectedDigest", want, "CalculatedDigest", got)
}

// receiveError tells a mistake of the uploader from a fault of the emulator.
func receiveError(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return errIncompleteBody
	}
	return fmt.Errorf("receive body: %w", err)
}

func tooLarge(proposed, limit int64) *apiError {
	return errEntityTooLarge.with("ProposedSize", proposed, "MaxSizeAllowed", limit)
}

// describe sets the headers that tell the uploader what was stored.
func (c *call) describe(o *object) {
	h := c.w.Header()
	h.Set("ETag", `"`+o.ETag+`"`)
	h.Set("x-oss-hash-crc64ecma", strconv.FormatUint(o.Content.CRC64, 10))
	if o.WholeMD5 {
		h.Set("Content-MD5", o.Content.contentMD5())
	}
	c.describeEncryption(o.Meta.Encryption)
}

func (c *call) describeEncryption(e encryption) {
	for name, value := range map[string]string{
		encryptionHeader:             e.Algorithm,
		encryptionHeader + "-key-id": e.KeyID,
		dataEncryptionHeader:         e.DataAlgorithm,
	} {
		if value != "" {
			c.w.Header().Set(name, value)
		}
	}
}

const (
	encryptionHeader     = "x-oss-server-side-encryption"
	dataEncryptionHeader = "x-oss-server-side-data-encryption"

	// defaultKeyID is that of the master key that KMS uses if none is named.
	defaultKeyID = "00000000-0000-4000-8000-000000000000"
)

// metadataFrom reads the metadata of an upload from its headers.
func (s *Server) metadataFrom(c *call) (metadata, error) {
	user := make(map[string]string)
	for name, values := range c.r.Header {
		if lower := strings.ToLower(name); strings.HasPrefix(lower, ossrule.MetaPrefix) {
			user[lower] = strings.Join(values, ",")
		}
	}
	return s.metadata(c.bucket, c.r.Header.Get, user, "0017-00000279")
}

// metadata reads an upload's metadata from its headers or form fields. user holds the
// x-oss-meta-… among them, and overwriteEC is the EC number of a wrong x-oss-forbid-overwrite.
func (s *Server) metadata(bucket string, get func(name string) string, user map[string]string, overwriteEC string) (metadata, error) {
	m := metadata{
		ContentType:  cmp.Or(get("Content-Type"), "application/octet-stream"),
		Headers:      user,
		StorageClass: get("x-oss-storage-class"),
		ACL:          get("x-oss-object-acl"),
		Tagging:      get("x-oss-tagging"),
	}
	size := 0
	for name, value := range user {
		size += len(name) - len(ossrule.MetaPrefix) + len(value)
	}
	if size > ossrule.MaxMeta {
		return metadata{}, badArgument("x-oss-meta", "", "The user metadata takes more than 8 KB.", "")
	}
	if m.StorageClass == "" {
		b, err := s.store.bucket(bucket)
		if err != nil {
			return metadata{}, err
		}
		m.StorageClass = b.StorageClass
	} else if !slices.Contains(ossrule.StorageClasses, m.StorageClass) {
		return metadata{}, errStorageClass("x-oss-storage-class", m.StorageClass)
	}
	if err := s.checkObjectACL(bucket, m.ACL); err != nil {
		return metadata{}, err
	}
	if _, err := parseQuery(m.Tagging); err != nil {
		return metadata{}, badArgument("x-oss-tagging", m.Tagging, "The tagging is not a query string of unique keys.", "")
	}
	var err error
	if m.Encryption, err = encryptionFrom(get); err != nil {
		return metadata{}, err
	}
	for _, name := range ossrule.StoredHeaders {
		if v := get(name); v != "" {
			m.Headers[name] = v
		}
	}
	if v := get("x-oss-forbid-overwrite"); v != "" && v != "true" && v != "false" {
		return metadata{}, badArgument("x-oss-forbid-overwrite", v, "The value must be true or false.", overwriteEC)
	}
	return m, nil
}

func errStorageClass(argument, value string) error {
	return badArgument(argument, value, "no such storage class: use one of "+strings.Join(ossrule.StorageClasses, ", "), "0013-00000101")
}

// encryptionFrom reads the server-side encryption that an upload asks for.
func encryptionFrom(get func(name string) string) (encryption, error) {
	e := encryption{Algorithm: get(encryptionHeader), KeyID: get(encryptionHeader + "-key-id"), DataAlgorithm: get(dataEncryptionHeader)}
	switch e.Algorithm {
	case "", "AES256", "SM4":
		if e.KeyID != "" || e.DataAlgorithm != "" {
			return encryption{}, badArgument(encryptionHeader, e.Algorithm, "A key id and a data encryption are for KMS only.", "")
		}
	case "KMS":
		if e.DataAlgorithm != "" && e.DataAlgorithm != "SM4" && e.DataAlgorithm != "AES256" {
			return encryption{}, errEncryption.with("ArgumentName", dataEncryptionHeader, "ArgumentValue", e.DataAlgorithm)
		}
		e.KeyID = cmp.Or(e.KeyID, defaultKeyID)
	default:
		return encryption{}, errEncryption.with("ArgumentName", encryptionHeader, "ArgumentValue", e.Algorithm)
	}
	return e, nil
}
