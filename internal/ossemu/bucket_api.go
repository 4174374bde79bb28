package ossemu

import (
	"cmp"
	"encoding/xml"
	"io"
	"net/http"
	"slices"
	"strings"

	"upcall/internal/ossrule"
)

// maxSettings is the largest document of a bucket's settings, in bytes.
const maxSettings = 64 << 10

var bucketACLs = []string{aclPrivate, aclPublicRead, aclPublicReadWrite}

// createBucket is CreateBucket and PutBucketAcl, which creates the bucket as well. The
// owner of a bucket may create it again.
func (s *Server) createBucket(c *call) error {
	var doc struct {
		XMLName            xml.Name `xml:"CreateBucketConfiguration"`
		StorageClass       string
		DataRedundancyType string
	}
	if err := c.readXML(&doc, true); err != nil {
		return err
	}
	if doc.StorageClass != "" && !slices.Contains(ossrule.StorageClasses, doc.StorageClass) {
		return errStorageClass("StorageClass", doc.StorageClass)
	}
	if doc.DataRedundancyType != "" && doc.DataRedundancyType != "LRS" && doc.DataRedundancyType != "ZRS" {
		return badArgument("DataRedundancyType", doc.DataRedundancyType, "no such redundancy: use LRS or ZRS", "")
	}
	acl := c.r.Header.Get("x-oss-acl")
	if acl != "" && !slices.Contains(bucketACLs, acl) || acl == "" && c.query.has("acl") {
		return badArgument("x-oss-acl", acl, "no such bucket access control exists", "0015-00000204")
	}
	if b, err := s.store.bucket(c.bucket); err == nil && b.blocksPublic() && isPublic(acl) {
		return errPublicBlocked("bucket")
	}
	if err := s.store.setBucket(c.bucket, s.cfg.Now(), func(b *bucketSettings) {
		b.StorageClass = cmp.Or(doc.StorageClass, b.StorageClass)
		b.Redundancy = cmp.Or(doc.DataRedundancyType, b.Redundancy)
		b.ACL = cmp.Or(acl, b.ACL)
		b.ResourceGroup = cmp.Or(c.r.Header.Get("x-oss-resource-group-id"), b.ResourceGroup)
	}); err != nil {
		return err
	}
	return c.writeNothing(http.StatusOK)
}

// readXML reads the body into v. If mayBeEmpty, an empty body leaves v alone.
func (c *call) readXML(v any, mayBeEmpty bool) error {
	body, err := io.ReadAll(io.LimitReader(c.r.Body, maxSettings+1))
	if err != nil {
		return receiveError(err)
	}
	if mayBeEmpty && len(body) == 0 {
		return nil
	}
	if len(body) > maxSettings || xml.Unmarshal(body, v) != nil {
		return errMalformedXML
	}
	return nil
}

func (s *Server) deleteBucket(c *call) error {
	if err := s.store.deleteBucket(c.bucket); err != nil {
		return err
	}
	return c.writeNothing(http.StatusNoContent)
}

type grantXML struct{ Grant string }

// endpoint returns the address at which this request found the server, without a bucket, so
// that a client that follows a bucket's endpoint stays here. Under OSS's own name, the
// internal address has OSS's form.
func (s *Server) endpoint(c *call) (extranet, intranet string) {
	host := c.r.Host
	if s.hostBucket(host) != "" {
		_, host, _ = strings.Cut(host, ".")
	}
	name, rest, _ := strings.Cut(host, ".")
	if strings.HasPrefix(name, "oss-") && strings.HasPrefix(rest, "aliyuncs.com") {
		return host, name + "-internal." + rest
	}
	return host, host
}

// bucketInfo answers GetBucketInfo.
func (s *Server) bucketInfo(c *call) error {
	b, err := s.store.bucket(c.bucket)
	if err != nil {
		return err
	}
	type info struct {
		Name, CreationDate, Location, ExtranetEndpoint, IntranetEndpoint string
		StorageClass, DataRedundancyType, ResourceGroupId                string
		AccessMonitor, TransferAcceleration, CrossRegionReplication      string
		BlockPublicAccess                                                bool
		Owner                                                            ownerXML
		AccessControlList                                                grantXML
		ServerSideEncryptionRule                                         struct{ SSEAlgorithm string }
		BucketPolicy                                                     struct{ LogBucket, LogPrefix string }
	}
	i := info{Name: b.Name, CreationDate: formatTime(b.Created), Location: "oss-" + s.cfg.Region,
		StorageClass: b.StorageClass, DataRedundancyType: b.Redundancy, ResourceGroupId: b.ResourceGroup,
		AccessMonitor: "Disabled", TransferAcceleration: "Disabled", CrossRegionReplication: "Disabled",
		BlockPublicAccess: b.BlockPublicAccess == nil || *b.BlockPublicAccess,
		Owner:             owner, AccessControlList: grantXML{b.ACL}}
	i.ExtranetEndpoint, i.IntranetEndpoint = s.endpoint(c)
	i.ServerSideEncryptionRule.SSEAlgorithm = "None"
	return c.writeXML(http.StatusOK, struct {
		XMLName xml.Name `xml:"BucketInfo"`
		Bucket  info
	}{Bucket: i})
}

