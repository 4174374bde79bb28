package uploader_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"upcall/internal/fault"
	"upcall/internal/issue"
	"upcall/internal/manifest"
	"upcall/internal/uploader"
)

// TestNotRetried answers with errors that a second attempt would not change.
func TestNotRetried(t *testing.T) {
	t.Parallel()
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a redirect was followed") }))
	t.Cleanup(elsewhere.Close)
	tests := []struct {
		name  string
		serve func(w http.ResponseWriter, r *http.Request)
		want  error // nil: any *StatusError
		says  string
	}{
		{"203", func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			w.Header().Set("x-oss-ec", "0007-00000203")
			refuse(w, 203, "CallbackFailed", "Error status : 502.")
		}, uploader.ErrCallbackFailed, "the object is stored, but not recorded: OSS could not call back, " +
			"and answered 203 CallbackFailed: Error status : 502. (request 65A0, EC 0007-00000203); treat this as failed until it is recorded: " +
			"the upload will be recorded by the next reconcile run if there is one; otherwise fix the receiver, then upload again"},
		{"203 without a reason", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(203) },
			uploader.ErrCallbackFailed, "it does not say why (request unknown)"},
		{"301", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere.URL, 301) }, nil, "redirects are not followed"},
		{"307", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere.URL, 307) }, nil, "redirects are not followed"},
		{"308", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere.URL, 308) }, nil, "redirects are not followed"},
		{"400", func(w http.ResponseWriter, _ *http.Request) { refuse(w, 400, "InvalidDigest", "no") }, nil,
			"400 InvalidDigest: no (request 65A0)"},
		{"403 expired", func(w http.ResponseWriter, _ *http.Request) {
			refuse(w, 403, "AccessDenied", "Request has expired.")
		}, nil, "get a new URL or manifest that is valid for longer"},
		{"403 not yet", func(w http.ResponseWriter, _ *http.Request) {
			refuse(w, 403, "AccessDenied", "Request is not yet valid.")
		}, nil, "correct the clock"},
		{"403 signature", func(w http.ResponseWriter, _ *http.Request) { refuse(w, 403, "SignatureDoesNotMatch", "no") },
			nil, "send exactly what was signed"},
		{"404", func(w http.ResponseWriter, _ *http.Request) { refuse(w, 404, "NoSuchBucket", "no") }, nil, "404 NoSuchBucket"},
		{"409", func(w http.ResponseWriter, _ *http.Request) { refuse(w, 409, "FileAlreadyExists", "no") }, nil, "choose another key"},
		{"411", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(411) }, nil, "411"},
		{"501", func(w http.ResponseWriter, _ *http.Request) { refuse(w, 501, "NotImplemented", "no") }, nil, "501"},
		{"204", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) }, nil, "204"},
		{"several lines and a control sequence", func(w http.ResponseWriter, _ *http.Request) {
			refuse(w, 400, "A&#10;B", "x&#10;y\n\u009b2J"+strings.Repeat("z", 1<<20))
		}, nil, "400 A B: x y 2Jzzz"},
		{"a login page", func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			io.WriteString(w, "<html>Welcome</html>")
		}, uploader.ErrNotOSS, "no x-oss-hash-crc64ecma"},
		{"another CRC-64", func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			w.Header().Set("x-oss-hash-crc64ecma", "1")
		}, uploader.ErrChecksum, "OSS has stored 1 instead of "},
		{"another CRC-64 with 203", func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			w.Header().Set("x-oss-hash-crc64ecma", "1")
			w.WriteHeader(203)
		}, uploader.ErrChecksum, "not recorded"},
		{"an answer before the content",
			func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("x-oss-hash-crc64ecma", "0") }, uploader.ErrNotOSS,
			"before all content was sent"},
		{"an endless answer", func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			for block := make([]byte, 1<<20); ; {
				if _, err := w.Write(block); err != nil {
					return
				}
			}
		}, uploader.ErrNotOSS, "longer than 4194304 bytes"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.gate.Between(func(rw http.ResponseWriter, r *http.Request, _ http.Handler) { tt.serve(rw, r) })
			_, source := fileOf(t, someBytes(1<<20))
			m := w.put()
			var seen log
			_, err := newUploader(t).Upload(t.Context(), uploader.Task{Source: source, Manifest: m, Watcher: &seen})
			status, refused := errors.AsType[*uploader.StatusError](err)
			if tt.want != nil && !errors.Is(err, tt.want) || tt.want == nil && !refused {
				t.Fatalf("error %v", err)
			}
			if !strings.Contains(err.Error(), tt.says) || strings.Contains(err.Error(), "x-oss-signature") || len(err.Error()) > 2000 {
				t.Errorf("error %v", err)
			}
			if refused && status.Status != 203 && strings.ContainsAny(err.Error(), "\n\r\x1b\u009b") {
				t.Errorf("error %q", err)
			}
			if w.gate.Count("PUT") != 1 || seen.sent != 0 || len(seen.remarks) != 0 {
				t.Errorf("%d requests, %d bytes seen, remarks %q", w.gate.Count("PUT"), seen.sent, seen.remarks)
			}
		})
	}
}

