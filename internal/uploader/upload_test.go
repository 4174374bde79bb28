package uploader_test

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc64"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"upcall/internal/issue"
	"upcall/internal/manifest"
	"upcall/internal/testing/receiverfake"
	"upcall/internal/uploader"
)

func TestPut(t *testing.T) {
	t.Parallel()
	for _, size := range []int{0, 1, 1 << 20, 3<<20 + 1} {
		for _, inQuery := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d bytes, callback in the query %t", size, inQuery), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				content := someBytes(size)
				_, source := fileOf(t, content)
				length := int64(size)
				callback := w.callback()
				callback.InQuery = inQuery
				m := w.put(func(r *issue.Request) {
					r.Callback, r.ContentLength, r.Object.ContentType = callback, &length, "image/jpeg"
					r.Object.Meta = map[string]string{"a": "b"}
				})
				var seen log
				result, err := newUploader(t).Upload(t.Context(), uploader.Task{Source: source, Manifest: m, Watcher: &seen})
				if err != nil {
					t.Fatal(err)
				}
				crc := crc64.Checksum(content, crc64.MakeTable(crc64.ECMA))
				if string(result.Answer) != receiverfake.Answer || result.CRC64 != crc || result.Parts != 0 {
					t.Errorf("%+v", result)
				}
				w.wantStored(content)
				if got := w.receiver.Callbacks(); len(got) != 1 || !strings.Contains(got[0].Body, "crc64="+strconv.FormatUint(crc, 10)) {
					t.Errorf("reported: %q", got)
				}
				if seen.sent != int64(size) || len(seen.remarks) != 0 || len(w.gate.Seen()) != 1 {
					t.Errorf("%+v, %d requests", seen.sent, len(w.gate.Seen()))
				}
			})
		}
	}
}

// TestPutWithoutCallback checks that OSS's own answer is not taken for a receiver's.
func TestPutWithoutCallback(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, source := fileOf(t, []byte("hello"))
	m, err := manifest.Read(strings.NewReader("\n" + w.put().Put.URL + "\n")) // a URL alone is enough
	if err != nil {
		t.Fatal(err)
	}
	result, err := newUploader(t).Upload(t.Context(), uploader.Task{Source: source, Manifest: m, Watcher: new(log)})
	if err != nil || result.Answer != nil {
		t.Fatalf("%+v, %v", result, err)
	}
	w.wantStored([]byte("hello"))
}

func TestMultipart(t *testing.T) {
	t.Parallel()
	counted := func(n int) func(*issue.MultipartRequest) {
		return func(r *issue.MultipartRequest) { r.Size, r.Parts = nil, n }
	}
	tests := []struct {
		name   string
		size   int
		parts  int
		change func(*issue.MultipartRequest)
	}{
		{"one byte", 1, 1, nil},
		{"one part", partSize, 1, nil},
		{"two parts, the last of one byte", partSize + 1, 2, nil},
		{"many parts", 23*partSize + 17, 24, nil},
		{"more parts than connections", 9 * partSize, 9, nil},
		{"counted, as many as needed", 3 * partSize, 3, counted(3)},
		{"counted, more than needed", 2*partSize + 1, 3, counted(10)},
		{"counted, too few of the smallest size", 10*partSize + 5, 3, counted(3)},
		{"counted, nothing to send", 0, 1, counted(2)},
		{"callback in the query", 2 * partSize, 2, func(r *issue.MultipartRequest) { r.Callback.InQuery = true }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			content := someBytes(tt.size)
			_, source := fileOf(t, content)
			callback := w.callback()
			m := w.multipart(int64(max(tt.size, 1)), func(r *issue.MultipartRequest) {
				r.Callback = callback
				if tt.change != nil {
					tt.change(r)
				}
			})
			w.gate.Open()
			var seen log
			result, err := newUploader(t).Upload(t.Context(), uploader.Task{Source: source, Manifest: m, Watcher: &seen})
			if err != nil {
				t.Fatal(err)
			}
			crc := crc64.Checksum(content, crc64.MakeTable(crc64.ECMA))
			if string(result.Answer) != receiverfake.Answer || result.CRC64 != crc || result.Parts != tt.parts || result.Kept != 0 {
				t.Errorf("%+v", result)
			}
			w.wantStored(content)
			if got := w.receiver.Callbacks(); len(got) != 1 || !strings.Contains(got[0].Body, "crc64="+strconv.FormatUint(crc, 10)) {
				t.Errorf("reported: %q", got)
			}
			if seen.sent != int64(tt.size) || w.gate.Count("PUT *") != tt.parts || w.gate.Count("POST") != 1 {
				t.Errorf("%d bytes seen, requests %v", seen.sent, w.gate.Seen())
			}
		})
	}
}

