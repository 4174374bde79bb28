package main

import (
	"bytes"
	"errors"
	"io"
	"maps"
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

// boot starts the program and returns its address and the line that says so.
func boot(t *testing.T, env clitest.Env, args ...string) (address, line string, running *clitest.Running) {
	t.Helper()
	running = program.Start(t, env, args...)
	line = running.Line(t, func(line string) bool { return strings.HasPrefix(line, "ossemu: serving ") })
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
		t.Errorf("it says %q", line)
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

// TestDefaultAddress: the access key is published, so only this machine is served unless
// the user says otherwise.
func TestDefaultAddress(t *testing.T) {
	t.Parallel()
	for _, command := range []string{"serve", "healthcheck"} {
		help := program.Output(t, nil, command, "--help")
		if !strings.Contains(strings.Join(strings.Fields(help), " "), "Default 127.0.0.1:9000 ($OSSEMU_LISTEN)") {
			t.Errorf("%s:\n%s", command, help)
		}
	}
}

func TestCORS(t *testing.T) {
	t.Parallel()
	preflight := func(address string) (*http.Response, string) {
		r, err := http.NewRequestWithContext(t.Context(), "OPTIONS", address+"/demo/k", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Origin", "https://app.example")
		r.Header.Set("Access-Control-Request-Method", "PUT")
		r.Header.Set("Access-Control-Request-Headers", "content-type")
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return response, string(body)
	}
	for name, tc := range map[string]struct {
		env    clitest.Env
		status int
		says   string            // in the body
		want   map[string]string // headers
	}{
		"default": {nil, 200, "", map[string]string{"Allow-Origin": "https://app.example",
			"Allow-Methods": "GET, PUT, POST, DELETE, HEAD", "Allow-Headers": "content-type", "Max-Age": "60"}},
		"no rule": {clitest.Env{"OSSEMU_CORS_ORIGINS": "none"}, 403, "CORS is not enabled for this bucket",
			map[string]string{"Allow-Origin": ""}},
		"another origin": {clitest.Env{"OSSEMU_CORS_ORIGINS": "https://a.example,https://b.example"}, 403,
			"This CORS request is not allowed", map[string]string{"Allow-Origin": ""}},
		"older name": {clitest.Env{"OSSEMU_ALLOWED_ORIGINS": "https://b.example"}, 403,
			"This CORS request is not allowed", map[string]string{"Allow-Origin": ""}},
		"subdomain": {clitest.Env{"OSSEMU_CORS_ORIGINS": "https://*.example"}, 200, "",
			map[string]string{"Allow-Origin": "https://app.example"}},
		"methods":        {clitest.Env{"OSSEMU_CORS_METHODS": "GET,PUT"}, 200, "", map[string]string{"Allow-Methods": "GET, PUT"}},
		"another method": {clitest.Env{"OSSEMU_CORS_METHODS": "GET"}, 403, "This CORS request is not allowed", nil},
		"another header": {clitest.Env{"OSSEMU_CORS_HEADERS": "x-oss-*"}, 403, "This CORS request is not allowed", nil},
		"exposed and cached": {clitest.Env{"OSSEMU_CORS_EXPOSE": "ETag", "OSSEMU_CORS_MAX_AGE": "0s"}, 200, "",
			map[string]string{"Expose-Headers": "ETag", "Max-Age": ""}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			env := clitest.Env{"OSSEMU_LISTEN": "127.0.0.1:0"}
			maps.Copy(env, tc.env)
			address, _, _ := boot(t, env)
			response, body := preflight(address)
			if response.StatusCode != tc.status || !strings.Contains(body, tc.says) {
				t.Errorf("%d %s", response.StatusCode, body)
			}
			for header, want := range tc.want {
				if got := response.Header.Get("Access-Control-" + header); got != want {
					t.Errorf("%s: %q, want %q", header, got, want)
				}
			}
		})
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
		"OSSEMU_CORS_ORIGINS": "app.example", "OSSEMU_CORS_METHODS": "PATCH", "OSSEMU_CORS_HEADERS": "x-*-*",
		"OSSEMU_CORS_EXPOSE": "*", "OSSEMU_CORS_MAX_AGE": "-1s",
		"OSSEMU_NOTIFY_URL": "receiver:8080", "OSSEMU_NOTIFY_TOPIC": "mine", "OSSEMU_NOTIFY_FORMAT": "yaml", "OSSEMU_NOTIFY_DELAY": "-1s",
		"OSSEMU_ALLOWED_ORIGINS": "*", "OSSEMU_ACCESS_KEY_SECRET": "top-secret",
		"OSSEMU_ACCESS_KEY_SECRET_FILE": "/nowhere", "OSSEMU_SECURITY_TOKEN_FILE": "/nowhere",
	})
	if !errors.Is(err, cli.ErrUsage) {
		t.Fatalf("not a usage error: %v", err)
	}
	for _, want := range []string{"nonsense", "OSSEMU_ACCESS_KEY_SECRET and OSSEMU_ACCESS_KEY_SECRET_FILE: set one",
		"OSSEMU_SECURITY_TOKEN_FILE: the file", "region", "_ossemu", "public URL",
		"older name of --cors-origins", `"PATCH"`, `"x-*-*"`, `exposed header "*"`, "max age",
		`"receiver:8080"`, `"mine"`, `"yaml"`, "delay of notifications"} {
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
		"BUCKETS", "PUBLIC_URL", "DATA_DIR",
		"CORS_ORIGINS", "CORS_METHODS", "CORS_HEADERS", "CORS_EXPOSE", "CORS_MAX_AGE", "ALLOWED_ORIGINS",
		"NOTIFY_URL", "NOTIFY_TOPIC", "NOTIFY_FORMAT", "NOTIFY_DELAY"} {
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