// TestRetried makes each kind of request fail twice, and then succeed.
func TestRetried(t *testing.T) {
	t.Parallel()
	status := func(status int) func(*testing.T, http.ResponseWriter, *http.Request) {
		return func(_ *testing.T, w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "0")
			refuse(w, status, "", "not now")
		}
	}
	tests := []struct {
		name    string
		trouble func(t *testing.T, w http.ResponseWriter, r *http.Request)
	}{
		{"408", status(408)}, {"429", status(429)}, {"500", status(500)}, {"502", status(502)}, {"503", status(503)}, {"504", status(504)},
		{"connection cut at once", func(t *testing.T, w http.ResponseWriter, _ *http.Request) { cut(t, w) }},
		{"connection cut during the content", func(t *testing.T, w http.ResponseWriter, r *http.Request) {
			io.CopyN(io.Discard, r.Body, 50_000)
			cut(t, w)
		}},
		{"connection cut during the answer", func(t *testing.T, w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			w.Header().Set("Content-Length", "100")
			io.WriteString(w, "{")
			panic(http.ErrAbortHandler)
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			content := someBytes(1<<20 + 100)
			_, source := fileOf(t, content)
			for _, m := range []manifest.Manifest{w.put(),
				w.multipart(1<<20+100, func(r *issue.MultipartRequest) { r.PartSize = 1 << 20 })} {
				var mu sync.Mutex
				troubles := make(map[string]int)
				w.gate.Between(func(rw http.ResponseWriter, r *http.Request, serve http.Handler) {
					mu.Lock()
					kind := r.Method + r.URL.Query().Get("partNumber")
					troubles[kind]++
					n := troubles[kind]
					mu.Unlock()
					if n <= 2 {
						tt.trouble(t, rw, r)
						return
					}
					serve.ServeHTTP(rw, r)
				})
				var seen log
				if _, err := newUploader(t).Upload(t.Context(), uploader.Task{Source: source, Manifest: m, Watcher: &seen}); err != nil {
					t.Fatal(err)
				}
				w.wantStored(content)
				kinds := []string{"PUT"}
				if m.Multipart != nil {
					kinds = []string{"GET", "PUT 1", "PUT 2", "POST"}
				}
				for _, kind := range kinds {
					if w.gate.Count(kind) != 3 {
						t.Errorf("%d requests of %s, want 3", w.gate.Count(kind), kind)
					}
				}
				if seen.sent != int64(len(content)) || len(seen.remarks) != 2*len(kinds) ||
					!strings.Contains(seen.remarks[0], "retrying in ") {
					t.Errorf("%d bytes seen, remarks %q", seen.sent, seen.remarks)
				}
			}
		})
	}
}

func TestRetriesEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, source := fileOf(t, []byte("hello"))
	w.gate.Between(func(rw http.ResponseWriter, _ *http.Request, _ http.Handler) {
		refuse(rw, 503, "ServiceUnavailable", "busy")
	})
	_, err := newUploader(t).Upload(t.Context(), uploader.Task{Source: source, Manifest: w.put(), Watcher: new(log)})
	status, ok := errors.AsType[*uploader.StatusError](err)
	if !ok || status.Status != 503 || !strings.Contains(err.Error(), "gave up after 3 attempts") || w.gate.Count("PUT") != 3 {
		t.Errorf("%d requests: %v", w.gate.Count("PUT"), err)
	}

	w.gate.Between(func(rw http.ResponseWriter, _ *http.Request, _ http.Handler) { cut(t, rw) })
	_, err = newUploader(t).Upload(t.Context(), uploader.Task{Source: source, Manifest: w.put(), Watcher: new(log)})
	if !errors.Is(err, uploader.ErrNetwork) || w.gate.Count("PUT") != 3 || strings.Contains(err.Error(), "x-oss") {
		t.Errorf("%d requests: %v", w.gate.Count("PUT"), err)
	}
}

