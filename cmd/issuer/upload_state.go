package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"upcall/internal/cli"
	"upcall/internal/fault"
	"upcall/internal/manifest"
	"upcall/internal/ossrule"
	"upcall/internal/uploader"
)

// stateKept is how long a state is worth anything: no URL lives longer.
const stateKept = ossrule.MaxExpiry + 24*time.Hour

// stateDir is where unfinished uploads are remembered.
func (c *uploadCommand) stateDir(env cli.Env) (string, error) {
	switch {
	case c.StateDir != "":
		return c.StateDir, nil
	case filepath.IsAbs(env("XDG_STATE_HOME")): // a relative one is to be ignored, by the XDG Base Directory Specification 0.8
		return filepath.Join(env("XDG_STATE_HOME"), "upcall", "uploads"), nil
	case env("HOME") != "":
		return filepath.Join(env("HOME"), ".local", "state", "upcall", "uploads"), nil
	}
	return "", fault.At("--state-dir", "HOME is not set, so there is no place to remember the upload; give a folder")
}

// ownState is the state of an upload whose manifest the command makes. The same command
// finds the same one.
func (c *uploadCommand) ownState(env cli.Env, file string) (*uploader.State, error) {
	return c.state(env, file, c.keyOf(file), c.objectFlags, c.PartSize, c.callbackFlags, c.ossFlags)
}

// givenState is the state of an upload whose manifest was given.
func (c *uploadCommand) givenState(env cli.Env, file string, m manifest.Manifest) (*uploader.State, error) {
	return c.state(env, file, m.Multipart.Bucket, m.Multipart.Key, m.Multipart.OSSUploadID)
}

// state loads what is remembered of a file's upload. The file's name in the folder is a
// digest of what tells the upload from others, and says nothing of it.
func (c *uploadCommand) state(env cli.Env, file string, upload ...any) (*uploader.State, error) {
	dir, err := c.stateDir(env)
	if err != nil {
		return nil, err
	}
	path, err := filepath.Abs(file)
	if err != nil {
		return nil, fmt.Errorf("find file: %w", err)
	}
	identity, err := json.Marshal(append(upload, path))
	if err != nil {
		return nil, fmt.Errorf("name state of the upload: %w", err)
	}
	sum := sha256.Sum256(identity)
	forgetOld(dir)
	return uploader.LoadState(filepath.Join(dir, hex.EncodeToString(sum[:])+".json"))
}

// forgetOld drops the states of uploads that were not resumed. What cannot be
// dropped does no harm.
func forgetOld(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return // there is none yet, or using it will say why
	}
	for _, entry := range entries {
		named, _ := filepath.Match("????????????????????????????????????????????????????????????????.json*", entry.Name())
		if info, err := entry.Info(); named && err == nil && info.Mode().IsRegular() && time.Since(info.ModTime()) > stateKept {
			_ = os.Remove(filepath.Join(dir, entry.Name()))
		}
	}
}
