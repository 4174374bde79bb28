package ossemu

import (
	"hash/crc64"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"
)

// putHeaders uploads with headers, as pairs of name and value.
func putHeaders(t *testing.T, base, key string, header ...string) reply {
	t.Helper()
	w := newWire("PUT", base, key)
	w.body = strings.NewReader("hello")
	for i := 0; i < len(header); i += 2 {
		w.header.Set(header[i], header[i+1])
	}
	return send(t, w.headerSigned(t))
}

// TestEncryption: what was asked for is kept and told, and what there is not is refused.
func TestEncryption(t *testing.T) {
	t.Parallel()
	_, base := start(t)
	const sse, data = "x-oss-server-side-encryption", "x-oss-server-side-data-encryption"
	for name, tc := range map[string]struct {
		header []string
		want   map[string]string
	}{
		"AES256": {[]string{sse, "AES256"}, map[string]string{sse: "AES256", sse + "-key-id": "", data: ""}},
		"SM4":    {[]string{sse, "SM4"}, map[string]string{sse: "SM4"}},
		"KMS":    {[]string{sse, "KMS"}, map[string]string{sse: "KMS", sse + "-key-id": defaultKeyID}},
		"KMS of key": {[]string{sse, "KMS", sse + "-key-id", "mine", data, "SM4"},
			map[string]string{sse: "KMS", sse + "-key-id": "mine", data: "SM4"}},
		"none": {nil, map[string]string{sse: "", sse + "-key-id": "", data: ""}},
	} {
		put := putHeaders(t, base, "put", tc.header...)
		w := newWire("POST", base, "parts")
		w.query.Set("uploads", "")
		for i := 0; i < len(tc.header); i += 2 {
			w.header.Set(tc.header[i], tc.header[i+1])
		}
		init := send(t, w.presigned(t))
		_, rest, _ := strings.Cut(init.body, "<UploadId>")
		id, _, _ := strings.Cut(rest, "<")
		part := uploadPart(t, base, "parts", id, "1", "x")
		done := complete(t, base, "parts", id, partList("1", part.header.Get("ETag")))
		for answer, got := range map[string]reply{
			"put": put, "get": send(t, newWire("GET", base, "put").presigned(t)), "head": send(t, newWire("HEAD", base, "put").presigned(t)),
			"initiate": init, "part": part, "complete": done, "get parts": send(t, newWire("GET", base, "parts").presigned(t)),
		} {
			for header, want := range tc.want {
				if value := got.header.Get(header); got.status != 200 || value != want {
					t.Errorf("%s, %s: %d %s %q, want %q", name, answer, got.status, header, value, want)
				}
			}
		}
	}
	for name, tc := range map[string]struct {
		header   []string
		code, ec string
		status   int
	}{
		"unknown":      {header: []string{sse, "aes256"}, status: 400, code: "InvalidEncryptionAlgorithmError", ec: "0005-00000003"},
		"key, no KMS":  {header: []string{sse, "AES256", sse + "-key-id", "mine"}, status: 400, code: "InvalidArgument"},
		"data, no KMS": {header: []string{data, "SM4"}, status: 400, code: "InvalidArgument"},
		"data":         {header: []string{sse, "KMS", data, "DES"}, status: 400, code: "InvalidEncryptionAlgorithmError", ec: "0005-00000003"},
		"customer key": {header: []string{sse + "-customer-algorithm", "AES256"}, status: 501, code: "NotImplemented"},
	} {
		if e := wantError(t, putHeaders(t, base, "refused", tc.header...), tc.status, tc.code); e.EC != tc.ec {
			t.Errorf("%s: EC %q, want %q", name, e.EC, tc.ec)
		}
	}
	for _, tc := range []struct{ method, query string }{{"GET", ""}, {"DELETE", ""}, {"PUT", "uploadId"}, {"POST", "uploadId"}} {
		w := newWire(tc.method, base, "put")
		w.header.Set(sse, "AES256")
		if tc.query != "" {
			w.query.Set(tc.query, "x")
		}
		if e := wantError(t, send(t, w.presigned(t)), 400, "InvalidArgument"); e.EC != "0005-00000002" {
			t.Errorf("%s %s: EC %q", tc.method, tc.query, e.EC)
		}
	}
	if got := send(t, newWire("HEAD", base, "refused").presigned(t)); got.status != 404 {
		t.Errorf("a refused object was stored: %d", got.status)
	}
}

