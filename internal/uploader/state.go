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

// A State is what must be remembered about a multipart upload until it is over, in case the
// program is killed. OSS remembers which parts it has.
type State struct {
	// Manifest is the one that was made for the upload; nil if it was given.
	Manifest *manifest.Multipart `json:"manifest,omitempty"`

	// Completing says that OSS was asked to complete the upload.
	Completing bool `json:"completing"`

	path string // "" for a state that is not kept
}

// LoadState reads the state in a file. A file that does not exist or was not written by
// this package means a new upload. The error is about reading.
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

// Save replaces the file at once, so that it holds the old state or the new one whenever
// the program is killed. Only its owner may read it: anyone who has the URLs in it may
// upload.
func (s *State) Save() error {
	if s.path == "" {
		return nil
	}
	err := os.MkdirAll(filepath.Dir(s.path), 0o700)
	if err == nil {
		err = s.replace()
	}
	if err != nil {
		return fmt.Errorf("keep state of the upload: %w", err)
	}
	return nil
}

func (s *State) replace() error {
	file, err := os.CreateTemp(filepath.Dir(s.path), filepath.Base(s.path)+".*") // has mode 0600
	if err != nil {
		return err
	}
	err = errors.Join(json.NewEncoder(file).Encode(s), file.Close())
	if err == nil {
		err = os.Rename(file.Name(), s.path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(file.Name()))
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
