package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"upcall/internal/manifest"
	"upcall/internal/ossemu"
	"upcall/internal/testing/receiverfake"
)

// TestMultipartByURLs uploads with the manifest alone: it sends and lists the parts, and
// completes the upload with the callback in headers or in the query.
func TestMultipartByURLs(t *testing.T) {
	t.Parallel()
	for _, carry := range []string{"header", "query"} {
		t.Run(carry, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			data := content(300_001)
			m, _ := w.create(t, "--size", "300001", "--part-size", "102400", "--carry", carry, "--var", "uid=42", "--acl", "private",
				"--meta", "a=1", "--forbid-overwrite", "--content-type", "video/mp4", "--storage-class", "IA", "--tag", "a=1",
				"--header", "Cache-Control=no-cache")
			if len(m.Parts) != 3 || m.PartSize != 102400 || *m.Size != 300001 || *m.Parts[2].Size != 95201 {
				t.Fatalf("parts %+v", m.Parts)
			}
			etags := uploadParts(t, m, data)
			if status, answer, _ := ask(t, m.ListParts, nil); status != http.StatusOK || strings.Count(answer, "<PartNumber>") != 3 {
				t.Errorf("list: status %d: %s", status, answer)
			}
			if len(w.receiver.Callbacks()) != 0 {
				t.Error("OSS called back before the completion")
			}
			if status, _, _ := ask(t, *m.Head, nil); status != http.StatusNotFound {
				t.Errorf("head before the completion: status %d", status)
			}
			status, got, header := ask(t, m.Complete, completeXML(etags))
			if status != http.StatusOK || got != answer {
				t.Fatalf("complete: status %d: %s", status, got)
			}
			if header.Get("x-oss-hash-crc64ecma") != fmt.Sprint(crcOf(data)) {
				t.Errorf("CRC-64 %s", header.Get("x-oss-hash-crc64ecma"))
			}
			if status, _, header := ask(t, *m.Head, nil); status != http.StatusOK || header.Get("Content-Length") != "300001" ||
				header.Get("x-oss-hash-crc64ecma") != fmt.Sprint(crcOf(data)) {
				t.Errorf("head: status %d, %v", status, header)
			}
			callback := w.callback(t, "video.mp4")
			if *callback.Size != 300001 || callback.Operation != "CompleteMultipartUpload" || callback.MimeType != "video/mp4" ||
				string(callback.Vars["uid"]) != `"42"` {
				t.Errorf("callback %+v", callback)
			}
			if status, answer, _ := ask(t, m.Abort, nil); status != http.StatusNotFound {
				t.Errorf("abort after the completion: status %d: %s", status, answer)
			}
		})
	}
}

// TestMultipartWrongPart checks that, if the size is known, OSS accepts only the signed parts.
func TestMultipartWrongPart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	m, _ := w.create(t, "--size", "204801", "--part-size", "102400")
	for _, body := range [][]byte{nil, content(102399), content(102401), content(1)} {
		if status, answer, _ := askAs(t, m.Parts[0].PresignedRequest, body); status < 400 {
			t.Errorf("a part of %d bytes: status %d: %s", len(body), status, answer)
		}
	}
	swapped := m.Parts[0].PresignedRequest
	swapped.URL = strings.Replace(swapped.URL, "partNumber=1&", "partNumber=2&", 1)
	if status, answer, _ := ask(t, swapped, content(102400)); swapped.URL == m.Parts[0].URL || status != http.StatusForbidden {
		t.Errorf("part 1 sent as part 2: status %d: %s", status, answer)
	}
	// Nobody can complete the upload without the callback, or with another one.
	for name := range m.Complete.Headers {
		changed := m.Complete
		changed.Headers = map[string]string{}
		for n, v := range m.Complete.Headers {
			if n != name {
				changed.Headers[n] = v
			}
		}
		if status, answer, _ := ask(t, changed, completeXML([]string{"x"})); status != http.StatusForbidden {
			t.Errorf("complete without %s: status %d: %s", name, status, answer)
		}
	}
}

