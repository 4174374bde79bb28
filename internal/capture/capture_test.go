package capture

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"upcall/internal/admission"
	"upcall/internal/doctor"
	"upcall/internal/testing/logtest"
	"upcall/internal/testing/metrictest"
	"upcall/internal/testing/wait"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// opened opens a directory, and writes what is put there until the test ends or stop is called.
func opened(t *testing.T, cfg Config) (d *Dir, logs *logtest.Buffer, stop func()) {
	t.Helper()
	cfg.Logger, logs = logtest.New()
	d, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { d.Run(ctx); close(done) }()
	stop = sync.OnceFunc(func() { cancel(); <-done; d.Close() })
	t.Cleanup(stop)
	return d, logs, stop
}

// put waits for room in the queue.
func put(t *testing.T, d *Dir, r *Request) {
	t.Helper()
	wait.Until(t, "there is room in the queue", func() bool { return len(d.queue) < mostQueued })
	d.Put(r)
}

func request(n int, reason admission.Reason, size int) *Request {
	return &Request{Reason: reason, At: noon.Add(time.Duration(n) * time.Second), Method: "POST",
		Target: "/oss/callback?n=" + fmt.Sprint(n), Host: "cb.example.com",
		Header: http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}, Body: make([]byte, size)}
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, f := range files {
		all = append(all, f.Name())
	}
	return all
}

// counted returns how many captures are dropped for a cause.
func counted(t *testing.T, d *Dir, cause string) float64 {
	t.Helper()
	return metrictest.Values(t, d.Collectors()...)["upcall_captures_dropped_total{"+cause+"}"]
}

// TestWritten: a file is what receiver doctor reads, byte for byte, for nobody else to read, and its
// name has nothing of the request.
func TestWritten(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "made", "captures")
	d, _, stop := opened(t, Config{Dir: dir})
	r := request(1, "bad/../reason", 0)
	r.Method, r.Target, r.Host = "POST", "/a%2F..%2Fb?x=1&y", "host.example"
	r.Header = http.Header{"X-Oss-Request-Id": {"../../evil"}, "Authorization": {"abc="}, "Transfer-Encoding": {"chunked"},
		"X-Evil": {"a\r\nInjected: yes"}}
	r.Body = []byte("bucket=b&object=\x00\xff\r\n\r\nPOST /again HTTP/1.1\r\n\r\n")
	put(t, d, r)
	stop()
	all := names(t, dir)
	if len(all) != 1 || !fileName.MatchString(all[0]) || !strings.HasPrefix(all[0], "20261122T120001.000000Z-other-") {
		t.Fatalf("files %q", all)
	}
	path := filepath.Join(dir, all[0])
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode of the directory %v, %v", info.Mode(), err)
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	c, err := doctor.Parse(file, doctor.Auto, 0)
	if err != nil {
		t.Fatal(err)
	}
	if c.Format != doctor.Raw || c.Method != r.Method || c.Target != r.Target || string(c.Body) != string(r.Body) || len(c.Notes) > 0 ||
		c.Get("Host") != r.Host || c.Get("X-Oss-Request-Id") != "../../evil" || c.Get("Injected") != "" ||
		c.Get("Transfer-Encoding") != "" {
		t.Errorf("%+v", c)
	}
}

