package uploader

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"upcall/internal/manifest"
)

// A State is what has to be remembered of a multipart upload until it is over, should
// the program be killed. Which parts are there is not in it: OSS knows that better.
type State struct {
	// Manifest is the one that was made for the upload; nil where it was given.
	Manifest *manifest.Multipart `json:"manifest,omitempty"`

	// Completing says that OSS was asked to merge the parts.
	Completing bool `json:"completing"`

	path string // "" for a state that is not kept
}

// LoadState reads the state in a file. A file that is not there, or was not written by
// this package, is a new upload. The error is about reading.
func LoadState(path string) (*State, error) {
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read state of the upload: %w", err)
	}
	s := new(State)
	if err != nil || json.Unmarshal(text, s) != nil || s.Manifest != nil && s.Manifest.Check() != nil {
		s = new(State)
	}
	s.path = path
	return s, nil
}

// Save writes the file anew, so that it is always the old state or the new one, whenever
// the program is killed. Only its owner may read it: anyone who has the URLs in it
// may upload.
func (s *State) Save() error {
	if s.path == "" {
		return nil
	}
	text, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("write state of the upload: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(s.path), 0o700); err != nil {
		return fmt.Errorf("keep state of the upload: %w", err)
	}
	file, err := os.CreateTemp(filepath.Dir(s.path), filepath.Base(s.path)+".*") // has mode 0600
	if err != nil {
		return fmt.Errorf("keep state of the upload: %w", err)
	}
	_, err = file.Write(text)
	err = errors.Join(err, file.Close())
	if err == nil {
		err = os.Rename(file.Name(), s.path)
	}
	if err != nil {
		return fmt.Errorf("keep state of the upload: %w", errors.Join(err, os.Remove(file.Name())))
	}
	return nil
}

// Remove forgets the upload.
func (s *State) Remove() error {
	if s.path == "" {
		return nil
	}
	if err := os.Remove(s.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove state of the upload: %w", err)
	}
	return nil
}
