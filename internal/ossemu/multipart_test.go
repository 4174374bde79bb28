package ossemu

import (
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"upcall/internal/callbackspec"
)

// initiate opens an upload and returns its id.
func initiate(t *testing.T, base, key string) string {
	t.Helper()
	w := newWire("POST", base, key)
	w.query.Set("uploads", "")
	got := send(t, w.presigned(t))
	_, rest, ok := strings.Cut(got.body, "<UploadId>")
	id, _, _ := strings.Cut(rest, "<")
	if !ok {
		t.Fatal(got)
	}
	return id
}

func uploadPart(t *testing.T, base, key, id, number, content string) reply {
	t.Helper()
	w := newWire("PUT", base, key)
	w.query = url.Values{"uploadId": {id}, "partNumber": {number}}
	w.body = strings.NewReader(content)
	return send(t, w.presigned(t))
}

func complete(t *testing.T, base, key, id, body string, header ...string) reply {
	t.Helper()
	w := newWire("POST", base, key)
	w.query.Set("uploadId", id)
	w.body = strings.NewReader(body)
	for i := 0; i < len(header); i += 2 {
		w.header.Set(header[i], header[i+1])
	}
	return send(t, w.presigned(t))
}

func partList(pairs ...string) string {
	var b strings.Builder
	b.WriteString("<CompleteMultipartUpload>")
	for i := 0; i < len(pairs); i += 2 {
		fmt.Fprintf(&b, "<Part><PartNumber>%s</PartNumber><ETag>%s</ETag></Part>", pairs[i], pairs[i+1])
	}
	return b.String() + "</CompleteMultipartUpload>"
}

func TestMultipartRefusals(t *testing.T) {
	t.Parallel()
	_, base := start(t, func(c *Config) { c.MinPartSize = 2; c.MaxObjectSize = 10 })
	id := initiate(t, base, "k")
	etag := make(map[string]string)
	for _, n := range []string{"1", "2", "10000"} {
		etag[n] = uploadPart(t, base, "k", id, n, "x"+strings.Repeat("y", len(n)-1)).header.Get("ETag")
	}
	for number, ec := range map[string]string{"0": "0017-00000220", "10001": "0017-00000220", "x": "0017-00000220", "": "0017-00000219"} {
		if e := wantError(t, uploadPart(t, base, "k", id, number, "x"), 400, "InvalidArgument"); e.EC != ec {
			t.Errorf("part %q: EC %s, want %s", number, e.EC, ec)
		}
	}
	wantError(t, uploadPart(t, base, "k", id, "3", strings.Repeat("x", 11)), 400, "EntityTooLarge")
	if e := wantError(t, uploadPart(t, base, "other-key", id, "1", "x"), 404, "NoSuchUpload"); e.EC != "0042-00000104" {
		t.Errorf("no such upload: EC %s", e.EC)
	}
	for _, method := range []string{"GET", "DELETE"} {
		w := newWire(method, base, "k")
		w.query.Set("uploadId", "none")
		if e := wantError(t, send(t, w.presigned(t)), 404, "NoSuchUpload"); e.EC != "0042-00000002" {
			t.Errorf("%s, no such upload: EC %s", method, e.EC)
		}
	}
	wantError(t, uploadPart(t, base, "k", "../../etc", "1", "x"), 404, "NoSuchUpload")
	condition := newWire("POST", base, "k")
	condition.query.Set("uploads", "")
	condition.header.Set("If-Modified-Since", "Mon, 02 Jan 2006 15:04:05 GMT")
	if got := send(t, condition.presigned(t)); got.status != 200 {
		t.Errorf("OSS ignores conditions here: %d %s", got.status, got.body)
	}
	for name, tc := range map[string]struct {
		body, code, ec string
		header         []string
		says           string
	}{
		"order":      {body: partList("2", etag["2"], "1", etag["1"]), code: "InvalidPartOrder", ec: "0042-00000209"},
		"twice":      {body: partList("1", etag["1"], "1", etag["1"]), code: "InvalidPartOrder", ec: "0042-00000209"},
		"part 0":     {body: partList("0", etag["1"]), code: "InvalidPartOrder", ec: "0042-00000209"},
		"etag":       {body: partList("1", `"00"`), code: "InvalidPart", says: "<PartNumber>1</PartNumber>\n  <UploadId>" + id + "<"},
		"unknown":    {body: partList("7", etag["1"]), code: "InvalidPart", says: "<ETag>" + etag["1"] + "</ETag>\n  <PartNumber>7<"},
		"small":      {body: partList("1", etag["1"], "2", etag["2"]), code: "EntityTooSmall", ec: "0042-00000213"},
		"no xml":     {body: "x", code: "MalformedXML", ec: "0042-00000205"},
		"no body":    {body: "", code: "MalformedXML", ec: "0042-00000205"},
		"other root": {body: "<A><Part/></A>", code: "MalformedXML", ec: "0042-00000205"},
		"all and a body": {body: partList("1", etag["1"]), header: []string{"x-oss-complete-all", "yes"},
			code: "InvalidArgument", ec: "0042-00000216",
			says: "<ArgumentName>x-oss-complete-all</ArgumentName>\n  <ArgumentValue>yes<"},
		"all, small": {header: []string{"x-oss-complete-all", "yes"}, code: "EntityTooSmall", ec: "0042-00000213"},
		"callback not json": {body: partList("1", etag["1"]), header: []string{"x-oss-callback", "eA=="},
			code: "InvalidArgument", ec: "0007-00000003"},
		"acl": {body: partList("1", etag["1"]), header: []string{"x-oss-object-acl", "mine"},
			code: "InvalidArgument", ec: "0017-00000104"},
	} {
		got := complete(t, base, "k", id, tc.body, tc.header...)
		if e := got.errorXML(t); got.status != 400 || e.Code != tc.code || e.EC != tc.ec || !strings.Contains(got.body, tc.says) {
			t.Errorf("%s: %d %s, want %s %s %s", name, got.status, got.body, tc.code, tc.ec, tc.says)
		}
	}
	if got := complete(t, base, "k", id, partList("10000", strings.ToLower(strings.Trim(etag["10000"], `"`)))); got.status != 200 {
		t.Errorf("a refused completion must leave the upload alone: %d %s", got.status, got.body)
	}
	wantError(t, complete(t, base, "k", id, ""), 404, "NoSuchUpload")
}

