// Package proc runs parts of a test in child processes, which can be killed, and other programs beside
// it. A child runs the test binary, whose TestMain knows the children by name.
package proc

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

const (
	// variable holds the name of the child.
	variable = "UPCALL_TEST_CHILD"
	// tied is set for a child that must end when its standard input does.
	tied = "UPCALL_TEST_CHILD_TIED"
)

// Main is called by TestMain before it runs the tests. In a child it runs the function of that
// name and ends the process; otherwise it returns. os.Args[1:] are the child's arguments.
func Main(children map[string]func()) {
	name := os.Getenv(variable)
	if name == "" {
		return
	}
	child, ok := children[name]
	if !ok {
		panic("proc: there is no child " + name)
	}
	if os.Getenv(tied) != "" {
		go func() {
			io.Copy(io.Discard, os.Stdin)
			os.Exit(1)
		}()
	}
	child()
	os.Exit(0)
}

// Serve runs a server in a child until it is killed. It prints the address of the public
// listener, and passes it and an admin listener to serve. The child ends if serve returns.
func Serve(serve func(ctx context.Context, public, admin net.Listener) error) {
	public, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	admin, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println(public.Addr())
	fmt.Fprintln(os.Stderr, serve(context.Background(), public, admin))
	os.Exit(1)
}

// QuickExit is an environment variable, NAME=value, with which a program with the race detector
// exits at once, and not a second later.
const QuickExit = "GORACE=atexit_sleep_ms=0"

// Command returns a command that runs a child, whose environment holds only what makes it one.
// It is killed when the context ends.
func Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Env = []string{variable + "=" + name, QuickExit}
	return cmd
}

// A Child is a running child whose standard output is read line by line.
type Child struct {
	*exec.Cmd
	lines *bufio.Scanner
}

// Start starts a child with this process's environment and standard error. The child outlives
// neither the test nor this process, however that ends.
func Start(t testing.TB, name string, args ...string) *Child {
	t.Helper()
	cmd := Command(t.Context(), name, args...)
	cmd.Env = append(os.Environ(), variable+"="+name, QuickExit, tied+"=1")
	cmd.Stderr = os.Stderr
	if _, err := cmd.StdinPipe(); err != nil { // it ends with this process
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := &Child{cmd, bufio.NewScanner(out)}
	t.Cleanup(c.end)
	return c
}

// Program starts a program that runs until the test's end, and then gets a signal. What it printed is shown
// if the test fails.
func Program(t testing.TB, cmd *exec.Cmd, end os.Signal) {
	t.Helper()
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(end)
		_ = cmd.Wait() // it was ended
		if t.Failed() {
			t.Logf("%s:\n%s", cmd.Path, &output)
		}
	})
}

// Line returns the next line of the child's standard output, and whether there is one.
func (c *Child) Line() (string, bool) {
	if !c.lines.Scan() {
		return "", false
	}
	return c.lines.Text(), true
}

// FirstLine returns the first line, and fails the test if the child ends without one.
func (c *Child) FirstLine(t testing.TB) string {
	t.Helper()
	line, ok := c.Line()
	if !ok {
		t.Fatalf("the child ended without output: %v", c.Wait())
	}
	return line
}

// Kill kills the child with SIGKILL and waits until it has ended. It fails the test if the child
// had ended by itself. The output of the child can no longer be read.
func (c *Child) Kill(t testing.TB) {
	t.Helper()
	c.end()
	if status, ok := c.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
		t.Errorf("the child ended by itself: %v", c.ProcessState)
	}
}

// end kills the child if it runs, and waits for it unless that was done before.
func (c *Child) end() {
	_ = c.Process.Kill()
	_ = c.Wait()
}
