// Package natstest runs NATS servers for tests, in child processes of the test binary.
package natstest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"upcall/internal/natsserver"
	"upcall/internal/testing/proc"
)

// Child is the name under which TestMain gives [Serve] to proc.Main.
const Child = "nats"

// Serve is the child: a server until standard input ends.
func Serve() {
	if err := natsserver.Serve(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// startTimeout is generous: other tests run on the same machine.
const startTimeout = 2 * time.Minute

// Config returns that of a cluster whose data is in a directory.
func Config(dir string) natsserver.Config {
	return natsserver.Config{Dir: dir, StartTimeout: startTimeout,
		Command: func(file string) *exec.Cmd { return proc.Command(context.Background(), Child, file) }}
}

// Start starts three servers, which end with the test. change may be nil.
func Start(t testing.TB, change func(*natsserver.Config)) *natsserver.Cluster {
	t.Helper()
	c := Config(t.TempDir())
	if change != nil {
		change(&c)
	}
	cluster, err := natsserver.Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cluster.Stop(); err != nil {
			t.Error(err)
		}
	})
	return cluster
}
