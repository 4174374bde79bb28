package ossemu

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
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
	for number, code := range map[string]string{"0": "InvalidArgument", "10001": "InvalidArgument",
		"x": "InvalidArgument", "": "InvalidArgument"} {
		wantError(t, uploadPart(t, base, "k", id, number, "x"), 400, code)
	}
	wantError(t, uploadPart(t, base, "k", id, "3", strings.Repeat("x", 11)), 400, "EntityTooLarge")
	wantError(t, uploadPart(t, base, "other-key", id, "1", "x"), 404, "NoSuchUpload")
	wantError(t, uploadPart(t, base, "k", "../../etc", "1", "x"), 404, "NoSuchUpload")
	for name, tc := range map[string]struct {
		body, code string
		header     []string
	}{
		"order":             {body: partList("2", etag["2"], "1", etag["1"]), code: "InvalidPartOrder"},
		"twice":             {body: partList("1", etag["1"], "1", etag["1"]), code: "InvalidPartOrder"},
		"part 0":            {body: partList("0", etag["1"]), code: "InvalidPartOrder"},
		"etag":              {body: partList("1", `"00"`), code: "InvalidPart"},
		"unknown":           {body: partList("7", etag["1"]), code: "InvalidPart"},
		"small":             {body: partList("1", etag["1"], "2", etag["2"]), code: "EntityTooSmall"},
		"no parts":          {body: partList(), code: "MalformedXML"},
		"no xml":            {body: "x", code: "MalformedXML"},
		"no body":           {body: "", code: "MalformedXML"},
		"other root":        {body: "<A><Part/></A>", code: "MalformedXML"},
		"all and a body":    {body: partList("1", etag["1"]), header: []string{"x-oss-complete-all", "yes"}, code: "InvalidArgument"},
		"all, small":        {header: []string{"x-oss-complete-all", "yes"}, code: "EntityTooSmall"},
		"callback not json": {body: partList("1", etag["1"]), header: []string{"x-oss-callback", "eA=="}, code: "InvalidArgument"},
	} {
		if got := complete(t, base, "k", id, tc.body, tc.header...); got.status != 400 || got.errorXML(t).Code != tc.code {
			t.Errorf("%s: %d %s, want %s", name, got.status, got.body, tc.code)
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
	wantError(t, got, 409, "FileAlreadyExists")
	if got := complete(t, base, "k", id, "", "x-oss-complete-all", "yes"); got.status != 200 {
		t.Errorf("%d %s", got.status, got.body)
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
