package ossemu

import (
	"encoding/xml"
	"net/http"
	"slices"
	"strings"
	"testing"

	sdk "github.com/aliyun/alibabacloud-oss-go-sdk-v2/oss"
)

// at sends a signed request to a bucket.
func at(t *testing.T, base, method, bucket, parameter, body string, header ...string) reply {
	t.Helper()
	w := newWire(method, base, "")
	w.bucket = bucket
	if parameter != "" {
		w.query.Set(parameter, "")
	}
	if body != "" {
		w.body = strings.NewReader(body)
	}
	for i := 0; i < len(header); i += 2 {
		w.header.Set(header[i], header[i+1])
	}
	return send(t, w.headerSigned(t))
}

func TestSDKBuckets(t *testing.T) {
	t.Parallel()
	_, base := start(t)
	client, ctx := sdkClient(base, testKeyID, testSecret), t.Context()
	name := sdk.Ptr("made-here")
	for range 2 { // the owner of a bucket may create it again
		if _, err := client.PutBucket(ctx, &sdk.PutBucketRequest{Bucket: name, Acl: sdk.BucketACLPublicRead,
			CreateBucketConfiguration: &sdk.CreateBucketConfiguration{StorageClass: sdk.StorageClassIA,
				DataRedundancyType: sdk.DataRedundancyZRS}}); err != nil {
			t.Fatal(err)
		}
	}
	got, err := client.GetBucketInfo(ctx, &sdk.GetBucketInfoRequest{Bucket: name})
	if err != nil {
		t.Fatal(err)
	}
	info := got.BucketInfo
	host := strings.TrimPrefix(base, "http://")
	if *info.Name != *name || *info.ACL != "public-read" || *info.StorageClass != "IA" || *info.DataRedundancyType != "ZRS" ||
		*info.Location != "oss-cn-hangzhou" || *info.ExtranetEndpoint != host || *info.IntranetEndpoint != host ||
		*info.Owner.ID != ownerID || !*info.BlockPublicAccess || info.CreationDate.IsZero() {
		t.Errorf("%+v", info)
	}
	list, err := client.ListBuckets(ctx, &sdk.ListBucketsRequest{Prefix: sdk.Ptr("made")})
	if err != nil || len(list.Buckets) != 1 || *list.Buckets[0].Name != *name ||
		*list.Buckets[0].ExtranetEndpoint != host || *list.Buckets[0].Region != testRegion {
		t.Errorf("%+v, %v", list, err)
	}
	all, err := client.ListBuckets(ctx, &sdk.ListBucketsRequest{MaxKeys: 2})
	if err != nil || !all.IsTruncated || *all.NextMarker != "made-here" {
		t.Errorf("%+v, %v", all, err)
	}
	if _, err := client.PutObject(ctx, &sdk.PutObjectRequest{Bucket: name, Key: sdk.Ptr("k")}); err != nil {
		t.Fatal(err)
	}
	if object, err := client.HeadObject(ctx, &sdk.HeadObjectRequest{Bucket: name, Key: sdk.Ptr("k")}); err != nil ||
		*object.StorageClass != "IA" {
		t.Errorf("an object has its bucket's class: %+v, %v", object, err)
	}
	_, err = client.DeleteBucket(ctx, &sdk.DeleteBucketRequest{Bucket: name})
	if e := serviceError(t, err); e.Code != "BucketNotEmpty" || e.EC != "0015-00000301" {
		t.Errorf("%+v", e)
	}
	if _, err := client.DeleteObject(ctx, &sdk.DeleteObjectRequest{Bucket: name, Key: sdk.Ptr("k")}); err != nil {
		t.Fatal(err)
	}
	init, err := client.InitiateMultipartUpload(ctx, &sdk.InitiateMultipartUploadRequest{Bucket: name, Key: sdk.Ptr("k")})
	if err != nil {
		t.Fatal(err)
	}
	_, err = client.DeleteBucket(ctx, &sdk.DeleteBucketRequest{Bucket: name})
	if e := serviceError(t, err); e.Code != "BucketNotEmpty" {
		t.Errorf("%+v", e)
	}
	if _, err := client.AbortMultipartUpload(ctx, &sdk.AbortMultipartUploadRequest{Bucket: name, Key: sdk.Ptr("k"),
		UploadId: init.UploadId}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.DeleteBucket(ctx, &sdk.DeleteBucketRequest{Bucket: name}); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"delete": func() error { _, err := client.DeleteBucket(ctx, &sdk.DeleteBucketRequest{Bucket: name}); return err }(),
		"info":   func() error { _, err := client.GetBucketInfo(ctx, &sdk.GetBucketInfoRequest{Bucket: name}); return err }(),
		"put": func() error {
			_, err := client.PutObject(ctx, &sdk.PutObjectRequest{Bucket: name, Key: sdk.Ptr("k")})
			return err
		}(),
	} {
		if e := serviceError(t, err); e.Code != "NoSuchBucket" || e.EC != "0015-00000101" {
			t.Errorf("%s: %+v", what, e)
		}
	}
	if exists, err := client.IsBucketExist(ctx, *name); err != nil || exists {
		t.Errorf("%v, %v", exists, err)
	}
}