func TestMultipartComplete(t *testing.T) {
	t.Parallel()
	data := content(250_000)
	crc := fmt.Sprint(crcOf(data))
	file := saved(t, string(data))
	tests := []struct {
		name   string
		create []string
		args   []string
	}{
		{"without a comparison", []string{"--size", "250000", "--part-size", "102400"}, nil},
		{"with the CRC-64", []string{"--size", "250000", "--part-size", "102400"}, []string{"--crc64", crc}},
		{"with the file", []string{"--size", "250000", "--part-size", "102400"}, []string{"--file", file}},
		{"one part", []string{"--size", "250000"}, []string{"--file", file}},
		{"counted parts", []string{"--parts", "7", "--part-size", "102400"}, []string{"--file", file}},
		{"callback in the query", []string{"--parts", "7", "--part-size", "102400", "--carry", "query"}, []string{"--file", file}},
		{"all settings", []string{"--parts", "7", "--acl", "private", "--forbid-overwrite"}, []string{"--file", file}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for _, format := range []string{"text", "json"} {
				w := newWorld(t)
				m, text := w.create(t, tt.create...)
				uploadParts(t, m, data)
				stdout, stderr, status := w.complete(t, text, append(tt.args, "--format", format)...)
				if status != 0 || stderr != "" || !strings.Contains(stdout, answer) || !strings.Contains(stdout, crc) {
					t.Fatalf("status %d: %s%s", status, stdout, stderr)
				}
				if format == "text" && strings.Contains(stdout, "as expected") != (tt.args != nil) {
					t.Errorf("on the comparison it says: %s", stdout)
				}
				if format == "json" && !json.Valid([]byte(stdout)) {
					t.Errorf("not JSON: %s", stdout)
				}
				if callback := w.callback(t, "video.mp4"); *callback.Size != 250000 {
					t.Errorf("callback %+v", callback)
				}
				// A second completion fails and says that the upload is over.
				if _, stderr, status := w.complete(t, text); status != 1 || !strings.Contains(stderr, "NoSuchUpload") ||
					strings.Count(stderr, "\n") != 1 {
					t.Errorf("again: status %d: %s", status, stderr)
				}
			}
		})
	}
}

// TestMultipartCompleteRefused checks that incomplete uploads are not completed.
func TestMultipartCompleteRefused(t *testing.T) {
	t.Parallel()
	data := content(250_000)
	sized := []string{"--size", "250000", "--part-size", "102400"}
	counted := []string{"--parts", "3", "--part-size", "102400"}
	without := func(numbers ...int32) func(*manifest.Multipart) {
		return func(m *manifest.Multipart) {
			m.Parts = slices.DeleteFunc(m.Parts, func(p manifest.Part) bool { return slices.Contains(numbers, p.Number) })
		}
	}
	tests := []struct {
		name   string
		create []string
		upload func(*manifest.Multipart) // changes what is uploaded
		args   []string
		says   string
	}{
		{"nothing was uploaded", sized, without(1, 2, 3), nil, "no part was uploaded"},
		{"the first part is missing", sized, without(1), nil, "part 1 of 3 was not uploaded"},
		{"a part in the middle is missing", sized, without(2), nil, "part 2 of 3 was not uploaded"},
		{"the last part is missing", sized, without(3), nil, "part 3 of 3 was not uploaded"},
		{"a gap in counted parts", counted, without(2), nil, "part 2 of 2 was not uploaded"},
		{"another CRC-64", sized, func(*manifest.Multipart) {}, []string{"--crc64", "1"}, "the upload was not completed"},
		{"another CRC-64 of counted parts", counted, without(3), []string{"--crc64", fmt.Sprint(crcOf(data))}, "the upload was not completed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			m, text := w.create(t, tt.create...)
			tt.upload(&m)
			uploadParts(t, m, data)
			stdout, stderr, status := w.complete(t, text, tt.args...)
			if status != 1 || stdout != "" || !strings.Contains(stderr, tt.says) || strings.Count(stderr, "\n") != 1 {
				t.Errorf("status %d: %s%s", status, stdout, stderr)
			}
			if len(w.receiver.Callbacks()) != 0 || w.openUploads(t) != 1 {
				t.Errorf("%d callbacks came, %d uploads are open", len(w.receiver.Callbacks()), w.openUploads(t))
			}
			// The upload is still open, to be fixed or aborted.
			out, stderr, status := execute(t, w.env, "multipart", "abort", "--manifest", saved(t, text))
			if status != 0 || stderr != "" || !strings.Contains(out, "video.mp4") || w.openUploads(t) != 0 {
				t.Errorf("abort: status %d: %s%s", status, out, stderr)
			}
			if _, stderr, status := execute(t, w.env, "multipart", "abort", "--manifest", saved(t, text)); status != 1 ||
				!strings.Contains(stderr, "NoSuchUpload") {
				t.Errorf("abort again: status %d: %s", status, stderr)
			}
		})
	}
}

// TestMultipartCallbackFails checks that 203 is not a success.
func TestMultipartCallbackFails(t *testing.T) {
	t.Parallel()
	for _, format := range []string{"text", "json"} {
		w := newWorld(t)
		stdout, stderr, status := execute(t, w.env, "multipart", "create", "--bucket", "demo", "--key", "video.mp4", "--parts", "1",
			"--callback-url", w.receiver.URL+receiverfake.RefusePath)
		if status != 0 {
			t.Fatal(stderr)
		}
		m, err := manifest.Read(strings.NewReader(stdout))
		if err != nil {
			t.Fatal(err)
		}
		uploadParts(t, *m.Multipart, content(10))
		out, stderr, status := w.complete(t, stdout, "--format", format)
		if status != 1 || !strings.Contains(stderr, "203 CallbackFailed") || strings.Count(stderr, "\n") != 1 ||
			!strings.Contains(out, "video.mp4") {
			t.Errorf("%s: status %d: %s%s", format, status, out, stderr)
		}
	}
}

