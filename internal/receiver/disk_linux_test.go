package receiver

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"upcall/internal/testing/ossfake"
)

// TestFailedSync checks that after a failed fsync, callbacks are refused until the receiver is
// restarted, even if the next fsync would succeed. Acknowledged callbacks are kept.
func TestFailedSync(t *testing.T) {
	t.Parallel()
	keyURL, dir := ossfake.KeyURL(t), t.TempDir()
	cfg := Config{DatabaseURL: "postgres://nobody@127.0.0.1:1/none", TrustKeyURLs: []string{keyURL}, SpoolDir: dir, SpoolMinFreeBytes: -1}
	receiver := start(t, cfg)
	send := func(n, want int) {
		t.Helper()
		got := call(http.DefaultClient, receiver.Public, keyURL, fmt.Sprintf("bucket=demo&object=a&reqId=%d", n))
		if got.err != nil || got.code != want || want == 503 && !got.unavailable() {
			t.Errorf("callback %d: got %+v", n, got)
		}
	}
	for n := range 10 {
		send(n, 200)
	}

	// /dev/null accepts all writes but cannot be synced.
	fd := descriptorOf(t, filepath.Join(dir, "spool.db"))
	file, err := syscall.Dup(fd) // holds the file's lock meanwhile
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(file)
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if err := syscall.Dup3(int(null.Fd()), fd, syscall.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	send(10, 503)
	if err := syscall.Dup3(file, fd, syscall.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	send(10, 503)
	send(11, 503)
	if got := status(t, receiver.Admin+"/readyz"); got != 503 {
		t.Errorf("readyz: %d", got)
	}
	if got := receiver.Metric(t, "upcall_spool_depth"); got != 10 {
		t.Errorf("%v waiting, want the 10 that were acknowledged", got)
	}
	if err := receiver.Stop(); err != nil {
		t.Error(err)
	}

	receiver = start(t, cfg)
	send(10, 200)
	if got := receiver.Metric(t, "upcall_spool_depth"); got != 11 {
		t.Errorf("%v waiting, want 11", got)
	}
}

// descriptorOf returns this process's descriptor of an open file.
func descriptorOf(t *testing.T, path string) int {
	t.Helper()
	links, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && target == path {
			var fd int
			if _, err := fmt.Sscan(filepath.Base(link), &fd); err != nil {
				t.Fatal(err)
			}
			return fd
		}
	}
	t.Fatalf("%s is not open", path)
	return 0
}
