package uploader_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	sdk "github.com/aliyun/alibabacloud-oss-go-sdk-v2/oss"
	"github.com/google/uuid"

	"upcall/internal/issue"
	"upcall/internal/manifest"
	"upcall/internal/uploader"
)

// TestAnswerLost loses the answer to a completion that was carried out. The stored object then
// decides the result, whether the same run asks for it or the next one.
func TestAnswerLost(t *testing.T) {
	t.Parallel()
	const size = 2 * partSize
	content := someBytes(size)
	known := fmt.Sprintf("%d bytes, CRC-64 %d", size, crcOf(content))
	likely := fmt.Sprintf("check whether its CRC-64 is %d", crcOf(content))
	tests := []struct {
		name     string
		callback bool
		change   func(m *manifest.Multipart)
		meantime func(w *world)                                                    // between the completion and the next request
		head     func(rw http.ResponseWriter, r *http.Request, serve http.Handler) // nil answers like OSS
		says     []string                                                          // nil means success
		heads    int
		kept     bool // the state, so that the next run asks again
	}{
		{name: "as in the file", callback: true, says: []string{"stored as in the file (" + known, "the row whose upload_id is "}, heads: 1},
		{name: "as in the file, without an upload id", callback: true, change: func(m *manifest.Multipart) { m.ID = uuid.Nil },
			says: []string{"stored as in the file (" + known, "the upload's row"}, heads: 1},
		{name: "as in the file, without a callback", heads: 1},
		{name: "overwritten", callback: true, meantime: func(w *world) { w.store([]byte("other")) },
			says: []string{"not the file: it has 5 bytes", "upload the file again"}, heads: 1},
		{name: "overwritten by as many bytes", meantime: func(w *world) { w.store(make([]byte, size)) },
			says: []string{"not the file: it has as many bytes, but the CRC-64 "}, heads: 1},
		{name: "deleted", callback: true, meantime: (*world).remove, says: []string{"there is no object", "upload it again"}, heads: 1},
		{name: "not allowed to ask", callback: true, head: func(rw http.ResponseWriter, _ *http.Request, _ http.Handler) {
			rw.WriteHeader(http.StatusForbidden)
		}, says: []string{"did not say what is there (look at the object: OSS answered 403",
			likely + " and whether the upload was recorded"}, heads: 1},
		{name: "not allowed to ask, without a callback", head: func(rw http.ResponseWriter, _ *http.Request, _ http.Handler) {
			rw.WriteHeader(http.StatusForbidden)
		}, says: []string{likely + ", or upload it again"}, heads: 1},
		{name: "no answer", head: func(rw http.ResponseWriter, _ *http.Request, _ http.Handler) {
			rw.WriteHeader(http.StatusServiceUnavailable)
		}, says: []string{"gave up after 3 attempts", "upload again later"}, heads: 3, kept: true},
		{name: "answer that is not HTTP", callback: true, head: func(rw http.ResponseWriter, _ *http.Request, _ http.Handler) {
			connection, _, err := rw.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			fmt.Fprint(connection, "hello\r\n\r\n")
			connection.Close()
		}, says: []string{"no answer", "upload again later"}, heads: 3, kept: true},
		{name: "no CRC-64", head: func(rw http.ResponseWriter, r *http.Request, serve http.Handler) {
			answer := httptest.NewRecorder()
			serve.ServeHTTP(answer, r)
			rw.Header().Set("Content-Length", answer.Header().Get("Content-Length"))
		}, says: []string{"the answer is not from OSS", likely}, heads: 1},
		{name: "an old manifest", callback: true, change: func(m *manifest.Multipart) { m.Head = nil },
			says: []string{"most likely stored; " + likely}},
	}
	for _, tt := range tests {
		for _, later := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, later %t", tt.name, later), func(t *testing.T) {
				t.Parallel()
				w, state, watcher := newWorld(t), stateIn(t), new(log)
				_, source := fileOf(t, content)
				m := w.multipart(size, func(r *issue.MultipartRequest) {
					if tt.callback {
						r.Callback = w.callback()
					}
				})
				if tt.change != nil {
					tt.change(m.Multipart)
				}
				w.gate.Between(func(rw http.ResponseWriter, r *http.Request, serve http.Handler) {
					switch {
					case r.Method == http.MethodPost && w.gate.Count("POST") == 1:
						serve.ServeHTTP(httptest.NewRecorder(), r)
						if tt.meantime != nil {
							tt.meantime(w)
						}
						cut(t, rw)
					case r.Method == http.MethodHead && tt.head != nil:
						tt.head(rw, r, serve)
					default:
						serve.ServeHTTP(rw, r)
					}
				})
				if later {
					once := newUploader(t, func(c *uploader.Config) { c.Attempts = 1 })
					_, err := once.Upload(t.Context(), uploader.Task{Source: source, Manifest: m, State: state.load(), Watcher: new(log)})
					if !errors.Is(err, uploader.ErrNetwork) {
						t.Fatal(err)
					}
				}
				result, err := newUploader(t).Upload(t.Context(),
					uploader.Task{Source: source, Manifest: m, State: state.load(), Watcher: watcher})
				if tt.says == nil && (err != nil || result.CRC64 != crcOf(content) || result.Parts != 2 ||
					!strings.Contains(strings.Join(watcher.remarks, "\n"), "the object is stored as in the file")) {
					t.Errorf("result %+v, %v; remarks %q", result, err, watcher.remarks)
				}
				for _, says := range tt.says {
					if !errors.Is(err, uploader.ErrAnswerLost) || !strings.Contains(err.Error(), says) ||
						strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "x-oss-signature") {
						t.Errorf("error %v, want %q", err, says)
					}
				}
				if strings.Contains(strings.Join(tt.says, ""), "upload_id") && !strings.Contains(err.Error(), m.Multipart.ID.String()) {
					t.Errorf("error %v, want the upload id", err)
				}
				if w.gate.Count("HEAD") != tt.heads || tt.callback && len(w.receiver.Callbacks()) != 1 {
					t.Errorf("%d HEADs, called back %d times", w.gate.Count("HEAD"), len(w.receiver.Callbacks()))
				}
				if !tt.kept {
					state.wantGone()
					return
				}
				w.gate.Open()
				_, err = newUploader(t).Upload(t.Context(), uploader.Task{Source: source, Manifest: m, State: state.load(), Watcher: new(log)})
				if tt.callback != errors.Is(err, uploader.ErrAnswerLost) || tt.callback != (err != nil) ||
					w.gate.Count("HEAD") != 1 || w.gate.Count("POST") != 0 {
					t.Errorf("the next run: %v", err)
				}
				state.wantGone()
			})
		}
	}
}

