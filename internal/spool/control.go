package spool

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"upcall/internal/kept"

	"github.com/google/uuid"
	bolt "go.etcd.io/bbolt"
)

// What a [Request] can ask for.
const (
	ActionRetry   = "retry"
	ActionDiscard = "discard"
)

// A Request is what to do with which dead letters.
type Request struct {
	Action string      `json:"action"`
	All    bool        `json:"all"`
	Events []uuid.UUID `json:"events"`
}

// A reply is one line of the answer to a Request: a dead letter that was changed or, in the
// last line, what the spool holds now.
type reply struct {
	Entry *kept.Entry `json:"entry,omitempty"`
	Stats *Stats      `json:"stats,omitempty"`
	Error string      `json:"error,omitempty"`
}

const (
	// changeAtOnce is how many dead letters change in one transaction. Callbacks wait meanwhile.
	changeAtOnce = 500
	// talkTimeout bounds the wait for a request, and for its sender to read a reply.
	talkTimeout = 5 * time.Second
)

// Change carries out a request in the spool of a directory, or has the receiver do it that
// uses the spool, and calls visit for each dead letter that was changed, as it was. Unless all
// events are dead letters, nothing changes and the error says so. A damaged spool is left to
// the receiver.
func Change(ctx context.Context, config Config, r Request, visit func(kept.Entry) error) (Stats, error) {
	for again := true; ; again = false {
		conn, err := dial(ctx, config.Dir)
		if err == nil {
			defer conn.Close()
			defer context.AfterFunc(ctx, func() { conn.Close() })()
			return ask(conn, r, visit)
		}
		if errors.Is(err, fs.ErrPermission) {
			return Stats{}, fmt.Errorf("ask the receiver that uses the spool: %w", err)
		}
		stats, err := changeUnused(ctx, config, r, visit)
		if !errors.Is(err, ErrInUse) || !again { // else it has just started, perhaps
			return stats, err
		}
	}
}

// changeUnused carries out a request in the spool of a directory that no receiver uses.
func changeUnused(ctx context.Context, config Config, r Request, visit func(kept.Entry) error) (Stats, error) {
	if err := Read(ctx, config.Dir, func(kept.Entry) error { return nil }); err != nil {
		return Stats{}, err
	}
	s, err := Open(ctx, config)
	if err != nil {
		return Stats{}, err
	}
	err = s.change(ctx, r, visit)
	return s.Stats(), errors.Join(err, s.Close())
}

