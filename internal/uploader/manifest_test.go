package uploader_test

import (
	"encoding/json"
	"errors"
	"io"
	"maps"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"upcall/internal/issue"
	"upcall/internal/uploader"
)

// document is a manifest as a JSON object, to be made wrong.
type document = map[string]any

func documentOf(t testing.TB, m uploader.Manifest) document {
	t.Helper()
	var v any = m.Put
	if m.Put == nil {
		v = m.Multipart
	}
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var d document
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

func (w *world) sample() (put, multipart document) {
	callback := w.receiver()
	return documentOf(w.t, w.put(func(r *issue.Request) { r.Callback = callback })),
		documentOf(w.t, w.multipart(3*partSize, func(r *issue.MultipartRequest) { r.Callback = callback }))
}

func read(t *testing.T, d document) (uploader.Manifest, error) {
	t.Helper()
	text, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	return uploader.ReadManifest(strings.NewReader(string(text)))
}

func TestReadManifest(t *testing.T) {
	t.Parallel()
	put, multipart := newWorld(t).sample()
	for _, d := range []document{put, multipart} {
		d["status"] = "issued" // what the API adds, and whatever comes later
		m, err := read(t, d)
		if err != nil {
			t.Fatal(err)
		}
		delete(d, "status")
		if diff := cmp.Diff(d, documentOf(t, m)); diff != "" {
			t.Errorf("read otherwise than written (-want +got):\n%s", diff)
		}
	}
}

// TestBadManifests: nothing of these is ever sent.
func TestBadManifests(t *testing.T) {
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
		{"URL is a number", func(p, _ document) { p["url"] = 1 }, "url is a number"},
		{"method GET", func(p, _ document) { p["method"] = "GET" }, `must be PUT`},
		{"method DELETE", func(p, _ document) { p["method"] = "DELETE" }, `must be PUT`},
		{"method in small letters", func(p, _ document) { p["method"] = "put" }, `must be PUT`},
		{"no method", func(p, _ document) { delete(p, "method") }, `must be PUT`},
		{"relative URL", func(p, _ document) { p["url"] = "/demo/a" }, "no http or https URL"},
		{"file URL", func(p, _ document) { p["url"] = "file:///etc/passwd" }, "no http or https URL"},
		{"URL without a host", func(p, _ document) { p["url"] = "http:///demo" }, "no http or https URL"},
		{"URL with a port only", func(p, _ document) { p["url"] = "http://:80/demo" }, "no http or https URL"},
		{"opaque URL", func(p, _ document) { p["url"] = "http:demo" }, "no http or https URL"},
		{"URL with a line break", func(p, _ document) { p["url"] = "http://a/\n" }, "no http or https URL"},
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
		{"header value that is a list", func(p, _ document) { p["headers"].(document)["x-oss-a"] = []string{"x"} }, "is a array"},

		{"no parts", func(_, m document) { m["parts"] = []any{} }, "0 parts"},
		{"parts null", func(_, m document) { m["parts"] = nil }, "neither a url nor parts"},
		{"parts of numbers", func(_, m document) { m["parts"] = []any{1} }, "parts is a number"},
		{"no id", func(_, m document) { delete(m, "oss_upload_id") }, "no oss_upload_id"},
		{"another id", func(_, m document) { m["oss_upload_id"] = "x" }, "not about the upload"},
		{"no part size", func(_, m document) { delete(m, "part_size") }, "part_size is 0"},
		{"part size of another sign", func(_, m document) { m["part_size"] = -1 }, "part_size is -1"},
		{"parts from 2", func(_, m document) { m["parts"] = m["parts"].([]any)[1:] }, "numbered"},
		{"parts swapped", func(_, m document) { p := m["parts"].([]any); p[0], p[1] = p[1], p[0] }, "numbered"},
		{"URLs of parts swapped", func(_, m document) {
			part(m, 1)["url"], part(m, 2)["url"] = part(m, 2)["url"], part(m, 1)["url"]
		}, "numbered"},
		{"a part twice", func(_, m document) { maps.Copy(part(m, 2), part(m, 1)) }, "numbered"},
		{"no list", func(_, m document) { delete(m, "list_parts") }, "list_parts"},
		{"no abort", func(_, m document) { delete(m, "abort") }, "abort"},
		{"no complete", func(_, m document) { delete(m, "complete") }, "complete"},
		{"a part by POST", func(_, m document) { part(m, 2)["method"] = "POST" }, "must be PUT"},
		{"complete by PUT", func(_, m document) { request("complete")(m)["method"] = "PUT" }, "must be POST"},
		{"abort by PUT", func(_, m document) { request("abort")(m)["method"] = "PUT" }, "must be DELETE"},
		{"list by DELETE", func(_, m document) { request("list_parts")(m)["method"] = "DELETE" }, "must be GET"},
		{"a further list without need", func(_, m document) {
			m["list_parts_next"] = []any{request("list_parts")(m)}
		}, "1 lists in list_parts_next; 3 parts take 0"},
		{"a list that begins later", func(_, m document) {
			request("list_parts")(m)["url"] = request("list_parts")(m)["url"].(string) + "&part-number-marker=1"
		}, "does not begin behind part 0"},
		{"head by GET", func(_, m document) { request("head")(m)["method"] = "GET" }, "must be HEAD"},
		{"head elsewhere", func(_, m document) { elsewhere(request("head")(m)) }, "head goes elsewhere"},
		{"head of another object", func(_, m document) {
			request("head")(m)["url"] = strings.Replace(request("head")(m)["url"].(string), "/demo/", "/demo/x", 1)
		}, "head goes elsewhere"},
		{"head without a URL", func(_, m document) { m["head"] = document{"method": "HEAD"} }, "the URL of head"},
		{"head with a Cookie", func(_, m document) { request("head")(m)["headers"] = document{"cookie": "a=b"} }, `header "cookie"`},
		{"head that is a URL", func(_, m document) { m["head"] = "http://a/" }, "head is a string"},
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
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			put, multipart := w.sample()
			before, _ := json.Marshal([]document{put, multipart})
			goodPut, goodMultipart := put, multipart
			_ = json.Unmarshal(before, &[]*document{&goodPut, &goodMultipart})
			tt.change(put, multipart)
			w.through()
			changed := 0
			for _, d := range []document{put, multipart} {
				m, err := read(t, d)
				if err == nil {
					continue
				}
				changed++
				if !errors.Is(err, uploader.ErrManifest) || !strings.Contains(err.Error(), tt.says) || strings.Contains(err.Error(), "x-oss-signature") {
					t.Errorf("error %v", err)
				}
				// Who skips the reading is stopped all the same.
				if m.Put != nil || m.Multipart != nil {
					_, source := fileOf(t, nil)
					if _, err := newUploader(t).Upload(t.Context(), uploader.Task{Source: source, Manifest: m}); !errors.Is(err, uploader.ErrManifest) {
						t.Errorf("uploading: %v", err)
					}
				}
			}
			if changed == 0 {
				t.Error("it is accepted")
			}
			if w.total() != 0 {
				t.Errorf("%d requests were sent", w.total())
			}
		})
	}
}

