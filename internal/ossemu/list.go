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

type listXML struct {
	XMLName               xml.Name `xml:"ListBucketResult"`
	Name, Prefix          string
	StartAfter            string `xml:",omitempty"`
	ContinuationToken     string `xml:",omitempty"`
	MaxKeys               int
	Delimiter             string `xml:",omitempty"`
	EncodingType          string `xml:",omitempty"`
	IsTruncated           bool
	NextContinuationToken string `xml:",omitempty"`
	Contents              []objectXML
	CommonPrefixes        []prefixXML
	KeyCount              int
}

// listObjects is ListObjectsV2.
func (s *Server) listObjects(c *call) error {
	q := c.query
	limit, err := numberArgument(q, "max-keys", 100, 1, 1000)
	if err != nil {
		return err
	}
	encode, err := encoder(q)
	if err != nil {
		return err
	}
	after := q["start-after"]
	if token := q["continuation-token"]; token != "" {
		last, err := base64.URLEncoding.DecodeString(token)
		if err != nil {
			return badArgument("continuation-token", token, "The continuation token is not one that this server gave.", "")
		}
		after = string(last)
	}
	result := listXML{Name: c.bucket, Prefix: encode(q["prefix"]), StartAfter: encode(q["start-after"]), MaxKeys: limit,
		Delimiter: encode(q["delimiter"]), ContinuationToken: q["continuation-token"], EncodingType: q["encoding-type"]}
	delimiter, last := q["delimiter"], ""
	for _, o := range s.store.list(c.bucket, q["prefix"], after) {
		common := commonPrefix(o.Key, q["prefix"], delimiter)
		if common != "" && (common == last || strings.HasPrefix(after, common) && q["continuation-token"] != "") {
			continue // this group is already listed, here or on an earlier page
		}
		if result.KeyCount == limit {
			result.IsTruncated = true
			result.NextContinuationToken = base64.URLEncoding.EncodeToString([]byte(last))
			break
		}
		result.KeyCount++
		if common != "" {
			last = common
			result.CommonPrefixes = append(result.CommonPrefixes, prefixXML{encode(common)})
			continue
		}
		last = o.Key
		item := objectXML{Key: encode(o.Key), LastModified: formatTime(o.LastModified), ETag: `"` + o.ETag + `"`,
			Type: o.Type, Size: o.Content.Size, StorageClass: o.Meta.StorageClass}
		if q["fetch-owner"] == "true" {
			item.Owner = &ownerXML{ownerID, ownerID}
		}
		result.Contents = append(result.Contents, item)
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

// numberArgument reads a numeric parameter.
func numberArgument(q query, name string, fallback, least, most int) (int, error) {
	if !q.has(name) {
		return fallback, nil
	}
	n, err := strconv.Atoi(q[name])
	if err != nil || n < least || n > most {
		return 0, badArgument(name, q[name], fmt.Sprintf("Argument %s must be an integer between %d and %d.", name, least, most), "")
	}
	return n, nil
}

// encoder returns how names are written in a result: as they are, or, as XML cannot
// hold every character, percent-encoded.
func encoder(q query) (func(string) string, error) {
	switch q["encoding-type"] {
	case "":
		return func(s string) string { return s }, nil
	case "url":
		return escapePath, nil
	}
	return nil, badArgument("encoding-type", q["encoding-type"], "Invalid Encoding Method specified in Request.", "")
}

// bucketLocation answers GetBucketLocation, which clients call to test a connection.
func (s *Server) bucketLocation(c *call) error {
	return c.writeXML(http.StatusOK, struct {
		XMLName  xml.Name `xml:"LocationConstraint"`
		Location string   `xml:",chardata"`
	}{Location: "oss-" + s.cfg.Region})
}

func formatTime(t time.Time) string { return t.UTC().Format(xmlTime) }
