package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	sdk "github.com/aliyun/alibabacloud-oss-go-sdk-v2/oss"
	"github.com/aliyun/alibabacloud-oss-go-sdk-v2/oss/credentials"

	"upcall/internal/cli"
)

func env(pairs ...string) func(string) string {
	m := make(map[string]string)
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = pairs[i+1]
	}
	return func(name string) string { return m[name] }
}

// boot starts the program on a free port and returns its address, the rest of its
// first line, and a function that ends it and returns its error.
func boot(t *testing.T, args []string, e func(string) string) (address, line string, stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	out, in := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := run(ctx, args, e, cli.Stdio{Out: in, Err: io.Discard})
		in.CloseWithError(errors.Join(io.EOF, err))
		done <- err
	}()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		cancel()
		t.Fatalf("no first line: %v, %v", err, <-done)
	}
	_, rest, _ := strings.Cut(line, "http://")
	host, _, _ := strings.Cut(rest, ",")
	stop = func() error { cancel(); return <-done }
	t.Cleanup(cancel)
	return "http://" + host, line, stop
}

func TestServe(t *testing.T) {
	t.Parallel()
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("from-file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	address, line, stop := boot(t, []string{"--region", "cn-beijing"}, env("OSSEMU_LISTEN", "127.0.0.1:0", "OSSEMU_REGION", "overruled-by-flag",
		"OSSEMU_ACCESS_KEY_ID", "id", "OSSEMU_ACCESS_KEY_SECRET_FILE", secret, "OSSEMU_BUCKETS", "one,two", "OSSEMU_DATA_DIR", t.TempDir()))
	if want := "callback key at " + address + "/_ossemu/callback_pub_key.pem\n"; !strings.HasSuffix(line, want) {
		t.Errorf("first line %q", line)
	}
	client := sdk.NewClient(sdk.LoadDefaultConfig().WithCredentialsProvider(credentials.NewStaticCredentialsProvider("id", "from-file")).
		WithRegion("cn-beijing").WithEndpoint(address).WithUsePathStyle(true).WithRetryMaxAttempts(1))
	if _, err := client.PutObject(t.Context(), &sdk.PutObjectRequest{Bucket: sdk.Ptr("two"), Key: sdk.Ptr("k"), Body: strings.NewReader("x")}); err != nil {
		t.Error(err)
	}
	var out bytes.Buffer
	listen := strings.TrimPrefix(address, "http://")
	if err := run(t.Context(), []string{"healthcheck", "--listen", listen}, env(), cli.Stdio{Out: &out, Err: io.Discard}); err != nil || out.String() != "ok\n" {
		t.Errorf("healthcheck: %q, %v", out.String(), err)
	}
	if err := stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
	if err := run(t.Context(), []string{"healthcheck"}, env("OSSEMU_LISTEN", listen), cli.Stdio{Out: io.Discard, Err: io.Discard}); err == nil || errors.Is(err, cli.ErrUsage) {
		t.Errorf("healthcheck of nothing: %v", err)
	}
}

// TestDrain: an upload whose body is still on its way is answered after the signal.
func TestDrain(t *testing.T) {
	t.Parallel()
	address, _, stop := boot(t, nil, env("OSSEMU_LISTEN", "127.0.0.1:0"))
	client := sdk.NewClient(sdk.LoadDefaultConfig().WithCredentialsProvider(credentials.NewStaticCredentialsProvider("ossemu", "ossemu-secret")).
		WithRegion("cn-hangzhou").WithEndpoint(address).WithUsePathStyle(true))
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
	go func() { stopped <- stop() }()
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
	err := run(t.Context(), nil, env("OSSEMU_LISTEN", "nonsense", "OSSEMU_REGION", "oss-cn-hangzhou", "OSSEMU_BUCKETS", "_ossemu,ok-one",
		"OSSEMU_ACCESS_KEY_SECRET", "top-secret", "OSSEMU_ACCESS_KEY_SECRET_FILE", "/nowhere", "OSSEMU_SECURITY_TOKEN_FILE", "/nowhere", "OSSEMU_PUBLIC_URL", "x"), cli.Stdio{Out: io.Discard, Err: io.Discard})
	if !errors.Is(err, cli.ErrUsage) {
		t.Fatalf("not a usage error: %v", err)
	}
	for _, want := range []string{"nonsense", "OSSEMU_ACCESS_KEY_SECRET and OSSEMU_ACCESS_KEY_SECRET_FILE: set one", "OSSEMU_SECURITY_TOKEN_FILE: the file", "region", "_ossemu", "public URL"} {
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
		if err := run(t.Context(), args, env(), cli.Stdio{Out: io.Discard, Err: io.Discard}); !errors.Is(err, cli.ErrUsage) {
			t.Errorf("%v: %v", args, err)
		}
	}
	var out bytes.Buffer
	if err := run(t.Context(), []string{"serve", "--help"}, env("OSSEMU_ACCESS_KEY_SECRET", "top-secret"), cli.Stdio{Out: &out, Err: io.Discard}); err != nil {
		t.Errorf("--help: %v", err)
	}
	for _, name := range []string{"LISTEN", "ACCESS_KEY_ID", "ACCESS_KEY_SECRET", "ACCESS_KEY_SECRET_FILE", "REGION", "BUCKETS", "PUBLIC_URL", "DATA_DIR"} {
		if !strings.Contains(out.String(), "OSSEMU_"+name) {
			t.Errorf("help does not name OSSEMU_%s:\n%s", name, out.String())
		}
	}
	if strings.Contains(out.String(), "top-secret") {
		t.Error("help shows the secret")
	}
	busy := httptest.NewServer(nil)
	defer busy.Close()
	err := run(t.Context(), []string{"--listen", busy.Listener.Addr().String()}, env(), cli.Stdio{Out: io.Discard, Err: io.Discard})
	if err == nil || errors.Is(err, cli.ErrUsage) {
		t.Errorf("busy port: %v", err)
	}
}
