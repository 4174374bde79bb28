// Package clitest runs a program of cmd within a test, as its main function would.
package clitest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"upcall/internal/cli"
)

// A Program is what main runs.
type Program func(ctx context.Context, args []string, env cli.Env, std cli.Stdio) error

// Env is a program's environment.
type Env = cli.Env

// ReadEnv reads a sample of a file of variables, with those that are commented out: # without a space
// after it.
func ReadEnv(t testing.TB, path string) Env {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	env := make(Env)
	for line := range strings.Lines(string(text)) {
		line = strings.TrimPrefix(strings.TrimSpace(line), "#")
		if name, value, found := strings.Cut(line, "="); found && !strings.Contains(name, " ") {
			env[name] = value
		}
	}
	if len(env) == 0 {
		t.Fatalf("%s sets no variable", path)
	}
	return env
}

// Execute runs the program to its end with an empty standard input.
func (p Program) Execute(t testing.TB, env Env, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	return p.Feed(t, env, "", args...)
}

// Feed runs the program to its end with stdin as its standard input.
func (p Program) Feed(t testing.TB, env Env, stdin string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	var out, remarks bytes.Buffer
	err = p(t.Context(), args, env, cli.Stdio{In: strings.NewReader(stdin), Out: &out, Err: &remarks})
	return out.String(), remarks.String(), err
}

// IntoBrokenPipe runs the program with a standard output that cannot be written, and returns
// the error, which should be [ErrBrokenPipe].
func (p Program) IntoBrokenPipe(t testing.TB, env Env, args ...string) error {
	t.Helper()
	return p(t.Context(), args, env, cli.Stdio{In: strings.NewReader(""), Out: brokenPipe{}, Err: io.Discard})
}

// ErrBrokenPipe is the error of writing to that standard output.
var ErrBrokenPipe = errors.New("broken pipe")

type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, ErrBrokenPipe }

// Output runs the program, which must succeed, and returns what it printed.
func (p Program) Output(t testing.TB, env Env, args ...string) string {
	t.Helper()
	stdout, stderr, err := p.Execute(t, env, args...)
	if err != nil {
		t.Fatalf("%v: %v\n%s", args, err, stderr)
	}
	return stdout
}

// Error runs the program, which must fail and print nothing, and returns the error.
func (p Program) Error(t testing.TB, env Env, args ...string) error {
	t.Helper()
	stdout, _, err := p.Execute(t, env, args...)
	if err == nil {
		t.Fatalf("%v: no error", args)
	}
	if stdout != "" {
		t.Errorf("%v: printed %s", args, stdout)
	}
	return err
}

// A Running program runs until Stop, or until the test's end.
type Running struct {
	cancel context.CancelFunc
	wait   func() error
	asked  atomic.Bool // the test asked for the error

	mu    sync.Mutex
	news  *sync.Cond
	lines []string // of both streams, not yet passed over by Line
	ended bool
}

// Start starts the program. Its error fails the test, unless the test asks for it.
func (p Program) Start(t testing.TB, env Env, args ...string) *Running {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	printed, out := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		err := p(ctx, args, env, cli.Stdio{In: strings.NewReader(""), Out: out, Err: out})
		out.Close()
		ended <- err
	}()
	r := &Running{cancel: cancel, wait: sync.OnceValue(func() error { return <-ended })}
	r.news = sync.NewCond(&r.mu)
	go r.read(printed)
	t.Cleanup(func() {
		cancel()
		if err := r.wait(); err != nil && !r.asked.Load() {
			t.Errorf("%v: %v", args, err)
		}
	})
	return r
}

func (r *Running) read(printed io.Reader) {
	in := bufio.NewReader(printed)
	for {
		line, err := in.ReadString('\n')
		r.mu.Lock()
		if line != "" {
			r.lines = append(r.lines, line)
		}
		r.ended = err != nil
		r.mu.Unlock()
		r.news.Broadcast()
		if err != nil {
			return
		}
	}
}

// Line returns the next line for which is returns true, and passes over those before it. It
// fails the test if the program ends without such a line.
func (r *Running) Line(t testing.TB, is func(line string) bool) string {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		for i, line := range r.lines {
			if is(line) {
				r.lines = r.lines[i+1:]
				return line
			}
		}
		r.lines = nil
		if r.ended {
			t.Fatalf("the program ended without the line: %v", r.Wait())
		}
		r.news.Wait()
	}
}

// Wait waits until the program has ended by itself and returns its error.
func (r *Running) Wait() error {
	r.asked.Store(true)
	return r.wait()
}

// Stop ends the program and returns its error.
func (r *Running) Stop() error {
	r.cancel()
	return r.Wait()
}

// WriteFile writes a file in a new directory and returns its path.
func WriteFile(t testing.TB, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
