package uploader_test

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"upcall/internal/issue"
	"upcall/internal/manifest"
	"upcall/internal/testing/receiverfake"
	"upcall/internal/uploader"
)

// sendParts sends the content with a manifest's requests, except for the parts in without.
func (w *world) sendParts(m *manifest.Multipart, content []byte, without ...int32) {
	w.t.Helper()
	skipped := make(map[int32]bool)
	for _, number := range without {
		skipped[number] = true
	}
	for _, part := range m.Parts {
		start := int64(part.Number-1) * m.PartSize
		if skipped[part.Number] || start >= int64(len(content)) {
			continue
		}
		body := strings.NewReader(string(content[start:min(start+m.PartSize, int64(len(content)))]))
		r, err := http.NewRequestWithContext(w.t.Context(), part.Method, part.URL, body)
		if err != nil {
			w.t.Fatal(err)
		}
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			w.t.Fatal(err)
		}
		answer.Body.Close()
		if answer.StatusCode != http.StatusOK {
			w.t.Fatalf("part %d: %s", part.Number, answer.Status)
		}
	}
}

// A door stands between the uploader and OSS.
type door = func(rw http.ResponseWriter, r *http.Request, serve http.Handler)

// rewrite passes requests on and changes the answers to those with a method.
func rewrite(method string, change func(header http.Header, body string) string) door {
	return func(rw http.ResponseWriter, r *http.Request, serve http.Handler) {
		if r.Method != method {
			serve.ServeHTTP(rw, r)
			return
		}
		answer := httptest.NewRecorder()
		serve.ServeHTTP(answer, r)
		body := change(answer.Header(), answer.Body.String())
		maps.Copy(rw.Header(), answer.Header())
		rw.Header().Set("Content-Length", fmt.Sprint(len(body)))
		rw.WriteHeader(answer.Code)
		io.WriteString(rw, body)
	}
}

// TestComplete completes uploads without the file, and disturbs the answers of OSS.
func TestComplete(t *testing.T) {
	t.Parallel()
	const size = 2*partSize + 45_200
	content := someBytes(size)
	want := crcOf(content)
	other := want + 1
	noCRCs := rewrite("GET", func(_ http.Header, body string) string {
		return regexp.MustCompile(`<HashCrc64ecma>\d+</HashCrc64ecma>`).ReplaceAllString(body, "")
	})
	completions := func(answer func(rw http.ResponseWriter, r *http.Request, serve http.Handler)) door {
		return func(rw http.ResponseWriter, r *http.Request, serve http.Handler) {
			if r.Method == "POST" {
				answer(rw, r, serve)
				return
			}
			serve.ServeHTTP(rw, r)
		}
	}
	lose := func(w *world, before door) door {
		return func(rw http.ResponseWriter, r *http.Request, serve http.Handler) {
			if r.Method == "POST" && w.gate.Count("POST") == 1 {
				answerLost(t, rw, r, serve)
				return
			}
			before(rw, r, serve)
		}
	}
	through := func(rw http.ResponseWriter, r *http.Request, serve http.Handler) { serve.ServeHTTP(rw, r) }
	tests := []struct {
		name      string
		between   func(w *world) door
		expect    *uint64
		callback  bool
		is        error // nil means success
		says      string
		completes int  // requests to complete
		stored    bool // and the result says so
	}{
		{"as expected", nil, &want, false, nil, "", 1, true},
		{"nothing expected", nil, nil, false, nil, "", 1, true},
		{"with a callback", nil, nil, true, nil, "", 1, true},
		{"other parts", nil, &other, false, uploader.ErrChecksum, "the upload was not completed", 0, false},
		{"parts without a CRC-64", func(*world) door { return noCRCs }, &want, false, nil, "", 1, true},
		{"parts without a CRC-64, nothing expected", func(*world) door { return noCRCs }, nil, false, nil, "", 1, true},
		{"parts without a CRC-64, other object", func(*world) door { return noCRCs }, &other, false,
			uploader.ErrChecksum, fmt.Sprintf("OSS has stored %d instead of %d", want, other), 1, true},
		{"another object completed", func(*world) door {
			return rewrite("POST", func(h http.Header, body string) string {
				h.Set("x-oss-hash-crc64ecma", "7")
				return body
			})
		}, nil, false, uploader.ErrChecksum, "OSS has stored 7 instead", 1, true},
		{"invalid CRC-64", func(*world) door {
			return rewrite("POST", func(h http.Header, body string) string {
				h.Set("x-oss-hash-crc64ecma", "many")
				return body
			})
		}, &want, false, uploader.ErrNotOSS, "no x-oss-hash-crc64ecma", 1, true},
		{"busy", func(*world) door {
			return completions(func(rw http.ResponseWriter, _ *http.Request, _ http.Handler) {
				refuse(rw, 503, "ServiceBusy", "later,\nplease")
			})
		}, &want, false, errStatus, "completion: OSS answered 503 ServiceBusy: later, please", 3, false},
		{"connection cut", func(*world) door {
			return completions(func(rw http.ResponseWriter, _ *http.Request, _ http.Handler) { cut(t, rw) })
		}, &want, false, uploader.ErrNetwork, "completion: no answer", 3, false},
		{"203 without a callback", func(*world) door {
			return completions(func(rw http.ResponseWriter, _ *http.Request, _ http.Handler) {
				rw.Header().Set("ETag", `"E"`)
				rw.WriteHeader(http.StatusNonAuthoritativeInfo)
				io.WriteString(rw, "no XML")
			})
		}, nil, false, uploader.ErrCallbackFailed, "it does not say why", 1, true},
		{"answer lost", func(w *world) door { return lose(w, through) }, nil, false, nil, "", 2, true},
		{"answer lost, parts without a CRC-64", func(w *world) door { return lose(w, noCRCs) }, nil, false, nil, "", 2, true},
		{"answer lost, another object", func(w *world) door {
			return lose(w, func(rw http.ResponseWriter, r *http.Request, serve http.Handler) {
				if r.Method == "HEAD" {
					w.store(someBytes(size - 1))
				}
				serve.ServeHTTP(rw, r)
			})
		}, nil, false, uploader.ErrAnswerLost, fmt.Sprintf("is not the parts: it has %d bytes, the parts %d", size-1, size), 2, false},
		{"answer lost, with a callback", func(w *world) door { return lose(w, through) }, nil, true,
			uploader.ErrAnswerLost, fmt.Sprintf("the object is stored as in the parts (%d bytes, CRC-64 %d)", size, want), 2, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			m := w.multipart(size, func(r *issue.MultipartRequest) {
				if tt.callback {
					r.Callback = w.callback()
				}
			}).Multipart
			w.sendParts(m, content)
			w.gate.Open()
			if tt.between != nil {
				w.gate.Between(tt.between(w))
			}
			done, err := newUploader(t).Complete(t.Context(), m, tt.expect, new(log))
			if tt.is == errStatus {
				if status, ok := errors.AsType[*uploader.StatusError](err); ok && status.Status == 503 {
					tt.is = err
				}
			}
			if !errors.Is(err, tt.is) || err != nil && !strings.Contains(err.Error(), tt.says) {
				t.Errorf("error %v, want %v: %q", err, tt.is, tt.says)
			}
			if got := w.gate.Count("POST"); got != tt.completes {
				t.Errorf("%d requests to complete, want %d", got, tt.completes)
			}
			if (done.ETag != "") != tt.stored || tt.stored && (done.Parts != 3 || done.Size != size) || err == nil && done.CRC64 != want {
				t.Errorf("completed %+v", done)
			}
			if tt.callback && (len(w.receiver.Callbacks()) != 1 || err == nil && string(done.Answer) != receiverfake.Answer) {
				t.Errorf("called back %d times, answer %s", len(w.receiver.Callbacks()), done.Answer)
			}
		})
	}
}

