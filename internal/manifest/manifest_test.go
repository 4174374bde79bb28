package manifest_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"upcall/internal/manifest"
)

// A document is a manifest as a JSON object, which tests change.
type document = map[string]any

// sample returns a manifest that the issuer printed: put, multipart, or multipart_counted, in
// which only the number of parts is known.
func sample(t testing.TB, name string) []byte {
	t.Helper()
	text, err := os.ReadFile("testdata/" + name + ".json")
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func parsed(t testing.TB, text []byte) document {
	t.Helper()
	var d document
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// written returns a manifest as the issuer prints it.
func written(t testing.TB, m manifest.Manifest) []byte {
	t.Helper()
	var document any = m.Put
	if m.Put == nil {
		document = m.Multipart
	}
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(document); err != nil {
		t.Fatal(err)
	}
	return text.Bytes()
}

// TestRead checks that a manifest that is read and written again has the same bytes.
func TestRead(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"put", "multipart", "multipart_counted"} {
		want := sample(t, name)
		m, err := manifest.Read(bytes.NewReader(want))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if diff := cmp.Diff(string(want), string(written(t, m))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		more := bytes.Replace(want, []byte("{"), []byte(`{"status":"issued",`), 1) // as the API adds it; other fields may follow
		if m, err = manifest.Read(bytes.NewReader(more)); err != nil || !bytes.Equal(want, written(t, m)) {
			t.Errorf("%s with a further field: %v", name, err)
		}
	}
}

// TestReadFile reads from a file, whose size is known beforehand.
func TestReadFile(t *testing.T) {
	t.Parallel()
	file, err := os.Open("testdata/multipart.json")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if m, err := manifest.Read(file); err != nil || m.Multipart == nil || len(m.Multipart.Parts) != 3 {
		t.Errorf("manifest %+v, %v", m, err)
	}
}

func TestReadURL(t *testing.T) {
	t.Parallel()
	const url = "https://demo.oss-cn-hangzhou.aliyuncs.com/a?x-oss-signature=1"
	m, err := manifest.Read(strings.NewReader(" " + url + "\n"))
	if err != nil || m.Multipart != nil || m.Put == nil || m.Put.URL != url || m.Put.Method != "PUT" {
		t.Errorf("manifest %+v, %v", m, err)
	}
}

// manyParts returns a manifest whose parts need two lists.
func manyParts(t *testing.T) *manifest.Multipart {
	t.Helper()
	read, err := manifest.Read(bytes.NewReader(sample(t, "multipart_counted")))
	if err != nil {
		t.Fatal(err)
	}
	m := read.Multipart
	for number := 3; number <= 1500; number++ {
		part := m.Parts[1]
		part.Number = int32(number)
		part.URL = strings.Replace(part.URL, "partNumber=2", "partNumber="+strconv.Itoa(number), 1)
		m.Parts = append(m.Parts, part)
	}
	next := m.ListParts
	next.URL += "&part-number-marker=1000"
	m.ListPartsNext = []manifest.PresignedRequest{next}
	return m
}

func TestLists(t *testing.T) {
	t.Parallel()
	m := manyParts(t)
	if diff := cmp.Diff(append([]manifest.PresignedRequest{m.ListParts}, m.ListPartsNext...), m.Lists()); diff != "" {
		t.Errorf("lists (-want +got):\n%s", diff)
	}
	next := func(m document) document { return m["list_parts_next"].([]any)[0].(document) }
	for name, tt := range map[string]struct {
		change func(m document)
		says   string // "" if it is accepted
	}{
		"as issued":         {func(document) {}, ""},
		"a list is missing": {func(m document) { delete(m, "list_parts_next") }, ""},
		"by DELETE":         {func(m document) { next(m)["method"] = "DELETE" }, "the method of list_parts_next 1"},
		"elsewhere":         {func(m document) { elsewhere(next(m)) }, "list_parts_next 1 goes elsewhere"},
		"another upload": {func(m document) {
			next(m)["url"] = strings.Replace(next(m)["url"].(string), "uploadId=", "uploadId=x", 1)
		}, "list_parts_next 1 is not about the upload"},
		"with a Host":          {func(m document) { next(m)["headers"] = document{"host": "x"} }, `list_parts_next 1 has a header "host"`},
		"the first list again": {func(m document) { m["list_parts_next"] = []any{m["list_parts"]} }, "does not begin after part 1000"},
		"one too many": {func(m document) {
			m["list_parts_next"] = []any{next(m), next(m)}
		}, "2 lists in list_parts_next; 1500 parts take 1"},
		"swapped": {func(m document) {
			first := m["list_parts"]
			m["list_parts"], m["list_parts_next"] = next(m), []any{first}
		}, "does not begin after part 0"},
	} {
		d := parsed(t, written(t, manifest.Manifest{Multipart: m}))
		tt.change(d)
		text, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		_, err = manifest.Read(bytes.NewReader(text))
		if tt.says == "" && err != nil || tt.says != "" &&
			(!errors.Is(err, manifest.ErrManifest) || !strings.Contains(err.Error(), tt.says)) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

// TestBad checks that manifests that ask for anything but one upload are rejected.
func TestBad(t *testing.T) {
	t.Parallel()
	part := func(d document, n int) document { return d["parts"].([]any)[n-1].(document) }
	request := func(name string) func(d document) document {
		return func(d document) document { return d[name].(document) }
	}
	firstPart := func(d document) document { return part(d, 1) }
	tests := []struct {
		name   string
		change func(put, multipart document)
		says   string
	}{
		{"no URL", func(p, _ document) { delete(p, "url") }, "neither a url nor parts"},
		{"URL and parts", func(p, m document) { p["parts"], m["url"] = m["parts"], p["url"] }, "both a url and parts"},
		{"URL is a number", func(p, _ document) { p["url"] = 1 }, "url has the wrong type, number"},
		{"method GET", func(p, _ document) { p["method"] = "GET" }, `must be PUT`},
		{"method DELETE", func(p, _ document) { p["method"] = "DELETE" }, `must be PUT`},
		{"method in small letters", func(p, _ document) { p["method"] = "put" }, `must be PUT`},
		{"no method", func(p, _ document) { delete(p, "method") }, `must be PUT`},
		{"relative URL", func(p, _ document) { p["url"] = "/demo/a" }, "not an http or https URL"},
		{"file URL", func(p, _ document) { p["url"] = "file:///etc/passwd" }, "not an http or https URL"},
		{"URL without a host", func(p, _ document) { p["url"] = "http:///demo" }, "not an http or https URL"},
		{"URL with a port only", func(p, _ document) { p["url"] = "http://:80/demo" }, "not an http or https URL"},
		{"opaque URL", func(p, _ document) { p["url"] = "http:demo" }, "not an http or https URL"},
		{"URL with a line break", func(p, _ document) { p["url"] = "http://a/\n" }, "not an http or https URL"},
		{"URL with a user", func(p, _ document) { p["url"] = "http://oss.example.com@evil.example.com/" }, "user name"},
		{"URL with a fragment", func(p, _ document) { p["url"] = "http://a/#x" }, "fragment"},
		{"upload id", func(p, _ document) { p["upload_id"] = "1" }, "form"},
		{"expiry", func(p, _ document) { p["expires_at"] = "tomorrow" }, "form"},
		{"Host", func(p, _ document) { p["headers"].(document)["host"] = "evil.example.com" }, `header "host"`},
		{"Authorization", func(p, _ document) { p["headers"].(document)["authorization"] = "x" }, `header "authorization"`},
		{"Transfer-Encoding", func(p, _ document) { p["headers"].(document)["Transfer-Encoding"] = "chunked" }, "header"},
		{"Connection", func(p, _ document) { p["headers"].(document)["connection"] = "upgrade" }, "header"},
		{"Cookie", func(p, _ document) { p["headers"].(document)["cookie"] = "a=b" }, "header"},
		{"header name with a space", func(p, _ document) { p["headers"].(document)["x-oss-a b"] = "x" }, "header"},
		{"header name with a line break", func(p, _ document) { p["headers"].(document)["x-oss-a\r\nhost"] = "x" }, "header"},
		{"header value with a line break", func(p, _ document) { p["headers"].(document)["x-oss-a"] = "x\r\nhost: y" }, "header"},
		{"header value that is a list", func(p, _ document) { p["headers"].(document)["x-oss-a"] = []string{"x"} }, "has the wrong type, array"},

		{"no parts", func(_, m document) { m["parts"] = []any{} }, "0 parts"},
		{"parts null", func(_, m document) { m["parts"] = nil }, "neither a url nor parts"},
		{"parts of numbers", func(_, m document) { m["parts"] = []any{1} }, "parts has the wrong type, number"},
		{"no id", func(_, m document) { delete(m, "oss_upload_id") }, "no oss_upload_id"},
		{"no bucket", func(_, m document) { m["bucket"] = "" }, "no bucket"},
		{"no key", func(_, m document) { delete(m, "key") }, "no key"},
		{"another id", func(_, m document) { m["oss_upload_id"] = "x" }, "not about the upload"},
		{"no part size", func(_, m document) { delete(m, "part_size") }, "part_size is 0"},
		{"negative part size", func(_, m document) { m["part_size"] = -1 }, "part_size is -1"},
		{"parts from 2", func(_, m document) { m["parts"] = m["parts"].([]any)[1:] }, "numbered"},
		{"parts swapped", func(_, m document) { p := m["parts"].([]any); p[0], p[1] = p[1], p[0] }, "numbered"},
		{"URLs of parts swapped", func(_, m document) {
			part(m, 1)["url"], part(m, 2)["url"] = part(m, 2)["url"], part(m, 1)["url"]
		}, "numbered"},
		{"a duplicate part", func(_, m document) { maps.Copy(part(m, 2), part(m, 1)) }, "numbered"},
		{"no list", func(_, m document) { delete(m, "list_parts") }, "list_parts"},
		{"no abort", func(_, m document) { delete(m, "abort") }, "abort"},
		{"no complete", func(_, m document) { delete(m, "complete") }, "complete"},
		{"a part by POST", func(_, m document) { part(m, 2)["method"] = "POST" }, "must be PUT"},
		{"complete by PUT", func(_, m document) { request("complete")(m)["method"] = "PUT" }, "must be POST"},
		{"abort by PUT", func(_, m document) { request("abort")(m)["method"] = "PUT" }, "must be DELETE"},
		{"list by DELETE", func(_, m document) { request("list_parts")(m)["method"] = "DELETE" }, "must be GET"},
		{"an unnecessary list", func(_, m document) {
			m["list_parts_next"] = []any{request("list_parts")(m)}
		}, "1 lists in list_parts_next; 3 parts take 0"},
		{"a list that begins later", func(_, m document) {
			request("list_parts")(m)["url"] = request("list_parts")(m)["url"].(string) + "&part-number-marker=1"
		}, "does not begin after part 0"},
		{"head by GET", func(_, m document) { request("head")(m)["method"] = "GET" }, "must be HEAD"},
		{"head elsewhere", func(_, m document) { elsewhere(request("head")(m)) }, "head goes elsewhere"},
		{"head of another object", func(_, m document) {
			request("head")(m)["url"] = strings.Replace(request("head")(m)["url"].(string), "/demo/", "/demo/x", 1)
		}, "head goes elsewhere"},
		{"head without a URL", func(_, m document) { m["head"] = document{"method": "HEAD"} }, "the URL of head"},
		{"head with a Cookie", func(_, m document) { request("head")(m)["headers"] = document{"cookie": "a=b"} }, `header "cookie"`},
		{"head that is a URL", func(_, m document) { m["head"] = "http://a/" }, "head has the wrong type, string"},
		{"a part elsewhere", func(_, m document) { elsewhere(part(m, 3)) }, "part 3 goes elsewhere"},
		{"abort elsewhere", func(_, m document) { elsewhere(request("abort")(m)) }, "abort goes elsewhere"},
		{"a list elsewhere", func(_, m document) { elsewhere(request("list_parts")(m)) }, "list_parts goes elsewhere"},
		{"a part over another scheme", func(_, m document) {
			firstPart(m)["url"] = strings.Replace(firstPart(m)["url"].(string), "http:", "https:", 1)
		}, "elsewhere"},
		{"a part of another object", func(_, m document) {
			firstPart(m)["url"] = strings.Replace(firstPart(m)["url"].(string), "/demo/", "/demo/x", 1)
		}, "elsewhere"},
		{"a part of another upload", func(_, m document) {
			firstPart(m)["url"] = strings.Replace(firstPart(m)["url"].(string), "uploadId=", "uploadId=x", 1)
		}, "not about the upload"},
		{"a part with a Host", func(_, m document) { firstPart(m)["headers"] = document{"host": "x"} }, `header "host"`},

		{"variables without a callback", func(_, m document) { m["callback"] = nil }, "variables of a callback, but no callback"},
		{"a callback that is a string", func(_, m document) { m["callback"] = "e30=" }, "callback: is not one JSON object"},
		{"a callback that is too large", func(_, m document) { m["callback"] = document{"a": strings.Repeat("a", 4000)} }, "OSS allows 5120"},
		{"variables that are a list", func(_, m document) { m["callback_var"] = []int{1} }, "callback_var: is not one JSON object"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			put, multipart := parsed(t, sample(t, "put")), parsed(t, sample(t, "multipart"))
			tt.change(put, multipart)
			rejected := 0
			for _, d := range []document{put, multipart} {
				text, err := json.Marshal(d)
				if err != nil {
					t.Fatal(err)
				}
				m, err := manifest.Read(bytes.NewReader(text))
				if err == nil {
					continue
				}
				rejected++
				if !errors.Is(err, manifest.ErrManifest) || !strings.Contains(err.Error(), tt.says) ||
					strings.Contains(err.Error(), "x-oss-signature") {
					t.Errorf("error %v", err)
				}
				if err := m.Check(); !errors.Is(err, manifest.ErrManifest) {
					t.Errorf("checked again: %v", err)
				}
			}
			if rejected == 0 {
				t.Error("the manifest is accepted")
			}
		})
	}
}

// elsewhere points a request at another server.
func elsewhere(r document) {
	r["url"] = strings.Replace(r["url"].(string), "127.0.0.1", "evil.example.com", 1)
}

// TestBadText reads texts that are not manifests of either kind.
func TestBadText(t *testing.T) {
	t.Parallel()
	text := string(sample(t, "put"))
	for _, bad := range []string{
		"", "null", "{}", "[]", "1", `"http://a/"`, "ftp://a/b", "http://", "http://a/ b c", "http://a/\nhttp://b/", text[:len(text)-2],
		text + "x", text + text, strings.Repeat(" ", manifest.MaxSize) + text,
		strings.Replace(string(sample(t, "multipart")), `"callback_var":{"x:uid":"42"`, `"callback_var":{"x:uid":"42","x:uid":"42"`, 1),
	} {
		if _, err := manifest.Read(strings.NewReader(bad)); !errors.Is(err, manifest.ErrManifest) {
			t.Errorf("%.40q: error %v", bad, err)
		}
	}
	if _, err := manifest.Read(iotest.ErrReader(io.ErrUnexpectedEOF)); !errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, manifest.ErrManifest) {
		t.Errorf("error %v", err)
	}
	for _, m := range []manifest.Manifest{{}, {Put: new(manifest.Upload), Multipart: new(manifest.Multipart)}} {
		if err := m.Check(); !errors.Is(err, manifest.ErrManifest) {
			t.Errorf("%+v: error %v", m, err)
		}
	}
}

// FuzzRead checks that an accepted manifest is accepted again after it is written, and says
// the same.
func FuzzRead(f *testing.F) {
	f.Add([]byte(`http://oss.example.com/demo/a?x-oss-signature=1`))
	f.Add([]byte(`{"bucket":"b","key":"k","oss_upload_id":"u","part_size":1,"size":null,"parts":[{"number":1,"size":1,"method":"PUT","url":"http://a/b?uploadId=u&partNumber=1","headers":{}}],` +
		`"complete":{"method":"POST","url":"http://a/b?uploadId=u"},"abort":{"method":"DELETE","url":"http://a/b?uploadId=u"},"list_parts":{"method":"GET","url":"http://a/b?uploadId=u"}}`))
	for _, name := range []string{"put", "multipart", "multipart_counted"} {
		f.Add(sample(f, name))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := manifest.Read(bytes.NewReader(text))
		if err != nil {
			if !errors.Is(err, manifest.ErrManifest) {
				t.Errorf("error %v", err)
			}
			return
		}
		first := written(t, m)
		again, err := manifest.Read(bytes.NewReader(first))
		if err != nil {
			t.Fatalf("accepted, but not after it was written: %v", err)
		}
		if diff := cmp.Diff(string(first), string(written(t, again))); diff != "" {
			t.Error(diff)
		}
		if m := m.Multipart; m != nil && (m.Bucket == "" || m.Key == "" || m.OSSUploadID == "" ||
			int(m.Parts[len(m.Parts)-1].Number) != len(m.Parts)) {
			t.Errorf("manifest %+v", m)
		}
	})
}
