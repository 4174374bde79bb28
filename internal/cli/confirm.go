package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
)

// ErrNotConfirmed means that nobody agreed to what the command would have done.
var ErrNotConfirmed = errors.New("not confirmed, so nothing was done")

// Confirm asks on a terminal whether to go on. Anything but y or yes is no. Without a terminal
// there is nobody to ask: then flag, which skips the question, must be given.
func Confirm(std Stdio, question, flag string) error {
	if !IsTerminal(std.In) {
		return Usage(fmt.Errorf("%w: %s; give %s if that is meant", ErrNotConfirmed, strings.TrimSuffix(question, "?"), flag))
	}
	fmt.Fprintf(std.Err, "%s [y/N] ", question)
	return answered(std.In)
}

func answered(in io.Reader) error {
	line, err := bufio.NewReader(in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read answer: %w", err)
	}
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return nil
	}
	return ErrNotConfirmed
}