// TestStalled uploads to a server that never answers.
func TestStalled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, source := fileOf(t, someBytes(100))
	w.gate.Between(func(_ http.ResponseWriter, r *http.Request, _ http.Handler) {
		io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	})
	u := newUploader(t, func(c *uploader.Config) { c.Stall, c.Attempts = 50*time.Millisecond, 2 })
	_, err := u.Upload(t.Context(), uploader.Task{Source: source, Manifest: w.put(), Watcher: new(log)})
	if !errors.Is(err, uploader.ErrNetwork) || !strings.Contains(err.Error(), "nothing moved") || w.gate.Count("PUT") != 2 {
		t.Errorf("%d requests: %v", w.gate.Count("PUT"), err)
	}
}

func TestUnknownCertificate(t *testing.T) {
	t.Parallel()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a request was sent") }))
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.StartTLS()
	t.Cleanup(server.Close)
	_, source := fileOf(t, someBytes(100))
	var seen log
	m := manifest.Manifest{Put: &manifest.Upload{Method: "PUT", URL: server.URL + "/demo/a?x-oss-signature=s"}}
	_, err := newUploader(t).Upload(t.Context(), uploader.Task{Source: source, Manifest: m, Watcher: &seen})
	if err == nil || !strings.Contains(err.Error(), "certificate") || strings.Contains(err.Error(), "x-oss-signature") ||
		len(seen.remarks) != 0 {
		t.Errorf("%v, remarks %q", err, seen.remarks)
	}
}

// TestCallbackFailed uploads, by PUT and in parts, with a receiver that refuses.
func TestCallbackFailed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.receiver.AnswerWith(func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusForbidden) })
	callback := w.callback()
	content := someBytes(2 * partSize)
	_, source := fileOf(t, content)
	for _, m := range []manifest.Manifest{
		w.put(func(r *issue.Request) { r.Callback = callback }),
		w.multipart(2*partSize, func(r *issue.MultipartRequest) { r.Callback = callback }),
		w.put(func(r *issue.Request) {
			other := *callback
			other.InQuery = true
			r.Callback = &other
		}),
	} {
		w.gate.Open()
		state := stateIn(t)
		_, err := newUploader(t).Upload(t.Context(), uploader.Task{Source: source, Manifest: m, State: state.load(), Watcher: new(log)})
		status, ok := errors.AsType[*uploader.StatusError](err)
		if !ok || !errors.Is(err, uploader.ErrCallbackFailed) || status.Status != 203 || status.EC != "0007-00000203" ||
			!strings.Contains(err.Error(), "Error status : 403.") {
			t.Errorf("error %v", err)
		}
		w.receiver.One(t)
		w.wantStored(content)
		state.wantGone()
	}
}

// TestNoReceiverAnswer checks that, with a callback, a 200 without JSON is not a success.
func TestNoReceiverAnswer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	callback := w.callback()
	_, source := fileOf(t, nil)
	for _, answer := range []string{"", "<html>", `{"a":`} {
		w.gate.Between(func(rw http.ResponseWriter, _ *http.Request, _ http.Handler) {
			rw.Header().Set("x-oss-hash-crc64ecma", "0")
			io.WriteString(rw, answer)
		})
		_, err := newUploader(t).Upload(t.Context(),
			uploader.Task{Source: source, Manifest: w.put(func(r *issue.Request) { r.Callback = callback }), Watcher: new(log)})
		if !errors.Is(err, uploader.ErrNotOSS) || !strings.Contains(err.Error(), "stored") {
			t.Errorf("%q: error %v", answer, err)
		}
	}
}

