package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"upcall/internal/testing/clitest"
	"upcall/internal/testing/ossfake"
	"upcall/internal/testing/receiverfake"
)

// inDir writes files to a new directory and returns their paths. The content of each is its
// name, repeated.
func inDir(t *testing.T, sizes map[string]int) map[string]string {
	t.Helper()
	dir := t.TempDir()
	paths := make(map[string]string)
	for name, size := range sizes {
		paths[name] = filepath.Join(dir, name)
		if err := os.WriteFile(paths[name], bytes.Repeat([]byte(name), size)[:size], 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return paths
}

// said returns what the program prints for uploads of these files: the receiver's answer, with the
// file's name.
func said(paths ...string) string {
	var b strings.Builder
	for _, path := range paths {
		fmt.Fprintf(&b, `{"file":%q,%s`+"\n", path, answer[1:])
	}
	return b.String()
}

// states returns the names of the files in the state directory, without what is remembered of
// uploads that are over.
func states(t *testing.T, w world) []string {
	t.Helper()
	entries, err := os.ReadDir(w.env["UPCALL_STATE_DIR"])
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range entries {
		if entry.Name() != "finished" {
			names = append(names, entry.Name())
		}
	}
	return names
}

func TestUploadOneFile(t *testing.T) {
	t.Parallel()
	for _, size := range []int{0, 1, 200_000} {
		w := newWorld(t)
		paths := inDir(t, map[string]int{"cat.jpg": size})
		stdout, stderr, status := execute(t, w.env, "upload", paths["cat.jpg"], "--bucket", "demo", "--key", "photos/猫.jpg",
			"--content-type", "image/jpeg", "--callback-url", w.receiver.URL+"/ok", "--var", "uid=42")
		if status != 0 || stdout != said(paths["cat.jpg"]) || !strings.Contains(stderr, fmt.Sprintf("uploaded %d bytes; CRC-64 ", size)) {
			t.Fatalf("status %d: %q, %s", status, stdout, stderr)
		}
		callback := w.callback(t, "photos/猫.jpg")
		if string(callback.Vars["uid"]) != `"42"` || *callback.Size != int64(size) || callback.MimeType != "image/jpeg" ||
			len(w.gate.Puts()) != 1 {
			t.Errorf("%+v, %v", callback, w.gate.Puts())
		}
		if names := states(t, w); len(names) != 0 {
			t.Errorf("a single PUT left state: %v", names)
		}
	}
}

// TestUploadSeveralFiles checks that the answers are printed in the order of the files,
// whichever comes first.
func TestUploadSeveralFiles(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	receiver := ossfake.Serve(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		text, _ := json.MarshalIndent(map[string]string{"object": r.PostFormValue("object")}, "", "  ")
		receiverfake.Respond(rw, http.StatusOK, string(text))
	}))
	paths := inDir(t, map[string]int{"a.bin": 250_000, "b.bin": 10, "c.bin": 0, "d.bin": 102_400})
	second := make(chan struct{})
	w.gate.Between(func(rw http.ResponseWriter, r *http.Request, serve http.Handler) {
		switch {
		case strings.Contains(r.URL.Path, "b.bin"):
			defer close(second)
		case strings.Contains(r.URL.Path, "a.bin") && r.Method == http.MethodGet:
			<-second // a is the last to be ready
		}
		serve.ServeHTTP(rw, r)
	})
	stdout, stderr, status := execute(t, w.env, "upload", paths["a.bin"], paths["b.bin"], paths["c.bin"], paths["d.bin"],
		"--bucket", "demo", "--key", "in/", "--callback-url", receiver, "--part-size", "102400")
	want := ""
	for _, name := range []string{"a", "b", "c", "d"} {
		want += fmt.Sprintf(`{"file":%q,"object":"in/%s.bin"}`+"\n", paths[name+".bin"], name)
	}
	if status != 0 || stdout != want {
		t.Fatalf("status %d: %q\n%s", status, stdout, stderr)
	}
	if want := []string{"PUT", "PUT", "PUT", "PUT 1", "PUT 2", "PUT 3"}; !slices.Equal(w.gate.Puts(), want) {
		t.Errorf("sent %v, want %v", w.gate.Puts(), want)
	}
	if names := states(t, w); len(names) != 0 {
		t.Errorf("state is left: %v", names)
	}
}