// change carries out a request, and calls visit for each dead letter that was changed.
func (s *Spool) change(ctx context.Context, r Request, visit func(kept.Entry) error) error {
	work := map[string]func([]uuid.UUID) error{ActionRetry: s.Retry, ActionDiscard: s.Discard}[r.Action]
	if work == nil {
		return fmt.Errorf("spool: unknown action %q", r.Action)
	}
	s.changing.Lock() // so that dead letters stay until it is their turn
	defer s.changing.Unlock()
	ids := slices.Clone(r.Events)
	if r.All {
		ids = s.deadLetters()
	}
	slices.SortFunc(ids, func(a, b uuid.UUID) int { return bytes.Compare(a[:], b[:]) })
	ids = slices.Compact(ids)
	for _, id := range ids {
		if !s.HasDeadLetter(id) {
			return fmt.Errorf("%w: %s: receiver spool list shows all", ErrNoDeadLetter, id)
		}
	}
	for some := range slices.Chunk(ids, changeAtOnce) {
		entries, err := s.entries(some)
		if err := cmp.Or(err, context.Cause(ctx)); err != nil {
			return err
		}
		if err := work(some); err != nil {
			return err
		}
		for _, e := range entries {
			if err := visit(e); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Spool) deadLetters() []uuid.UUID {
	s.mu.Lock()
	defer s.mu.Unlock()
	ids := make([]uuid.UUID, 0, len(s.dead))
	for id := range s.dead {
		ids = append(ids, id)
	}
	return ids
}

// entries returns the dead letters with these IDs.
func (s *Spool) entries(ids []uuid.UUID) ([]kept.Entry, error) {
	s.file.Lock()
	defer s.file.Unlock()
	entries := make([]kept.Entry, 0, len(ids))
	err := s.db.View(func(tx *bolt.Tx) error {
		for _, id := range ids {
			err := show(tx.Bucket(deadBucket).Get(id[:]), func(e kept.Entry) error { entries = append(entries, e); return nil })
			if err != nil {
				return err
			}
		}
		return nil
	})
	return entries, err
}

// Serve carries out requests of [Change] in other processes until ctx ends. They come over a
// socket in the directory, which only this user and root may use. Whoever holds the lock owns
// the socket: one that a killed process left is replaced.
func (s *Spool) Serve(ctx context.Context) {
	listener, err := s.listen(ctx)
	if err != nil {
		s.config.Logger.WarnContext(ctx, "dead letters cannot be retried or discarded while the receiver runs",
			slog.String("error", err.Error()))
		return
	}
	defer listener.Close() // removes the socket
	defer context.AfterFunc(ctx, func() { listener.Close() })()
	for ctx.Err() == nil {
		conn, err := listener.Accept()
		if err != nil { // out of file descriptors, perhaps
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
			continue
		}
		s.answer(ctx, conn)
	}
}

// listen returns a listener on the directory's socket.
func (s *Spool) listen(ctx context.Context) (net.Listener, error) {
	path := socketPath(s.dir)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	config := net.ListenConfig{Control: func(_, _ string, socket syscall.RawConn) error {
		// On Linux the file gets the mode of the socket, so that nobody else can connect, ever.
		return socket.Control(func(fd uintptr) { _ = syscall.Fchmod(int(fd), 0o600) })
	}}
	listener, err := config.Listen(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	return listener, nil
}

// answer reads a request, carries it out and answers it.
func (s *Spool) answer(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	out := json.NewEncoder(conn)
	send := func(r reply) error {
		conn.SetDeadline(time.Now().Add(talkTimeout)) // an error shows when writing
		return out.Encode(r)
	}
	conn.SetDeadline(time.Now().Add(talkTimeout))
	var r Request
	changed := 0
	err := json.NewDecoder(conn).Decode(&r)
	if err == nil {
		err = s.change(ctx, r, func(e kept.Entry) error { changed++; return send(reply{Entry: &e}) })
	}
	last := reply{Stats: new(s.Stats())}
	if err != nil {
		last.Error = err.Error()
	}
	s.config.Logger.InfoContext(ctx, "dead letters changed on request", slog.String("action", r.Action), slog.Int("changed", changed),
		slog.String("error", last.Error))
	_ = send(last) // the sender notices
}

// dial connects to the receiver that uses a directory.
func dial(ctx context.Context, dir string) (net.Conn, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return new(net.Dialer).DialContext(ctx, "unix", socketPath(d))
}

// ask sends a request and reads the answer.
func ask(conn net.Conn, r Request, visit func(kept.Entry) error) (Stats, error) {
	err := json.NewEncoder(conn).Encode(r)
	for in := json.NewDecoder(conn); err == nil; {
		var got reply
		switch err = in.Decode(&got); {
		case err != nil:
		case got.Entry != nil:
			err = visit(*got.Entry)
		case got.Stats == nil:
			err = errors.New("it says something else")
		case got.Error != "":
			return *got.Stats, errors.New(got.Error)
		default:
			return *got.Stats, nil
		}
	}
	return Stats{}, fmt.Errorf("the receiver has not answered, and may have done a part: %w", err)
}

// maxSocketPath is less than a socket's path may have on any system.
const maxSocketPath = 100

// socketPath returns the path of the socket in an open directory. A long one goes through the
// descriptor, as Linux allows.
func socketPath(dir *os.File) string {
	if path := filepath.Join(dir.Name(), socketName); len(path) < maxSocketPath {
		return path
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), socketName)
}