// TestResume checks that only missing or different parts are sent.
func TestResume(t *testing.T) {
	t.Parallel()
	const size = 5*partSize + 100
	tests := []struct {
		name string
		// change is called after parts 1 to 5 of 6 were sent
		change func(t *testing.T, path string, content []byte, m *manifest.Multipart)
		kept   int
	}{
		{"unchanged", func(*testing.T, string, []byte, *manifest.Multipart) {}, 5},
		{"a part at OSS is different", func(t *testing.T, _ string, content []byte, m *manifest.Multipart) {
			other := bytes.Clone(content[partSize : 2*partSize])
			other[7] ^= 1
			sendTo(t, m.Parts[1].PresignedRequest, other)
		}, 4},
		{"a byte of the file has changed", func(t *testing.T, path string, content []byte, _ *manifest.Multipart) {
			content[2*partSize+7] ^= 1
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
		}, 4},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			content := someBytes(size)
			path, source := fileOf(t, content)
			callback := w.callback()
			m := w.multipart(size, func(r *issue.MultipartRequest) { r.Callback = callback })
			// Part 6 is rejected.
			w.gate.Between(func(rw http.ResponseWriter, r *http.Request, serve http.Handler) {
				if r.URL.Query().Get("partNumber") == "6" {
					refuse(rw, 403, "AccessDenied", "no")
					return
				}
				serve.ServeHTTP(rw, r)
			})
			// With one connection, parts 1 to 5 are sent before part 6.
			one := newUploader(t, func(c *uploader.Config) { c.Parallel = 1 })
			_, err := one.Upload(t.Context(), uploader.Task{Source: source, Manifest: m, Watcher: new(log)})
			if status, ok := errors.AsType[*uploader.StatusError](err); !ok || status.Status != 403 {
				t.Fatalf("part 6 was not rejected: %v", err)
			}
			tt.change(t, path, content, m.Multipart)
			w.gate.Open()
			var seen log
			result, err := newUploader(t).Upload(t.Context(), uploader.Task{Source: open(t, path), Manifest: m, Watcher: &seen})
			if err != nil {
				t.Fatal(err)
			}
			if result.Kept != tt.kept || w.gate.Count("PUT *") != 6-tt.kept || seen.sent != size ||
				string(result.Answer) != receiverfake.Answer {
				t.Errorf("%+v, %d parts sent, %d bytes seen", result, w.gate.Count("PUT *"), seen.sent)
			}
			w.wantStored(content)
			if n := len(w.receiver.Callbacks()); n != 1 {
				t.Errorf("reported %d times", n)
			}
		})
	}
}

// TestManyPages resumes an upload whose parts OSS lists in two pages.
func TestManyPages(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const parts = 1003
	content := someBytes(parts * 10)
	_, source := fileOf(t, content)
	m := w.multipart(parts, func(r *issue.MultipartRequest) { r.Size, r.Parts = nil, parts })
	m.Multipart.PartSize = 10 // too small for OSS to complete; the test is about the lists
	w.gate.Between(func(rw http.ResponseWriter, r *http.Request, serve http.Handler) { serve.ServeHTTP(rw, r) })
	_, err := newUploader(t).Upload(t.Context(), uploader.Task{Source: source, Manifest: m, Watcher: new(log)})
	if err == nil || !strings.Contains(err.Error(), "EntityTooSmall") || w.gate.Count("PUT *") != parts {
		t.Fatalf("%d parts sent: %v", w.gate.Count("PUT *"), err)
	}
	w.gate.Open()
	_, err = newUploader(t).Upload(t.Context(), uploader.Task{Source: source, Manifest: m, Watcher: new(log)})
	if err == nil || !strings.Contains(err.Error(), "EntityTooSmall") || w.gate.Count("PUT *") != 0 || w.gate.Count("GET") != 2 {
		t.Errorf("%d parts sent, %d pages: %v", w.gate.Count("PUT *"), w.gate.Count("GET"), err)
	}
	// Without the second page the other parts are unknown, so they are sent again.
	m.Multipart.ListPartsNext = nil
	w.gate.Open()
	_, err = newUploader(t).Upload(t.Context(), uploader.Task{Source: source, Manifest: m, Watcher: new(log)})
	if err == nil || !strings.Contains(err.Error(), "EntityTooSmall") || w.gate.Count("PUT *") != parts-1000 {
		t.Errorf("%d parts sent: %v", w.gate.Count("PUT *"), err)
	}
}

func sendTo(t *testing.T, p manifest.PresignedRequest, content []byte) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), p.Method, p.URL, bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 200 {
		t.Fatalf("status %d", resp.StatusCode)
	}
}

func TestOpenSource(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for path, want := range map[string]string{
		filepath.Join(dir, "none"): "no such file", dir: "is a directory; pass the files in it", os.DevNull: "is not a regular file",
	} {
		source, err := uploader.OpenSource(path)
		if err == nil {
			source.Close()
		}
		if err == nil || !strings.Contains(err.Error(), path+": ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want an error that says %s", path, err, want)
		}
	}
}