// TestFileChanges changes the file while OSS reads it, and checks that OSS never gets the last
// byte of a mixture.
func TestFileChanges(t *testing.T) {
	t.Parallel()
	const size = 12 << 20 // more than the buffers of the sockets hold
	changes := map[string]func(path string) error{
		"cut short": func(path string) error { return os.Truncate(path, size/2) },
		"emptied":   func(path string) error { return os.Truncate(path, 0) },
		"appended to": func(path string) error {
			f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteString("more")
			return errors.Join(err, f.Close())
		},
		"overwritten": func(path string) error { return os.Chtimes(path, time.Time{}, time.Unix(1, 0)) },
	}
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, kind := range []string{"put", "multipart"} {
				w := newWorld(t)
				path, source := fileOf(t, make([]byte, size))
				callback := w.callback()
				m := w.put(func(r *issue.Request) { r.Callback = callback })
				if kind == "multipart" {
					m = w.multipart(size, func(r *issue.MultipartRequest) { r.PartSize, r.Callback = size-partSize, callback })
				}
				w.gate.Between(func(rw http.ResponseWriter, r *http.Request, serve http.Handler) {
					if number := r.URL.Query().Get("partNumber"); r.Method == http.MethodPut && (number == "" || number == "1") {
						io.CopyN(io.Discard, r.Body, 1000)
						if err := change(path); err != nil {
							t.Error(err)
						}
					}
					serve.ServeHTTP(rw, r)
				})
				_, err := newUploader(t).Upload(t.Context(), uploader.Task{Source: source, Manifest: m, Watcher: new(log)})
				if !errors.Is(err, uploader.ErrChanged) || w.stored() != nil || len(w.receiver.Callbacks()) != 0 {
					t.Errorf("%s: %d bytes stored, %d reported: %v", kind, len(w.stored()), len(w.receiver.Callbacks()), err)
				}
				if w.gate.Count("PUT")+w.gate.Count("PUT 1") != 1 || w.gate.Count("POST") != 0 {
					t.Errorf("%s: requests %v", kind, w.gate.Seen())
				}
			}
		})
	}
}

// TestInterrupted ends the context while the file is being sent.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, source := fileOf(t, someBytes(3*partSize))
	for _, m := range []manifest.Manifest{w.put(), w.multipart(3 * partSize)} {
		ctx, cancel := context.WithCancel(t.Context())
		w.gate.Between(func(rw http.ResponseWriter, r *http.Request, serve http.Handler) {
			if r.Method != http.MethodPut {
				serve.ServeHTTP(rw, r)
				return
			}
			cancel()
			io.Copy(io.Discard, r.Body)
			<-r.Context().Done()
		})
		var seen log
		_, err := newUploader(t).Upload(ctx, uploader.Task{Source: source, Manifest: m, Watcher: &seen})
		if !errors.Is(err, context.Canceled) || len(seen.remarks) != 0 {
			t.Errorf("error %v, remarks %q", err, seen.remarks)
		}
	}
}

func TestBadLists(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, source := fileOf(t, someBytes(partSize))
	m := w.multipart(partSize)
	for _, list := range []string{"", "hello", "<Error/>", "<ListPartsResult></ListPartsResult>",
		"<ListPartsResult><UploadId>other</UploadId></ListPartsResult>",
		"<ListPartsResult><UploadId>" + m.Multipart.OSSUploadID + "</UploadId><Part><Size>x</Size></Part></ListPartsResult>"} {
		w.gate.Between(func(rw http.ResponseWriter, _ *http.Request, _ http.Handler) { io.WriteString(rw, list) })
		_, err := newUploader(t).Upload(t.Context(), uploader.Task{Source: source, Manifest: m, Watcher: new(log)})
		if !errors.Is(err, uploader.ErrNotOSS) || len(w.gate.Seen()) != 1 {
			t.Errorf("%q: %d requests, error %v", list, len(w.gate.Seen()), err)
		}
	}
}

func TestBadConfig(t *testing.T) {
	t.Parallel()
	for field, cfgs := range map[string][]uploader.Config{
		"parallel":     {{Parallel: 0, Attempts: 1}, {Parallel: 65, Attempts: 1}},
		"attempts":     {{Parallel: 1, Attempts: 0}, {Parallel: 1, Attempts: 101}},
		"pause, stall": {{Parallel: 1, Attempts: 1, Pause: -1}, {Parallel: 1, Attempts: 1, Stall: -1}},
	} {
		for _, cfg := range cfgs {
			_, err := uploader.New(cfg)
			if mistakes := fault.Of(err); len(mistakes) != 1 || mistakes[0].Field != field {
				t.Errorf("%+v: got %v, want a mistake in %s", cfg, err, field)
			}
		}
	}
}
