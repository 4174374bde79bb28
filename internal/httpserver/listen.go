package httpserver

import (
	"context"
	"errors"
	"fmt"
	"net"
)

// Listen opens a program's public and private listener, or neither. purpose says what the
// public one is for.
func Listen(purpose, public, admin string) (net.Listener, net.Listener, error) {
	// Servers end idle and stalled connections by deadlines, much earlier than probes would, and
	// asking for probes takes four system calls for each connection of OSS, which makes one request.
	first, err := (&net.ListenConfig{KeepAlive: -1}).Listen(context.Background(), "tcp", public)
	if err != nil {
		return nil, nil, fmt.Errorf("listen for %s: %w", purpose, err)
	}
	second, err := net.Listen("tcp", admin)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("listen for health and metrics: %w", err), first.Close())
	}
	return first, second, nil
}