func TestMultipartForbidOverwrite(t *testing.T) {
	t.Parallel()
	_, base := start(t)
	id := initiate(t, base, "k")
	uploadPart(t, base, "k", id, "1", "new")
	send(t, newWire("PUT", base, "k").presigned(t))
	got := complete(t, base, "k", id, "", "x-oss-complete-all", "yes", "x-oss-forbid-overwrite", "true")
	if e := wantError(t, got, 409, "FileAlreadyExists"); e.EC != "0042-00000214" {
		t.Errorf("EC %s", e.EC)
	}
	if got := complete(t, base, "k", id, "", "x-oss-complete-all", "yes"); got.status != 200 {
		t.Errorf("%d %s", got.status, got.body)
	}
}

// TestMultipartETag has the parts of a real object and its ETag: 482,048 bytes in parts of
// 102,400 (download_test.go of the official Go SDK, version 1).
func TestMultipartETag(t *testing.T) {
	t.Parallel()
	var parts []*part
	for _, sum := range []string{"251AD9D223371CF6380544DF72E106CB", "215A888785362D10E3F5204BFAB1EEDF", "547DF973F1622420B4D20B5E7C6D329C",
		"B820869246C889A0AD3C54043F2B7E05", "BCCAB4D694301EB00A03686D12F331A7"} {
		raw, err := hex.DecodeString(sum)
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, &part{Content: content{MD5: raw}})
	}
	if got, want := multipartETag(parts), "2351E662233817A7AE974D8C5B0876DD-5"; got != want {
		t.Errorf("ETag %s, OSS's is %s", got, want)
	}
}

// TestCompleteWithoutParts: what the SDKs' uploaders do with an empty stream.
func TestCompleteWithoutParts(t *testing.T) {
	t.Parallel()
	rec := receive(t, nil)
	_, base := start(t)
	callback := encode(t, callbackspec.Parameter{URLs: []string{rec.url}, Body: "size=${size}&op=${operation}"})
	for name, complete := range map[string]func(id string) reply{
		"listed": func(id string) reply { return complete(t, base, "listed", id, partList(), "x-oss-callback", callback) },
		"all": func(id string) reply {
			return complete(t, base, "all", id, "", "x-oss-complete-all", "yes", "x-oss-callback", callback)
		},
	} {
		if got := complete(initiate(t, base, name)); got.status != 200 {
			t.Errorf("%s: %d %s", name, got.status, got.body)
		}
		if got := send(t, newWire("HEAD", base, name).presigned(t)); got.status != 200 || got.header.Get("Content-Length") != "0" {
			t.Errorf("%s: %+v", name, got)
		}
	}
	for _, c := range rec.requests() {
		if c.body != "size=0&op=CompleteMultipartUpload" {
			t.Errorf("callback %s", c.body)
		}
	}
	if n := len(rec.requests()); n != 2 {
		t.Errorf("%d callbacks, want 2", n)
	}
}