func TestBucketRefusals(t *testing.T) {
	t.Parallel()
	_, base := start(t)
	for name, tc := range map[string]struct {
		got      reply
		code, ec string
	}{
		"name":   {at(t, base, "PUT", "No_Bucket", "", ""), "InvalidBucketName", "0015-00000001"},
		"acl":    {at(t, base, "PUT", "new-one", "", "", "x-oss-acl", "mine"), "InvalidArgument", "0015-00000204"},
		"no acl": {at(t, base, "PUT", "new-one", "acl", ""), "InvalidArgument", "0015-00000204"},
		"storage class": {at(t, base, "PUT", "new-one", "",
			"<CreateBucketConfiguration><StorageClass>Cheap</StorageClass></CreateBucketConfiguration>"), "InvalidArgument",
			"0013-00000101"},
		"redundancy": {at(t, base, "PUT", "new-one", "",
			"<CreateBucketConfiguration><DataRedundancyType>RAID</DataRedundancyType></CreateBucketConfiguration>"),
			"InvalidArgument", ""},
		"no XML": {at(t, base, "PUT", "new-one", "", "x"), "MalformedXML", "0016-00000608"},
	} {
		if e := wantError(t, tc.got, 400, tc.code); e.EC != tc.ec {
			t.Errorf("%s: EC %q, want %q", name, e.EC, tc.ec)
		}
	}
	wantError(t, send(t, newWire("PUT", base, "k").inBucket("new-one").presigned(t)), 404, "NoSuchBucket")
}

// TestListBucketsFilters: a filter is applied, or refused if there is nothing to filter by.
func TestListBucketsFilters(t *testing.T) {
	t.Parallel()
	_, base := start(t)
	at(t, base, "PUT", "grouped", "", "", "x-oss-resource-group-id", "rg-other")
	for group, want := range map[string][]string{"": {testBucket, "grouped"}, "rg-other": {"grouped"}, "rg-none": nil} {
		got := at(t, base, "GET", "", "", "", "x-oss-resource-group-id", group)
		for _, name := range []string{testBucket, "grouped"} {
			if strings.Contains(got.body, "<Name>"+name+"</Name>") != slices.Contains(want, name) {
				t.Errorf("group %q: %d %s", group, got.status, got.body)
			}
		}
	}
	for _, parameter := range []string{"tag-key", "tag-value", "tagging"} {
		wantError(t, at(t, base, "GET", "", parameter, ""), 501, "NotImplemented")
	}
}

