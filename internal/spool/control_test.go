package spool

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"upcall/internal/event"
	"upcall/internal/kept"
	"upcall/internal/testing/fallbacktest"
	"upcall/internal/testing/proc"
	"upcall/internal/testing/toolchain"
	"upcall/internal/testing/wait"
)

// serve lets a spool take requests until the test ends, or stop is called.
func serve(t *testing.T, s *Spool) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() { s.Serve(ctx) })
	stop = func() { cancel(); serving.Wait() }
	t.Cleanup(stop)
	wait.Until(t, "the spool takes requests", func() bool {
		conn, err := dial(t.Context(), s.config.Dir)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	return stop
}

// request changes dead letters and returns how many were.
func request(t *testing.T, c Config, r Request) (changed int, stats Stats, err error) {
	t.Helper()
	stats, err = Change(t.Context(), c, r, func(e kept.Entry) error {
		if e.Reason != event.ErrUnstorable.Error() || e.Bucket != "demo" || e.ReceivedAt.IsZero() {
			t.Errorf("the changed dead letter is %+v", e)
		}
		changed++
		return nil
	})
	return changed, stats, err
}

// TestChange has the owner of a spool change it, and then does it without one. Both do the same.
func TestChange(t *testing.T) {
	t.Parallel()
	for _, running := range []bool{true, false} {
		c, _ := config(t.TempDir())
		s := deadLetters(t, c, 5)
		if running {
			serve(t, s)
		} else {
			s.Close()
		}
		for _, tt := range []struct {
			name    string
			request Request
			changed int
			waiting int
			dead    int
			err     string
		}{
			{"unknown", Request{ActionRetry, false, ids(0, 99)}, 0, 5, 5, ErrNoDeadLetter.Error() + ": " + numbered(99).ID.String()},
			{"waiting", Request{ActionDiscard, false, ids(0, 6)}, 0, 5, 5, ErrNoDeadLetter.Error() + ": " + numbered(6).ID.String()},
			{"unknown action", Request{"delete", true, nil}, 0, 5, 5, `unknown action "delete"`},
			{"none", Request{ActionDiscard, false, nil}, 0, 5, 5, ""},
			{"retry, one of them twice", Request{ActionRetry, false, ids(1, 0, 1)}, 2, 7, 3, ""},
			{"retry again", Request{ActionRetry, false, ids(1)}, 0, 7, 3, ErrNoDeadLetter.Error()},
			{"discard", Request{ActionDiscard, false, ids(2)}, 1, 7, 2, ""},
			{"retry all", Request{ActionRetry, true, nil}, 2, 9, 0, ""},
			{"discard all of none", Request{ActionDiscard, true, nil}, 0, 9, 0, ""},
		} {
			changed, stats, err := request(t, c, tt.request)
			if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) || changed != tt.changed {
				t.Errorf("running %v, %s: %d changed, %v", running, tt.name, changed, err)
			}
			if err == nil && (stats.Queued != tt.waiting || stats.DeadLetters != tt.dead) {
				t.Errorf("running %v, %s: %+v", running, tt.name, stats)
			}
			waiting, dead := 0, 0
			err = Read(t.Context(), c.Dir, func(e kept.Entry) error {
				if e.Reason == "" {
					waiting++
				} else {
					dead++
				}
				return nil
			})
			if err != nil || waiting != tt.waiting || dead != tt.dead {
				t.Errorf("running %v, %s: %d wait, %d are dead, %v", running, tt.name, waiting, dead, err)
			}
		}
	}
}

// TestChangeMany: many dead letters change in several transactions, while callbacks arrive.
func TestChangeMany(t *testing.T) {
	t.Parallel()
	c, _ := config(t.TempDir())
	s := open(t, c)
	const n = 2*changeAtOnce + 1
	putMany(t, s, n)
	m := &fallbacktest.Memory{Fail: func(*event.Event) error { return event.ErrUnstorable }}
	if _, err := s.Move(t.Context(), m.Record, n); err != nil {
		t.Fatal(err)
	}
	serve(t, s)
	var arriving sync.WaitGroup
	arriving.Go(func() { fill(t, s, n, n+20) })
	if changed, stats, err := request(t, c, Request{Action: ActionRetry, All: true}); changed != n || stats.DeadLetters != 0 || err != nil {
		t.Errorf("%d of %d changed, %+v, %v", changed, n, stats, err)
	}
	arriving.Wait()
	wantStats(t, s, n+20, 0)
}

// putMany puts events, many in each fsync.
func putMany(t *testing.T, s *Spool, n int) {
	t.Helper()
	var putting sync.WaitGroup
	for i := range n {
		putting.Go(func() {
			if _, err := s.Put(t.Context(), numbered(i)); err != nil {
				t.Error(err)
			}
		})
	}
	putting.Wait()
}

