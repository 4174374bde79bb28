package embeddedpg

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// fakeBinaries makes a directory with programs that print a version.
func fakeBinaries(t *testing.T, version string, names ...string) string {
	t.Helper()
	dir := reachableDir(t)
	for _, name := range names {
		script := "#!/bin/sh\necho 'postgres (PostgreSQL) " + version + "'\n"
		// If another test forked a process now, that process would have the file open for
		// writing, and the file could not be run.
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
	silent := fakeBinaries(t, "", "postgres", "initdb")
	user, err := serverUser()
	if err != nil {
		t.Fatal(err)
	}
	got := findBinaries(t.Context(), []string{v9, v14, clientOnly, noInitdb, silent, v17, v14, "/no/such"}, user)
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
			t.Errorf("place(%s) moved the path: %t", path, moved)
		}
	}
	if !(runAs{}).canEnter(closed) {
		t.Error("a process that does not switch users cannot enter its own directory")
	}
}
