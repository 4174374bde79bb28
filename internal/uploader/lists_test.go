package uploader_test

import (
	"crypto/md5"
	"encoding/xml"
	"fmt"
	"net/http"
	"strconv"
	"testing"

	"upcall/internal/issue"
	"upcall/internal/manifest"
	"upcall/internal/uploader"
)

// manyParts is the number of parts of a manifest that needs two lists.
const manyParts = 1500

func (w *world) manyParts() manifest.Manifest {
	m := w.multipart(0, func(r *issue.MultipartRequest) { r.Size, r.Parts = nil, manyParts })
	m.Multipart.PartSize = 1 // OSS would not complete such an upload, but the test does not ask it to
	return m
}

// TestResumeOverLists resumes an upload of which OSS has all parts but one, which it lists a
// thousand at a time.
func TestResumeOverLists(t *testing.T) {
	t.Parallel()
	const missing = 1200
	for name, tt := range map[string]struct {
		change       func(m *manifest.Multipart)
		lists, parts int // requests
	}{
		"both lists":          {func(*manifest.Multipart) {}, 2, 1},
		"only the first list": {func(m *manifest.Multipart) { m.ListPartsNext = nil }, 1, manyParts - 1000},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, content := newWorld(t), someBytes(manyParts)
			_, source := fileOf(t, content)
			m := w.manyParts()
			tt.change(m.Multipart)
			w.gate.Between(func(rw http.ResponseWriter, r *http.Request, serve http.Handler) {
				switch r.Method {
				case http.MethodGet:
					writeList(t, rw, r, content, missing)
				case http.MethodPost:
					rw.Header().Set("x-oss-hash-crc64ecma", strconv.FormatUint(crcOf(content), 10))
				default:
					serve.ServeHTTP(rw, r)
				}
			})
			result, err := newUploader(t).Upload(t.Context(), uploader.Task{Source: source, Manifest: m, Watcher: new(log)})
			if err != nil || result.Parts != manyParts || result.Kept != manyParts-tt.parts || result.CRC64 != crcOf(content) {
				t.Errorf("result %+v, %v", result, err)
			}
			if w.gate.Count("GET") != tt.lists || w.gate.Count("PUT *") != tt.parts || w.gate.Count("PUT "+strconv.Itoa(missing)) != 1 {
				t.Errorf("%d lists, %d parts", w.gate.Count("GET"), w.gate.Count("PUT *"))
			}
		})
	}
}

// writeList lists every byte of the content as a part, except the missing one.
func writeList(t *testing.T, rw http.ResponseWriter, r *http.Request, content []byte, missing int) {
	type part struct {
		PartNumber    int
		ETag          string
		Size          int
		HashCrc64ecma uint64
	}
	list := struct {
		XMLName     xml.Name `xml:"ListPartsResult"`
		UploadId    string
		IsTruncated bool
		Part        []part
	}{UploadId: r.URL.Query().Get("uploadId")}
	after, _ := strconv.Atoi(r.URL.Query().Get("part-number-marker")) // 0 if there is none
	for number := after + 1; number <= len(content) && !list.IsTruncated; number++ {
		if number == missing {
			continue
		}
		one := content[number-1 : number]
		list.Part = append(list.Part, part{number, fmt.Sprintf(`"%X"`, md5.Sum(one)), 1, crcOf(one)})
		list.IsTruncated = len(list.Part) == 1000 && number < len(content)
	}
	if err := xml.NewEncoder(rw).Encode(list); err != nil {
		t.Error(err)
	}
}