// errStatus stands for an [uploader.StatusError].
var errStatus = errors.New("an answer of OSS other than success")

// TestIncomplete tries uploads that OSS would complete to a wrong object.
func TestIncomplete(t *testing.T) {
	t.Parallel()
	content := someBytes(3*partSize - 5)
	tests := []struct {
		name    string
		without []int32
		change  func(m *manifest.Multipart)
		says    string
	}{
		{"nothing was uploaded", []int32{1, 2, 3}, nil, "no part was uploaded"},
		{"the first part is missing", []int32{1}, nil, "part 1 of 3 was not uploaded"},
		{"the last part is missing", []int32{3}, nil, "part 3 of 3 was not uploaded"},
		{"a gap in counted parts", []int32{2}, func(m *manifest.Multipart) { m.Size = nil }, "part 2 of 2 was not uploaded"},
		{"a part of another size", nil, func(m *manifest.Multipart) { *m.Parts[1].Size-- },
			fmt.Sprintf("part 2 has %d bytes instead of %d", partSize, partSize-1)},
		{"a part beyond the manifest", nil, func(m *manifest.Multipart) { m.Parts = m.Parts[:2] }, "parts beyond the 2 of the manifest"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			m := w.multipart(int64(len(content))).Multipart
			w.sendParts(m, content, tt.without...)
			if tt.change != nil {
				tt.change(m)
			}
			w.gate.Open()
			done, err := newUploader(t).Complete(t.Context(), m, nil, new(log))
			if !errors.Is(err, uploader.ErrIncomplete) || !strings.Contains(err.Error(), tt.says) || done.ETag != "" ||
				w.gate.Count("POST") != 0 {
				t.Errorf("error %v; completed %+v, %d requests to complete", err, done, w.gate.Count("POST"))
			}
		})
	}
}

// TestIncompleteLists completes an upload with more parts than the manifest has lists for.
func TestIncompleteLists(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	m := w.manyParts().Multipart
	m.Parts, m.ListPartsNext = m.Parts[:1000], nil
	w.gate.Between(func(rw http.ResponseWriter, r *http.Request, _ http.Handler) {
		writeList(t, rw, r, someBytes(manyParts), 0)
	})
	if _, err := newUploader(t).Complete(t.Context(), m, nil, new(log)); !errors.Is(err, uploader.ErrIncomplete) || w.gate.Count("POST") != 0 {
		t.Errorf("error %v, %d requests to complete", err, w.gate.Count("POST"))
	}
}

// TestCompleteBadManifest checks that nothing is sent with a bad manifest.
func TestCompleteBadManifest(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	m := w.multipart(3 * partSize).Multipart
	m.ListParts.URL = "http://evil.example.com/"
	w.gate.Open()
	if _, err := newUploader(t).Complete(t.Context(), m, nil, new(log)); !errors.Is(err, manifest.ErrManifest) || len(w.gate.Seen()) != 0 {
		t.Errorf("error %v, %d requests", err, len(w.gate.Seen()))
	}
}
