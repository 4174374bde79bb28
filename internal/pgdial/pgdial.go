// Package pgdial connects to PostgreSQL so that a server that has gone silent is left within
// seconds, and one that never answers costs the others in the URL nothing.
package pgdial

import (
	"context"
	"net"
	"strings"
	"time"
)

const (
	// keepAlive is how long a connection may be idle before the kernel asks whether the server
	// is still there, and how long it waits before it asks again.
	keepAlive = 2 * time.Second
	// userTimeout is how long data, or a probe, may stay unacknowledged before the kernel ends
	// the connection. OSS waits five seconds for an answer, so it is below that.
	userTimeout = 4 * time.Second
)

// Dial is a pgconn.DialFunc. A connection to a server that is gone without a word, because its
// machine or its network failed, ends after about four seconds; the kernel's own limits are
// two hours for an idle connection and a quarter of an hour for one that sends.
func Dial(ctx context.Context, network, address string) (net.Conn, error) {
	dialer := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: keepAlive, Interval: keepAlive, Count: 2}}
	if strings.HasPrefix(network, "tcp") {
		dialer.Control = limitSilence
	}
	return dialer.DialContext(ctx, network, address)
}
