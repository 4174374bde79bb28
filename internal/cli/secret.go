package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"unicode/utf8"

	"upcall/internal/fault"
)

// maxSecretFile is the longest secret, in bytes. A longer file was named by mistake, and an
// endless one, such as /dev/zero, must not fill the memory.
const maxSecretFile = 64 << 10

// fileSuffix ends the name of a variable that holds a path.
const fileSuffix = "_FILE"

// What may be wrong with a secret. No error of this package contains the secret.
var (
	ErrBoth       = errors.New("set one of them only")
	ErrUnreadable = errors.New("cannot be read")
	ErrEmpty      = errors.New("is empty")
	ErrTooLong    = errors.New("is longer than any secret")
	ErrNotText    = errors.New("is not one line of text")
)

// Secret returns flag unless that is "". Otherwise it returns the value of the variable
// name, or the content of the file that the variable name_FILE names, without one line
// break at its end. An empty variable counts as not set; if none is set, the secret is "".
//
// The error wraps one of the sentinels above and names the variable: both variables are
// set, or the file is unreadable, empty, too long or not text.
func Secret(flag string, env Env, name string) (string, error) {
	if flag != "" {
		return flag, nil
	}
	value, path := env[name], env[name+fileSuffix]
	switch {
	case value != "" && path != "":
		return "", fault.In(name+" and "+name+fileSuffix, ErrBoth)
	case path == "":
		return value, nil
	}
	content, err := ReadSecret(path)
	return content, fault.In(name+fileSuffix, err)
}

// ReadSecret returns the content of a file without one line break at its end. The error wraps
// one of the sentinels above.
func ReadSecret(path string) (string, error) {
	content, err := read(path)
	if err != nil {
		return "", fmt.Errorf("the file %q %w", path, err)
	}
	return content, nil
}

func read(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", unreadable(err)
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, maxSecretFile+1))
	if err != nil {
		return "", unreadable(err)
	}
	if len(content) > maxSecretFile {
		return "", ErrTooLong
	}
	if !utf8.Valid(content) || bytes.ContainsRune(content, 0) {
		return "", ErrNotText
	}
	// Editors and echo end a file with a line break that is not part of the secret.
	secret := strings.TrimSuffix(strings.TrimSuffix(string(content), "\n"), "\r")
	switch {
	case secret == "":
		return "", ErrEmpty
	case strings.ContainsAny(secret, "\r\n"):
		return "", ErrNotText
	}
	return secret, nil
}

// unreadable keeps the reason and drops the path, which the caller adds.
func unreadable(err error) error {
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		err = path.Err
	}
	return fmt.Errorf("%w: %w", ErrUnreadable, err)
}
