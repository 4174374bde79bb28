package ossemu

import (
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// ownerID stands for the account that owns every bucket and makes every request.
const ownerID = "1000000000000001"

const xmlTime = "2006-01-02T15:04:05.000Z"

type ownerXML struct{ ID, DisplayName string }

type objectXML struct {
	Key, LastModified, ETag, Type string
	Size                          int64
	StorageClass                  string
	Owner                         *ownerXML `xml:",omitempty"`
}

type prefixXML struct{ Prefix string }

// A page is what the three operations that list objects share: some objects and groups of
// them, in order.
type page struct {
	EncodingType   string `xml:",omitempty"`
	Name           string
	Prefix         string
	Delimiter      string
	MaxKeys        int
	IsTruncated    bool
	Contents       []objectXML `xml:",omitempty"`
	CommonPrefixes []prefixXML `xml:",omitempty"`

	last   string              // key or group, not encoded
	encode func(string) string // for further names in the same answer
}

// listPage lists objects after a key, with the parameters that all three operations have.
// done reports whether a group was on an earlier page. ec is the number of a wrong max-keys.
func (s *Server) listPage(c *call, after string, done func(group string) bool, owned bool, ec string) (page, error) {
	q := c.query
	limit, err := numberArgument(q, "max-keys", 100, 1, 1000, ec)
	if err != nil {
		return page{}, err
	}
	encode, err := encoder(q)
	if err != nil {
		return page{}, err
	}
	p := page{EncodingType: q["encoding-type"], Name: c.bucket, Prefix: encode(q["prefix"]), Delimiter: encode(q["delimiter"]),
		MaxKeys: limit, encode: encode}
	group := ""
	for _, o := range s.store.list(c.bucket, q["prefix"], after) {
		common := commonPrefix(o.Key, q["prefix"], q["delimiter"])
		if common != "" && (common == group || done(common)) {
			continue
		}
		if len(p.Contents)+len(p.CommonPrefixes) == limit {
			p.IsTruncated = true
			break
		}
		if common != "" {
			group, p.last = common, common
			p.CommonPrefixes = append(p.CommonPrefixes, prefixXML{encode(common)})
			continue
		}
		p.last = o.Key
		item := objectXML{Key: encode(o.Key), LastModified: formatTime(o.LastModified), ETag: `"` + o.ETag + `"`,
			Type: o.Type, Size: o.Content.Size, StorageClass: o.Meta.StorageClass}
		if owned {
			item.Owner = &owner
		}
		p.Contents = append(p.Contents, item)
	}
	return p, nil
}

// listObjects is ListObjects, version 1.
func (s *Server) listObjects(c *call) error {
	marker := c.query["marker"]
	p, err := s.listPage(c, marker, func(group string) bool { return group == marker }, true, "0015-00000402")
	if err != nil {
		return err
	}
	result := struct {
		XMLName xml.Name `xml:"ListBucketResult"`
		Marker  string
		page
		NextMarker string `xml:",omitempty"`
	}{Marker: p.encode(marker), page: p}
	if p.IsTruncated {
		result.NextMarker = p.encode(p.last)
	}
	return c.writeXML(http.StatusOK, result)
}

// listObjectsV2 is ListObjectsV2.
func (s *Server) listObjectsV2(c *call) error {
	q := c.query
	after, token := q["start-after"], q["continuation-token"]
	if token != "" {
		last, err := base64.URLEncoding.DecodeString(token)
		if err != nil {
			return badArgument("continuation-token", token, "The continuation token is not one that this server gave.", "0015-00000404")
		}
		after = string(last)
	}
	listed := func(group string) bool { return token != "" && strings.HasPrefix(after, group) }
	p, err := s.listPage(c, after, listed, q["fetch-owner"] == "true", "0015-00000402")
	if err != nil {
		return err
	}
	result := struct {
		XMLName           xml.Name `xml:"ListBucketResult"`
		StartAfter        string   `xml:",omitempty"`
		ContinuationToken string   `xml:",omitempty"`
		page
		NextContinuationToken string `xml:",omitempty"`
		KeyCount              int
	}{StartAfter: p.encode(q["start-after"]), ContinuationToken: token, page: p, KeyCount: len(p.Contents) + len(p.CommonPrefixes)}
	if p.IsTruncated {
		result.NextContinuationToken = base64.URLEncoding.EncodeToString([]byte(p.last))
	}
	return c.writeXML(http.StatusOK, result)
}

// nullVersion is the version of each object in a bucket without versions.
const nullVersion = "null"

// listVersions is ListObjectVersions of buckets that never had versions.
func (s *Server) listVersions(c *call) error {
	marker := c.query["key-marker"]
	p, err := s.listPage(c, marker, func(group string) bool { return group == marker }, true, "0012-00000102")
	if err != nil {
		return err
	}
	type version struct {
		objectXML
		VersionId string
		IsLatest  bool
	}
	result := struct {
		XMLName                    xml.Name `xml:"ListVersionsResult"`
		KeyMarker, VersionIdMarker string
		page
		NextKeyMarker       string `xml:",omitempty"`
		NextVersionIdMarker string `xml:",omitempty"`
		Version             []version
	}{KeyMarker: p.encode(marker), VersionIdMarker: c.query["version-id-marker"], page: p}
	for _, o := range p.Contents {
		result.Version = append(result.Version, version{o, nullVersion, true})
	}
	result.Contents = nil
	if p.IsTruncated {
		result.NextKeyMarker, result.NextVersionIdMarker = p.encode(p.last), nullVersion
	}
	return c.writeXML(http.StatusOK, result)
}

// commonPrefix is the group that a key belongs to under a delimiter, or "".
func commonPrefix(key, prefix, delimiter string) string {
	if delimiter == "" {
		return ""
	}
	head, _, found := strings.Cut(key[len(prefix):], delimiter)
	if !found {
		return ""
	}
	return prefix + head + delimiter
}

// numberArgument reads a numeric parameter; ec is that of a wrong one.
func numberArgument(q query, name string, fallback, least, most int, ec string) (int, error) {
	if !q.has(name) {
		return fallback, nil
	}
	n, err := strconv.Atoi(q[name])
	if err != nil || n < least || n > most {
		return 0, badArgument(name, q[name], fmt.Sprintf("Argument %s must be an integer between %d and %d.", name, least, most), ec)
	}
	return n, nil
}

// encoder returns how a result writes names: plain, or percent-encoded, because XML cannot
// hold every character.
func encoder(q query) (func(string) string, error) {
	switch q["encoding-type"] {
	case "":
		return hideControls, nil
	case "url":
		return escapePath, nil
	}
	return nil, badArgument("encoding-type", q["encoding-type"], "Invalid Encoding Method specified in Request.", "")
}

func formatTime(t time.Time) string { return t.UTC().Format(xmlTime) }
