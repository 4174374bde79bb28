package capture

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"upcall/internal/admission"
)

// An Entry is a capture in the directory.
type Entry struct {
	Name   string    `json:"name"` // of the file
	Reason string    `json:"reason"`
	At     time.Time `json:"at"`
	Bytes  int64     `json:"bytes"`
}

// ErrNotKept means a capture that is not in the directory, or no longer.
var ErrNotKept = errors.New("no such capture is kept")

// fileName is what captures are called: the time, why it was refused, and something random.
var fileName = regexp.MustCompile(`^([0-9]{8}T[0-9]{6}\.[0-9]{6}Z)-([a-z0-9_]{1,40})-[0-9a-f]{8}\.http$`)

const timeInName = "20060102T150405.000000Z"

// newName returns a name that nobody can know before. A reason is one of a fixed list; one that would
// not be a good name is left out all the same, so that no later change lets a request name a file.
func newName(reason admission.Reason, at time.Time) string {
	var random [4]byte
	_, _ = rand.Read(random[:]) // never fails
	name := fmt.Sprintf("%s-%s-%s.http", at.UTC().Format(timeInName), reason, hex.EncodeToString(random[:]))
	if fileName.MatchString(name) {
		return name
	}
	return newName("other", at)
}

// unfinished is the name of a file while it is written.
func unfinished(name string) string { return "." + name + ".tmp" }

// create makes a new file that only the receiver's user can read: captures have tokens in them. It
// fails if there is anything of that name, a symbolic link, too.
func create(root *os.Root, name string) (*os.File, error) {
	return root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
}

// write makes room for a request and writes it.
func (d *Dir) write(r *Request) error {
	message := r.message()
	if err := d.makeRoom(1, int64(len(message))); err != nil {
		return err
	}
	name := newName(r.Reason, r.At)
	file, err := create(d.root, unfinished(name))
	if err != nil {
		return fmt.Errorf("make capture: %w", err)
	}
	_, err = file.Write(message)
	if err = errors.Join(err, file.Close()); err == nil {
		err = d.root.Rename(unfinished(name), name)
	}
	if err != nil {
		_ = d.root.Remove(unfinished(name)) // the next start tries again
		return fmt.Errorf("write capture: %w", err)
	}
	return nil
}

// message is the request as HTTP/1.1 spells it. The HTTP server has refused line breaks in a header;
// they are taken out here as well, because one would make a header of what is none.
func (r *Request) message() []byte {
	var out bytes.Buffer
	line := strings.NewReplacer("\r", " ", "\n", " ")
	fmt.Fprintf(&out, "%s %s HTTP/1.1\r\nHost: %s\r\n", line.Replace(r.Method), line.Replace(r.Target), line.Replace(r.Host))
	for _, name := range slices.Sorted(maps.Keys(r.Header)) {
		if name == "Host" || http.CanonicalHeaderKey(name) == "Transfer-Encoding" { // the body is written as it was read: whole
			continue
		}
		for _, value := range r.Header[name] {
			fmt.Fprintf(&out, "%s: %s\r\n", line.Replace(name), line.Replace(value))
		}
	}
	out.WriteString("\r\n")
	out.Write(r.Body)
	return out.Bytes()
}

// entries lists the captures, the latest first. What has another name, or is no plain file, such as a
// symbolic link, is none.
func (d *Dir) entries() ([]Entry, error) {
	found, err := fs.ReadDir(d.root.FS(), ".")
	if err != nil {
		return nil, fmt.Errorf("list captures: %w", err)
	}
	var all []Entry
	for _, file := range found {
		parts := fileName.FindStringSubmatch(file.Name())
		if parts == nil {
			continue
		}
		at, err := time.Parse(timeInName, parts[1])
		info, statErr := d.root.Lstat(file.Name())
		if err != nil || statErr != nil || !info.Mode().IsRegular() {
			continue
		}
		all = append(all, Entry{Name: file.Name(), Reason: parts[2], At: at, Bytes: info.Size()})
	}
	slices.SortFunc(all, func(a, b Entry) int { return cmp.Or(b.At.Compare(a.At), cmp.Compare(b.Name, a.Name)) })
	return all, nil
}

// makeRoom deletes captures until so many more files and bytes are within the bounds. It takes the
// oldest of the reason that has most, so that a flood of one reason does not push out the others.
func (d *Dir) makeRoom(files int, size int64) error {
	all, err := d.entries()
	if err != nil {
		return err
	}
	for {
		total, count, bytesOf := size, make(map[string]int64), make(map[string]int64)
		for _, e := range all {
			total += e.Bytes
			count[e.Reason]++
			bytesOf[e.Reason] += e.Bytes
		}
		share := count
		if total > d.cfg.MaxBytes {
			share = bytesOf
		} else if len(all)+files <= d.cfg.MaxFiles {
			return nil
		}
		if len(all) == 0 {
			return nil // the request alone is larger, which its own limits do not allow
		}
		most := slices.MaxFunc(slices.Sorted(maps.Keys(share)), func(a, b string) int { return cmp.Compare(share[a], share[b]) })
		for i := len(all) - 1; i >= 0; i-- {
			if all[i].Reason != most {
				continue
			}
			if err := d.root.Remove(all[i].Name); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("delete capture: %w", err)
			}
			all = slices.Delete(all, i, i+1)
			break
		}
	}
}

// sweep deletes what a killed receiver has not finished.
func (d *Dir) sweep() {
	found, err := fs.ReadDir(d.root.FS(), ".")
	if err != nil {
		return
	}
	for _, file := range found {
		name, hidden := strings.CutPrefix(file.Name(), ".")
		name, temporary := strings.CutSuffix(name, ".tmp")
		if hidden && temporary && fileName.MatchString(name) && file.Type().IsRegular() {
			_ = d.root.Remove(file.Name())
		}
	}
}

// mostRead is the most of a capture that is read: more than the receiver lets a request have.
const mostRead = 1 << 20

// read returns a capture. The error wraps ErrNotKept if there is none.
func (d *Dir) read(name string) ([]byte, error) {
	if !fileName.MatchString(name) {
		return nil, ErrNotKept // no other file, whatever a call asks for
	}
	// A link or a pipe is not opened, and nothing that takes the file's place in between is read.
	before, err := d.root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !before.Mode().IsRegular() {
		return nil, ErrNotKept
	}
	if err != nil {
		return nil, fmt.Errorf("look at capture: %w", err)
	}
	file, err := d.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open capture: %w", err)
	}
	defer file.Close()
	if opened, err := file.Stat(); err != nil || !os.SameFile(before, opened) {
		return nil, ErrNotKept
	}
	content, err := io.ReadAll(io.LimitReader(file, mostRead))
	if err != nil {
		return nil, fmt.Errorf("read capture: %w", err)
	}
	return content, nil
}
