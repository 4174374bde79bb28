package ossemu

import (
	"cmp"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"upcall/internal/ossrule"
)

// maxCompleteRequest is in bytes of XML; ten thousand parts take about one million.
const maxCompleteRequest = 4 << 20

func (s *Server) initiateUpload(c *call) error {
	encode, err := encoder(c.query)
	if err != nil {
		return err
	}
	meta, err := s.metadataFrom(c)
	if err != nil {
		return err
	}
	if c.r.Header.Get("x-oss-forbid-overwrite") == "true" {
		if _, err := s.store.get(c.bucket, c.key); err == nil {
			return errFileAlreadyExists
		}
	}
	u := &upload{Bucket: c.bucket, Key: c.key, Meta: meta, Sequential: c.query.has("sequential"), Initiated: s.cfg.Now().UTC()}
	if err := s.store.initiate(u); err != nil {
		return err
	}
	c.describeEncryption(meta.Encryption)
	return c.writeXML(http.StatusOK, struct {
		XMLName               xml.Name `xml:"InitiateMultipartUploadResult"`
		EncodingType          string   `xml:",omitempty"`
		Bucket, Key, UploadId string
	}{EncodingType: c.query["encoding-type"], Bucket: c.bucket, Key: encode(c.key), UploadId: u.ID})
}

func (s *Server) uploadPart(c *call) error {
	number, err := strconv.Atoi(c.query["partNumber"])
	if c.query["partNumber"] == "" {
		return badArgument("ResourceType", "partNumber", "Unexpected query string parameter", "0017-00000219")
	}
	if err != nil || number < 1 || number > ossrule.MaxParts {
		return badArgument("PartNumber", c.query["partNumber"],
			"Part number must be an integer between 1 and 10000, inclusive.", "0017-00000220")
	}
	u, _, err := s.store.listParts(c.query["uploadId"], c.bucket, c.key)
	if err != nil {
		return noUploadFor("0042-00000104", err)
	}
	got, err := s.receiveBody(c)
	if err != nil {
		return err
	}
	p := &part{UploadID: c.query["uploadId"], Number: number, Content: got, LastModified: s.cfg.Now().UTC()}
	if err := s.store.putPart(c.bucket, c.key, p); err != nil {
		return noUploadFor("0042-00000104", err)
	}
	h := c.w.Header()
	h.Set("ETag", `"`+got.etag()+`"`)
	h.Set("x-oss-hash-crc64ecma", strconv.FormatUint(got.CRC64, 10))
	h.Set("Content-MD5", got.contentMD5())
	c.describeEncryption(u.Meta.Encryption)
	return c.writeNothing(http.StatusOK)
}

// noUploadFor gives errNoSuchUpload the EC number of an operation.
func noUploadFor(ec string, err error) error {
	if e, ok := errors.AsType[*apiError](err); ok && e.code == errNoSuchUpload.code {
		return e.numbered(ec)
	}
	return err
}

type partXML struct {
	PartNumber         int
	LastModified, ETag string
	HashCrc64ecma      uint64
	Size               int64
}

// clientEncryptionXML is what ListParts repeats of an upload that the client encrypts, so
// that another process can resume it.
type clientEncryptionXML struct {
	ClientEncryptionKey, ClientEncryptionStart         string `xml:",omitempty"`
	ClientEncryptionCekAlg, ClientEncryptionWrapAlg    string `xml:",omitempty"`
	ClientEncryptionDataSize, ClientEncryptionPartSize string `xml:",omitempty"`
}

func clientEncryptionOf(m metadata) clientEncryptionXML {
	of := func(name string) string { return m.Headers[ossrule.MetaPrefix+"client-side-encryption-"+name] }
	return clientEncryptionXML{of("key"), of("start"), of("cek-alg"), of("wrap-alg"), of("data-size"), of("part-size")}
}

