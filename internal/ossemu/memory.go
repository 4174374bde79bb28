package ossemu

import (
	"bytes"
	"errors"
	"io"
	"strconv"
	"sync"
)

// memory is the backend that forgets.
type memory struct {
	mu    sync.Mutex
	blobs map[string][]byte
	next  int
}

func newMemory() *memory { return &memory{blobs: make(map[string][]byte)} }

func (m *memory) create() (blobWriter, error) { return &memoryBlob{memory: m}, nil }

type memoryBlob struct {
	memory *memory
	bytes.Buffer
}

func (b *memoryBlob) commit() (string, error) {
	b.memory.mu.Lock()
	defer b.memory.mu.Unlock()
	b.memory.next++
	id := strconv.Itoa(b.memory.next)
	b.memory.blobs[id] = b.Bytes()
	return id, nil
}

func (b *memoryBlob) discard() {}

func (m *memory) open(blob string) (io.ReadSeekCloser, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	data, ok := m.blobs[blob]
	if !ok {
		return nil, errors.New("no such blob")
	}
	return memoryReader{bytes.NewReader(data)}, nil
}

type memoryReader struct{ *bytes.Reader }

func (memoryReader) Close() error { return nil }

func (m *memory) remove(blob string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.blobs, blob)
	return nil
}

func (m *memory) saveRecord(string, any) error { return nil }
func (m *memory) removeRecord(string) error    { return nil }

func (m *memory) load(func(string, []byte) error, func(string) bool) error { return nil }
