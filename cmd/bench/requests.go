package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"

	"upcall/internal/cli"
	"upcall/internal/loadgen"
)

type requestsCommand struct {
	KeyURL  string `name:"key-url" required:"" help:"Public key URL that the callbacks name."`
	Count   int    `required:"" help:"Number of callbacks."`
	Closing bool   `help:"Let each ask to close its connection."`
}

// Run writes callbacks to standard output, each after its length in four bytes.
func (cmd *requestsCommand) Run(std cli.Stdio) error {
	generator, err := loadgen.New(cmd.KeyURL)
	if err != nil {
		return err
	}
	messages, err := generator.Wire(cmd.Count, cmd.Closing)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(std.Out)
	for _, message := range messages {
		if err := binary.Write(out, binary.BigEndian, uint32(len(message))); err != nil {
			return fmt.Errorf("write callbacks: %w", err)
		}
		out.Write(message) // the writer keeps its error
	}
	return out.Flush()
}

// ownRequests is [lab.requests] by the lab's program, which may be that of another commit:
// its receiver may refuse the tokens that this one mints.
func (l *lab) ownRequests(ctx context.Context, n int, closing bool) ([][]byte, error) {
	args := []string{"requests", "--key-url", l.keys.KeyURL, "--count", strconv.Itoa(n)}
	if closing {
		args = append(args, "--closing")
	}
	cmd := exec.CommandContext(ctx, l.program, args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err := errors.Join(err, cmd.Start()); err != nil {
		return nil, fmt.Errorf("make callbacks: %w", err)
	}
	messages, err := readMessages(bufio.NewReader(out), n)
	if err := errors.Join(cmd.Wait(), err); err != nil {
		return nil, fmt.Errorf("make callbacks with %s: %w", l.program, err)
	}
	return messages, nil
}

func readMessages(r io.Reader, n int) ([][]byte, error) {
	messages := make([][]byte, n)
	for i := range messages {
		var size uint32
		if err := binary.Read(r, binary.BigEndian, &size); err != nil {
			return nil, err
		}
		messages[i] = make([]byte, size)
		if _, err := io.ReadFull(r, messages[i]); err != nil {
			return nil, err
		}
	}
	return messages, nil
}
