package uploader_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"upcall/internal/uploader"
)

func memory(t *testing.T, path string) *uploader.Memory {
	t.Helper()
	m, err := uploader.LoadMemory(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func remembers(t *testing.T, m *uploader.Memory, id, file string) bool {
	t.Helper()
	_, found, err := m.Find(t.Context(), id, open(t, file))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// keep remembers an upload of the file.
func keep(t *testing.T, m *uploader.Memory, id, file string) {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	result := uploader.Result{CRC64: crcOf(content), Answer: json.RawMessage("{\n \"id\": 1}")}
	if err := m.Keep(t.Context(), id, open(t, file), result); err != nil {
		t.Fatal(err)
	}
}

// TestMemory changes a file in each way after its upload. Only where the content is the same, it
// counts as uploaded.
func TestMemory(t *testing.T) {
	t.Parallel()
	long := time.Now().Add(-time.Hour).Truncate(time.Second)
	for name, tt := range map[string]struct {
		change func(path string) error
		want   bool
	}{
		"nothing":       {func(string) error { return nil }, true},
		"its times":     {func(path string) error { return os.Chtimes(path, time.Now(), time.Now()) }, true},
		"its mode":      {func(path string) error { return os.Chmod(path, 0o644) }, true},
		"rewritten":     {func(path string) error { return os.WriteFile(path, []byte("hello"), 0o600) }, true},
		"its size":      {func(path string) error { return os.WriteFile(path, []byte("hello!"), 0o600) }, false},
		"emptied":       {func(path string) error { return os.Truncate(path, 0) }, false},
		"its content":   {func(path string) error { return os.WriteFile(path, []byte("hallo"), 0o600) }, false},
		"another file":  {func(path string) error { return os.Rename(path+".other", path) }, false},
		"time put back": {func(path string) error { return rewriteAt(path, "hallo", long) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			file, journal := filepath.Join(dir, "file"), filepath.Join(dir, "state", "journal")
			if err := rewriteAt(file, "hello", long); err != nil {
				t.Fatal(err)
			}
			if err := rewriteAt(file+".other", "hallo", long); err != nil {
				t.Fatal(err)
			}
			m := memory(t, journal)
			if remembers(t, m, "a", file) {
				t.Fatal("it was not uploaded yet")
			}
			keep(t, m, "a", file)
			if err := tt.change(file); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				for when, m := range map[string]*uploader.Memory{"in the same run": m, "in the next run": memory(t, journal)} {
					if got := remembers(t, m, "a", file); got != tt.want {
						t.Errorf("%s: remembered %v, want %v", when, got, tt.want)
					}
					if remembers(t, m, "b", file) {
						t.Errorf("%s: it was not uploaded there", when)
					}
				}
			}
			if info, err := os.Stat(journal); err != nil || info.Mode() != 0o600 {
				t.Errorf("the journal: %v, %v", info, err)
			}
		})
	}
}

func rewriteAt(path, content string, at time.Time) error {
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		return err
	}
	return os.Chtimes(path, at, at)
}

// TestMemoryCut cuts the journal at each byte, as a kill does, and adds a record after that. What was
// whole before the cut is remembered, and so is the new record.
func TestMemoryCut(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file, journal := filepath.Join(dir, "file"), filepath.Join(dir, "journal")
	if err := os.WriteFile(file, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	m := memory(t, journal)
	for _, id := range []string{"a", "b"} {
		keep(t, m, id, file)
	}
	whole, err := os.ReadFile(journal)
	if err != nil {
		t.Fatal(err)
	}
	first := bytes.IndexByte(whole, '\n') + 1
	for cut := range whole {
		if err := os.WriteFile(journal, whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		m := memory(t, journal)
		keep(t, m, "c", file)
		m = memory(t, journal)
		for id, want := range map[string]bool{"a": cut >= first, "b": false, "c": true} {
			// A line that lacks only its end is whole once another begins.
			if got := remembers(t, m, id, file); got != want && !(id == "a" && cut == first-1) && !(id == "b" && cut == len(whole)-1) {
				t.Fatalf("cut at %d of %d: %s is remembered: %v, want %v", cut, len(whole), id, got, want)
			}
		}
	}
}

func TestMemoryBroken(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file, journal := filepath.Join(dir, "file"), filepath.Join(dir, "journal")
	if err := os.WriteFile(file, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"no JSON": "\x00\xff\n", "no record": "[]\n", "no id": `{"size":5}` + "\n", "another type": `{"id":7}` + "\n",
		"a long line": strings.Repeat("x", 1<<20) + "\n", "empty lines": "\n\n\n", "no end": "{",
	} {
		if err := os.WriteFile(journal, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		m := memory(t, journal)
		keep(t, m, "a", file)
		if !remembers(t, memory(t, journal), "a", file) {
			t.Errorf("%s: forgotten", name)
		}
	}
	for _, path := range []string{filepath.Join(file, "journal"), dir} {
		if _, err := uploader.LoadMemory(t.Context(), path); err == nil || !strings.Contains(err.Error(), "read which files are uploaded") {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// TestMemoryShared lets several programs use one journal, which is written anew in between.
func TestMemoryShared(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file, journal := filepath.Join(dir, "file"), filepath.Join(dir, "journal")
	if err := os.WriteFile(file, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	m := memory(t, journal)
	keep(t, m, "old", file)
	line, err := os.ReadFile(journal)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(journal, bytes.Repeat(line, 1500), 0o600); err != nil {
		t.Fatal(err)
	}
	var programs sync.WaitGroup
	ids := []string{"old"}
	for p := range 4 {
		for i := range 5 {
			ids = append(ids, fmt.Sprintf("%d-%d", p, i))
		}
		programs.Go(func() {
			for i := range 5 {
				keep(t, memory(t, journal), fmt.Sprintf("%d-%d", p, i), file)
			}
		})
	}
	programs.Wait()
	m = memory(t, journal)
	if forgotten := slices.DeleteFunc(ids, func(id string) bool { return remembers(t, m, id, file) }); len(forgotten) > 0 {
		t.Errorf("forgotten: %v", forgotten)
	}
	if info, err := os.Stat(journal); err != nil || info.Size() > int64(100*len(line)) {
		t.Errorf("the journal was not written anew: %v, %v", info.Size(), err)
	}
	if left, _ := filepath.Glob(journal + ".?????*"); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func FuzzMemory(f *testing.F) {
	f.Add([]byte(`{"id":"a","size":5,"crc64":"7","answer":{"x":1}}` + "\n" + `{"id"`))
	f.Fuzz(func(t *testing.T, text []byte) {
		dir := t.TempDir()
		file, journal := filepath.Join(dir, "file"), filepath.Join(dir, "journal")
		if os.WriteFile(journal, text, 0o600) != nil || os.WriteFile(file, []byte("hello"), 0o600) != nil {
			t.Fatal("the files cannot be written")
		}
		keep(t, memory(t, journal), "new", file)
		if !remembers(t, memory(t, journal), "new", file) {
			t.Errorf("forgotten after %q", text)
		}
	})
}
