package spool

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"testing"

	"upcall/internal/testing/proc"
)

// putter is a child process that puts events into the directory os.Args[1], numbered from
// os.Args[2], and prints the number of each accepted event, until it is killed.
func putter() {
	dir := os.Args[1]
	first, err := strconv.Atoi(os.Args[2])
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

// TestKilled: no acknowledged event is lost by SIGKILL.
func TestKilled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	acknowledged := make(map[int]bool)
	for round := range 5 {
		child := proc.Start(t, "putter", dir, strconv.Itoa(round*1_000_000))
		for lines := 0; ; lines++ {
			line, more := child.Line()
			if !more {
				break
			}
			n, err := strconv.Atoi(line)
			if err != nil {
				t.Errorf("the child says %s", line)
				break
			}
			acknowledged[n] = true
			if lines == 200+50*round {
				child.Process.Kill() // the loop still reads what it has written
			}
		}
		child.Kill(t)
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
