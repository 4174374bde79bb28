package main

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"

	"upcall/internal/fault"
)

// barSteps is how finely the bar moves.
const barSteps = 1000

// A meter shows the progress of all files together: as a bar on a terminal, elsewhere as a
// line for each tenth. What is written to it appears above the bar.
type meter struct {
	w   io.Writer
	now func() time.Time

	mu    sync.Mutex
	total int64 // bytes
	there int64 // bytes that are sent, or were there already
	speed speed // of those that are sent
	drawn time.Time
	tenth int64                    // last shown
	bar   *progressbar.ProgressBar // nil without a terminal
}

func newMeter(w io.Writer, total int64, terminal bool) *meter {
	m := &meter{w: w, now: time.Now, total: total}
	if terminal {
		m.bar = progressbar.NewOptions64(barSteps,
			progressbar.OptionSetWriter(w),
			progressbar.OptionSetPredictTime(false), // from the whole time since the start
			progressbar.OptionSetElapsedTime(false),
			progressbar.OptionShowDescriptionAtLineEnd(),
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

// print prints a document on a line of its own, also if out is the terminal that has the bar.
func (m *meter) print(out io.Writer, document any) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.clear()
	return printJSON(out, document)
}

// clear removes the bar until it is drawn again. It ignores errors, because an upload does
// not need its terminal.
func (m *meter) clear() {
	if m.bar != nil {
		_ = m.bar.Clear()
	}
}

func (m *meter) add(sent, kept int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	m.there += sent + kept
	m.speed.add(now, sent)
	if m.bar != nil {
		m.draw(now)
		return
	}
	if tenth := m.there * 10 / max(m.total, 1); tenth > m.tenth && tenth < 10 {
		m.tenth = tenth
		fmt.Fprintf(m.w, "issuer: %d %% of %d bytes\n", tenth*10, m.total)
	}
}

// draw draws the bar, ten times a second at most.
func (m *meter) draw(now time.Time) {
	if now.Sub(m.drawn) < 100*time.Millisecond {
		return
	}
	m.drawn = now
	m.bar.Describe(amounts(m.there, m.total, m.speed.perSecond(now)))
	// A full bar cannot go back, but the last part may have to be sent again.
	_ = m.bar.Set64(min(barSteps*m.there/max(m.total, 1), barSteps-1))
}

// resize changes the total, for a file that has changed since it was found.
func (m *meter) resize(more int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.total += more
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

func (f fileMeter) Sent(n int64) { f.all.add(n, 0) }

func (f fileMeter) Kept(n int64) { f.all.add(0, n) }

func (f fileMeter) Remark(line string) {
	fmt.Fprintf(f.all, "issuer: %s: %s\n", fault.Readable(f.name), line)
}
