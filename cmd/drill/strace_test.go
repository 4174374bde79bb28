package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"upcall/internal/testing/wait"
)

// A call is a system call as strace saw it. Times are in seconds.
type call struct {
	name, path, data string // path is that of the first descriptor
	begin, end       float64
	ok               bool
}

var (
	whole   = regexp.MustCompile(`^(\d+) +([\d.]+) (\w+)\((.*)\) = (-?\d+)[^<]* <([\d.]+)>$`)
	begun   = regexp.MustCompile(`^(\d+) +([\d.]+) (\w+)\((.*) <unfinished \.\.\.>$`)
	resumed = regexp.MustCompile(`^(\d+) +([\d.]+) <\.\.\. (\w+) resumed>(.*)\) = (-?\d+)[^<]*<([\d.]+)>$`)
	onFile  = regexp.MustCompile(`^\d+<([^>]*)>`)
)

// parse reads what strace -f -ttt -T -y wrote.
func parse(text string) (calls []call, err error) {
	pending := make(map[string]call)
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if m := begun.FindStringSubmatch(line); m != nil {
			at, _ := strconv.ParseFloat(m[2], 64)
			pending[m[1]] = call{name: m[3], data: m[4], begin: at}
			continue
		}
		m := whole.FindStringSubmatch(line)
		var c call
		if m != nil {
			c = call{name: m[3], data: m[4]}
			c.begin, _ = strconv.ParseFloat(m[2], 64)
		} else if m = resumed.FindStringSubmatch(line); m != nil {
			c = pending[m[1]]
			delete(pending, m[1])
			if c.name != m[3] {
				return nil, fmt.Errorf("%q resumes %q", line, c.name)
			}
			c.data += m[4]
		} else {
			continue // a signal, an exit, or a call that never ended
		}
		took, err := strconv.ParseFloat(m[6], 64)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", line, err)
		}
		c.end, c.ok = c.begin+took, !strings.HasPrefix(m[5], "-")
		if at := onFile.FindStringSubmatch(c.data); at != nil {
			c.path = at[1]
		}
		calls = append(calls, c)
	}
	return calls, nil
}

// An acknowledged callback has its request id and its object in what is written to disk, and its event id in the
// answer. The header of a page of PostgreSQL's log can stand within one of the two, but not of both.
type acknowledged struct{ request, object, event string }

// early returns what is wrong: for each callback it must be seen that its request id or object was written to a
// file, then that file was synchronised, and then its event id was in an answer. If servers keep copies,
// it must be so on several of them; the directory of a server is the part of a path that server returns.
func early(calls []call, callbacks []acknowledged, copies int, server func(path string) string) (mistakes []string) {
	for _, callback := range callbacks {
		answered := 0.0
		for _, c := range calls {
			if strings.Contains(c.data, "HTTP/1.1 200 OK") && strings.Contains(c.data, callback.event) && (answered == 0 || c.begin < answered) {
				answered = c.begin
			}
		}
		written := false
		synced := make(map[string]float64) // when a server had it
		for _, w := range calls {
			if !w.ok || !strings.HasPrefix(w.path, "/") || strings.HasPrefix(w.path, "/dev/") ||
				!strings.Contains(w.data, callback.request) && !strings.Contains(w.data, callback.object) {
				continue
			}
			written = true
			for _, s := range calls {
				at := synced[server(w.path)]
				if s.ok && (s.name == "fsync" || s.name == "fdatasync") && s.path == w.path && s.begin >= w.end && (at == 0 || s.end < at) {
					synced[server(w.path)] = s.end
				}
			}
		}
		soon := 0
		for _, at := range synced {
			if at <= answered {
				soon++
			}
		}
		switch {
		case answered == 0:
			mistakes = append(mistakes, callback.request+" has no answer in the trace")
		case !written:
			mistakes = append(mistakes, callback.request+" was not written")
		case len(synced) < copies:
			mistakes = append(mistakes, callback.request+" was written and not synchronised")
		case soon < copies:
			mistakes = append(mistakes, callback.request+" was answered before it was synchronised")
		}
	}
	return mistakes
}

// anywhere is for one server.
func anywhere(string) string { return "" }