// TestUploadSomeFail checks that the other files are uploaded if one fails.
func TestUploadSomeFail(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.gate.Between(func(rw http.ResponseWriter, r *http.Request, serve http.Handler) {
		if strings.HasSuffix(r.URL.Path, "b.bin") {
			rw.WriteHeader(http.StatusForbidden)
			return
		}
		serve.ServeHTTP(rw, r)
	})
	paths := inDir(t, map[string]int{"a.bin": 10, "b.bin": 10, "c.bin": 10})
	stdout, stderr, status := execute(t, w.env, "upload", paths["a.bin"], paths["b.bin"], paths["c.bin"],
		"--bucket", "demo", "--key", "in/", "--callback-url", w.receiver.URL)
	if status != 1 || stdout != said(paths["a.bin"], paths["c.bin"]) || strings.Count(stderr, "403") != 1 ||
		!strings.Contains(stderr, "b.bin: upload: OSS answered 403") {
		t.Errorf("status %d: %q\n%s", status, stdout, stderr)
	}
}

// TestUploadByManifest uploads without credentials.
func TestUploadByManifest(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	paths := inDir(t, map[string]int{"cat.jpg": 250_000})
	bare := clitest.Env{"UPCALL_STATE_DIR": w.env["UPCALL_STATE_DIR"], "UPCALL_BUCKET": "set-for-other-commands"}
	object := []string{"--bucket", "demo", "--key", "cat.jpg", "--callback-url", w.receiver.URL}
	for name, make := range map[string][]string{
		"put": slices.Concat([]string{"put", "--format", "json"}, object),
		"put of the exact size": slices.Concat([]string{"put", "--format", "json", "--content-length", "250000", "--carry", "query"},
			object),
		"multipart":                 slices.Concat([]string{"multipart", "create", "--size", "250000", "--part-size", "102400"}, object),
		"multipart of unknown size": slices.Concat([]string{"multipart", "create", "--parts", "10", "--part-size", "102400"}, object),
	} {
		manifest, stderr, status := execute(t, w.env, make...)
		if status != 0 {
			t.Fatalf("%s: %s", name, stderr)
		}
		upload := command(t, bare, "upload", paths["cat.jpg"], "--manifest", "-")
		upload.Stdin = strings.NewReader(manifest)
		if stdout, stderr, status := output(t, upload); status != 0 || stdout != said(paths["cat.jpg"]) {
			t.Errorf("%s: status %d: %s%s", name, status, stdout, stderr)
		}
		w.callback(t, "cat.jpg")
		if names := states(t, w); len(names) != 0 {
			t.Errorf("%s: state is left: %v", name, names)
		}
	}

	// A file may hold only a URL. Without a callback nothing is printed.
	u := put(t, w.env, "--bucket", "demo", "--key", "cat.jpg")
	file := filepath.Join(t.TempDir(), "url")
	if err := os.WriteFile(file, []byte(u.URL+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if stdout, stderr, status := execute(t, bare, "upload", paths["cat.jpg"], "--manifest", file); status != 0 || stdout != "" {
		t.Errorf("status %d: %s%s", status, stdout, stderr)
	}
}

func TestUploadCallbackFailed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	paths := inDir(t, map[string]int{"cat.jpg": 250_000})
	for _, partSize := range []string{"250000", "102400"} {
		stdout, stderr, status := execute(t, w.env, "upload", paths["cat.jpg"], "--bucket", "demo", "--key", "cat.jpg",
			"--callback-url", w.receiver.URL+receiverfake.RefusePath, "--part-size", partSize)
		const says = "cat.jpg: the object is stored, but not recorded: OSS could not call back, " +
			"and answered 203 CallbackFailed: Error status : 403. ("
		// There is no ledger and no event, so nothing finds the upload again.
		if status != 1 || stdout != "" || !strings.Contains(stderr, says) || !strings.Contains(stderr, "; treat this as failed: fix the") {
			t.Errorf("status %d: %s%s", status, stdout, stderr)
		}
		if names := states(t, w); len(names) != 0 {
			t.Errorf("state is left: %v", names)
		}
	}
}

// TestUploadNoPlaceForState checks that no part is sent if the upload could not be resumed.
func TestUploadNoPlaceForState(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	paths := inDir(t, map[string]int{"big.bin": 200_000})
	w.env["UPCALL_STATE_DIR"] = filepath.Join(paths["big.bin"], "state") // a file is in the way
	_, stderr, status := execute(t, w.env, "upload", paths["big.bin"], "--bucket", "demo", "--key", "big.bin", "--part-size", "102400")
	if status == 0 || !strings.Contains(stderr, "--state-dir: ") || len(w.gate.Puts()) != 0 {
		t.Errorf("status %d, sent %v: %s", status, w.gate.Seen(), stderr)
	}
}

// TestUploadInterrupted checks that Ctrl-C ends the program properly, and that it says how to
// resume.
func TestUploadInterrupted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	paths := inDir(t, map[string]int{"a.bin": 300_000, "b.bin": 10, "c.bin": 10})
	arrived := make(chan struct{}, 10)
	w.gate.Between(func(rw http.ResponseWriter, r *http.Request, serve http.Handler) {
		if !strings.HasPrefix(ossfake.Kind(r), "PUT") {
			serve.ServeHTTP(rw, r)
			return
		}
		arrived <- struct{}{}
		io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	})
	upload := command(t, w.env, "upload", paths["a.bin"], paths["b.bin"], paths["c.bin"],
		"--bucket", "demo", "--key", "in/", "--part-size", "102400", "--parallel", "2")
	remarks, status := interrupted(t, upload, arrived)
	if status != 1 || !strings.HasSuffix(remarks, "issuer: interrupted; run the same command again\n") {
		t.Errorf("status %d: %s", status, remarks)
	}
}

