package spool

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

const childVariable = "UPCALL_SPOOL_TEST_CHILD"

// child is what this test binary does as a child: it puts events into the directory
// that the variable names, and prints the number of each that was taken, until killed.
func child() {
	dir := os.Getenv(childVariable)
	if dir == "" {
		return
	}
	first, err := strconv.Atoi(os.Getenv(childVariable + "_FIRST"))
	if err != nil {
		panic(err)
	}
	c, _ := config(dir)
	s, err := Open(context.Background(), c)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	for client := range 8 {
		go func() {
			for n := first + client; ; n += 8 {
				if _, err := s.Put(context.Background(), numbered(n)); err != nil {
					fmt.Println(err)
				}
				fmt.Println(n)
			}
		}()
	}
	select {}
}

// TestKilled: what was acknowledged is there after SIGKILL.
func TestKilled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	acknowledged := make(map[int]bool)
	for round := range 5 {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), childVariable+"="+dir, fmt.Sprintf("%s_FIRST=%d", childVariable, round*1_000_000))
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := 0
		for in := bufio.NewScanner(out); in.Scan(); lines++ {
			n, err := strconv.Atoi(in.Text())
			if err != nil {
				t.Errorf("the child says %s", in.Text())
				break
			}
			acknowledged[n] = true
			if lines == 200+50*round {
				cmd.Process.Kill()
			}
		}
		cmd.Wait()
	}
	c, l := config(dir)
	s := open(t, c)
	for n := range acknowledged {
		if !s.Has(numbered(n).ID) {
			t.Errorf("%d was acknowledged and is lost", n)
		}
	}
	if stats := s.Stats(); stats.Damaged != 0 || stats.Queued < len(acknowledged) || len(acknowledged) < 1000 {
		t.Errorf("%d acknowledged, stats %+v, log %s", len(acknowledged), stats, l)
	}
}

// TestDiskFull fills a small disk: that is no damage, and goes on when there is room.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	disk := t.TempDir()
	if err := syscall.Mount("upcall-test", disk, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("mounting a small disk takes privileges: %v", err)
	}
	t.Cleanup(func() { syscall.Unmount(disk, 0) })
	c, _ := config(filepath.Join(disk, "spool"))
	c.Now = nil
	s, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ballast := filepath.Join(disk, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 512<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var taken []int
	var group sync.WaitGroup
	for client := range 4 {
		group.Go(func() {
			for n := client; ; n += 4 {
				_, err := s.Put(t.Context(), numbered(n))
				if err != nil {
					if !errors.Is(err, ErrFull) && !errors.Is(err, ErrUnwritable) {
						t.Error(err)
					}
					return
				}
				mu.Lock()
				taken = append(taken, n)
				mu.Unlock()
			}
		})
	}
	group.Wait()
	if len(taken) < 100 {
		t.Errorf("%d taken", len(taken))
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	for n := 1_000_000; ; n++ { // it works again when the pause is over
		if _, err := s.Put(t.Context(), numbered(n)); err == nil {
			break
		} else if strings.Contains(err.Error(), "start") || t.Context().Err() != nil {
			t.Fatal(err)
		}
	}
	m := new(memory)
	moveAll(t, s, m, 50)
	for _, n := range taken {
		if _, there := m.events[numbered(n).ID]; !there {
			t.Errorf("%d was acknowledged and is lost", n)
		}
	}
}
