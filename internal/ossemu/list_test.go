package ossemu

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	sdk "github.com/aliyun/alibabacloud-oss-go-sdk-v2/oss"
	"github.com/google/go-cmp/cmp"
)

// fill puts empty objects into the bucket.
func fill(t *testing.T, base string, keys ...string) {
	t.Helper()
	for _, key := range keys {
		if got := send(t, newWire("PUT", base, key).presigned(t)); got.status != 200 {
			t.Fatalf("%s: %+v", key, got)
		}
	}
}

// A listing is what all ways to list objects answer with.
type listing struct {
	Marker, NextMarker, KeyMarker, NextKeyMarker, NextVersionIdMarker string
	Delimiter, EncodingType                                           string
	IsTruncated                                                       bool
	Keys                                                              []string `xml:"Contents>Key"`
	Owners                                                            []string `xml:"Contents>Owner>ID"`
	Versions                                                          []string `xml:"Version>Key"`
	VersionIDs                                                        []string `xml:"Version>VersionId"`
	Groups                                                            []string `xml:"CommonPrefixes>Prefix"`
}

func list(t *testing.T, base, query string) listing {
	t.Helper()
	w := newWire("GET", base, "")
	var err error
	if w.query, err = url.ParseQuery(query); err != nil {
		t.Fatal(err)
	}
	got := send(t, w.headerSigned(t))
	var l listing
	if err := xml.Unmarshal([]byte(got.body), &l); err != nil || got.status != 200 {
		t.Fatalf("%s: %d %s %v", query, got.status, got.body, err)
	}
	return l
}

func TestListObjectsVersion1(t *testing.T) {
	t.Parallel()
	_, base := start(t)
	fill(t, base, "a", "b/1", "b/2", "c+ 特")
	for query, want := range map[string]listing{
		"":                                {Keys: []string{"a", "b/1", "b/2", "c+ 特"}},
		"marker=b/1":                      {Marker: "b/1", Keys: []string{"b/2", "c+ 特"}},
		"delimiter=/":                     {Delimiter: "/", Keys: []string{"a", "c+ 特"}, Groups: []string{"b/"}},
		"delimiter=/&max-keys=1":          {Delimiter: "/", Keys: []string{"a"}, IsTruncated: true, NextMarker: "a"},
		"delimiter=/&max-keys=1&marker=a": {Marker: "a", Delimiter: "/", Groups: []string{"b/"}, IsTruncated: true, NextMarker: "b/"},
		"delimiter=/&marker=b/":           {Marker: "b/", Delimiter: "/", Keys: []string{"c+ 特"}},
		"delimiter=/&prefix=b/&max-keys=1&encoding-type=url": {Delimiter: "/", EncodingType: "url",
			Keys: []string{"b/1"}, IsTruncated: true, NextMarker: "b/1"},
		"prefix=c&encoding-type=url": {EncodingType: "url", Keys: []string{"c%2B%20%E7%89%B9"}},
	} {
		got := list(t, base, query)
		if len(got.Owners) != len(got.Keys) {
			t.Errorf("%s: %d owners of %d objects", query, len(got.Owners), len(got.Keys))
		}
		got.Owners = nil
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", query, diff)
		}
	}
	client := sdkClient(base, testKeyID, testSecret)
	pages := client.NewListObjectsPaginator(&sdk.ListObjectsRequest{Bucket: sdk.Ptr(testBucket), MaxKeys: 1})
	var keys []string
	for pages.HasNext() {
		page, err := pages.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range page.Contents {
			keys = append(keys, *o.Key)
		}
	}
	if !slices.Equal(keys, []string{"a", "b/1", "b/2", "c+ 特"}) {
		t.Errorf("the SDK lists %q", keys)
	}
}

// TestListVersions: each object is the one version of itself.
func TestListVersions(t *testing.T) {
	t.Parallel()
	_, base := start(t)
	fill(t, base, "a", "b")
	want := listing{Versions: []string{"a"}, VersionIDs: []string{"null"}, IsTruncated: true, NextKeyMarker: "a", NextVersionIdMarker: "null"}
	if diff := cmp.Diff(want, list(t, base, "versions&max-keys=1")); diff != "" {
		t.Error(diff)
	}
	want = listing{KeyMarker: "a", Versions: []string{"b"}, VersionIDs: []string{"null"}}
	if diff := cmp.Diff(want, list(t, base, "versions&key-marker=a&version-id-marker=null")); diff != "" {
		t.Error(diff)
	}
	for _, method := range []string{"GET", "HEAD", "DELETE"} {
		w := newWire(method, base, "a")
		w.query.Set("versionId", "null")
		if got := send(t, w.presigned(t)); got.status/100 != 2 {
			t.Errorf("%s: %+v", method, got)
		}
	}
}

