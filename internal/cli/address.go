package cli

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"upcall/internal/fault"
)

// CheckListener returns an error if address, which the setting field holds, is not valid for
// a listener. example is a port for its message.
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

// CheckHealth requests a path from a running program. It fails unless the answer is 200 in
// time. A timeout of 0 is none.
func CheckHealth(ctx context.Context, address, path string, timeout time.Duration) error {
	if timeout != 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+path, nil)
	if err != nil {
		return Usage(fmt.Errorf("address %q is not host:port", address))
	}
	request.Close = true // so that the program can stop right after it
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