// elsewhere points a request at another server.
func elsewhere(r document) {
	r["url"] = strings.Replace(r["url"].(string), "127.0.0.1", "evil.example.com", 1)
}

func TestNotEvenManifests(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	put, _ := w.sample()
	text, err := json.Marshal(put)
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"", "null", "{}", "[]", "1", `"http://a/"`, "ftp://a/b", "http://", "http://a/ b c", "http://a/\nhttp://b/", string(text[:len(text)-1]),
		string(text) + "x", string(text) + string(text), strings.Repeat(" ", uploader.MaxManifest) + string(text)} {
		if _, err := uploader.ReadManifest(strings.NewReader(bad)); !errors.Is(err, uploader.ErrManifest) {
			t.Errorf("%.40q: error %v", bad, err)
		}
	}
	if _, err := uploader.ReadManifest(iotest.ErrReader(io.ErrUnexpectedEOF)); !errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, uploader.ErrManifest) {
		t.Errorf("error %v", err)
	}
	for _, m := range []uploader.Manifest{{}, {Put: new(issue.Upload), Multipart: new(issue.Multipart)}} {
		if err := m.Check(); !errors.Is(err, uploader.ErrManifest) {
			t.Errorf("%+v: error %v", m, err)
		}
	}
}

func TestSizes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	number := func(n int64) *int64 { return &n }
	multipart := func(change func(m *issue.Multipart)) uploader.Manifest {
		m := w.multipart(2*partSize + 5)
		change(m.Multipart)
		return m
	}
	unsigned := func(m *issue.Multipart) {
		for i := range m.Parts {
			m.Parts[i].Headers = nil
		}
	}
	tests := []struct {
		name string
		m    uploader.Manifest
		size int
		fits bool
	}{
		{"any size", w.put(), 5, true},
		{"the signed size", w.put(func(r *issue.Request) { r.ContentLength = number(5) }), 5, true},
		{"a byte less", w.put(func(r *issue.Request) { r.ContentLength = number(5) }), 4, false},
		{"a byte more", w.put(func(r *issue.Request) { r.ContentLength = number(5) }), 6, false},
		{"an empty file", w.put(func(r *issue.Request) { r.ContentLength = number(5) }), 0, false},
		{"not empty", w.put(func(r *issue.Request) { r.ContentLength = number(0) }), 1, false},

		{"multipart", multipart(func(*issue.Multipart) {}), 2*partSize + 5, true},
		{"multipart, a byte less", multipart(func(*issue.Multipart) {}), 2*partSize + 4, false},
		{"multipart, a byte more", multipart(func(*issue.Multipart) {}), 2*partSize + 6, false},
		{"multipart, empty file", multipart(func(*issue.Multipart) {}), 0, false},
		{"parts are fewer than the size", multipart(func(m *issue.Multipart) { m.Parts = m.Parts[:2] }), 2*partSize + 5, false},
		{"parts are more than the size", multipart(func(m *issue.Multipart) { m.Size = number(partSize) }), partSize, false},
		{"a part of another size", multipart(func(m *issue.Multipart) { m.Parts[1].Size = number(5) }), 2*partSize + 5, false},
		{"a part of no size", multipart(func(m *issue.Multipart) { unsigned(m); m.Parts[1].Size = number(0) }), 2*partSize + 5, false},
		{"a part of negative size", multipart(func(m *issue.Multipart) {
			unsigned(m)
			m.Parts[0].Size, m.Parts[1].Size = number(3*partSize), number(-partSize)
		}), 2*partSize + 5, false},
		{"sizes that overflow", multipart(func(m *issue.Multipart) {
			unsigned(m)
			m.Parts[0].Size, m.Parts[1].Size, m.Parts[2].Size = number(1<<63-1), number(1<<63-1), number(2*partSize+7)
		}), 2*partSize + 5, false},
		{"sizes in another order than they are signed", multipart(func(m *issue.Multipart) {
			m.Parts[0].Size, m.Parts[2].Size = m.Parts[2].Size, m.Parts[0].Size
		}), 2*partSize + 5, false},
	}
	for _, tt := range tests {
		if err := tt.m.Fit(int64(tt.size)); (err == nil) != tt.fits || err != nil && !errors.Is(err, uploader.ErrSize) {
			t.Errorf("%s: error %v", tt.name, err)
		}
		if tt.fits {
			continue
		}
		_, source := fileOf(t, someBytes(tt.size))
		w.through()
		if _, err := newUploader(t).Upload(t.Context(), uploader.Task{Source: source, Manifest: tt.m}); !errors.Is(err, uploader.ErrSize) || w.total() != 0 {
			t.Errorf("%s: %d requests, error %v", tt.name, w.total(), err)
		}
	}
}

