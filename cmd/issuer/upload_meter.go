package main

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"

	"upcall/internal/fault"
)

// A meter shows the progress of all files together: as a bar on a terminal, elsewhere as a
// line for each tenth. What is written to it appears above the bar.
type meter struct {
	w     io.Writer
	total int64 // bytes, at least 1

	mu    sync.Mutex
	sent  int64
	tenth int64                    // last shown
	bar   *progressbar.ProgressBar // nil without a terminal
}

func newMeter(w io.Writer, total int64, terminal bool) *meter {
	m := &meter{w: w, total: max(total, 1)}
	if terminal {
		m.bar = progressbar.NewOptions64(m.total,
			progressbar.OptionSetWriter(w),
			progressbar.OptionShowBytes(true),
			progressbar.OptionUseIECUnits(true),
			progressbar.OptionShowTotalBytes(true),
			progressbar.OptionSetPredictTime(true),
			progressbar.OptionThrottle(100*time.Millisecond),
			progressbar.OptionSetWidth(30))
	}
	return m
}

// Write writes whole lines.
func (m *meter) Write(p []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.clear()
	return m.w.Write(p)
}

// clear removes the bar until it is drawn again. It ignores errors, because an upload does
// not need its terminal.
func (m *meter) clear() {
	if m.bar != nil {
		_ = m.bar.Clear()
	}
}

func (m *meter) add(n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sent += n
	if m.bar != nil {
		// A full bar cannot go back, but the last part may have to be sent again.
		_ = m.bar.Set64(min(m.sent, m.total-1))
		return
	}
	if tenth := m.sent * 10 / m.total; tenth > m.tenth && tenth < 10 {
		m.tenth = tenth
		fmt.Fprintf(m.w, "issuer: %d %% of %d bytes\n", tenth*10, m.total)
	}
}

// end removes the bar.
func (m *meter) end() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.clear()
	m.bar = nil
}

// file returns the watcher of one file.
func (m *meter) file(name string) fileMeter { return fileMeter{m, name} }

type fileMeter struct {
	all  *meter
	name string
}

func (f fileMeter) Sent(n int64) { f.all.add(n) }

func (f fileMeter) Remark(line string) {
	fmt.Fprintf(f.all, "issuer: %s: %s\n", fault.Readable(f.name), line)
}
