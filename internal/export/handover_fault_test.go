package export

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/parquet-go/parquet-go"

	"upcall/internal/eventstore"
	"upcall/internal/oss"
	"upcall/internal/testing/ossclient"
	"upcall/internal/testing/ossfake"
)

// heldBack holds that a month was not dropped, and why.
func (w *handWorld) heldBack(t *testing.T, err, why error) {
	t.Helper()
	if !errors.Is(err, eventstore.ErrHeldBack) || !errors.Is(err, why) {
		t.Errorf("got %v, want %v, held back", err, why)
	}
	if got := w.inTables(t); len(got) < len(w.want) {
		t.Errorf("%d events are left of %d", len(got), len(w.want))
	}
	w.wantAll(t)
}

// A broken target fails at its operation number n: files that are begun, written, finished, listed, opened and read.
type broken struct {
	n, at int
	err   error
	stop  bool // and wait to be killed instead
}

func (b *broken) step() error {
	if b.n++; b.n != b.at {
		return nil
	}
	if b.stop {
		fmt.Println("stopped")
		select {}
	}
	return b.err
}

func (b *broken) target(t Target) Target {
	create := func(create func(context.Context, string) (file, error)) func(context.Context, string) (file, error) {
		return func(ctx context.Context, name string) (file, error) {
			if err := b.step(); err != nil {
				return nil, err
			}
			f, err := create(ctx, name)
			if err != nil {
				return nil, err
			}
			return brokenFile{f, b}, nil
		}
	}
	list, open := t.list, t.open
	t.create, t.createNew = create(t.create), create(t.createNew)
	t.list = func(ctx context.Context, folder string) ([]stored, error) {
		if err := b.step(); err != nil {
			return nil, err
		}
		return list(ctx, folder)
	}
	t.open = func(ctx context.Context, s stored) (*io.SectionReader, io.Closer, error) {
		if err := b.step(); err != nil {
			return nil, nil, err
		}
		r, c, err := open(ctx, s)
		if err != nil {
			return nil, nil, err
		}
		read := func(p []byte, offset int64) (int, error) {
			if err := b.step(); err != nil {
				return 0, err
			}
			return r.ReadAt(p, offset)
		}
		return io.NewSectionReader(readerAt(read), 0, r.Size()), c, nil
	}
	return t
}

type readerAt func(p []byte, offset int64) (int, error)

func (r readerAt) ReadAt(p []byte, offset int64) (int, error) { return r(p, offset) }

type brokenFile struct {
	file
	b *broken
}

func (f brokenFile) Write(p []byte) (int, error) {
	if err := f.b.step(); err != nil {
		return len(p) / 2, err
	}
	return f.file.Write(p)
}

func (f brokenFile) commit(ctx context.Context) error {
	if err := f.b.step(); err != nil {
		return err
	}
	return f.file.commit(ctx)
}

// TestEachStepFails: whatever fails, as on a disk that is full, nothing is dropped that was not read back, and the
// next run finishes it.
func TestEachStepFails(t *testing.T) {
	t.Parallel()
	for n := 1; ; n += 7 {
		w := handLocal(t, oldEvents(old())...)
		sound := w.target
		b := &broken{at: n, err: syscall.ENOSPC}
		w.target = b.target(sound)
		_, err := eventstore.DropKept(t.Context(), w.pool, time.Now(), keptDays, w.keeper(t))
		w.target = sound
		if b.n < n {
			if err != nil || n < 50 {
				t.Errorf("only %d steps: %v", b.n, err)
			}
			return
		}
		w.heldBack(t, err, syscall.ENOSPC)
		if errors.Is(err, ErrDamaged) {
			t.Errorf("step %d failed, and the file is blamed: %v", n, err)
		}
		if got := w.drop(t); got.Kept != 45 || len(w.inFiles(t)) != 45 || len(w.tables(t)) > 0 {
			t.Errorf("after step %d failed, %d events were handed over, and tables %v are left", n, got.Kept, w.tables(t))
		}
		w.wantAll(t)
	}
}

