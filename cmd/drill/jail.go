package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"time"

	"upcall/internal/cli"
)

const (
	// initName is the name under which the program runs as the first process of the namespaces.
	initName = "drill-init"
	// innerName is its name as the drill in there.
	innerName = "drill"
	// dirVariable holds the directory of a drill for the process that runs in the namespaces.
	dirVariable = "DRILL_DIR"
)

// enter runs the command line again in namespaces of its own for processes, mounts and networks,
// where no address, port or process of this machine is in its way, nor it in theirs. Whatever the
// drill starts ends with the first process in there, however that ends.
func enter(ctx context.Context, dir string, args []string, std cli.Stdio) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find own program: %w", err)
	}
	cmd := &exec.Cmd{
		Path: self, Args: append([]string{initName}, args...), Stdout: std.Out, Stderr: std.Err,
		Env: append(environment(), dirVariable+"="+dir),
		SysProcAttr: &syscall.SysProcAttr{
			Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET,
			Setsid:     true, // Ctrl-C reaches us alone
		},
	}
	leash, err := cmd.StdinPipe() // ends if we do, even by SIGKILL
	if err != nil {
		return fmt.Errorf("make pipe: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("make namespaces, which needs root: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err = <-ended:
	case <-ctx.Done():
		leash.Close()
		select {
		case err = <-ended:
		case <-time.After(20 * time.Second):
			cmd.Process.Kill()
			err = <-ended
		}
	}
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.As(err, &exit):
		return errInside
	case err != nil:
		return fmt.Errorf("run drill: %w", err)
	}
	return nil
}

// environment is that of this process without what would configure the programs of the drill.
func environment() []string {
	return slices.DeleteFunc(os.Environ(), func(entry string) bool {
		return len(entry) > 7 && (entry[:7] == "UPCALL_" || entry[:7] == "PATRONI") || entry[:2] == "PG"
	})
}

// reap is the first process of the namespaces. It starts the drill, buries those whose parents were
// killed, and at the end kills what is left and removes the directory.
func reap() {
	code := 1
	dir := os.Getenv(dirVariable)
	if child, err := inside(); err != nil {
		fmt.Fprintln(os.Stderr, "drill:", err)
	} else {
		code = bury(child)
	}
	syscall.Kill(-1, syscall.SIGKILL)
	bury(0)
	os.RemoveAll(dir)
	os.Exit(code)
}

// bury waits for processes until the child has ended, and returns its exit code. With 0 it waits
// until no process is left.
func bury(child int) int {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return 1
		case pid == child && status.Exited():
			return status.ExitStatus()
		case pid == child && status.Signaled():
			return 1
		}
	}
}

// inside makes the namespaces usable and starts the drill in them.
func inside() (pid int, err error) {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return 0, fmt.Errorf("keep mounts private: %w", err)
	}
	if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return 0, fmt.Errorf("mount /proc: %w", err)
	}
	if err := syscall.Mount("tmpfs", "/run", "tmpfs", 0, "mode=755"); err != nil { // network namespaces have their names there
		return 0, fmt.Errorf("mount /run: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return 0, fmt.Errorf("find own program: %w", err)
	}
	return syscall.ForkExec(self, append([]string{innerName}, os.Args[1:]...), &syscall.ProcAttr{
		Env: os.Environ(), Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
}

// leashed returns a context that ends when the leash does.
func leashed(ctx context.Context, leash io.Reader) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		io.Copy(io.Discard, leash)
		cancel()
	}()
	return ctx, cancel
}