// TestAnswerLostUnread checks that the file is not read if there is no object, or one of
// another size.
func TestAnswerLostUnread(t *testing.T) {
	t.Parallel()
	for says, meantime := range map[string]func(w *world){
		"there is no object": (*world).remove,
		"it has 5 bytes":     func(w *world) { w.store([]byte("other")) },
	} {
		w, state := newWorld(t), stateIn(t)
		path, source := fileOf(t, someBytes(2*partSize))
		m := w.multipart(2 * partSize)
		w.gate.Between(func(rw http.ResponseWriter, r *http.Request, serve http.Handler) {
			switch {
			case r.Method == http.MethodPost && w.gate.Count("POST") == 1:
				serve.ServeHTTP(httptest.NewRecorder(), r)
				meantime(w)
				if err := os.Truncate(path, 0); err != nil { // reading would fail
					t.Error(err)
				}
				cut(t, rw)
			default:
				serve.ServeHTTP(rw, r)
			}
		})
		_, err := newUploader(t).Upload(t.Context(), uploader.Task{Source: source, Manifest: m, State: state.load(), Watcher: new(log)})
		if !errors.Is(err, uploader.ErrAnswerLost) || !strings.Contains(err.Error(), says) {
			t.Errorf("error %v, want %q", err, says)
		}
	}
}