// TestPutRefusals: status, code and number of what an upload's headers and body can have
// wrong, and that nothing is stored.
func TestPutRefusals(t *testing.T) {
	t.Parallel()
	s, base := start(t, func(c *Config) { c.MaxObjectSize = 100 })
	fill(t, base, "there")
	for name, tc := range map[string]struct {
		key, header, value string
		status             int
		code, ec           string
	}{
		"MD5 of something else": {"k", "Content-MD5", "1B2M2Y8AsgTpgAmY7PhCfg==", 400, "InvalidDigest", "0017-00000503"},
		"MD5 in hex":            {"k", "Content-MD5", "5d41402abc4b2a76b9719d911017c592", 400, "InvalidDigest", "0017-00000502"},
		"storage class":         {"k", "x-oss-storage-class", "Cheap", 400, "InvalidArgument", "0013-00000101"},
		"ACL":                   {"k", "x-oss-object-acl", "mine", 400, "InvalidArgument", "0017-00000104"},
		"forbid-overwrite":      {"k", "x-oss-forbid-overwrite", "yes", 400, "InvalidArgument", "0017-00000279"},
		"object there":          {"there", "x-oss-forbid-overwrite", "true", 409, "FileAlreadyExists", "0026-00000002"},
		"metadata of 8 KB":      {"k", "x-oss-meta-a", strings.Repeat("x", 8192), 400, "InvalidArgument", ""},
		"tagging":               {"k", "x-oss-tagging", "a=1&a=2", 400, "InvalidArgument", ""},
		"condition to read":     {"k", "If-Modified-Since", "Mon, 02 Jan 2006 15:04:05 GMT", 501, "NotImplemented", ""},
		"another condition":     {"k", "If-None-Match", "*", 501, "NotImplemented", ""},
		"copy":                  {"k", "x-oss-copy-source", "/demo/there", 501, "NotImplemented", ""},
		"slow":                  {"k", "x-oss-traffic-limit", "245759", 400, "InvalidArgument", "0004-00000502"},
		"fast":                  {"k", "x-oss-traffic-limit", "838860801", 400, "InvalidArgument", "0004-00000502"},
		"speed in words":        {"k", "x-oss-traffic-limit", "1MB", 400, "InvalidArgument", "0004-00000502"},
		"key's length":          {strings.Repeat("k", 1024), "x-a", "", 400, "InvalidObjectName", "0016-00000003"},
		"slash ahead":           {"/k", "x-a", "", 400, "InvalidObjectName", "0016-00000005"},
		"backslash ahead":       {`\k`, "x-a", "", 400, "InvalidObjectName", "0016-00000005"},
		"not UTF-8":             {"k\xff", "x-a", "", 400, "InvalidObjectName", "0016-00000004"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if e := wantError(t, putHeaders(t, base, tc.key, tc.header, tc.value), tc.status, tc.code); e.EC != tc.ec {
				t.Errorf("EC %q, want %q (%s)", e.EC, tc.ec, e.Message)
			}
			if _, err := s.store.get(testBucket, tc.key); err == nil && tc.key != "there" {
				t.Error("it was stored")
			}
		})
	}
	w := newWire("PUT", base, "k")
	w.body = strings.NewReader(strings.Repeat("x", 101))
	if e := wantError(t, send(t, w.presigned(t)), 400, "EntityTooLarge"); e.EC != "0017-00000102" {
		t.Errorf("too large: EC %q", e.EC)
	}
}