// TestMultipartForbidOverwrite checks that the completion does not overwrite an object.
func TestMultipartForbidOverwrite(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	m, text := w.create(t, "--parts", "1", "--forbid-overwrite")
	uploadParts(t, m, content(10))
	u := put(t, w.env, "--bucket", "demo", "--key", "video.mp4")
	if status, body := send(t, u.Request()); status != http.StatusOK {
		t.Fatal(body)
	}
	if _, stderr, status := w.complete(t, text); status != 1 || !strings.Contains(stderr, "FileAlreadyExists") {
		t.Errorf("status %d: %s", status, stderr)
	}
	_, stderr, status := execute(t, w.env, w.createArgs("--parts", "1", "--forbid-overwrite")...)
	if status != 1 || !strings.Contains(stderr, "FileAlreadyExists") || strings.Count(stderr, "\n") != 1 ||
		len(w.receiver.Callbacks()) != 0 {
		t.Errorf("create: status %d: %s", status, stderr)
	}
}

// TestMultipartManyParts completes an upload whose parts OSS lists a thousand at a time.
func TestMultipartManyParts(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *ossemu.Config) { c.MinPartSize = 1 })
	m, text := w.create(t, "--parts", "10000", "--part-size", "102400")
	if len(m.Parts) != 10000 || len(m.ListPartsNext) != 9 {
		t.Fatalf("%d parts, %d further lists", len(m.Parts), len(m.ListPartsNext))
	}
	for _, part := range m.Parts[:1001] {
		if status, answer, _ := ask(t, part.PresignedRequest, content(1)); status != http.StatusOK {
			t.Fatalf("part %d: %d: %s", part.Number, status, answer)
		}
	}
	for i, want := range []int{1000, 1, 0} {
		list := m.Lists()[i]
		if status, answer, _ := ask(t, list, nil); status != http.StatusOK || strings.Count(answer, "<PartNumber>") != want {
			t.Errorf("list %d: status %d, %d parts", i, status, strings.Count(answer, "<PartNumber>"))
		}
	}
	stdout, stderr, status := w.complete(t, text, "--format", "json")
	if status != 0 || !strings.Contains(stdout, `"parts":1001`) {
		t.Errorf("status %d: %s%s", status, stdout, stderr)
	}
}

// TestMultipartText writes the manifest to a file and prints what to do with it.
func TestMultipartText(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	path := filepath.Join(t.TempDir(), "m.json")
	stdout, stderr, status := execute(t, w.env, w.createArgs("--size", "20000000", "--format", "text", "--manifest", path)...)
	if status != 0 || stderr != "" {
		t.Fatalf("status %d: %s", status, stderr)
	}
	for _, want := range []string{"video.mp4 in bucket demo", "3, of 8388608 bytes each but the last, which has 3222784",
		"issuer upload --manifest " + path, "multipart complete --manifest", "multipart abort --manifest", "as requested"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("does not say %q:\n%s", want, stdout)
		}
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if m, err := manifest.Read(file); err != nil || len(m.Multipart.Parts) != 3 {
		t.Errorf("manifest %+v, %v", m, err)
	}
	// A second upload does not overwrite the manifest of the first, and is not initiated.
	if _, stderr, status := execute(t, w.env, w.createArgs("--parts", "1", "--manifest", path)...); status != 2 ||
		!strings.Contains(stderr, "--manifest: ") || w.openUploads(t) != 1 {
		t.Errorf("status %d: %s; %d uploads", status, stderr, w.openUploads(t))
	}
}

// TestMultipartSTS checks that every URL of the manifest ends with the credentials.
func TestMultipartSTS(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *ossemu.Config) { c.SecurityToken = "sts" })
	end := time.Now().Add(10 * time.Minute).UTC().Truncate(time.Second)
	w.env["OSS_SESSION_TOKEN"], w.env["UPCALL_STS_EXPIRATION"] = "sts", end.Format(time.RFC3339)
	stdout, stderr, status := execute(t, w.env, w.createArgs("--parts", "2", "--expires", "7d")...)
	if status != 0 || !strings.Contains(stderr, "the credentials end at "+end.Format(time.RFC3339)) ||
		!strings.Contains(stderr, "before the 7d of --expires") {
		t.Fatalf("status %d: %s", status, stderr)
	}
	m, err := manifest.Read(strings.NewReader(stdout))
	if err != nil {
		t.Fatal(err)
	}
	if !m.Multipart.ExpiresAt.Equal(end) {
		t.Errorf("expires at %s, want %s", m.Multipart.ExpiresAt, end)
	}
	uploadParts(t, *m.Multipart, content(10))
	if stdout, stderr, status := w.complete(t, stdout); status != 0 {
		t.Errorf("status %d: %s%s", status, stdout, stderr)
	}
}