// bucketLocation answers GetBucketLocation, which clients call to test a connection.
func (s *Server) bucketLocation(c *call) error {
	return c.writeXML(http.StatusOK, struct {
		XMLName  xml.Name `xml:"LocationConstraint"`
		Location string   `xml:",chardata"`
	}{Location: "oss-" + s.cfg.Region})
}

// listBuckets answers ListBuckets, by which test suites find what they left behind.
func (s *Server) listBuckets(c *call) error {
	q := c.query
	limit, err := numberArgument(q, "max-keys", 100, 1, 1000, "")
	if err != nil {
		return err
	}
	type item struct {
		CreationDate, ExtranetEndpoint, IntranetEndpoint, Location, Name, Region, StorageClass, ResourceGroupId string
	}
	result := struct {
		XMLName        xml.Name `xml:"ListAllMyBucketsResult"`
		Prefix, Marker string   `xml:",omitempty"`
		MaxKeys        int
		IsTruncated    bool
		NextMarker     string `xml:",omitempty"`
		Owner          ownerXML
		Buckets        struct{ Bucket []item }
	}{Prefix: q["prefix"], Marker: q["marker"], MaxKeys: limit, Owner: owner}
	extranet, intranet := s.endpoint(c)
	group := c.r.Header.Get("x-oss-resource-group-id")
	for _, b := range s.store.listBuckets() {
		if !strings.HasPrefix(b.Name, q["prefix"]) || b.Name <= q["marker"] || group != "" && group != b.ResourceGroup {
			continue
		}
		if len(result.Buckets.Bucket) == limit {
			result.IsTruncated = true
			result.NextMarker = result.Buckets.Bucket[limit-1].Name
			break
		}
		result.Buckets.Bucket = append(result.Buckets.Bucket, item{formatTime(b.Created), extranet, intranet,
			"oss-" + s.cfg.Region, b.Name, s.cfg.Region, b.StorageClass, b.ResourceGroup})
	}
	return c.writeXML(http.StatusOK, result)
}

// The official suites list access points and live channels before they delete a bucket.
// Here no bucket has any.

func (s *Server) listAccessPoints(c *call) error {
	return c.writeXML(http.StatusOK, struct {
		XMLName      xml.Name `xml:"ListAccessPointsResult"`
		IsTruncated  bool
		AccountId    string
		AccessPoints string
	}{AccountId: ownerID})
}

func (s *Server) listLiveChannels(c *call) error {
	return c.writeXML(http.StatusOK, struct {
		XMLName        xml.Name `xml:"ListLiveChannelResult"`
		Prefix, Marker string
		MaxKeys        int
		IsTruncated    bool
		NextMarker     string
	}{Prefix: c.query["prefix"], Marker: c.query["marker"], MaxKeys: 100})
}

type publicAccessXML struct {
	XMLName           xml.Name `xml:"PublicAccessBlockConfiguration"`
	BlockPublicAccess *bool
}

func (s *Server) putPublicAccessBlock(c *call) error {
	var doc publicAccessXML
	if err := c.readXML(&doc, false); err != nil {
		return err
	}
	if doc.BlockPublicAccess == nil {
		return errMalformedXML
	}
	set := func(b *bucketSettings) { b.BlockPublicAccess = doc.BlockPublicAccess }
	if err := s.store.setBucket(c.bucket, s.cfg.Now(), set); err != nil {
		return err
	}
	return c.writeNothing(http.StatusOK)
}

func (s *Server) deletePublicAccessBlock(c *call) error {
	off := false
	if err := s.store.setBucket(c.bucket, s.cfg.Now(), func(b *bucketSettings) { b.BlockPublicAccess = &off }); err != nil {
		return err
	}
	return c.writeNothing(http.StatusNoContent)
}

func (s *Server) publicAccessBlock(c *call) error {
	b, err := s.store.bucket(c.bucket)
	if err != nil {
		return err
	}
	blocks := b.BlockPublicAccess == nil || *b.BlockPublicAccess
	return c.writeXML(http.StatusOK, publicAccessXML{BlockPublicAccess: &blocks})
}
