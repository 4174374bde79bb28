package receiver

import "time"

// within calls end and waits for it, but no longer than so long.
func within(timeout time.Duration, end func()) {
	ended := make(chan struct{})
	go func() { end(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(timeout):
	}
}

// A farewell ends one after the other, in closeTimeout altogether.
type farewell struct{ until time.Time }

func (f *farewell) to(end func()) {
	if f.until.IsZero() {
		f.until = time.Now().Add(closeTimeout)
	}
	within(time.Until(f.until), end)
}