// TestControlCharacters: keys hold them, XML cannot.
func TestControlCharacters(t *testing.T) {
	t.Parallel()
	_, base := start(t)
	fill(t, base, "a\x01\x1f")
	w := newWire("GET", base, "")
	if got := send(t, w.headerSigned(t)); !strings.Contains(got.body, "<Key>a&#1;&#31;</Key>") {
		t.Errorf("%s", got.body)
	}
}

func deleteDocument(keys ...string) string {
	var b bytes.Buffer
	b.WriteString("<Delete>")
	for _, key := range keys {
		fmt.Fprintf(&b, "<Object><Key>%s</Key></Object>", key)
	}
	return b.String() + "</Delete>"
}

func TestDeleteMultipleObjects(t *testing.T) {
	t.Parallel()
	s, base := start(t)
	left := func() []string {
		var keys []string
		for _, o := range s.store.list(testBucket, "", "") {
			keys = append(keys, o.Key)
		}
		return keys
	}
	fill(t, base, "a", "b&<", "c\x01\x02", "d\x03", "e", "kept")
	body := strings.Replace(deleteDocument("a", "b&amp;&lt;", "c&#1;&#x02;", "d\x03", "none"), "</Key></Object></Delete>",
		"</Key><VersionId>null</VersionId></Object></Delete>", 1)
	got := at(t, base, "POST", testBucket, "delete", body)
	for _, want := range []string{"<Key>a</Key>", "<Key>b&amp;&lt;</Key>", "<Key>c&#1;&#2;</Key>", "<Key>d&#3;</Key>",
		"<Key>none</Key>\n    <VersionId>null</VersionId>"} {
		if got.status != 200 || !strings.Contains(got.body, want) {
			t.Errorf("no %s in %d %s", want, got.status, got.body)
		}
	}
	quiet := at(t, base, "POST", testBucket, "delete", strings.Replace(deleteDocument("e"), "<Delete>", "<Delete><Quiet>true</Quiet>", 1))
	if quiet.status != 200 || quiet.body != "" {
		t.Errorf("quiet: %+v", quiet)
	}
	if got := left(); !slices.Equal(got, []string{"kept"}) {
		t.Errorf("left: %q", got)
	}
	client := sdkClient(base, testKeyID, testSecret)
	fill(t, base, "x\x07 特+")
	deleted, err := client.DeleteMultipleObjects(t.Context(), &sdk.DeleteMultipleObjectsRequest{Bucket: sdk.Ptr(testBucket),
		Objects: []sdk.DeleteObject{{Key: sdk.Ptr("x\x07 特+")}}})
	if err != nil || len(deleted.DeletedObjects) != 1 || *deleted.DeletedObjects[0].Key != "x\x07 特+" {
		t.Errorf("%+v, %v", deleted, err)
	}

	many := make([]string, 1001)
	for i := range many {
		many[i] = "kept"
	}
	for name, tc := range map[string]struct {
		body, header string
		status       int
		code, ec     string
	}{
		"no XML":        {"x", "", 400, "MalformedXML", "0016-00000608"},
		"another root":  {"<Remove><Object><Key>kept</Key></Object></Remove>", "", 400, "MalformedXML", "0016-00000608"},
		"nothing":       {"<Delete/>", "", 400, "MalformedXML", "0016-00000608"},
		"more than may": {deleteDocument(many...), "", 400, "MalformedXML", "0016-00000608"},
		"MD5":           {deleteDocument("kept"), "1B2M2Y8AsgTpgAmY7PhCfg==", 400, "InvalidDigest", "0017-00000503"},
		"no MD5":        {deleteDocument("kept"), "x", 400, "InvalidDigest", "0017-00000502"},
		"no key":        {deleteDocument("kept", ""), "", 400, "InvalidObjectName", "0016-00000001"},
		"version": {strings.Replace(deleteDocument("kept"), "</Key>", "</Key><VersionId>1</VersionId>", 1), "",
			501, "NotImplemented", ""},
	} {
		var header []string
		if tc.header != "" {
			header = []string{"Content-MD5", tc.header}
		}
		if e := wantError(t, at(t, base, "POST", testBucket, "delete", tc.body, header...), tc.status, tc.code); e.EC != tc.ec {
			t.Errorf("%s: EC %q, want %q", name, e.EC, tc.ec)
		}
	}
	if got := left(); !slices.Equal(got, []string{"kept"}) {
		t.Errorf("left after refusals: %q", got)
	}
}