func (s *Server) listParts(c *call) error {
	encode, err := encoder(c.query)
	if err != nil {
		return err
	}
	limit, err := numberArgument(c.query, "max-parts", 1000, 1, 1000, "")
	if err != nil {
		return err
	}
	marker, err := numberArgument(c.query, "part-number-marker", 0, 0, math.MaxInt32, "")
	if err != nil {
		return err
	}
	u, parts, err := s.store.listParts(c.query["uploadId"], c.bucket, c.key)
	if err != nil {
		return err
	}
	result := struct {
		XMLName                                xml.Name `xml:"ListPartsResult"`
		EncodingType                           string   `xml:",omitempty"`
		Bucket, Key, UploadId, StorageClass    string
		PartNumberMarker, NextPartNumberMarker int
		MaxParts                               int
		IsTruncated                            bool
		clientEncryptionXML
		Part []partXML
	}{EncodingType: c.query["encoding-type"], Bucket: c.bucket, Key: encode(c.key), UploadId: u.ID,
		StorageClass: u.Meta.StorageClass, PartNumberMarker: marker, MaxParts: limit, clientEncryptionXML: clientEncryptionOf(u.Meta)}
	for _, p := range parts {
		if p.Number <= marker {
			continue
		}
		if len(result.Part) == limit {
			result.IsTruncated = true
			break
		}
		result.NextPartNumberMarker = p.Number
		etag := `"` + p.Content.etag() + `"`
		result.Part = append(result.Part, partXML{p.Number, formatTime(p.LastModified), etag, p.Content.CRC64, p.Content.Size})
	}
	return c.writeXML(http.StatusOK, result)
}

func (s *Server) abortUpload(c *call) error {
	u, err := s.store.begin(c.query["uploadId"], c.bucket, c.key)
	if err != nil {
		return err
	}
	if err := s.store.forget(u); err != nil {
		return err
	}
	return c.writeNothing(http.StatusNoContent)
}

// completeUpload joins the parts into an object, then calls back. With a callback the
// receiver's answer replaces the usual XML.
func (s *Server) completeUpload(c *call) error {
	plan, err := s.planFromRequest(c)
	if err != nil {
		return err
	}
	encode, err := encoder(c.query)
	if err != nil {
		return err
	}
	acl := c.r.Header.Get("x-oss-object-acl")
	if err := s.checkObjectACL(c.bucket, acl); err != nil {
		return err
	}
	u, err := s.store.begin(c.query["uploadId"], c.bucket, c.key)
	if err != nil {
		return noUploadFor("", err) // this operation's number is not documented
	}
	o, err := s.assemble(c, plan, u)
	if err != nil {
		s.store.end(u)
		return err
	}
	if err := s.store.forget(u); err != nil {
		return err
	}
	c.describe(o)
	return s.finish(c, plan, o, "CompleteMultipartUpload", func() error {
		return c.writeXML(http.StatusOK, struct {
			XMLName                     xml.Name `xml:"CompleteMultipartUploadResult"`
			EncodingType                string   `xml:",omitempty"`
			Location, Bucket, Key, ETag string
		}{EncodingType: c.query["encoding-type"], Location: c.location(), Bucket: c.bucket, Key: encode(c.key), ETag: `"` + o.ETag + `"`})
	})
}

// assemble makes the object of a reserved upload.
func (s *Server) assemble(c *call, p *plan, u *upload) (*object, error) {
	parts, err := s.chooseParts(c, u)
	if err != nil {
		return nil, err
	}
	limit := int64(math.MaxInt64 - 1)
	if s.cfg.DataDir == "" {
		limit = s.cfg.MaxObjectSize
	}
	joined, etag, err := s.store.join(parts, limit)
	if errors.Is(err, errTooLarge) {
		return nil, tooLarge(limit+1, limit)
	} else if err != nil {
		return nil, fmt.Errorf("join parts: %w", err)
	}
	o := &object{Content: joined, ETag: etag, Type: multipartObject, WholeMD5: u.Sequential, Meta: u.Meta}
	o.Meta.ACL = cmp.Or(c.r.Header.Get("x-oss-object-acl"), u.Meta.ACL)
	return o, s.keep(c, p, o, c.r.Header.Get("x-oss-forbid-overwrite"), "0042-00000214")
}

