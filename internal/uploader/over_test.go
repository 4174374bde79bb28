package uploader_test

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"upcall/internal/uploader"
)

// TestUploadGone aborts the upload while it runs. OSS was not asked to complete it, so nothing
// can have been stored.
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
		w.gate.Between(func(rw http.ResponseWriter, r *http.Request, serve http.Handler) {
			if r.Method == when {
				w.gate.Open()
				abort()
			}
			serve.ServeHTTP(rw, r)
		})
		_, err := newUploader(t).Upload(t.Context(), uploader.Task{Source: source, Manifest: m, State: state.load(), Watcher: new(log)})
		if !errors.Is(err, uploader.ErrUploadGone) || errors.Is(err, uploader.ErrAnswerLost) || w.stored() != nil {
			t.Errorf("%s: error %v", when, err)
		}
		state.wantGone()
	}
}

// A stateFile is the file with the state of one upload.
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
	for range 2 { // the second state replaces the first
		if err := state.Save(); err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]os.FileMode{file.path: 0o600, filepath.Dir(file.path): 0o700,
		filepath.Dir(filepath.Dir(file.path)): 0o700} {
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
	// A file that this program did not write counts as no state.
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
	if _, err := uploader.LoadState(t.TempDir()); !errors.Is(err, syscall.EISDIR) {
		t.Errorf("a directory is read: %v", err)
	}
}
