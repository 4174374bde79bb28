// Package setting reads the settings of a program. Secret takes one from an environment
// variable, or from a file that a second variable names, as orchestrators mount them.
//
// Flags does the same for what is no secret. The package is for the programs under cmd.
package setting

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"unicode/utf8"
)

// MaxFile is the longest secret, in bytes. A file above it was named by mistake, and
// one without end, such as /dev/zero, must not fill the memory.
const MaxFile = 64 << 10

// FileSuffix is what the name of the variable ends in that holds a path.
const FileSuffix = "_FILE"

// The ways in which a secret is refused. No error of this package holds the secret.
var (
	ErrBoth       = errors.New("set one of them only")
	ErrUnreadable = errors.New("cannot be read")
	ErrEmpty      = errors.New("is empty")
	ErrTooLong    = errors.New("is longer than any secret")
	ErrNotText    = errors.New("is not one line of text")
)

// Secret returns the value of the variable name, or the content, without one line
// break at its end, of the file that the variable name_FILE names. A variable that is
// empty counts as not set; if neither is set, the secret is "". env is os.Getenv or,
// in tests, a map's lookup.
//
// The error wraps one of the package's sentinels and names the variable: both
// variables are set, or the file is unreadable, empty, over MaxFile or no text.
func Secret(env func(string) string, name string) (string, error) {
	value, path := env(name), env(name+FileSuffix)
	switch {
	case value != "" && path != "":
		return "", fmt.Errorf("%s and %s%s: %w", name, name, FileSuffix, ErrBoth)
	case path == "":
		return value, nil
	}
	content, err := read(path)
	if err != nil {
		return "", fmt.Errorf("%s%s: the file %q %w", name, FileSuffix, path, err)
	}
	return content, nil
}

func read(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", unreadable(err)
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, MaxFile+1))
	if err != nil {
		return "", unreadable(err)
	}
	if len(content) > MaxFile {
		return "", ErrTooLong
	}
	if !utf8.Valid(content) || bytes.ContainsRune(content, 0) {
		return "", ErrNotText
	}
	// Editors and echo end a file with a line break that is no part of the secret.
	secret := strings.TrimSuffix(strings.TrimSuffix(string(content), "\n"), "\r")
	switch {
	case secret == "":
		return "", ErrEmpty
	case strings.ContainsAny(secret, "\r\n"):
		return "", ErrNotText
	}
	return secret, nil
}

// unreadable keeps the reason and drops the path, which the caller names.
func unreadable(err error) error {
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		err = path.Err
	}
	return fmt.Errorf("%w: %w", ErrUnreadable, err)
}