// TestOrderOfChecks: the bucket before the access key, unless the request makes it.
func TestOrderOfChecks(t *testing.T) {
	t.Parallel()
	_, base := start(t)
	stranger := func(method, bucket, key, parameter string) reply {
		w := newWire(method, base, key).inBucket(bucket)
		w.keyID = "stranger"
		if parameter != "" {
			w.query.Set(parameter, "")
		}
		return send(t, w.headerSigned(t))
	}
	for name, tc := range map[string]struct {
		got    reply
		status int
		code   string
	}{
		"object":            {stranger("PUT", "nowhere", "k", ""), 404, "NoSuchBucket"},
		"acl":               {stranger("GET", "nowhere", "", "acl"), 404, "NoSuchBucket"},
		"what it has not":   {stranger("GET", "nowhere", "", "versioning"), 404, "NoSuchBucket"},
		"setting":           {stranger("PUT", "nowhere", "", "lifecycle"), 404, "NoSuchBucket"},
		"create":            {stranger("PUT", "nowhere", "", ""), 403, "InvalidAccessKeyId"},
		"create by acl":     {stranger("PUT", "nowhere", "", "acl"), 403, "InvalidAccessKeyId"},
		"there":             {stranger("PUT", testBucket, "k", ""), 403, "InvalidAccessKeyId"},
		"there, not had":    {stranger("GET", testBucket, "", "versioning"), 403, "InvalidAccessKeyId"},
		"there, no such id": {stranger("GET", testBucket, "k", "uploadId"), 403, "InvalidAccessKeyId"},
		"buckets":           {stranger("GET", "", "", ""), 403, "InvalidAccessKeyId"},
	} {
		if got := tc.got; got.status != tc.status || got.errorXML(t).Code != tc.code {
			t.Errorf("%s: %d %s, want %d %s", name, got.status, got.body, tc.status, tc.code)
		}
	}
}

// TestBucketEndpoint: a client that goes to the endpoint of a bucket comes back here.
func TestBucketEndpoint(t *testing.T) {
	t.Parallel()
	s, _ := start(t, func(c *Config) { c.PublicURL = "http://oss.example:9000" })
	for host, want := range map[string][2]string{
		"127.0.0.1:9000":                       {"127.0.0.1:9000", "127.0.0.1:9000"},
		"demo.localhost:9000":                  {"localhost:9000", "localhost:9000"},
		"demo.oss.example:9000":                {"oss.example:9000", "oss.example:9000"},
		"oss-cn-hangzhou.aliyuncs.com":         {"oss-cn-hangzhou.aliyuncs.com", "oss-cn-hangzhou-internal.aliyuncs.com"},
		"demo.oss-cn-hangzhou.aliyuncs.com:80": {"oss-cn-hangzhou.aliyuncs.com:80", "oss-cn-hangzhou-internal.aliyuncs.com:80"},
	} {
		extranet, intranet := s.endpoint(&call{r: &http.Request{Host: host}})
		if got := [2]string{extranet, intranet}; got != want {
			t.Errorf("%s: %v, want %v", host, got, want)
		}
	}
}

func TestBucketRestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	keep := func(c *Config) { c.DataDir = dir }
	_, first := start(t, keep)
	for _, name := range []string{"stays", "goes"} {
		if got := at(t, first, "PUT", name, "", "", "x-oss-acl", "public-read"); got.status != 200 {
			t.Fatal(got)
		}
	}
	at(t, first, "DELETE", "goes", "", "")
	_, second := start(t, keep)
	if got := at(t, second, "GET", "stays", "acl", ""); !strings.Contains(got.body, "<Grant>public-read</Grant>") {
		t.Errorf("%+v", got)
	}
	wantError(t, at(t, second, "GET", "goes", "acl", ""), 404, "NoSuchBucket")
}