// TestAnswerLostAndKilled stops a run while it asks for the object, and checks that the next
// run asks again.
func TestAnswerLostAndKilled(t *testing.T) {
	t.Parallel()
	w, content, state := newWorld(t), someBytes(2*partSize), stateIn(t)
	_, source := fileOf(t, content)
	m := w.multipart(2 * partSize)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	w.gate.Between(func(rw http.ResponseWriter, r *http.Request, serve http.Handler) {
		switch {
		case r.Method == http.MethodPost && w.gate.Count("POST") == 1:
			answerLost(t, rw, r, serve)
		case r.Method == http.MethodHead && w.gate.Count("HEAD") == 1:
			stop()
			<-r.Context().Done()
		default:
			serve.ServeHTTP(rw, r)
		}
	})
	_, err := newUploader(t).Upload(ctx, uploader.Task{Source: source, Manifest: m, State: state.load(), Watcher: new(log)})
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if !state.load().Completing {
		t.Fatal("the state is gone")
	}
	result, err := newUploader(t).Upload(t.Context(), uploader.Task{Source: source, Manifest: m, State: state.load(), Watcher: new(log)})
	if err != nil || result.CRC64 != crcOf(content) {
		t.Errorf("result %+v, %v", result, err)
	}
	state.wantGone()
}

// TestAnswerLostKeyTaken forbids overwriting, so that a retry shows only that the key is taken.
func TestAnswerLostKeyTaken(t *testing.T) {
	t.Parallel()
	content := someBytes(2 * partSize)
	lose := func(w *world, method string) func(http.ResponseWriter, *http.Request, http.Handler) {
		return func(rw http.ResponseWriter, r *http.Request, serve http.Handler) {
			switch {
			case r.Method == method && w.gate.Count(method) == 1:
				answerLost(t, rw, r, serve)
			case r.Method == method:
				refuse(rw, http.StatusConflict, "FileAlreadyExists", "The object you specified already exists and can not be overwritten.")
			default:
				serve.ServeHTTP(rw, r)
			}
		}
	}
	t.Run("parts", func(t *testing.T) {
		t.Parallel()
		w, state := newWorld(t), stateIn(t)
		_, source := fileOf(t, content)
		callback := w.callback()
		m := w.multipart(2*partSize, func(r *issue.MultipartRequest) { r.Callback, r.Object.ForbidOverwrite = callback, true })
		w.gate.Between(lose(w, http.MethodPost))
		_, err := newUploader(t).Upload(t.Context(), uploader.Task{Source: source, Manifest: m, State: state.load(), Watcher: new(log)})
		if !errors.Is(err, uploader.ErrAnswerLost) ||
			!strings.Contains(err.Error(), "the key is taken now, and the object is stored as in the file") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("one PUT", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		_, source := fileOf(t, content)
		callback := w.callback()
		m := w.put(func(r *issue.Request) { r.Callback, r.Object.ForbidOverwrite = callback, true })
		w.gate.Between(lose(w, http.MethodPut))
		_, err := newUploader(t).Upload(t.Context(), uploader.Task{Source: source, Manifest: m, Watcher: new(log)})
		if !errors.Is(err, uploader.ErrAnswerLost) ||
			!strings.Contains(err.Error(), fmt.Sprintf("most likely stored; check whether its CRC-64 is %d", crcOf(content))) {
			t.Errorf("error %v", err)
		}
		w.wantStored(content)
		if n := len(w.receiver.Callbacks()); n != 1 {
			t.Errorf("called back %d times", n)
		}
	})
}

// store overwrites the object.
func (w *world) store(content []byte) {
	_, err := w.client.PutObject(w.t.Context(),
		&sdk.PutObjectRequest{Bucket: sdk.Ptr("demo"), Key: sdk.Ptr("a b/猫.bin"), Body: bytes.NewReader(content)})
	if err != nil {
		w.t.Error(err)
	}
}

func (w *world) remove() {
	if _, err := w.client.DeleteObject(w.t.Context(),
		&sdk.DeleteObjectRequest{Bucket: sdk.Ptr("demo"), Key: sdk.Ptr("a b/猫.bin")}); err != nil {
		w.t.Error(err)
	}
}
