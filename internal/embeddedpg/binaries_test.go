package embeddedpg

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// fakeBinaries makes a directory whose postgres tells a version.
func fakeBinaries(t *testing.T, version string, names ...string) string {
	t.Helper()
	dir := reachableDir(t)
	for _, name := range names {
		script := "#!/bin/sh\necho 'postgres (PostgreSQL) " + version + "'\n"
		// A process that another test forks meanwhile would have the file open for writing,
		// and nobody can run it then.
		syscall.ForkLock.RLock()
		err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755)
		syscall.ForkLock.RUnlock()
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestFindBinaries(t *testing.T) {
	t.Parallel()
	v9 := fakeBinaries(t, "9.6.24", "postgres", "initdb")
	v14 := fakeBinaries(t, "14.3", "postgres", "initdb")
	v17 := fakeBinaries(t, "17beta1 (Some 17~beta1-1)", "postgres", "initdb")
	clientOnly := fakeBinaries(t, "18.0", "psql")
	noInitdb := fakeBinaries(t, "18.0", "postgres")
	mute := fakeBinaries(t, "", "postgres", "initdb")
	user, err := serverUser()
	if err != nil {
		t.Fatal(err)
	}
	got := findBinaries(t.Context(), []string{v9, v14, clientOnly, noInitdb, mute, v17, v14, "/no/such"}, user)
	want := []binaries{{v17, 17, "17beta1"}, {v14, 14, "14.3"}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(binaries{})); diff != "" {
		t.Error(diff)
	}
}

func TestCanEnter(t *testing.T) {
	t.Parallel()
	closed := filepath.Join(reachableDir(t), "closed")
	if err := os.MkdirAll(filepath.Join(closed, "inside"), 0o700); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(reachableDir(t), "link")
	if err := os.Symlink(filepath.Join(closed, "inside"), link); err != nil {
		t.Fatal(err)
	}
	stranger := runAs{name: "stranger", uid: 54321, gid: 54321, switched: true}
	for path, want := range map[string]bool{
		"/":                                      true,
		filepath.Dir(closed):                     true,
		filepath.Join(filepath.Dir(closed), "x"): true, // does not exist yet
		closed:                                   false,
		filepath.Join(closed, "inside"):          false,
		filepath.Join(closed, "none", "deeper"):  false,
		link:                                     false,
	} {
		if got := stranger.canEnter(path); got != want {
			t.Errorf("canEnter(%s) = %t, want %t", path, got, want)
		}
		if moved := strings.HasPrefix(stranger.place(path), varDir+"/"); moved == want {
			t.Errorf("place(%s) moved it: %t", path, moved)
		}
	}
	if !(runAs{}).canEnter(closed) {
		t.Error("who does not switch users can enter what he can enter")
	}
}

// repository serves a build for every platform and version: scripts that run the
// installed binaries. It counts the downloads of the archive.
func repository(t *testing.T, downloads *int) string {
	t.Helper()
	user, err := serverUser()
	if err != nil {
		t.Fatal(err)
	}
	installed := findBinaries(t.Context(), searchDirs(), user)
	if len(installed) == 0 {
		t.Fatal("install PostgreSQL (Debian: apt install postgresql): this test needs it")
	}
	var tree bytes.Buffer
	writer := tar.NewWriter(&tree)
	for _, name := range []string{"postgres", "initdb", "pg_ctl"} {
		script := fmt.Sprintf("#!/bin/sh\nexec %s/%s \"$@\"\n", installed[0].dir, name)
		if err := writer.WriteHeader(&tar.Header{Name: "bin/" + name, Typeflag: tar.TypeReg, Mode: 0o700, Size: int64(len(script))}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(writer, script); err != nil {
			t.Fatal(err)
		}
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	compress := exec.Command("xz", "--stdout")
	compress.Stdin = &tree
	txz, err := compress.Output()
	if err != nil {
		t.Fatalf("install xz (Debian: apt install xz-utils): this test needs it: %v", err)
	}
	var jar bytes.Buffer
	archive := zip.NewWriter(&jar)
	entry, err := archive.Create("postgres.txz")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := entry.Write(txz); err != nil {
		t.Fatal(err)
	}
	if err := archive.Close(); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case !strings.HasPrefix(r.URL.Path, "/maven2/io/zonky/test/postgres/embedded-postgres-binaries-"):
			http.NotFound(w, r)
		case strings.HasSuffix(r.URL.Path, ".jar"):
			*downloads++
			w.Write(jar.Bytes())
		case strings.HasSuffix(r.URL.Path, ".jar.sha256"):
			sum := sha256.Sum256(jar.Bytes())
			io.WriteString(w, hex.EncodeToString(sum[:]))
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(server.Close)
	return server.URL + "/maven2"
}

func TestFetchesWhatIsNotInstalled(t *testing.T) {
	t.Parallel()
	var downloads int
	config := Config{BinDirs: []string{}, FetchDir: filepath.Join(reachableDir(t), "fetched"), RepositoryURL: repository(t, &downloads)}
	for range 2 {
		s := start(t, config)
		if got := query[int](t, s.URL(), "SELECT 1"); got != 1 {
			t.Errorf("got %d", got)
		}
		if !strings.HasPrefix(s.bin.dir, config.FetchDir) {
			t.Errorf("runs from %s, not from what was fetched", s.bin.dir)
		}
		if err := s.Stop(); err != nil {
			t.Fatal(err)
		}
	}
	if downloads != 1 {
		t.Errorf("%d downloads, want 1", downloads)
	}
	left, err := filepath.Glob(filepath.Join(config.FetchDir, "fetch-*"))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

func TestNothingToFetch(t *testing.T) {
	t.Parallel()
	empty := httptest.NewServer(http.NotFoundHandler())
	defer empty.Close()
	_, err := Start(t.Context(), Config{BinDirs: []string{}, FetchDir: reachableDir(t), RepositoryURL: empty.URL})
	if !errors.Is(err, ErrNoBinaries) || strings.Contains(err.Error(), "\n") {
		t.Errorf("got %v, want ErrNoBinaries in one line", err)
	}
}
