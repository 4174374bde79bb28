package cli

import (
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// IsTerminal reports whether a stream is a terminal.
func IsTerminal(stream any) bool {
	file, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// A Bar shows how far a long command is, if it writes to a terminal.
type Bar struct{ bar *progressbar.ProgressBar }

// barSteps is how finely the bar moves.
const barSteps = 10_000

// NewBar returns a bar. It is drawn when it is set.
func NewBar(w io.Writer) *Bar {
	if !IsTerminal(w) {
		return &Bar{}
	}
	return &Bar{progressbar.NewOptions(barSteps,
		progressbar.OptionSetWriter(w),
		progressbar.OptionSetPredictTime(true),
		progressbar.OptionShowDescriptionAtLineEnd(),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionSetWidth(30))}
}

// Set draws the bar at a share of the work, from 0 to 1, with a text beside it. It ignores errors,
// because the work does not need its terminal.
func (b *Bar) Set(share float64, text string) {
	if b.bar != nil {
		b.bar.Describe(text)
		_ = b.bar.Set(min(int(share*barSteps), barSteps-1)) // a full bar could not be cleared
	}
}

// End removes the bar.
func (b *Bar) End() {
	if b.bar != nil {
		_ = b.bar.Clear()
		b.bar = nil
	}
}
