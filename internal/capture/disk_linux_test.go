package capture

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"upcall/internal/testing/toolchain"
	"upcall/internal/testing/wait"
)

// TestFullDisk: a full disk loses captures only, leaves nothing half written, and does no harm when there
// is room again.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	toolchain.Need(t, "mount")
	disk := t.TempDir()
	if err := syscall.Mount("upcall-test", disk, "tmpfs", 0, "size=262144"); err != nil {
		t.Fatalf("mount a small disk: %v", err)
	}
	t.Cleanup(func() { syscall.Unmount(disk, syscall.MNT_DETACH) })
	dir, ballast := filepath.Join(disk, "captures"), filepath.Join(disk, "ballast")
	d, _, stop := opened(t, Config{Dir: dir})
	if err := os.WriteFile(ballast, make([]byte, 200<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	for n := range 5 {
		put(t, d, request(n, "body", 64<<10))
	}
	wait.Until(t, "they are dropped", func() bool { return counted(t, d, DroppedByDisk) == 5 })
	if all := names(t, dir); len(all) != 0 {
		t.Errorf("left behind: %q", all)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	put(t, d, request(9, "body", 64<<10))
	wait.Until(t, "one is written", func() bool { return len(names(t, dir)) == 1 && names(t, dir)[0][0] != '.' })
	stop()
}