// trace attaches strace to processes and returns a function that ends it and returns what it saw.
func trace(t *testing.T, pids ...int) (calls func() []call) {
	t.Helper()
	out, messages := filepath.Join(t.TempDir(), "trace"), filepath.Join(t.TempDir(), "messages")
	log, err := os.Create(messages)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	args := []string{"-f", "-ttt", "-T", "-y", "-s", "300000", "-o", out, "-e", "trace=write,writev,pwrite64,pwritev,pwritev2,sendto,sendmsg,fsync,fdatasync"}
	for _, pid := range pids {
		args = append(args, "-p", strconv.Itoa(pid))
	}
	cmd := exec.Command("strace", args...)
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		cmd.Wait()
		close(ended)
	}()
	end := func() {
		cmd.Process.Signal(os.Interrupt) // strace lets go of them
		<-ended
	}
	t.Cleanup(end)
	wait.Until(t, "strace is attached", func() bool {
		text, err := os.ReadFile(messages)
		if err != nil {
			t.Fatal(err)
		}
		attached := 0
		for scanner := bufio.NewScanner(strings.NewReader(string(text))); scanner.Scan(); {
			if strings.Contains(scanner.Text(), "attached") {
				attached++
			}
		}
		return attached >= len(pids)
	})
	return func() []call {
		end()
		text, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		calls, err := parse(string(text))
		if err != nil {
			t.Fatal(err)
		}
		return calls
	}
}

// TestEarly checks that each way to answer too early is found.
func TestEarly(t *testing.T) {
	t.Parallel()
	const (
		written  = `7 100.10 pwrite64(5</wal/1>, "\1\2REQ\0", 8192, 0) = 8192 <0.01>` + "\n"
		synced   = `7 100.20 fdatasync(5</wal/1>) = 0 <0.05>` + "\n"
		answered = `8 100.30 write(9<socket:[1]>, "HTTP/1.1 200 OK\r\n\r\n{\"event_id\":\"EV\"}", 40) = 40 <0.01>` + "\n"
	)
	for name, tt := range map[string]struct {
		trace, want string
	}{
		"in order":          {written + synced + answered, ""},
		"between two pages": {strings.Replace(written, "REQ", `R\21\321EQ OBJ`, 1) + synced + answered, ""},
		"by another process, interrupted": {`6 99.00 fdatasync(5</wal/1> <unfinished ...>` + "\n" + written +
			`6 100.12 <... fdatasync resumed>) = 0 <1.12>` + "\n" + `9 100.15 fsync(8</wal/1> <unfinished ...>` + "\n" +
			`9 100.20 <... fsync resumed>) = 0 <0.05>` + "\n" + answered, ""},
		"begun before it was written": {`6 99.00 fdatasync(5</wal/1> <unfinished ...>` + "\n" + written +
			`6 100.12 <... fdatasync resumed>) = 0 <1.12>` + "\n" + answered, "REQ was written and not synchronised"},
		"ended after the answer": {written + `7 100.20 fdatasync(5</wal/1>) = 0 <0.15>` + "\n" + answered,
			"REQ was answered before it was synchronised"},
		"another file":  {written + `7 100.20 fdatasync(5</wal/2>) = 0 <0.05>` + "\n" + answered, "REQ was written and not synchronised"},
		"failed":        {written + `7 100.20 fdatasync(5</wal/1>) = -1 EIO (Input/output error) <0.05>` + "\n" + answered, "REQ was written and not synchronised"},
		"to nowhere":    {`7 100.10 sendto(5<socket:[3]>, "REQ", 3, 0, NULL, 0) = 3 <0.01>` + "\n" + answered, "REQ was not written"},
		"another event": {written + synced + strings.ReplaceAll(answered, "EV", "EW"), "REQ has no answer in the trace"},
	} {
		calls, err := parse("7 99.1 --- SIGALRM {si_signo=SIGALRM} ---\n" + tt.trace + "7 101.0 +++ exited with 0 +++\n")
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if tt.want == "" && len(early(calls, []acknowledged{{"REQ", "OBJ", "EV"}}, 2, anywhere)) == 0 {
			t.Errorf("%s: one copy is enough for two", name)
		}
		if diff := cmp.Diff(tt.want, strings.Join(early(calls, []acknowledged{{"REQ", "OBJ", "EV"}}, 1, anywhere), ", ")); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}
