package main

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"

	sdk "github.com/aliyun/alibabacloud-oss-go-sdk-v2/oss"

	"upcall/internal/cli"
	"upcall/internal/testing/clitest"
	"upcall/internal/testing/ossclient"
)

var program = clitest.Program(run)

// boot starts the program and returns its address and its first line.
func boot(t *testing.T, env clitest.Env, args ...string) (address, line string, running *clitest.Running) {
	t.Helper()
	running = program.Start(t, env, args...)
	line = running.Line(t, func(string) bool { return true })
	_, rest, _ := strings.Cut(line, "http://")
	host, _, _ := strings.Cut(rest, ",")
	return "http://" + host, line, running
}

func TestServe(t *testing.T) {
	t.Parallel()
	secret := clitest.WriteFile(t, "secret", "from-file\n")
	address, line, running := boot(t, clitest.Env{
		"OSSEMU_LISTEN": "127.0.0.1:0", "OSSEMU_REGION": "overruled-by-flag", "OSSEMU_ACCESS_KEY_ID": "id",
		"OSSEMU_ACCESS_KEY_SECRET_FILE": secret, "OSSEMU_BUCKETS": "one,two", "OSSEMU_DATA_DIR": t.TempDir(),
	}, "--region", "cn-beijing")
	if want := "callback key at " + address + "/_ossemu/callback_pub_key.pem\n"; !strings.HasSuffix(line, want) {
		t.Errorf("first line %q", line)
	}
	client := ossclient.New(address, "cn-beijing", "id", "from-file")
	if _, err := client.PutObject(t.Context(), &sdk.PutObjectRequest{Bucket: sdk.Ptr("two"), Key: sdk.Ptr("k"),
		Body: strings.NewReader("x")}); err != nil {
		t.Error(err)
	}
	listen := strings.TrimPrefix(address, "http://")
	if got := program.Output(t, nil, "healthcheck", "--listen", listen); got != "ok\n" {
		t.Errorf("healthcheck: %q", got)
	}
	if err := running.Stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
	if err := program.Error(t, clitest.Env{"OSSEMU_LISTEN": listen}, "healthcheck"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("healthcheck of nothing: %v", err)
	}
}

// TestDrain: an upload whose body is still on its way is answered after the signal.
func TestDrain(t *testing.T) {
	t.Parallel()
	address, _, running := boot(t, clitest.Env{"OSSEMU_LISTEN": "127.0.0.1:0"})
	client := ossclient.New(address, "cn-hangzhou", "ossemu", "ossemu-secret")
	signed, err := client.Presign(t.Context(), &sdk.PutObjectRequest{Bucket: sdk.Ptr("demo"), Key: sdk.Ptr("k")})
	if err != nil {
		t.Fatal(err)
	}
	body, feed := io.Pipe()
	r, err := http.NewRequestWithContext(t.Context(), "PUT", signed.URL, body)
	if err != nil {
		t.Fatal(err)
	}
	answered := make(chan error, 1)
	go func() {
		resp, err := http.DefaultClient.Do(r)
		if err == nil {
			err = resp.Body.Close()
			if resp.StatusCode != 200 {
				err = errors.New(resp.Status)
			}
		}
		answered <- err
	}()
	// More than the sockets' buffers hold, so that the handler is known to read.
	if _, err := feed.Write(bytes.Repeat([]byte("x"), 16<<20)); err != nil {
		t.Fatal(err)
	}
	stopped := make(chan error, 1)
	go func() { stopped <- running.Stop() }()
	for {
		// Drained servers refuse new connections.
		resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Get(address + "/_ossemu/health")
		if err != nil {
			break
		}
		resp.Body.Close()
	}
	feed.Close()
	if err := <-answered; err != nil {
		t.Errorf("upload: %v", err)
	}
	if err := <-stopped; err != nil {
		t.Errorf("stop: %v", err)
	}
}

func TestMistakesAreReportedTogether(t *testing.T) {
	t.Parallel()
	err := program.Error(t, clitest.Env{
		"OSSEMU_LISTEN": "nonsense", "OSSEMU_REGION": "oss-cn-hangzhou", "OSSEMU_BUCKETS": "_ossemu,ok-one", "OSSEMU_PUBLIC_URL": "x",
		"OSSEMU_ACCESS_KEY_SECRET": "top-secret", "OSSEMU_ACCESS_KEY_SECRET_FILE": "/nowhere", "OSSEMU_SECURITY_TOKEN_FILE": "/nowhere",
	})
	if !errors.Is(err, cli.ErrUsage) {
		t.Fatalf("not a usage error: %v", err)
	}
	for _, want := range []string{"nonsense", "OSSEMU_ACCESS_KEY_SECRET and OSSEMU_ACCESS_KEY_SECRET_FILE: set one",
		"OSSEMU_SECURITY_TOKEN_FILE: the file", "region", "_ossemu", "public URL"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%s is not reported in:\n%v", want, err)
		}
	}
	if strings.Contains(err.Error(), "top-secret") {
		t.Error("the secret is shown")
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"--nope"}, {"nope"}, {"serve", "extra"}, {"healthcheck", "--timeout", "x"}} {
		if err := program.Error(t, nil, args...); !errors.Is(err, cli.ErrUsage) {
			t.Errorf("%v: %v", args, err)
		}
	}
	help := program.Output(t, clitest.Env{"OSSEMU_ACCESS_KEY_SECRET": "top-secret"}, "serve", "--help")
	for _, name := range []string{"LISTEN", "ACCESS_KEY_ID", "ACCESS_KEY_SECRET", "ACCESS_KEY_SECRET_FILE", "REGION",
		"BUCKETS", "PUBLIC_URL", "DATA_DIR"} {
		if !strings.Contains(help, "OSSEMU_"+name) {
			t.Errorf("help does not name OSSEMU_%s:\n%s", name, help)
		}
	}
	if strings.Contains(help, "top-secret") {
		t.Error("help shows the secret")
	}
	busy := httptest.NewServer(nil)
	defer busy.Close()
	err := program.Error(t, nil, "--listen", busy.Listener.Addr().String())
	if !errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, cli.ErrUsage) {
		t.Errorf("busy port: %v", err)
	}
}