// FuzzReadManifest: what is accepted is accepted again when it is written out, and says
// the same.
func FuzzReadManifest(f *testing.F) {
	f.Add(`http://oss.example.com/demo/a?x-oss-signature=1`)
	f.Add(`{"upload_id":"019aa8f1-0000-7000-8000-000000000000","method":"PUT","url":"https://a/b","expires_at":"2026-11-22T00:00:00Z","headers":{"x-oss-a":"b"},"callback":null,"callback_var":{}}`)
	f.Add(`{"oss_upload_id":"u","part_size":1,"size":null,"parts":[{"number":1,"size":1,"method":"PUT","url":"http://a/b?uploadId=u&partNumber=1","headers":{}}],` +
		`"complete":{"method":"POST","url":"http://a/b?uploadId=u"},"abort":{"method":"DELETE","url":"http://a/b?uploadId=u"},"list_parts":{"method":"GET","url":"http://a/b?uploadId=u"}}`)
	f.Fuzz(func(t *testing.T, text string) {
		m, err := uploader.ReadManifest(strings.NewReader(text))
		if err != nil {
			return
		}
		first := documentOf(t, m)
		again, err := read(t, first)
		if err != nil {
			t.Fatalf("accepted, but not when written out: %v", err)
		}
		if diff := cmp.Diff(first, documentOf(t, again)); diff != "" {
			t.Error(diff)
		}
		_ = m.Fit(1 << 20) // whatever it says: no panic
	})
}
