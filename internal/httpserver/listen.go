package httpserver

import (
	"errors"
	"fmt"
	"net"
)

// Listen listens on the addresses of a program's two listeners, or on neither. whom says
// what the public one is for.
func Listen(whom, public, admin string) (net.Listener, net.Listener, error) {
	first, err := net.Listen("tcp", public)
	if err != nil {
		return nil, nil, fmt.Errorf("listen for %s: %w", whom, err)
	}
	second, err := net.Listen("tcp", admin)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("listen for health and metrics: %w", err), first.Close())
	}
	return first, second, nil
}