func TestACL(t *testing.T) {
	t.Parallel()
	_, base := start(t)
	put := func(bucket, key string, header ...string) reply {
		w := newWire("PUT", base, key).inBucket(bucket)
		w.body = strings.NewReader("hello")
		for i := 0; i < len(header); i += 2 {
			w.header.Set(header[i], header[i+1])
		}
		return send(t, w.presigned(t))
	}
	anonymous := func(method, bucket, key string) reply {
		return send(t, newWire(method, base, key).inBucket(bucket).request(t))
	}
	grant := func(key string) string {
		w := newWire("GET", base, key)
		w.query.Set("acl", "")
		var doc struct {
			Grant string `xml:"AccessControlList>Grant"`
		}
		if err := xml.Unmarshal([]byte(send(t, w.headerSigned(t)).body), &doc); err != nil {
			t.Fatal(err)
		}
		return doc.Grant
	}
	put(testBucket, "private")
	put(testBucket, "public", "x-oss-object-acl", "public-read")
	put(testBucket, "open", "x-oss-object-acl", "public-read-write")
	for key, want := range map[string]string{"private": "default", "public": "public-read", "open": "public-read-write"} {
		if got := grant(key); got != want {
			t.Errorf("%s: %s, want %s", key, got, want)
		}
	}
	for _, tc := range []struct {
		method, key string
		status      int
	}{
		{"GET", "private", 403}, {"GET", "public", 200}, {"HEAD", "public", 200}, {"GET", "open", 200}, {"GET", "none", 403},
		{"PUT", "private", 403}, {"PUT", "public", 403}, {"PUT", "new", 403}, {"DELETE", "public", 403}, {"DELETE", "open", 204},
	} {
		if got := anonymous(tc.method, testBucket, tc.key); got.status != tc.status {
			t.Errorf("anonymous %s %s: %d, want %d", tc.method, tc.key, got.status, tc.status)
		}
	}
	change := newWire("PUT", base, "public")
	change.query.Set("acl", "")
	change.header.Set("x-oss-object-acl", "private")
	if got := send(t, change.headerSigned(t)); got.status != 200 || grant("public") != "private" {
		t.Errorf("%+v, %s", got, grant("public"))
	}
	if got := anonymous("GET", testBucket, "public"); got.status != 403 {
		t.Errorf("made private: %d", got.status)
	}
	change.header.Set("x-oss-object-acl", "mine")
	if e := wantError(t, send(t, change.headerSigned(t)), 400, "InvalidArgument"); e.EC != "0017-00000104" {
		t.Errorf("EC %s", e.EC)
	}

	// The bucket's ACL counts where the object has none; settings and lists stay closed.
	at(t, base, "PUT", "other", "acl", "", "x-oss-acl", "public-read")
	put("other", "k")
	put("other", "private", "x-oss-object-acl", "private")
	for key, status := range map[string]int{"k": 200, "private": 403, "none": 404, "": 403, "k?acl": 403} {
		key, parameter, _ := strings.Cut(key, "?")
		r := newWire("GET", base, key).inBucket("other").request(t)
		r.URL.RawQuery = parameter
		if got := send(t, r); got.status != status {
			t.Errorf("public bucket, %q: %d, want %d", key, got.status, status)
		}
	}
	at(t, base, "PUT", "other", "acl", "", "x-oss-acl", "public-read-write")
	w := newWire("PUT", base, "anybody").inBucket("other")
	w.body = strings.NewReader("x")
	if got := send(t, w.request(t)); got.status != 200 {
		t.Errorf("anonymous upload: %d %s", got.status, got.body)
	}
}

func TestPublicAccessBlock(t *testing.T) {
	t.Parallel()
	_, base := start(t)
	blocks := func() string { return at(t, base, "GET", testBucket, "publicAccessBlock", "").body }
	const document = "<PublicAccessBlockConfiguration><BlockPublicAccess>%</BlockPublicAccess></PublicAccessBlockConfiguration>"
	set := func(value string) {
		t.Helper()
		if got := at(t, base, "PUT", testBucket, "publicAccessBlock", strings.ReplaceAll(document, "%", value)); got.status != 200 {
			t.Fatal(got)
		}
	}
	if !strings.Contains(blocks(), "<BlockPublicAccess>true<") {
		t.Errorf("a new bucket says %s", blocks())
	}
	w := newWire("PUT", base, "k")
	w.header.Set("x-oss-object-acl", "public-read")
	if got := send(t, w.presigned(t)); got.status != 200 {
		t.Errorf("before it is set: %d", got.status)
	}
	set("true")
	wantError(t, send(t, w.presigned(t)), 403, "AccessDenied")
	wantError(t, at(t, base, "PUT", testBucket, "acl", "", "x-oss-acl", "public-read"), 403, "AccessDenied")
	wantError(t, send(t, newWire("GET", base, "k").request(t)), 403, "AccessDenied")
	set("false")
	if got := send(t, newWire("GET", base, "k").request(t)); got.status != 200 || !strings.Contains(blocks(), "<BlockPublicAccess>false<") {
		t.Errorf("%d, %s", got.status, blocks())
	}
	set("true")
	if got := at(t, base, "DELETE", testBucket, "publicAccessBlock", ""); got.status != 204 ||
		!strings.Contains(blocks(), "<BlockPublicAccess>false<") {
		t.Errorf("%d, %s", got.status, blocks())
	}
	wantError(t, at(t, base, "PUT", testBucket, "publicAccessBlock", "<PublicAccessBlockConfiguration/>"), 400, "MalformedXML")
}
