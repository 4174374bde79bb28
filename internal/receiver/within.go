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
