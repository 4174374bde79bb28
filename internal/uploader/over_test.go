package uploader_test

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"upcall/internal/issue"
	"upcall/internal/uploader"
)

// TestAnswerLost: a completion was carried out, but nobody heard of it.
func TestAnswerLost(t *testing.T) {
	t.Parallel()
	const size = 2 * partSize
	lose := func(t *testing.T, w *world) func(http.ResponseWriter, *http.Request, http.Handler) {
		return func(rw http.ResponseWriter, r *http.Request, serve http.Handler) {
			if r.Method == http.MethodPost && w.count("POST") == 1 {
				answerLost(t, rw, r, serve)
				return
			}
			serve.ServeHTTP(rw, r)
		}
	}
	check := func(t *testing.T, w *world, content []byte, err error) {
		t.Helper()
		if !errors.Is(err, uploader.ErrAnswerLost) || !strings.Contains(err.Error(), "most likely stored; look whether its CRC-64 is "+strconv.FormatUint(crcOf(content), 10)) {
			t.Errorf("error %v", err)
		}
		w.wantStored(content)
		if n := len(w.reported()); n != 1 {
			t.Errorf("called back %d times", n)
		}
	}
	t.Run("the second attempt is told", func(t *testing.T) {
		t.Parallel()
		w, content, state := newWorld(t), someBytes(size), stateIn(t)
		_, source := fileOf(t, content)
		callback := w.receiver()
		m := w.multipart(size, func(r *issue.MultipartRequest) { r.Callback = callback })
		w.between(lose(t, w))
		_, err := newUploader(t).Upload(t.Context(), uploader.Task{Source: source, Manifest: m, State: state.load()})
		check(t, w, content, err)
		state.wantGone()
	})
	t.Run("the next run is told", func(t *testing.T) {
		t.Parallel()
		w, content, state := newWorld(t), someBytes(size), stateIn(t)
		_, source := fileOf(t, content)
		callback := w.receiver()
		m := w.multipart(size, func(r *issue.MultipartRequest) { r.Callback = callback })
		w.between(lose(t, w))
		once := newUploader(t, func(c *uploader.Config) { c.Attempts = 1 })
		if _, err := once.Upload(t.Context(), uploader.Task{Source: source, Manifest: m, State: state.load()}); !errors.Is(err, uploader.ErrNetwork) {
			t.Fatal(err)
		}
		w.through()
		_, err := newUploader(t).Upload(t.Context(), uploader.Task{Source: source, Manifest: m, State: state.load()})
		check(t, w, content, err)
		state.wantGone()
	})
	t.Run("a PUT that must not overwrite", func(t *testing.T) {
		t.Parallel()
		w, content := newWorld(t), someBytes(size)
		_, source := fileOf(t, content)
		callback := w.receiver()
		m := w.put(func(r *issue.Request) { r.Callback, r.Object.ForbidOverwrite = callback, true })
		w.between(func(rw http.ResponseWriter, r *http.Request, serve http.Handler) {
			if w.count("PUT") == 1 {
				answerLost(t, rw, r, serve)
				return
			}
			serve.ServeHTTP(rw, r)
		})
		_, err := newUploader(t).Upload(t.Context(), uploader.Task{Source: source, Manifest: m})
		check(t, w, content, err)
	})
}

// TestUploadGone: somebody aborted the upload. Nobody asked for it to be completed, so
// nothing can have been stored.
func TestUploadGone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, source := fileOf(t, someBytes(partSize))
	m := w.multipart(partSize)
	abort := func() {
		w.issuer.AbortMultipart(t.Context(), *m.Multipart)
	}
	for _, when := range []string{http.MethodGet, http.MethodPut, http.MethodPost} {
		state := stateIn(t)
		m = w.multipart(partSize)
		w.between(func(rw http.ResponseWriter, r *http.Request, serve http.Handler) {
			if r.Method == when {
				w.through()
				abort()
			}
			serve.ServeHTTP(rw, r)
		})
		_, err := newUploader(t).Upload(t.Context(), uploader.Task{Source: source, Manifest: m, State: state.load()})
		if !errors.Is(err, uploader.ErrUploadGone) || errors.Is(err, uploader.ErrAnswerLost) || w.stored() != nil {
			t.Errorf("%s: error %v", when, err)
		}
		state.wantGone()
	}
}

// A stateFile is where the state of one upload is.
type stateFile struct {
	t    *testing.T
	path string
}

func stateIn(t *testing.T) stateFile {
	return stateFile{t, filepath.Join(t.TempDir(), "deep", "down", "state.json")}
}

func (s stateFile) load() *uploader.State {
	s.t.Helper()
	state, err := uploader.LoadState(s.path)
	if err != nil {
		s.t.Fatal(err)
	}
	return state
}

func (s stateFile) wantGone() {
	s.t.Helper()
	entries, err := os.ReadDir(filepath.Dir(s.path))
	if len(entries) != 0 || err != nil && !errors.Is(err, os.ErrNotExist) {
		s.t.Errorf("state is left: %v %v", entries, err)
	}
}

func TestState(t *testing.T) {
	t.Parallel()
	w, file := newWorld(t), stateIn(t)
	m := w.multipart(partSize).Multipart
	state := file.load()
	if state.Manifest != nil || state.Completing {
		t.Errorf("a new state is %+v", state)
	}
	state.Manifest, state.Completing = m, true
	for range 2 { // the second time over the first
		if err := state.Save(); err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]os.FileMode{file.path: 0o600, filepath.Dir(file.path): 0o700, filepath.Dir(filepath.Dir(file.path)): 0o700} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v %v", path, info.Mode(), err)
		}
	}
	if again := file.load(); again.Manifest == nil || again.Manifest.Complete.URL != m.Complete.URL || !again.Completing {
		t.Errorf("read back: %+v", again)
	}
	text, err := os.ReadFile(file.path)
	if err != nil {
		t.Fatal(err)
	}
	// What was not written by this program is as good as nothing.
	for _, broken := range [][]byte{nil, text[:len(text)/2], []byte("[]"), []byte(`{"manifest":{},"completing":true}`),
		slices.Concat(text, []byte("x")), []byte(strings.Replace(string(text), `"method":"POST"`, `"method":"GET"`, 1))} {
		if err := os.WriteFile(file.path, broken, 0o600); err != nil {
			t.Fatal(err)
		}
		if s := file.load(); s.Manifest != nil || s.Completing {
			t.Errorf("%.40q is read as %+v", broken, s)
		}
	}
	if err := errors.Join(state.Remove(), state.Remove()); err != nil {
		t.Error(err)
	}
	file.wantGone()
	if _, err := uploader.LoadState(t.TempDir()); err == nil {
		t.Error("a folder is read")
	}
}
