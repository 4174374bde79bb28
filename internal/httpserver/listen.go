package httpserver

import (
	"errors"
	"fmt"
	"net"
)

// Listen opens a program's public and private listener, or neither. purpose says what the
// public one is for.
func Listen(purpose, public, admin string) (net.Listener, net.Listener, error) {
	first, err := net.Listen("tcp", public)
	if err != nil {
		return nil, nil, fmt.Errorf("listen for %s: %w", purpose, err)
	}
	second, err := net.Listen("tcp", admin)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("listen for health and metrics: %w", err), first.Close())
	}
	return first, second, nil
}