// TestChangedFiles: a month is held back if one of its files is not what was written, when it is attached as when it is
// detached. Once the file is moved away, it is written again.
func TestChangedFiles(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(text []byte) []byte{
		"cut":     func(text []byte) []byte { return text[:len(text)/2] },
		"empty":   func([]byte) []byte { return nil },
		"zeros":   func(text []byte) []byte { clear(text[100:200]); return text },
		"a value": func(text []byte) []byte { text[len(text)/3] ^= 1; return text },
		"footer":  func(text []byte) []byte { text[len(text)-20] ^= 0xff; return text },
		"text":    func([]byte) []byte { return []byte("PAR1 and what else there is, and then PAR1") },
	} {
		for _, after := range []int{1, 2} {
			if after == 2 && name != "cut" && name != "a value" {
				continue
			}
			t.Run(fmt.Sprintf("%s after %d", name, after), func(t *testing.T) {
				t.Parallel()
				w := handLocal(t, oldEvents(old())...)
				path := filepath.Join(w.dir, "day="+old().Format(time.DateOnly), "part-0.parquet")
				stop := errors.New("stop")
				ctx, cancel := context.WithCancelCause(t.Context())
				keeper := &between{Keeper: w.keeper(t), after: func(n int) {
					if n == after {
						text, err := os.ReadFile(path)
						if err == nil {
							err = os.WriteFile(path, change(text), 0o600)
						}
						if err != nil {
							t.Error(err)
						}
						if after == 2 {
							cancel(stop) // killed before the month is dropped
						}
					}
				}}
				_, err := eventstore.DropKept(ctx, w.pool, time.Now(), keptDays, keeper)
				if after == 2 {
					_, err = eventstore.DropKept(t.Context(), w.pool, time.Now(), keptDays, w.keeper(t))
				}
				if !errors.Is(err, eventstore.ErrHeldBack) || !errors.Is(err, ErrDamaged) || len(w.inTables(t)) != 45 {
					t.Fatalf("got %v, and %d events are left", err, len(w.inTables(t)))
				}
				if !strings.Contains(err.Error(), "part-0.parquet") || !strings.Contains(err.Error(), "move this one away") {
					t.Errorf("the error does not say what to do: %v", err)
				}
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
				w.drop(t)
				w.wantAll(t)
				if len(w.tables(t)) > 0 || len(w.inFiles(t)) != 45 {
					t.Errorf("tables %v are left, and the files have %d events", w.tables(t), len(w.inFiles(t)))
				}
			})
		}
	}
}

// TestRemovedFiles: what is no longer there when the month is to be dropped is written again.
func TestRemovedFiles(t *testing.T) {
	t.Parallel()
	w := handLocal(t, oldEvents(old())...)
	got, err := w.dropWith(t, func(n int) {
		if n == 1 {
			if err := os.RemoveAll(filepath.Join(w.dir, "day="+old().Format(time.DateOnly))); err != nil {
				t.Error(err)
			}
		}
	})
	if err != nil || got.Kept != 45 || len(w.inFiles(t)) != 45 {
		t.Errorf("dropped %+v, %v", got, err)
	}
	w.wantAll(t)
}

// A liar is a keeper that has less than there is.
type liar struct{ eventstore.Keeper }

func (l liar) Keep(ctx context.Context, m eventstore.Month) (eventstore.Sums, error) {
	sums, err := l.Keeper.Keep(ctx, m)
	sums.Sizes++
	return sums, err
}

// TestSums: PostgreSQL's own sums must be those of what was read back.
func TestSums(t *testing.T) {
	t.Parallel()
	w := handLocal(t, oldEvents(old())...)
	_, err := eventstore.DropKept(t.Context(), w.pool, time.Now(), keptDays, liar{w.keeper(t)})
	w.heldBack(t, err, eventstore.ErrHeldBack)
	w.drop(t)
	w.wantAll(t)
}

