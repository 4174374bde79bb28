package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"upcall/internal/fault"
)

// ErrUsage means that the user must change something: flags, environment, or a file that
// they name. The exit code is 2.
var ErrUsage = errors.New("usage error")

// Usage makes err an [ErrUsage] with the same text. It returns nil for nil.
func Usage(err error) error {
	if err == nil {
		return nil
	}
	return usageError{err}
}

type usageError struct{ error }

func (e usageError) Unwrap() error        { return e.error }
func (e usageError) Is(target error) bool { return target == ErrUsage }

// ExitCode returns the exit code for err, which is not nil.
func ExitCode(err error) int {
	if errors.Is(err, ErrUsage) {
		return 2
	}
	return 1
}

// Report prints each mistake of err on a line that begins with the program's name.
func Report(w io.Writer, program string, err error) {
	for _, mistake := range fault.Of(err) {
		// A mistake may be another program's error, of several lines.
		fmt.Fprintf(w, "%s: %s\n", program, strings.ReplaceAll(mistake.Error(), "\n", "\n"+program+": "))
	}
}
