package main

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"syscall"
)

// listen listens on a port of this machine: the one that was asked for, or else the usual one, or else a
// free one, because another program, such as MinIO on 9000, may have that.
func listen(purpose string, port *int, usual int) (net.Listener, error) {
	wanted := usual
	if port != nil {
		wanted = *port
	}
	listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(wanted)))
	if port == nil && errors.Is(err, syscall.EADDRINUSE) {
		listener, err = net.Listen("tcp", "127.0.0.1:0")
	}
	if err != nil {
		return nil, fmt.Errorf("listen for %s: %w", purpose, err)
	}
	return listener, nil
}
