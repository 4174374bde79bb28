package uploader

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"upcall/internal/filelock"
)

// A Memory remembers the files that were uploaded, in a journal that several programs may
// share: one line for each, added in one write when the upload has succeeded. Whenever a
// program is killed, the journal holds whole lines, and at most one torn one at its end, which
// counts as not written: that file is uploaded again.
//
// Journals are not synced to the disk. After a power failure, some files may be uploaded again.
type Memory struct {
	path string

	mu    sync.Mutex
	known map[string]Finished
}

// A Finished is a file that was uploaded, as it was then.
type Finished struct {
	ID       string          `json:"id"` // of file and target, as the caller makes it
	Size     int64           `json:"size"`
	Modified int64           `json:"modified_ns"` // the file's times, in nanoseconds since 1970
	Changed  int64           `json:"changed_ns"`  // 0 where the system does not say
	CRC64    uint64          `json:"crc64,string"`
	Answer   json.RawMessage `json:"answer,omitempty"` // the callback receiver's
	At       time.Time       `json:"at"`
}

// dead is how many lines of a journal may be outdated before it is written anew.
const dead = 1000

// LoadMemory reads the journal at path, which need not exist. Lines that are not a record's are
// ignored. ctx limits how long it waits for another program.
func LoadMemory(ctx context.Context, path string) (*Memory, error) {
	m := &Memory{path: path, known: make(map[string]Finished)}
	err := os.MkdirAll(filepath.Dir(path), 0o700)
	if err == nil {
		err = m.locked(ctx, m.load)
	}
	if err != nil {
		return nil, fmt.Errorf("read which files are uploaded: %w", err)
	}
	return m, nil
}

// locked calls f while no other program reads or writes the journal.
func (m *Memory) locked(ctx context.Context, f func() error) error {
	lock, err := filelock.Wait(ctx, m.path+".lock", nil)
	if err != nil {
		return err
	}
	return errors.Join(f(), lock.Close())
}

func (m *Memory) load() error {
	file, err := os.Open(m.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close() // only read
	lines := 0
	for in := bufio.NewReader(file); ; {
		line, err := in.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			break // what is left has no end, so its writer was killed
		}
		if err != nil {
			return err
		}
		lines++
		var f Finished
		if json.Unmarshal(line, &f) == nil && f.ID != "" {
			m.known[f.ID] = f
		}
	}
	if lines > 2*len(m.known)+dead {
		return m.rewrite()
	}
	now := time.Now()
	return os.Chtimes(m.path, now, now) // it is in use
}

// rewrite replaces the journal at once by one without outdated lines.
func (m *Memory) rewrite() error {
	file, err := os.CreateTemp(filepath.Dir(m.path), filepath.Base(m.path)+".*") // has mode 0600
	if err != nil {
		return err
	}
	out := bufio.NewWriter(file)
	for _, f := range m.known {
		if err = json.NewEncoder(out).Encode(f); err != nil {
			break
		}
	}
	err = errors.Join(err, out.Flush(), file.Close())
	if err == nil {
		err = os.Rename(file.Name(), m.path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(file.Name()))
	}
	return nil
}

// Find returns the record with the id if the file is still as it was then. If only its times
// have changed, its content is read and compared.
func (m *Memory) Find(ctx context.Context, id string, s *Source) (Finished, bool, error) {
	m.mu.Lock()
	f, ok := m.known[id]
	m.mu.Unlock()
	if !ok || f.Size != s.Size() {
		return Finished{}, false, nil
	}
	if f.Modified == s.info.ModTime().UnixNano() && f.Changed == changeTime(s.info) {
		return f, true, nil
	}
	_, crc, err := s.digest(ctx, piece{size: s.Size()})
	if err != nil || crc != f.CRC64 {
		return Finished{}, false, err
	}
	f.Modified, f.Changed = s.info.ModTime().UnixNano(), changeTime(s.info)
	return f, true, m.add(ctx, f) // so that the next time it need not be read
}

// Keep remembers that the file was uploaded, as it was when it was opened.
func (m *Memory) Keep(ctx context.Context, id string, s *Source, r Result) error {
	f := Finished{ID: id, Size: s.Size(), Modified: s.info.ModTime().UnixNano(), Changed: changeTime(s.info),
		CRC64: r.CRC64, Answer: r.Answer, At: time.Now().UTC()}
	if err := m.add(ctx, f); err != nil {
		return fmt.Errorf("remember that the file is uploaded: %w", err)
	}
	return nil
}

func (m *Memory) add(ctx context.Context, f Finished) error {
	line, err := json.Marshal(f) // in one line, also the answer
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.locked(ctx, func() error { return appendLine(m.path, line) }); err != nil {
		return err
	}
	m.known[f.ID] = f
	return nil
}

// appendLine adds a line by one write, after ending a torn one.
func appendLine(path string, line []byte) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	var last [1]byte
	info, err := file.Stat()
	if err == nil && info.Size() > 0 {
		_, err = file.ReadAt(last[:], info.Size()-1)
	}
	if err != nil {
		return errors.Join(err, file.Close())
	}
	var text bytes.Buffer
	if info.Size() > 0 && last[0] != '\n' {
		text.WriteByte('\n')
	}
	text.Write(line)
	text.WriteByte('\n')
	_, err = file.Write(text.Bytes())
	return errors.Join(err, file.Close())
}
