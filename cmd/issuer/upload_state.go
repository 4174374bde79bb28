package main

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"upcall/internal/cli"
	"upcall/internal/fault"
	"upcall/internal/ossrule"
	"upcall/internal/uploader"
)

// stateKept is how long a state can be useful: no URL stays valid for longer.
const stateKept = ossrule.MaxExpiry + 24*time.Hour

// stateDir returns the directory that remembers unfinished uploads.
func (c *uploadCommand) stateDir(env cli.Env) (string, error) {
	switch {
	case c.StateDir != "":
		return c.StateDir, nil
	case filepath.IsAbs(env["XDG_STATE_HOME"]): // the XDG Base Directory Specification 0.8 says to ignore a relative one
		return filepath.Join(env["XDG_STATE_HOME"], "upcall", "uploads"), nil
	case env["HOME"] != "":
		return filepath.Join(env["HOME"], ".local", "state", "upcall", "uploads"), nil
	}
	return "", fault.At("--state-dir", "HOME is not set, so there is no directory to remember the upload in; give one")
}

// state loads the state of a file's upload. The file of the state is named by a digest of
// what identifies the upload, so the name reveals nothing.
func (c *uploadCommand) state(env cli.Env, file string, upload ...any) (*uploader.State, error) {
	dir, err := c.stateDir(env)
	if err != nil {
		return nil, err
	}
	path, err := filepath.Abs(file)
	if err != nil {
		return nil, fmt.Errorf("find file: %w", err)
	}
	name, err := digestOf(append(upload, path)...)
	if err != nil {
		return nil, err
	}
	return uploader.LoadState(filepath.Join(dir, name+".json"))
}

// forgetOld deletes files that a digest names if nobody used them for so long, such as the states
// of uploads that were not resumed. A file that cannot be deleted does no harm.
func forgetOld(dir, suffix string, kept time.Duration) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return // the directory does not exist yet, or its use will fail and say why
	}
	for _, entry := range entries {
		named, _ := filepath.Match(strings.Repeat("?", 2*sha256.Size)+suffix, entry.Name())
		if info, err := entry.Info(); named && err == nil && info.Mode().IsRegular() && time.Since(info.ModTime()) > kept {
			_ = os.Remove(filepath.Join(dir, entry.Name()))
		}
	}
}
