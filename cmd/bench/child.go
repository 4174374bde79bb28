package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

// A child is a receiver in its own process.
type child struct {
	addr  string // of the public listener
	admin string
	cmd   *exec.Cmd
	stdin io.Closer
}

// startChild starts this program, or the one of another commit, as the receiver of a
// variant. More arguments are for this program only.
func startChild(
	ctx context.Context, program string, v variant, databaseURL, keyURL, profile string, tokensOff bool, more ...string,
) (*child, error) {
	args := append([]string{"serve", "--variant", v.name, "--key-url", keyURL}, more...)
	if profile != "" {
		args = append(args, "--profile", profile)
	}
	if tokensOff {
		args = append(args, "--tokens-off")
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), append(v.env, databaseURLVariable+"="+databaseURL)...)
	cmd.Stderr = os.Stderr
	stdin, stdinErr := cmd.StdinPipe()
	stdout, stdoutErr := cmd.StdoutPipe()
	if err := errors.Join(stdinErr, stdoutErr, cmd.Start()); err != nil {
		return nil, fmt.Errorf("start receiver: %w", err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		return nil, errors.Join(fmt.Errorf("receiver did not start: %w", err), stdin.Close(), cmd.Wait())
	}
	addr, admin, _ := strings.Cut(strings.TrimSpace(line), " ")
	return &child{addr, admin, cmd, stdin}, nil
}

// stop ends the receiver.
func (c *child) stop() error {
	err := c.stdin.Close()
	if waited := c.cmd.Wait(); waited != nil {
		err = errors.Join(err, fmt.Errorf("receiver ended: %w", waited))
	}
	return err
}
