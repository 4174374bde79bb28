package embeddedpg

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"upcall/internal/filelock"
)

// wantedFile in a directory of varDir names the place that the data was wanted in, if that is
// below a temporary directory.
const wantedFile = "wanted"

// noteWanted writes where the data in home was wanted.
func noteWanted(home, wanted string) error {
	if !isTemporary(wanted) {
		return nil
	}
	if err := os.WriteFile(filepath.Join(home, wantedFile), []byte(wanted), 0o600); err != nil {
		return fmt.Errorf("note the wanted data directory: %w", err)
	}
	return nil
}

// isTemporary reports whether a path is below a directory for temporary files.
func isTemporary(path string) bool {
	for _, dir := range []string{os.TempDir(), "/tmp", "/var/tmp"} {
		if strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/") {
			return true
		}
	}
	return false
}

// removeAbandoned removes the data in dir that was wanted below a temporary directory, in a
// folder that has been removed since. Data that a server uses stays, and so does any other:
// a folder elsewhere may be on a disk that is not there now.
func removeAbandoned(dir string) error {
	homes, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("list data directories: %w", err)
	}
	var failed error
	for _, entry := range homes {
		home := filepath.Join(dir, entry.Name())
		wanted, err := os.ReadFile(filepath.Join(home, wantedFile))
		if err != nil || !isTemporary(string(wanted)) {
			continue
		}
		if _, err := os.Lstat(filepath.Dir(string(wanted))); !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		inUse := errors.New("in use")
		lock, err := filelock.Wait(context.Background(), filepath.Join(home, "lock"), func() error { return inUse })
		if err != nil {
			continue
		}
		failed = errors.Join(failed, os.RemoveAll(home), lock.Close())
	}
	return failed
}
