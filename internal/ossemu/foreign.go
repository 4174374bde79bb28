package ossemu

import (
	"net/http"
	"slices"
	"strings"

	"upcall/internal/ossrule"
)

// foreignParameters select operations of OSS that the emulator does not have, or has
// under some methods only: they are refused unless the route matched by them. Without
// this list, PUT /key?symlink would store an object. (The subresources of OSS's
// signature version 1 and of the official SDKs' requests, 2026-07.)
var foreignParameters = []string{
	"accessPoint", "accessPointForObjectProcess", "accessPointPolicy", "accessPointPolicyForObjectProcess",
	"accessmonitor", "acl", "append", "asyncFetch", "bucketArchiveDirectRead", "bucketInfo", "callback-target",
	"cleanRestoredObject", "cloudboxes", "cname", "comp", "cors", "delete", "encryption", "httpsConfig", "img",
	"inventory", "inventoryId", "legal-hold", "legalHold", "lifecycle", "live", "location", "logging", "metaQuery",
	"objectMeta", "objectWorm", "overwriteConfig", "policy", "policyStatus", "processing", "publicAccessBlock", "qos",
	"qosInfo", "qosRequester", "redundancyTransition", "referer", "regions", "replication", "replicationLocation",
	"replicationProgress", "requestPayment", "requesterQosInfo", "resourceGroup", "resourcePool", "restore",
	"retention", "rtc", "seal", "select/json-meta", "stat", "status", "style", "styleName", "symlink", "tag-key",
	"tag-value", "tagging", "transferAcceleration", "uploadId", "uploads", "userDefinedLogFieldsConfig", "versionId",
	"versioning", "versions", "vod", "website", "worm", "wormExtend", "wormId", "x-oss-async-process", "x-oss-process",
	"x-oss-write-get-object-response",
}

// foreignHeaders change what an operation does in ways that the emulator does not have.
var foreignHeaders = []string{
	"x-oss-copy-source", "x-oss-multi-range-behavior", "x-oss-persistent-headers",
	"x-oss-server-side-encryption-customer-algorithm", "x-oss-server-side-encryption-customer-key",
	"x-oss-server-side-encryption-customer-key-md5",
	"x-oss-object-worm-mode", "x-oss-object-worm-retain-until-date", "x-oss-object-worm-legal-hold",
}

// readConditions belong to reading. OSS refuses them on uploads, but ignores them where a
// multipart upload begins.
var readConditions = []string{"If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since"}

// encrypted are the routes that take x-oss-server-side-encryption.
var encrypted = []string{"PutObject", "InitiateMultipartUpload"}

// versioned are the routes that take a version.
var versioned = []string{"GetObject", "HeadObject", "DeleteObject", "GetObjectMeta", "GetObjectAcl", "PutObjectAcl"}

// checkForeign refuses what the emulator does not have, and never half does it.
func (rt route) checkForeign(c *call) error {
	if c.level == levelAdmin {
		return nil
	}
	matched, _, _ := strings.Cut(rt.match, "=")
	for _, p := range foreignParameters {
		// Each object is the version "null" of itself.
		if c.query.has(p) && p != matched && !(p == "versionId" && c.query[p] == nullVersion && slices.Contains(versioned, rt.name)) {
			return errNotImplemented.with("Header", p)
		}
	}
	if rt.name == "CreateBucket" || rt.name == "DeleteBucket" {
		// A setting that this list does not know must not make or remove a bucket.
		for p := range c.query {
			if !strings.HasPrefix(p, "x-oss-") {
				return errNotImplemented.with("Header", p)
			}
		}
	}
	for _, h := range foreignHeaders {
		if c.r.Header.Get(h) != "" {
			return errNotImplemented.with("Header", h)
		}
	}
	writes := c.r.Method == http.MethodPut || c.r.Method == http.MethodPost
	if c.level == levelObject && writes && rt.name != "InitiateMultipartUpload" {
		for _, h := range readConditions {
			if c.r.Header.Get(h) != "" {
				return errNotImplemented.with("Header", h)
			}
		}
	}
	if v := c.r.Header.Get(encryptionHeader); v != "" && c.r.Method != http.MethodOptions && !slices.Contains(encrypted, rt.name) {
		return badArgument(encryptionHeader, v, "This operation does not take the header.", "0005-00000002")
	}
	return checkTrafficLimit(c)
}

// checkKey is OSS's rule for object keys, with a number for each way to break it.
func checkKey(key string) error {
	if ossrule.CheckKey(key) == nil {
		return nil
	}
	message, ec := errInvalidObjectName.message, "0016-00000004" // not UTF-8
	switch {
	case key == "":
		message, ec = "The Object name can not be empty", "0016-00000001"
	case len(key) > 1023:
		message, ec = "The Length of Object name must be less than 1024", "0016-00000003"
	case key[0] == '/' || key[0] == '\\':
		ec = "0016-00000005"
	}
	return errInvalidObjectName.saying(message, ec).with("ObjectName", key)
}
