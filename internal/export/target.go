package export

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"upcall/internal/filelock"
	"upcall/internal/oss"
)

// A Target is where an export goes.
type Target struct {
	daily bool // a file for each day, beside a state
	// create begins a file; the name is relative to a directory, and "" if there is but one.
	create func(ctx context.Context, name string) (file, error)
	// The rest is of directories. createNew is create, but what it begins never takes the place of another.
	createNew func(ctx context.Context, name string) (file, error)
	// check returns an error if the directory must be made first, by the code that knows where it is.
	check func() error
	// load returns the content of a file of the directory, nil if there is none.
	load func(ctx context.Context, name string) ([]byte, error)
	// list returns the files in a folder of the directory, none if it is not there.
	list func(ctx context.Context, folder string) ([]stored, error)
	// open opens one of them; nobody else changes what is read.
	open func(ctx context.Context, s stored) (*io.SectionReader, io.Closer, error)
}

// A stored is a file that is there.
type stored struct {
	name string // relative to the directory
	size int64
	etag string // in OSS
}

// A file is there, under its name, once it is committed.
type file interface {
	io.Writer
	commit(ctx context.Context) error
	discard(ctx context.Context) error
}

// Standard writes to an open stream, such as standard output.
func Standard(w io.Writer) Target {
	return Target{create: func(context.Context, string) (file, error) { return stream{bufio.NewWriterSize(w, writeBuffer)}, nil }}
}

// IsFile reports whether a path or key names a file of its own, not a directory.
func IsFile(path string) bool {
	for _, f := range Formats {
		if strings.HasSuffix(path, "."+f.extension) {
			return true
		}
	}
	return false
}

// Local writes to a file, if [IsFile] says so, or to a directory, which is made if need be.
func Local(path string) Target {
	if IsFile(path) {
		return Target{create: func(context.Context, string) (file, error) { return createFile(path) }}
	}
	at := func(name string) string { return filepath.Join(path, filepath.FromSlash(name)) }
	return Target{
		daily:     true,
		create:    func(_ context.Context, name string) (file, error) { return createFile(at(name)) },
		createNew: func(_ context.Context, name string) (file, error) { return createNewFile(at(name)) },
		check: func() error {
			info, err := os.Stat(path)
			if err == nil && !info.IsDir() {
				err = fmt.Errorf("%s is not a directory", path)
			}
			return err
		},
		load: func(_ context.Context, name string) ([]byte, error) {
			text, err := os.ReadFile(at(name))
			if errors.Is(err, fs.ErrNotExist) {
				return nil, nil
			}
			return text, err
		},
		list: func(_ context.Context, folder string) (found []stored, err error) {
			entries, err := os.ReadDir(at(folder))
			if errors.Is(err, fs.ErrNotExist) {
				return nil, nil
			}
			for _, entry := range entries {
				found = append(found, stored{name: folder + "/" + entry.Name()})
			}
			return found, err
		},
		open: func(_ context.Context, s stored) (*io.SectionReader, io.Closer, error) {
			f, err := os.Open(at(s.name))
			if err != nil {
				return nil, nil, err
			}
			info, err := f.Stat()
			if err != nil {
				f.Close()
				return nil, nil, err
			}
			return io.NewSectionReader(f, 0, info.Size()), f, nil
		},
	}
}

// Bucket writes to an object, if [IsFile] says so, or to objects whose keys begin with the
// prefix and a slash.
func Bucket(client *oss.Client, bucket, prefix string) Target {
	begin := func(ctx context.Context, key string, isNew bool) (file, error) {
		o := oss.Object{Bucket: bucket, Key: key, ContentType: "application/json", ForbidOverwrite: isNew}
		for _, f := range Formats {
			if strings.HasSuffix(key, "."+f.extension) {
				o.ContentType = f.contentType
			}
		}
		s, err := client.Stream(ctx, o)
		if err != nil {
			return nil, err
		}
		return object{s}, nil
	}
	if IsFile(prefix) {
		return Target{create: func(ctx context.Context, _ string) (file, error) { return begin(ctx, prefix, false) }}
	}
	if prefix = strings.TrimSuffix(prefix, "/"); prefix != "" {
		prefix += "/"
	}
	return Target{
		daily:     true,
		create:    func(ctx context.Context, name string) (file, error) { return begin(ctx, prefix+name, false) },
		createNew: func(ctx context.Context, name string) (file, error) { return begin(ctx, prefix+name, true) },
		check:     func() error { return nil },
		load: func(ctx context.Context, name string) ([]byte, error) {
			text, err := client.Read(ctx, bucket, prefix+name)
			if errors.Is(err, oss.ErrNoObject) {
				return nil, nil
			}
			return text, err
		},
		list: func(ctx context.Context, folder string) (found []stored, err error) {
			l := oss.Listing{Bucket: bucket, Prefix: prefix + folder + "/"}
			for {
				page, err := client.List(ctx, l)
				if err != nil {
					return nil, err
				}
				for _, o := range page.Objects {
					found = append(found, stored{strings.TrimPrefix(o.Key, prefix), o.Size, o.ETag})
					l.After = o.Key
				}
				if !page.More {
					return found, nil
				}
			}
		},
		open: func(ctx context.Context, s stored) (*io.SectionReader, io.Closer, error) {
			whole := objectReader(func(p []byte, offset int64) error {
				return client.ReadAt(ctx, bucket, prefix+s.name, s.etag, p, offset)
			})
			return io.NewSectionReader(whole, 0, s.size), io.NopCloser(nil), nil
		},
	}
}

