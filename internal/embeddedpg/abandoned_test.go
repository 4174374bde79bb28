package embeddedpg

import (
	"os"
	"path/filepath"
	"testing"

	"upcall/internal/filelock"
)

func TestRemoveAbandoned(t *testing.T) {
	t.Parallel()
	dir, there, gone := t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "gone")
	for name, wanted := range map[string]string{
		"gone": filepath.Join(gone, "pg"), "used": filepath.Join(gone, "pg"), "there": filepath.Join(there, "pg"),
		"elsewhere": "/mnt/none/pg", "unknown": "",
	} {
		home := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Join(home, "data"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := noteWanted(home, wanted); err != nil {
			t.Fatal(err)
		}
		if name == "elsewhere" {
			if err := os.WriteFile(filepath.Join(home, wantedFile), []byte(wanted), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	lock, err := filelock.Wait(t.Context(), filepath.Join(dir, "used", "lock"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := removeAbandoned(dir); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"gone": false, "used": true, "there": true, "elsewhere": true, "unknown": true} {
		if _, err := os.Stat(filepath.Join(dir, name)); (err == nil) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := removeAbandoned(filepath.Join(dir, "none")); err != nil {
		t.Error(err)
	}
}