// TestBounds holds the bounds on files and bytes, at once and after a restart; a flood of one reason
// does not push out the others.
func TestBounds(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cfg := Config{Dir: dir, MaxFiles: 10, MaxBytes: 20_000}
	check := func(cfg Config, least int) {
		t.Helper()
		var size int64
		all := names(t, dir)
		for _, name := range all {
			info, err := os.Stat(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			size += info.Size()
		}
		if len(all) > cfg.MaxFiles || size > cfg.MaxBytes || len(all) < least {
			t.Errorf("%d files of %d bytes: %q", len(all), size, all)
		}
	}
	d, _, stop := opened(t, cfg)
	put(t, d, request(0, admission.ReasonTokenExpired, 10))
	for n := range 50 {
		put(t, d, request(n+1, "signature_missing", 10))
	}
	stop()
	check(cfg, 10)
	if all := names(t, dir); !strings.Contains(all[0], "-token_expired-") || !strings.HasPrefix(all[9], "20261122T120050") {
		t.Errorf("the flood pushed out the other reason, or is not the last of it: %q", all)
	}
	d, _, stop = opened(t, cfg)
	for n := range 10 {
		put(t, d, request(100+n, "digest_mismatch", 3000))
	}
	stop()
	check(cfg, 6)
	if all := names(t, dir); !strings.Contains(all[0], "-token_expired-") {
		t.Errorf("large ones pushed out the small one of another reason: %q", all)
	}
	cfg.MaxFiles, cfg.MaxBytes = 3, 7000 // as after a change of the program
	_, _, stop = opened(t, cfg)
	check(cfg, 2)
	stop()
}

// TestOthersFiles: what is in the directory besides captures is neither read nor deleted, links are not
// followed, and what a killed receiver left is gone.
func TestOthersFiles(t *testing.T) {
	t.Parallel()
	dir, outside := t.TempDir(), t.TempDir()
	secret := filepath.Join(outside, "secret")
	name := func(n int) string {
		return fmt.Sprintf("20261122T12000%d.000000Z-signature_missing-0000000%d.http", n, n)
	}
	capture := string(request(1, "signature_missing", 3).message())
	for path, text := range map[string]string{
		secret: capture, filepath.Join(dir, "notes.txt"): "mine", filepath.Join(dir, "x-"+name(1)): "mine",
		filepath.Join(dir, name(1)+".bak"): "mine", filepath.Join(dir, ".hidden.tmp"): "mine",
		filepath.Join(dir, "."+name(2)+".tmp"): "half",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Symlink(secret, filepath.Join(dir, name(3))), os.Symlink(secret, filepath.Join(dir, "."+name(4)+".tmp")),
		os.Mkdir(filepath.Join(dir, name(5)), 0o700), os.Symlink("notes.txt", filepath.Join(dir, name(6)))); err != nil {
		t.Fatal(err)
	}
	before := names(t, dir)
	d, _, stop := opened(t, Config{Dir: dir, MaxFiles: 1})
	for n := range 5 {
		put(t, d, request(n, "signature_missing", 3))
	}
	for _, asked := range []string{name(3), name(5), name(6), "notes.txt", "../" + filepath.Base(outside) + "/secret",
		secret, "", ".", name(9)} {
		if content, err := d.read(asked); !errors.Is(err, ErrNotKept) {
			t.Errorf("%q was read: %q, %v", asked, content, err)
		}
	}
	stop()
	var kept []string
	after := slices.DeleteFunc(names(t, dir), func(name string) bool {
		mine := !slices.Contains(before, name)
		if mine {
			kept = append(kept, name)
		}
		return mine
	})
	want := slices.DeleteFunc(slices.Clone(before), func(n string) bool { return n == "."+name(2)+".tmp" })
	if !slices.Equal(after, want) || len(kept) != 1 {
		t.Errorf("left %q, want %q; kept %q", after, want, kept)
	}
	if text, err := os.ReadFile(secret); err != nil || string(text) != capture {
		t.Errorf("a file outside is %q, %v", text, err)
	}
}

// TestBadDirectory is known at the start.
func TestBadDirectory(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{file, filepath.Join(file, "below"), "", "/proc/nothing", "/proc/self"} {
		if err := Check(dir); err == nil {
			t.Errorf("%q can be used", dir)
		}
	}
	if err := Check(t.TempDir()); err != nil {
		t.Error(err)
	}
}

// TestLostDirectory: a directory that is no longer there costs captures, each counted, in one line of
// the log.
func TestLostDirectory(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "captures")
	d, logs, stop := opened(t, Config{Dir: dir})
	put(t, d, request(1, "signature_missing", 1))
	wait.Until(t, "it is written", func() bool { return len(names(t, dir)) == 1 })
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	for n := range 3 {
		put(t, d, request(n, "signature_missing", 1))
	}
	wait.Until(t, "all are counted", func() bool { return counted(t, d, DroppedByDisk) == 3 })
	stop()
	if n := strings.Count(logs.String(), "refused callbacks are not captured"); n != 1 {
		t.Errorf("%d lines: %s", n, logs)
	}
}

// TestQueue: what does not fit is dropped and counted, and Put does not block.
func TestQueue(t *testing.T) {
	t.Parallel()
	logger, _ := logtest.New()
	d, err := Open(Config{Dir: t.TempDir(), Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for n := range mostQueued + 7 {
		d.Put(request(n, "signature_missing", 1)) // nothing writes: if it blocked, the test would hang
	}
	d.Drop(DroppedByRate)
	if counted(t, d, DroppedByQueue) != 7 || counted(t, d, DroppedByRate) != 1 {
		t.Errorf("dropped %v and %v", counted(t, d, DroppedByQueue), counted(t, d, DroppedByRate))
	}
	ended, end := context.WithCancel(t.Context())
	end()
	d.Run(ended) // what is queued is written at the end
	if entries, err := d.entries(); err != nil || len(entries) != mostQueued {
		t.Errorf("%d written, %v", len(entries), err)
	}
	if n := metrictest.Values(t, d.Collectors()...)["upcall_captures_total"]; n != mostQueued {
		t.Errorf("counted %v", n)
	}
}