// interrupted starts an upload, interrupts it when a request has arrived, and returns what it
// wrote to standard error and its exit status.
func interrupted(t *testing.T, upload *exec.Cmd, arrived <-chan struct{}) (stderr string, status int) {
	t.Helper()
	var remarks bytes.Buffer
	upload.Stderr = &remarks
	if err := upload.Start(); err != nil {
		t.Fatal(err)
	}
	<-arrived
	if err := upload.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	upload.Wait() // the caller checks the status
	return remarks.String(), upload.ProcessState.ExitCode()
}

// TestUploadInterruptedLater checks that the same command goes on with the files that are not
// uploaded: all others would be uploaded and reported once more.
func TestUploadInterruptedLater(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	paths := inDir(t, map[string]int{"a.bin": 10, "b.bin": 10, "c.bin": 10})
	arrived := make(chan struct{}, 10)
	w.gate.Between(func(rw http.ResponseWriter, r *http.Request, serve http.Handler) {
		if !strings.HasSuffix(r.URL.Path, "b.bin") {
			serve.ServeHTTP(rw, r)
			return
		}
		arrived <- struct{}{}
		io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	})
	args := []string{"upload", paths["a.bin"], paths["b.bin"], paths["c.bin"], "--bucket", "demo", "--key", "in/", "--parallel", "1",
		"--callback-url", w.receiver.URL}
	remarks, status := interrupted(t, command(t, w.env, args...), arrived)
	if status != 1 || !strings.HasSuffix(remarks, "issuer: interrupted; run the same command again\n") {
		t.Errorf("status %d: %q", status, remarks)
	}
	w.gate.Open()
	stdout, stderr, status := execute(t, w.env, args...)
	if status != 0 || stdout != said(paths["a.bin"], paths["b.bin"], paths["c.bin"]) || len(w.gate.Puts()) != 2 {
		t.Errorf("status %d, sent %v: %s%s", status, w.gate.Puts(), stdout, stderr)
	}
}

// TestUploadHints checks that the advice is about credentials and flags if the program signs.
func TestUploadHints(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	paths := inDir(t, map[string]int{"a.bin": 250_000})
	for name, tt := range map[string]struct {
		env, value string
		args       []string
		says       string
	}{
		"wrong secret":   {"OSS_ACCESS_KEY_SECRET", "hunter-wrong", nil, "check OSS_ACCESS_KEY_SECRET"},
		"wrong id":       {"OSS_ACCESS_KEY_ID", "wrong", nil, "check OSS_ACCESS_KEY_ID"},
		"wrong token":    {"OSS_SESSION_TOKEN", "wrong", nil, "check OSS_SESSION_TOKEN"},
		"wrong region":   {"OSS_REGION", "cn-beijing", nil, "check --region"},
		"no such bucket": {"", "", []string{"--bucket", "absent"}, "check --bucket, --region"},
	} {
		for _, partSize := range []string{"250000", "102400"} { // one PUT, and parts
			t.Run(name+" "+partSize, func(t *testing.T) {
				t.Parallel()
				env := maps.Clone(w.env)
				env[tt.env] = tt.value
				delete(env, "")
				_, stderr, status := execute(t, env, slices.Concat([]string{"upload", paths["a.bin"], "--bucket", "demo", "--key", "a.bin",
					"--part-size", partSize, "--state-dir", t.TempDir()}, tt.args)...)
				if status != 1 || !strings.Contains(stderr, tt.says) || strings.Contains(stderr, "manifest") {
					t.Errorf("status %d: %s", status, stderr)
				}
			})
		}
	}
}
