package uploader

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
)

// Why an entry of a folder is left out.
var (
	ErrLink    = errors.New("is a symbolic link, which could lead out of the folder")
	ErrLoop    = errors.New("is a symbolic link to a folder that it is in")
	ErrNotFile = errors.New("is neither a file nor a folder")
)

// A Found is a file in a folder, or an entry that is not uploaded.
type Found struct {
	Path string // as it can be opened
	Name string // in the folder, with slashes, as the end of a key; not always UTF-8
	Size int64  // bytes, when it was found

	// Err says why the entry is not uploaded. It wraps ErrLink, ErrLoop or ErrNotFile for one
	// that is none of the folder's files; any other error means that there may be files which
	// cannot be read.
	Err error
}

// Walk calls visit for each file below a folder, sorted by name within each folder. Empty
// folders have no counterpart in OSS and are passed over.
//
// A symbolic link in a folder is left out unless follow is set: a folder from somewhere else
// could hold a link to any file of this machine. The folder itself may be one.
func Walk(folder string, follow bool, visit func(Found)) {
	w := walker{follow: follow, visit: visit}
	info, err := os.Stat(folder)
	if err != nil {
		visit(Found{Path: folder, Err: err})
		return
	}
	w.folder(folder, "", info)
}

type walker struct {
	follow bool
	visit  func(Found)
	above  []fs.FileInfo // the folders that the current one is in, and itself
}

func (w *walker) folder(dir, name string, info fs.FileInfo) {
	if slices.ContainsFunc(w.above, func(above fs.FileInfo) bool { return os.SameFile(above, info) }) {
		w.visit(Found{Path: dir, Name: name, Err: ErrLoop})
		return
	}
	w.above = append(w.above, info)
	defer func() { w.above = w.above[:len(w.above)-1] }()
	entries, err := os.ReadDir(dir)
	for _, entry := range entries {
		w.entry(filepath.Join(dir, entry.Name()), path.Join(name, entry.Name()), entry)
	}
	if err != nil { // of a folder that was read in part, the rest is missing
		w.visit(Found{Path: dir, Name: name, Err: err})
	}
}

func (w *walker) entry(at, name string, entry fs.DirEntry) {
	found := Found{Path: at, Name: name}
	info, err := entry.Info()
	if err == nil && info.Mode()&fs.ModeSymlink != 0 {
		if !w.follow {
			found.Err = ErrLink
			w.visit(found)
			return
		}
		info, err = os.Stat(at)
	}
	switch {
	case err != nil:
		found.Err = fmt.Errorf("look at it: %w", err)
	case info.IsDir():
		w.folder(at, name, info)
		return
	case !info.Mode().IsRegular(): // reading a pipe or a device need not end
		found.Err = ErrNotFile
	default:
		found.Size = info.Size()
	}
	w.visit(found)
}