// chooseParts returns the parts that the request lists, or all with
// x-oss-complete-all: yes, after OSS's checks. None make an empty object.
func (s *Server) chooseParts(c *call, u *upload) ([]*part, error) {
	body, err := io.ReadAll(io.LimitReader(c.r.Body, maxCompleteRequest+1))
	if err != nil {
		return nil, receiveError(err)
	}
	var chosen []*part
	if c.r.Header.Get("x-oss-complete-all") == "yes" {
		if len(strings.TrimSpace(string(body))) > 0 {
			return nil, badArgument("x-oss-complete-all", "yes", "Should not speficy both complete all header and http body.",
				"0042-00000216")
		}
		chosen = u.sorted()
	} else if chosen, err = listedParts(body, u); err != nil {
		return nil, err
	}
	for _, p := range chosen[:max(0, len(chosen)-1)] {
		if p.Content.Size < s.cfg.MinPartSize {
			return nil, errEntityTooSmall.numbered("0042-00000213").with("ProposedSize", p.Content.Size,
				"MinSizeAllowed", s.cfg.MinPartSize, "PartNumber", p.Number)
		}
	}
	return chosen, nil
}

func listedParts(body []byte, u *upload) ([]*part, error) {
	var list struct {
		XMLName xml.Name `xml:"CompleteMultipartUpload"`
		Part    []struct {
			PartNumber int
			ETag       string
		}
	}
	if len(body) > maxCompleteRequest || xml.Unmarshal(body, &list) != nil {
		return nil, errMalformedXML.numbered("0042-00000205")
	}
	var chosen []*part
	last := 0
	for _, want := range list.Part {
		if want.PartNumber <= last {
			return nil, errInvalidPartOrder
		}
		last = want.PartNumber
		p := u.parts[want.PartNumber]
		if p == nil || !strings.EqualFold(strings.Trim(want.ETag, `"`), p.Content.etag()) {
			return nil, errInvalidPart.with("ETag", want.ETag, "PartNumber", want.PartNumber, "UploadId", u.ID)
		}
		chosen = append(chosen, p)
	}
	return chosen, nil
}

// location is the URL of the request's object, in the style of the request.
func (c *call) location() string {
	u := url.URL{Scheme: "http", Host: c.r.Host, Path: c.r.URL.Path}
	if c.r.TLS != nil {
		u.Scheme = "https"
	}
	if c.level == levelBucket { // PostObject names the key in the form
		u.Path = strings.TrimSuffix(u.Path, "/") + "/" + c.key
	}
	return u.String()
}

type uploadXML struct{ Key, UploadId, StorageClass, Initiated string }

func (s *Server) listUploads(c *call) error {
	q := c.query
	encode, err := encoder(q)
	if err != nil {
		return err
	}
	limit, err := numberArgument(q, "max-uploads", 1000, 1, 1000, "")
	if err != nil {
		return err
	}
	result := struct {
		XMLName                           xml.Name `xml:"ListMultipartUploadsResult"`
		EncodingType                      string   `xml:",omitempty"`
		Bucket, KeyMarker, UploadIdMarker string
		NextKeyMarker, NextUploadIdMarker string
		Delimiter, Prefix                 string
		MaxUploads                        int
		IsTruncated                       bool
		Upload                            []uploadXML
		CommonPrefixes                    []prefixXML
	}{EncodingType: q["encoding-type"], Bucket: c.bucket, KeyMarker: encode(q["key-marker"]), UploadIdMarker: q["upload-id-marker"],
		Delimiter: encode(q["delimiter"]), Prefix: encode(q["prefix"]), MaxUploads: limit}
	last := ""
	for _, u := range s.store.listUploads(c.bucket, q["prefix"]) {
		key, id := q["key-marker"], q["upload-id-marker"]
		if u.Key < key || u.Key == key && (id == "" || u.ID <= id) && q.has("key-marker") {
			continue
		}
		common := commonPrefix(u.Key, q["prefix"], q["delimiter"])
		if common != "" && (common == last || common == key) {
			continue
		}
		if len(result.Upload)+len(result.CommonPrefixes) == limit {
			result.IsTruncated = true
			break
		}
		if common != "" {
			last = common
			result.NextKeyMarker, result.NextUploadIdMarker = encode(common), ""
			result.CommonPrefixes = append(result.CommonPrefixes, prefixXML{encode(common)})
			continue
		}
		result.NextKeyMarker, result.NextUploadIdMarker = encode(u.Key), u.ID
		result.Upload = append(result.Upload, uploadXML{encode(u.Key), u.ID, u.Meta.StorageClass, formatTime(u.Initiated)})
	}
	return c.writeXML(http.StatusOK, result)
}
