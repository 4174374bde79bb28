package cli

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"upcall/internal/fault"
)

// CheckListener says what is wrong with the address of a listener, which the setting named
// field holds. example is a port to write instead.
func CheckListener(field, address, example string) error {
	_, port, err := net.SplitHostPort(address)
	if err == nil {
		_, err = net.LookupPort("tcp", port)
	}
	if err != nil || port == "" {
		return fault.At(field, "%q is not host:port; write 127.0.0.1:%[2]s, or :%[2]s for all addresses", address, example)
	}
	return nil
}

// CheckHealth asks a running program for a path and fails unless it answers 200 in time.
func CheckHealth(ctx context.Context, address, path string, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+path, nil)
	if err != nil {
		return Usage(fmt.Errorf("address %q is not host:port", address))
	}
	request.Close = true // the program may stop at once after it
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("check health: %w", err)
	}
	defer response.Body.Close() // only its status counts
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("check health: %s answered %s", path, response.Status)
	}
	return nil
}
