package spool

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
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
