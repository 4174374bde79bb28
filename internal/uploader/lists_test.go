package uploader_test

import (
	"crypto/md5"
	"encoding/xml"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"upcall/internal/issue"
	"upcall/internal/uploader"
)

// manyParts is a manifest whose parts take two lists.
const manyParts = 1500

func (w *world) manyParts() uploader.Manifest {
	m := w.multipart(0, func(r *issue.MultipartRequest) { r.Size, r.Parts = nil, manyParts })
	m.Multipart.PartSize = 1 // OSS would not merge such, but these need not be merged
	return m
}

func TestLists(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	next := func(m document) document { return m["list_parts_next"].([]any)[0].(document) }
	for name, tt := range map[string]struct {
		change func(m document)
		says   string // "" is accepted
	}{
		"as issued":         {func(document) {}, ""},
		"a list is missing": {func(m document) { delete(m, "list_parts_next") }, ""},
		"by DELETE":         {func(m document) { next(m)["method"] = "DELETE" }, "the method of list_parts_next 1"},
		"elsewhere":         {func(m document) { elsewhere(next(m)) }, "list_parts_next 1 goes elsewhere"},
		"another upload": {func(m document) {
			next(m)["url"] = strings.Replace(next(m)["url"].(string), "uploadId=", "uploadId=x", 1)
		}, "list_parts_next 1 is not about the upload"},
		"with a Host":         {func(m document) { next(m)["headers"] = document{"host": "x"} }, `list_parts_next 1 has a header "host"`},
		"the first one again": {func(m document) { m["list_parts_next"] = []any{m["list_parts"]} }, "does not begin behind part 1000"},
		"one too many":        {func(m document) { m["list_parts_next"] = []any{next(m), next(m)} }, "2 lists in list_parts_next; 1500 parts take 1"},
		"swapped": {func(m document) {
			first := m["list_parts"]
			m["list_parts"], m["list_parts_next"] = next(m), []any{first}
		}, "does not begin behind part 0"},
	} {
		m := documentOf(t, w.manyParts())
		tt.change(m)
		_, err := read(t, m)
		if tt.says == "" && err != nil || tt.says != "" && (!errors.Is(err, uploader.ErrManifest) || !strings.Contains(err.Error(), tt.says)) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

// TestResumeOverLists: OSS has all parts but one, and says so a thousand parts at a time.
func TestResumeOverLists(t *testing.T) {
	t.Parallel()
	const missing = 1200
	for name, tt := range map[string]struct {
		change       func(m *issue.Multipart)
		lists, parts int // requests
	}{
		"both lists":          {func(*issue.Multipart) {}, 2, 1},
		"only the first list": {func(m *issue.Multipart) { m.ListPartsNext = nil }, 1, manyParts - 1000},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, content := newWorld(t), someBytes(manyParts)
			_, source := fileOf(t, content)
			m := w.manyParts()
			tt.change(m.Multipart)
			w.between(func(rw http.ResponseWriter, r *http.Request, serve http.Handler) {
				switch r.Method {
				case http.MethodGet:
					writeList(t, rw, r, content, missing)
				case http.MethodPost:
					rw.Header().Set("x-oss-hash-crc64ecma", strconv.FormatUint(crcOf(content), 10))
				default:
					serve.ServeHTTP(rw, r)
				}
			})
			result, err := newUploader(t).Upload(t.Context(), uploader.Task{Source: source, Manifest: m})
			if err != nil || result.Parts != manyParts || result.Kept != manyParts-tt.parts || result.CRC64 != crcOf(content) {
				t.Errorf("result %+v, %v", result, err)
			}
			if w.count("GET") != tt.lists || w.count("PUT *") != tt.parts || w.count("PUT "+strconv.Itoa(missing)) != 1 {
				t.Errorf("%d lists, %d parts", w.count("GET"), w.count("PUT *"))
			}
		})
	}
}

// writeList lists every byte of the content as a part, but one.
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
	after, _ := strconv.Atoi(r.URL.Query().Get("part-number-marker")) // none is 0
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
