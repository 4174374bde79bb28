package main

import (
	"bytes"
	"context"
	"io"
	"strings"
	"testing"

	"upcall/internal/cli"
	"upcall/internal/dbtest"
)

func TestDemo(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	if err := run(t.Context(), nil, cli.Environ(), cli.Stdio{Out: &out, Err: io.Discard}); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	for _, want := range []string{
		`answer   200 {"status":"ok","event_id":"`,
		`photos/sunset.png  460   image/png   320    200`,
		`{"uid": "42", "album": "summer 2026"}`,
		"   issued  uploaded\n   2       2\n",
		`403 {"error":{"code":"bad_signature"`,
		`403 {"error":{"code":"untrusted_key"`,
		`403 {"error":{"code":"bad_token"`,
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the output lacks %s:\n%s", want, &out)
		}
	}
}

// TestStay: everything stays up until it is told to stop, and the data is still there the
// next time.
func TestStay(t *testing.T) {
	t.Parallel()
	dir := dbtest.Dir(t)
	for range 2 {
		ctx, stop := context.WithCancel(t.Context())
		out, printed := io.Pipe()
		ended := make(chan error, 1)
		go func() {
			err := run(ctx, []string{"--stay", "--data-dir", dir, "--listen", anyPort, "--admin-listen", anyPort, "--oss-listen", anyPort,
				"--api-listen", anyPort}, cli.Environ(), cli.Stdio{Out: printed, Err: io.Discard})
			printed.Close()
			ended <- err
		}()
		buf := make([]byte, 4096)
		n, err := out.Read(buf)
		if err != nil || !strings.HasPrefix(string(buf[:n]), "Everything is up") {
			t.Fatalf("%v, %s, %v", err, buf[:n], <-ended)
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}