// TestOSSRefuses: while OSS refuses, breaks off or throttles, nothing is dropped.
func TestOSSRefuses(t *testing.T) {
	t.Parallel()
	gate := ossfake.NewGate(t, ossfake.NewEmulator(t))
	client, err := oss.New(oss.Config{Region: ossfake.Region, Endpoint: gate.URL, PathStyle: true,
		AccessKeyID: ossfake.AccessKeyID, AccessKeySecret: ossfake.AccessKeySecret})
	if err != nil {
		t.Fatal(err)
	}
	w := newHandWorld(t, place{target: Bucket(client, ossfake.Bucket, "history")}, oldEvents(old())...)
	for name, one := range map[string]struct {
		refuse string // the kind of requests
		answer http.HandlerFunc
	}{
		"no right to write":  {"PUT", func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(403) }},
		"no right to read":   {"GET", func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(403) }},
		"writing breaks off": {"PUT", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }},
	} {
		gate.Between(func(rw http.ResponseWriter, r *http.Request, serve http.Handler) {
			if r.Method == one.refuse {
				one.answer(rw, r)
				return
			}
			serve.ServeHTTP(rw, r)
		})
		_, err := eventstore.DropKept(t.Context(), w.pool, time.Now(), keptDays, w.keeper(t))
		gate.Open()
		if err == nil {
			t.Errorf("%s: it was dropped", name)
		}
		w.heldBack(t, err, eventstore.ErrHeldBack)
	}
	w.drop(t)
	w.wantAll(t)
	if len(w.tables(t)) > 0 {
		t.Errorf("tables %v are left", w.tables(t))
	}
	official := ossclient.New(gate.URL, ossfake.Region, ossfake.AccessKeyID, ossfake.AccessKeySecret)
	if open := ossclient.OpenUploads(t, official, ossfake.Bucket); len(open) > 0 {
		t.Errorf("%d uploads were not aborted", len(open))
	}
}

// TestPartsOfOthers: files that another program wrote again are read by the names of their columns.
func TestPartsOfOthers(t *testing.T) {
	t.Parallel()
	type row struct {
		At   int64     `parquet:"received_at,timestamp(microsecond)"`
		Size int64     `parquet:"size,optional"`
		ID   uuid.UUID `parquet:"event_id,uuid"`
	}
	events := oldEvents(old())
	for name, tt := range map[string]struct {
		rows []row
		want error
	}{
		"in order":                          {[]row{{old().UnixMicro(), 1, uuid.New()}, {old().UnixMicro() + 1, 1, uuid.New()}}, nil},
		"out of order":                      {[]row{{old().UnixMicro() + 1, 1, uuid.New()}, {old().UnixMicro(), 1, uuid.New()}}, ErrDamaged},
		"an event of ours, with less of it": {[]row{{events[2].ReceivedAt.UnixMicro(), 1, events[2].ID}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := handLocal(t, events...)
			folder := filepath.Join(w.dir, "day="+old().Format(time.DateOnly))
			if err := os.Mkdir(folder, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := parquet.WriteFile(filepath.Join(folder, "part-7.parquet"), tt.rows); err != nil {
				t.Fatal(err)
			}
			_, err := eventstore.DropKept(t.Context(), w.pool, time.Now(), keptDays, w.keeper(t))
			if !errors.Is(err, tt.want) {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
			if tt.want != nil {
				return
			}
			got := w.inFiles(t)
			for id, line := range w.want {
				if got[id] != line {
					t.Errorf("event %s: got %s, want %s", id, got[id], line)
				}
			}
			if files, err := os.ReadDir(folder); err != nil || len(files) != 2 || files[1].Name() != "part-8.parquet" {
				t.Errorf("files %v, %v", files, err)
			}
		})
	}
}
