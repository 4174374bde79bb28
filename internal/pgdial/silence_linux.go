package pgdial

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// limitSilence sets how long the server may leave data unacknowledged. Keep-alive probes do not
// help while data is on its way, because the kernel sends none then.
func limitSilence(_, _ string, conn syscall.RawConn) error {
	var failed error
	err := conn.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(userTimeout.Milliseconds()))
	})
	if err == nil {
		err = failed
	}
	if err != nil {
		return fmt.Errorf("set TCP_USER_TIMEOUT: %w", err)
	}
	return nil
}
