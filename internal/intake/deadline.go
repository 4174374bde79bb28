package intake

import (
	"sync"
	"time"
)

// A deadline is one of a connection's two, for reading or for writing. net/http sets eight for each
// callback, most of which no call ever waits for, and each moves a timer of the runtime. So the
// connection gets one only when a call is about to begin that may wait, and keeps it if it is
// at most early before the one that is wanted.
type deadline struct {
	set func(time.Time) error // for the connection

	mu     sync.Mutex
	wanted time.Time // zero is none
	has    time.Time // what the connection has
	busy   bool      // a call is under way
}

// early is how much before its deadline a call may end.
const early = 50 * time.Millisecond

// want is net.Conn's SetReadDeadline or SetWriteDeadline.
func (d *deadline) want(t time.Time) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.wanted = t
	if d.busy { // it must hold for a call that waits already
		return d.apply()
	}
	return nil
}

// begin is called before a call that may wait, and end after it.
func (d *deadline) begin() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.busy = true
	if lead := d.wanted.Sub(d.has); lead < 0 || lead > early {
		return d.apply()
	}
	return nil
}

func (d *deadline) end() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.busy = false
}

func (d *deadline) apply() error {
	d.has = d.wanted
	return d.set(d.wanted)
}

// none reports whether no deadline is wanted.
func (d *deadline) none() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.wanted.IsZero()
}
