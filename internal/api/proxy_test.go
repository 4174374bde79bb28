package api

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"upcall/internal/testing/toolchain"
	"upcall/internal/testing/wait"
)

// proxies are what stands before an API in production: the configuration that docs/api.md shows,
// with its addresses replaced, and how to run it.
var proxies = map[string]func(dir, config string) *exec.Cmd{
	"nginx": func(dir, config string) *exec.Cmd {
		program, err := exec.LookPath("nginx")
		if err != nil {
			program = "/usr/sbin/nginx" // where Debian has it, outside many a PATH
		}
		return exec.Command(program, "-p", dir, "-e", "stderr", "-c", config, "-g", "daemon off;")
	},
	"caddy": func(_, config string) *exec.Cmd {
		return exec.Command("caddy", "run", "--adapter", "caddyfile", "--config", config)
	},
}

// TestProxies checks that long polls and streams work through nginx and Caddy with the
// configurations of docs/api.md, and end at once when the receiver stops. In the long form,
// with UPCALL_TEST_LONG=1, a poll takes 30 seconds and a stream a minute, beyond what proxies
// wait for by default.
func TestProxies(t *testing.T) {
	t.Parallel()
	poll, last := 2*time.Second, 4*time.Second
	if os.Getenv("UPCALL_TEST_LONG") == "1" {
		poll, last = 30*time.Second, time.Minute
	}
	for name, run := range proxies {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			toolchain.Need(t, name)
			w := newWorld(t, func(c *Config) {
				if last < time.Minute {
					c.Ping = time.Second
				}
			})
			base := startProxy(t, w.url, name, run)
			now := call(t, "GET", base+"/v1/events?after=now", w.viewer, "").body.Next

			polled := make(chan reply, 1)
			go func() {
				polled <- call(t, "GET", fmt.Sprintf("%s/v1/events?after=%s&bucket=other&wait=%v", base, now, poll), w.viewer, "")
			}()
			began := time.Now()
			response, err := get(t, base+"/v1/events/stream?after="+now, w.viewer, "")
			if err != nil {
				t.Fatal(err)
			}
			defer response.Body.Close()
			s := newSSE(response)
			if s.lines.Scan(); s.lines.Text() != ":" || time.Since(began) > 5*time.Second {
				t.Errorf("the first line is %q, after %v", s.lines.Text(), time.Since(began))
			}
			s.lines.Scan()
			var want, got []string
			for n := 0; time.Since(began) < last; n++ {
				want = append(want, w.add(t, "bbb", 1)...)
				written := time.Now()
				_, id := s.next(t)
				got = append(got, id)
				if took := time.Since(written); took > 5*time.Second { // a proxy that keeps events back sends them at the next comment
					t.Errorf("event %d took %v", n, took)
				}
				if n == 1 { // silence but for comments
					for time.Since(began) < last*3/4 && s.lines.Scan() {
					}
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
			if got := <-polled; got.status != 200 || len(got.body.Events) != 0 || got.body.Next == now {
				t.Errorf("the long poll: %d %s", got.status, got.text)
			}
			stopped := time.Now()
			go func() {
				polled <- call(t, "GET", base+"/v1/events?after=now&wait=30s", w.viewer, "")
			}()
			wait.Until(t, "the poll waits", func() bool { return len(w.waiting) == 2 })
			w.Stop()
			for s.lines.Scan() {
			}
			if got := <-polled; got.status != 200 || s.lines.Err() != nil || time.Since(stopped) > 10*time.Second {
				t.Errorf("after the stop: %d %s, %v, after %v", got.status, got.text, s.lines.Err(), time.Since(stopped))
			}
		})
	}
}

// startProxy starts a proxy with the configuration of docs/api.md, and returns its URL.
func startProxy(t *testing.T, upstream, name string, run func(dir, config string) *exec.Cmd) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	listener.Close()
	to, err := url.Parse(upstream)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	text := strings.NewReplacer("127.0.0.1:8081", to.Host, "api.example.com", "http://"+address, "443 ssl", address).Replace(block(t, name))
	if name == "nginx" {
		for _, line := range []string{"ssl_certificate ", "ssl_certificate_key "} {
			before, rest, found := strings.Cut(text, line)
			_, after, _ := strings.Cut(rest, "\n")
			if !found {
				t.Fatalf("no %s", line)
			}
			text = before + after
		}
		text = strings.ReplaceAll(text, "http://"+address, "_")
		paths := ""
		for _, path := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
			paths += fmt.Sprintf("%s_temp_path %s;\n", path, filepath.Join(dir, path))
		}
		text = fmt.Sprintf("pid %s;\nevents {}\nhttp {\naccess_log off;\n%s%s}\n", filepath.Join(dir, "pid"), paths, text)
		if os.Getuid() == 0 {
			text = "user root;\n" + text // whose folder it is
		}
	} else {
		text = "{\nadmin off\nauto_https off\n}\n" + text
	}
	config := filepath.Join(dir, "config")
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := run(dir, config)
	cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait() // it was interrupted
		if t.Failed() {
			t.Logf("%s:\n%s\n%s", name, text, &log)
		}
	})
	wait.Until(t, name+" answers", func() bool {
		response, err := http.Get("http://" + address + "/openapi.yaml")
		if err != nil {
			return false
		}
		response.Body.Close()
		return response.StatusCode == http.StatusOK
	})
	return "http://" + address
}
