package uploader_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"testing"
)

// nobody is a user to whom nothing belongs.
const nobody = 65534

// TestWalkUnreadable holds that a folder which cannot be read is told, and the others are still found. Root reads everything,
// so its thread, which ends with the test, looks at files as nobody does.
func TestWalkUnreadable(t *testing.T) {
	if os.Getuid() == 0 {
		runtime.LockOSThread()
		if _, _, err := syscall.RawSyscall(syscall.SYS_SETFSUID, nobody, 0, 0); err != 0 {
			t.Fatal(err)
		}
	}
	root := tree(t, "a/1", "b/1", "c/1")
	if err := os.Chmod(filepath.Join(root, "b"), 0); err != nil {
		t.Fatal(err)
	}
	defer os.Chmod(filepath.Join(root, "b"), 0o700)
	if got, want := walked(root, false), []string{"a/1 3", "b: " + fs.ErrPermission.Error(), "c/1 3"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
