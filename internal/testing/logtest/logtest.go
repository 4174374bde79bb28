// Package logtest keeps what a program logs, so that a test can read it while the program runs.
package logtest

import (
	"bytes"
	"log/slog"
	"sync"
)

// A Buffer may be written and read by several goroutines at once. The zero value is empty.
type Buffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// New returns a logger of JSON lines from level Info up, and the buffer that it fills.
func New() (*slog.Logger, *Buffer) {
	b := new(Buffer)
	return slog.New(slog.NewJSONHandler(b, nil)), b
}

func (b *Buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *Buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