// An objectReader reads a part of an object, all of p.
type objectReader func(p []byte, offset int64) error

// ReadAt is as in [io.ReaderAt], for what is within the object.
func (read objectReader) ReadAt(p []byte, offset int64) (int, error) {
	if err := read(p, offset); err != nil {
		return 0, err
	}
	return len(p), nil
}

const writeBuffer = 64 << 10

// A stream cannot be taken back.
type stream struct{ *bufio.Writer }

func (s stream) commit(context.Context) error {
	if err := s.Flush(); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	return nil
}

func (stream) discard(context.Context) error { return nil }

// An object is a file in OSS.
type object struct{ *oss.Stream }

func (o object) commit(ctx context.Context) error  { return o.Commit(ctx) }
func (o object) discard(ctx context.Context) error { return o.Discard(ctx) }

// A localFile has another name until it is committed.
type localFile struct {
	*bufio.Writer
	file *os.File // locked
	path string
}

func createFile(path string) (file, error) {
	dir, name := filepath.Split(path)
	fail := func(err error) (file, error) { return nil, fmt.Errorf("create %s: %w", path, err) }
	if dir != "" {
		if err := os.MkdirAll(dir, 0o777); err != nil {
			return fail(err)
		}
	}
	temporary := filepath.Join(dir, "."+name+".tmp") // the same each time, so that a run that is killed leaves one
	open, err := os.OpenFile(temporary, os.O_CREATE|os.O_WRONLY, 0o666)
	if err != nil {
		return fail(err)
	}
	open.Close()
	locked, err := filelock.Wait(context.Background(), temporary, func() error { return ErrTaken })
	if err != nil {
		return fail(err)
	}
	// Another process may have given the file its name since.
	ours, err := locked.Stat()
	if err == nil {
		var there fs.FileInfo
		if there, err = os.Lstat(temporary); err == nil && !os.SameFile(ours, there) || errors.Is(err, fs.ErrNotExist) {
			err = ErrTaken
		}
	}
	if err == nil {
		err = locked.Truncate(0)
	}
	if err != nil {
		locked.Close()
		return fail(err)
	}
	return &localFile{bufio.NewWriterSize(locked, writeBuffer), locked, path}, nil
}

// createNewFile is createFile for a file that takes the place of no other: the one that writes it has its lock.
func createNewFile(path string) (file, error) {
	f, err := createFile(path)
	if err != nil {
		return nil, err
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return nil, errors.Join(fmt.Errorf("create %s: %w", path, cmp.Or(err, fs.ErrExist)), f.discard(context.Background()))
	}
	return f, nil
}

// commit returns when the file would survive a loss of power.
func (f *localFile) commit(context.Context) error {
	err := f.Flush()
	if err == nil {
		err = f.file.Sync()
	}
	if err == nil {
		err = os.Rename(f.file.Name(), f.path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", f.path, err)
	}
	f.file.Close()
	// The entries of the file and, if it is new, of its directory.
	dir := filepath.Dir(f.path)
	if err := errors.Join(syncDir(dir), syncDir(filepath.Dir(dir))); err != nil {
		return fmt.Errorf("write %s: %w", f.path, err)
	}
	return nil
}

func (f *localFile) discard(context.Context) error {
	defer f.file.Close()
	if err := os.Remove(f.file.Name()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