// TestSocket: the socket is this user's alone, replaces that of a killed process, is removed at
// the end, and works in a directory whose path is too long for a socket's.
func TestSocket(t *testing.T) {
	t.Parallel()
	for name, long := range map[string]string{"short": "s", "long": strings.Repeat("long/", 40)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, _ := config(filepath.Join(t.TempDir(), long))
			s := deadLetters(t, c, 1)
			old, err := s.listen(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			old.(*net.UnixListener).SetUnlinkOnClose(false)
			old.Close() // as if the process were killed
			if _, err := dial(t.Context(), c.Dir); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Fatalf("the old socket: %v", err)
			}
			stop := serve(t, s)
			path := filepath.Join(c.Dir, socketName)
			if info, err := os.Stat(path); err != nil || info.Mode() != fs.ModeSocket|0o600 {
				t.Errorf("the socket: %v, %v", info, err)
			}
			if _, err := Open(t.Context(), Config{Dir: c.Dir, Logger: c.Logger, LockTimeout: time.Millisecond}); !errors.Is(err, ErrInUse) {
				t.Errorf("another owner: %v", err)
			}
			if changed, _, err := request(t, c, Request{Action: ActionDiscard, All: true}); changed != 1 || err != nil {
				t.Errorf("%d discarded, %v", changed, err)
			}
			stop()
			if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("after the end: %v", err)
			}
			s.Close()
			if changed, stats, err := request(t, c, Request{Action: ActionRetry, All: true}); changed != 0 || stats.Queued != 1 || err != nil {
				t.Errorf("without an owner: %d retried, %+v, %v", changed, stats, err)
			}
		})
	}
}

// TestSocketImpossible: a spool whose directory can have no socket works all the same.
func TestSocketImpossible(t *testing.T) {
	t.Parallel()
	c, l := config(t.TempDir())
	s := deadLetters(t, c, 1)
	if err := os.MkdirAll(filepath.Join(c.Dir, socketName, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	s.Serve(t.Context())
	if !strings.Contains(l.String(), "dead letters cannot be retried or discarded while") {
		t.Errorf("log: %s", l)
	}
	c.LockTimeout = time.Millisecond
	if _, _, err := request(t, c, Request{Action: ActionRetry, All: true}); !errors.Is(err, ErrInUse) {
		t.Errorf("a request: %v", err)
	}
	wantStats(t, s, 1, 1)
}

// TestStrangeRequests: those who connect and say nothing, nonsense or half a request change
// nothing, and do not keep the owner from ending.
func TestStrangeRequests(t *testing.T) {
	t.Parallel()
	c, _ := config(t.TempDir())
	s := deadLetters(t, c, 2)
	stop := serve(t, s)
	for _, text := range []string{"\n", "GET / HTTP/1.1\r\n\r\n", "[]",
		`{"action":"discard","all":true`, `{"action":"discard","all":1}`, `{"action":"discard","events":["x"]}`} {
		conn, err := dial(t.Context(), c.Dir)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if err := conn.(*net.UnixConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 1000)
		if n, _ := conn.Read(got); !strings.Contains(string(got[:n]), `"error":`) {
			t.Errorf("%s: answered %s", text, got[:n])
		}
		conn.Close()
	}
	silent, err := dial(t.Context(), c.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	began := time.Now()
	stop()
	if took := time.Since(began); took > talkTimeout {
		t.Errorf("the end took %v", took)
	}
	wantStats(t, s, 2, 2)
}

// TestOtherUser: another user cannot send a request, even where the directory is open to all.
func TestOtherUser(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		toolchain.NotRun(t, "not run: only root can be another user")
	}
	dir, err := os.MkdirTemp("", "upcall-spool-") // t.TempDir is in a private directory
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	c, _ := config(dir)
	s := deadLetters(t, c, 1)
	serve(t, s)
	binary := filepath.Join(dir, "child")
	copyFile(t, os.Args[0], binary)
	if err := os.Chmod(binary, 0o755); err != nil {
		t.Fatal(err)
	}
	child := proc.Command(t.Context(), "discarder", dir)
	child.Path, child.Dir = binary, dir
	child.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := child.CombinedOutput()
	if exit := new(exec.ExitError); !errors.As(err, &exit) || !strings.Contains(string(out), "permission denied") {
		t.Errorf("%v: %s", err, out)
	}
	wantStats(t, s, 1, 1)
}

// discarder is a child process that discards all dead letters of a directory.
func discarder() {
	c, _ := config(os.Args[1])
	_, err := Change(context.Background(), c, Request{Action: ActionDiscard, All: true}, func(kept.Entry) error { return nil })
	if err != nil {
		os.Stderr.WriteString(err.Error())
		os.Exit(1)
	}
}
