package ossemu

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// disk is the backend that keeps everything under a directory: blobs/<random id> holds
// bytes, records/<name>.json what they are, tmp/ what is being written. A record is
// written after its blob and renamed into place, so a crash leaves at most blobs that
// no record names; the next start removes those. Names carry nothing from a request:
// a key like ../../etc/passwd must not become a path.
type disk struct{ dir string }

func openDisk(dir string) (*disk, error) {
	if err := os.RemoveAll(filepath.Join(dir, "tmp")); err != nil {
		return nil, fmt.Errorf("remove unfinished files: %w", err)
	}
	for _, sub := range []string{"blobs", "records", "tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return nil, err
		}
	}
	return &disk{dir: dir}, nil
}

func (d *disk) blob(id string) string     { return filepath.Join(d.dir, "blobs", id) }
func (d *disk) record(name string) string { return filepath.Join(d.dir, "records", name+".json") }

func (d *disk) create() (blobWriter, error) {
	f, err := os.CreateTemp(filepath.Join(d.dir, "tmp"), "blob-")
	if err != nil {
		return nil, err
	}
	return &diskBlob{disk: d, File: f}, nil
}

type diskBlob struct {
	disk *disk
	*os.File
}

func (b *diskBlob) commit() (string, error) {
	name := randomHex(16)
	if err := b.Close(); err != nil {
		return "", errors.Join(err, os.Remove(b.Name()))
	}
	if err := os.Rename(b.Name(), b.disk.blob(name)); err != nil {
		return "", err
	}
	return name, nil
}

// discard drops the file; what cannot be dropped now is dropped at the next start.
func (b *diskBlob) discard() {
	_ = b.Close()
	_ = os.Remove(b.Name())
}

func (d *disk) open(blob string) (io.ReadSeekCloser, error) { return os.Open(d.blob(blob)) }

func (d *disk) remove(blob string) error { return removeFile(d.blob(blob)) }

func (d *disk) removeRecord(name string) error { return removeFile(d.record(name)) }

func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (d *disk) saveRecord(name string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Join(d.dir, "tmp"), "record-")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), d.record(name))
	}
	if err != nil {
		return errors.Join(err, removeFile(f.Name()))
	}
	return nil
}

func (d *disk) load(each func(string, []byte) error, keep func(string) bool) error {
	records, err := os.ReadDir(filepath.Join(d.dir, "records"))
	if err != nil {
		return err
	}
	for _, r := range records {
		name, ok := strings.CutSuffix(r.Name(), ".json")
		if !ok {
			continue
		}
		data, err := os.ReadFile(d.record(name))
		if err != nil {
			return err
		}
		if err := each(name, data); err != nil {
			return err
		}
	}
	blobs, err := os.ReadDir(filepath.Join(d.dir, "blobs"))
	if err != nil {
		return err
	}
	for _, b := range blobs {
		if !keep(b.Name()) {
			if err := removeFile(d.blob(b.Name())); err != nil {
				return fmt.Errorf("remove stray blob: %w", err)
			}
		}
	}
	return nil
}