// TestTrafficLimit: the limit comes in a header or in a URL, which is signed with it.
func TestTrafficLimit(t *testing.T) {
	t.Parallel()
	_, base := start(t)
	content := strings.Repeat("x", 15360) // half a second at the least limit
	id := initiate(t, base, "multipart")
	for what, change := range map[string]func(*wire){
		"put": func(w *wire) {},
		"get": func(w *wire) { w.method, w.body = "GET", nil },
		"get, in header": func(w *wire) {
			w.method, w.body = "GET", nil
			w.query = url.Values{}
			w.header.Set("x-oss-traffic-limit", "245760")
		},
		"part": func(w *wire) { w.key = "multipart"; w.query.Set("uploadId", id); w.query.Set("partNumber", "1") },
	} {
		t.Run(what, func(t *testing.T) {
			put := newWire("PUT", base, "k")
			put.body = strings.NewReader(content)
			send(t, put.presigned(t))
			w := newWire("PUT", base, "k")
			w.body = strings.NewReader(content)
			w.query.Set("x-oss-traffic-limit", "245760")
			change(w)
			begun := time.Now()
			got := send(t, w.presigned(t))
			if took := time.Since(begun); got.status != 200 || took < 500*time.Millisecond {
				t.Errorf("%d after %s %.200s", got.status, took, got.body)
			}
			if delay, err := strconv.Atoi(got.header.Get("x-oss-qos-delay-time")); w.method == "PUT" && (err != nil || delay < 100) {
				t.Errorf("delay %d, %v", delay, err)
			}
		})
	}
	w := newWire("GET", base, "k")
	for limit, status := range map[string]int{"838860800": 200, "245760": 200, "245759": 400, "838860801": 400, "1": 400, "x": 400} {
		w.query.Set("x-oss-traffic-limit", limit)
		got := send(t, w.presigned(t))
		if got.status != status || status != 200 && got.errorXML(t).EC != "0004-00000502" {
			t.Errorf("%s: %d %.200s", limit, got.status, got.body)
		}
	}
}

// TestArchive: what is archived has to be restored before it can be read, and there is
// no restoring here.
func TestArchive(t *testing.T) {
	t.Parallel()
	_, base := start(t)
	for _, class := range []string{"Archive", "ColdArchive", "DeepColdArchive"} {
		putHeaders(t, base, class, "x-oss-storage-class", class)
		wantError(t, send(t, newWire("GET", base, class).presigned(t)), 403, "InvalidObjectState")
		if got := send(t, newWire("HEAD", base, class).presigned(t)); got.status != 200 || got.header.Get("x-oss-storage-class") != class {
			t.Errorf("%+v", got)
		}
	}
}

func TestObjectMeta(t *testing.T) {
	t.Parallel()
	_, base := start(t)
	putHeaders(t, base, "k", "x-oss-meta-a", "b")
	w := newWire("HEAD", base, "k")
	w.query.Set("objectMeta", "")
	got := send(t, w.headerSigned(t))
	for name, want := range map[string]string{"ETag": `"5D41402ABC4B2A76B9719D911017C592"`, "Content-Length": "5", "x-oss-meta-a": "",
		"Content-Type": "", "x-oss-hash-crc64ecma": strconv.FormatUint(crc64.Checksum([]byte("hello"), crc64.MakeTable(crc64.ECMA)), 10)} {
		if value := got.header.Get(name); got.status != 200 || value != want {
			t.Errorf("%d, %s: %q, want %q", got.status, name, value, want)
		}
	}
	if modified, err := http.ParseTime(got.header.Get("Last-Modified")); err != nil || modified.IsZero() {
		t.Errorf("Last-Modified: %v", err)
	}
	w.key = "none"
	if got := send(t, w.headerSigned(t)); got.status != 404 || got.header.Get("x-oss-ec") != "0026-00000001" {
		t.Errorf("%+v", got)
	}
}