func TestSequentialUpload(t *testing.T) {
	t.Parallel()
	_, base := start(t)
	for key, sequential := range map[string]bool{"any": false, "sequential": true} {
		w := newWire("POST", base, key)
		w.query.Set("uploads", "")
		if sequential {
			w.query.Set("sequential", "")
		}
		var doc struct{ UploadId string }
		if err := xml.Unmarshal([]byte(send(t, w.presigned(t)).body), &doc); err != nil {
			t.Fatal(err)
		}
		uploadPart(t, base, key, doc.UploadId, "1", "hello")
		done := complete(t, base, key, doc.UploadId, "", "x-oss-complete-all", "yes")
		want := map[bool]string{true: "XUFAKrxLKna5cZ2REBfFkg=="}[sequential]
		for _, got := range []reply{done, send(t, newWire("HEAD", base, key).presigned(t))} {
			if got.status != 200 || got.header.Get("Content-MD5") != want {
				t.Errorf("%s: %d, Content-MD5 %q, want %q", key, got.status, got.header.Get("Content-MD5"), want)
			}
		}
	}
}

// TestListUploadsMarkers: the next markers are those of the last upload, on the last page
// as well.
func TestListUploadsMarkers(t *testing.T) {
	t.Parallel()
	_, base := start(t)
	ids := map[string]string{"a": initiate(t, base, "a"), "b": initiate(t, base, "b")}
	for limit, want := range map[string]string{"1": "a", "2": "b", "10": "b"} {
		w := newWire("GET", base, "")
		w.query.Set("uploads", "")
		w.query.Set("max-uploads", limit)
		var doc struct {
			NextKeyMarker, NextUploadIdMarker string
			IsTruncated                       bool
		}
		if err := xml.Unmarshal([]byte(send(t, w.presigned(t)).body), &doc); err != nil {
			t.Fatal(err)
		}
		if doc.NextKeyMarker != want || doc.NextUploadIdMarker != ids[want] || doc.IsTruncated != (limit == "1") {
			t.Errorf("limit %s: %+v", limit, doc)
		}
	}
}

func TestListPartsOfClientEncryption(t *testing.T) {
	t.Parallel()
	_, base := start(t)
	w := newWire("POST", base, "k")
	w.query.Set("uploads", "")
	w.header.Set("x-oss-meta-client-side-encryption-key", "wrapped")
	w.header.Set("x-oss-meta-client-side-encryption-part-size", "102400")
	var doc struct{ UploadId, ClientEncryptionKey, ClientEncryptionPartSize, ClientEncryptionStart string }
	if err := xml.Unmarshal([]byte(send(t, w.presigned(t)).body), &doc); err != nil {
		t.Fatal(err)
	}
	list := newWire("GET", base, "k")
	list.query.Set("uploadId", doc.UploadId)
	if err := xml.Unmarshal([]byte(send(t, list.presigned(t)).body), &doc); err != nil {
		t.Fatal(err)
	}
	if doc.ClientEncryptionKey != "wrapped" || doc.ClientEncryptionPartSize != "102400" || doc.ClientEncryptionStart != "" {
		t.Errorf("%+v", doc)
	}
}

// TestRestart: objects and uploads under way outlive the server; strays do not.
func TestRestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	keep := func(c *Config) { c.DataDir = dir; c.MinPartSize = 1 }
	_, first := start(t, keep)
	w := newWire("PUT", first, "../../escape")
	w.body = strings.NewReader("kept")
	w.header.Set("x-oss-meta-a", "1")
	if got := send(t, w.presigned(t)); got.status != 200 {
		t.Fatal(got)
	}
	send(t, newWire("PUT", first, "gone").presigned(t))
	send(t, newWire("DELETE", first, "gone").presigned(t))
	id := initiate(t, first, "big")
	uploadPart(t, first, "big", id, "1", "one ")
	for _, stray := range []string{"blobs/stray", "tmp/stray"} {
		if err := os.WriteFile(filepath.Join(dir, stray), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}

	_, second := start(t, keep)
	if got := send(t, newWire("GET", second, "../../escape").presigned(t)); got.body != "kept" || got.header.Get("x-oss-meta-a") != "1" {
		t.Errorf("object after restart: %+v", got)
	}
	wantError(t, send(t, newWire("GET", second, "gone").presigned(t)), 404, "NoSuchKey")
	uploadPart(t, second, "big", id, "2", "two")
	if got := complete(t, second, "big", id, "", "x-oss-complete-all", "yes"); got.status != 200 {
		t.Errorf("upload after restart: %d %s", got.status, got.body)
	}
	if got := send(t, newWire("GET", second, "big").presigned(t)); got.body != "one two" {
		t.Errorf("joined %q", got.body)
	}
	var files []string
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if !d.IsDir() {
			files = append(files, path)
		}
		return err
	})
	if err != nil || len(files) != 4 {
		t.Errorf("want two blobs and two records: %v, %v", files, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "records", "object-bad.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = New(Config{AccessKeyID: "a", AccessKeySecret: "b", Region: testRegion, Buckets: []string{testBucket}, DataDir: dir})
	if err == nil || !strings.Contains(err.Error(), "read record object-bad: ") {
		t.Errorf("a broken record was not reported: %v", err)
	}
}
