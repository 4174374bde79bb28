// Package proxytest runs nginx and Caddy as the samples of deploy/proxy have them, with other addresses.
package proxytest

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"upcall/internal/testing/proc"
	"upcall/internal/testing/servetest"
	"upcall/internal/testing/toolchain"
	"upcall/internal/testing/wait"
)

// A Front is a running proxy: the URLs at which it stands before the services.
type Front struct{ Callbacks, API, Uploads string }

// Upstreams are the URLs of the services. One that a test does not need is "".
type Upstreams struct{ Callbacks, API, Uploads string }

// Command returns the command that runs a proxy with further arguments.
func Command(t testing.TB, name string, args ...string) *exec.Cmd {
	t.Helper()
	toolchain.Need(t, name)
	program, err := exec.LookPath(name)
	if err != nil {
		program = "/usr/sbin/" + name // where Debian has nginx, outside many a PATH
	}
	cmd, home := exec.Command(program, args...), t.TempDir()
	cmd.Env = append(os.Environ(), "HOME="+home, "XDG_DATA_HOME="+home, "XDG_CONFIG_HOME="+home)
	return cmd
}

// Sample returns the text of the sample of a proxy.
func Sample(t testing.TB, name string) string {
	t.Helper()
	path := map[string]string{"nginx": "nginx.conf", "caddy": "Caddyfile"}[name]
	text, err := os.ReadFile(filepath.Join("../../deploy/proxy", path))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Start runs nginx or caddy until the end of the test.
func Start(t testing.TB, name string, to Upstreams) Front {
	t.Helper()
	toolchain.Need(t, name)
	dir, text := t.TempDir(), Sample(t, name)
	config := filepath.Join(dir, "config")
	front := Front{servetest.FreeAddress(t), servetest.FreeAddress(t), servetest.FreeAddress(t)}
	var cmd *exec.Cmd
	if name == "nginx" {
		text = nginx(t, dir, text, front)
		cmd = Command(t, name, "-p", dir, "-e", "stderr", "-c", config, "-g", "daemon off;")
	} else {
		text = caddy(text, front)
		cmd = Command(t, name, "run", "--adapter", "caddyfile", "--config", config)
	}
	for sample, service := range map[string]string{"127.0.0.1:8080": to.Callbacks, "127.0.0.1:8081": to.API, "127.0.0.1:8082": to.Uploads} {
		if !strings.Contains(text, sample) {
			t.Fatalf("the sample has no %s", sample)
		}
		if service != "" {
			text = strings.ReplaceAll(text, sample, strings.TrimPrefix(service, "http://"))
		}
	}
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	proc.Program(t, cmd, os.Interrupt)
	for _, address := range []string{front.Callbacks, front.API, front.Uploads} {
		wait.Until(t, name+" listens", func() bool {
			conn, err := net.Dial("tcp", address)
			if err == nil {
				conn.Close()
			}
			return err == nil
		})
	}
	return Front{"http://" + front.Callbacks, "http://" + front.API, "http://" + front.Uploads}
}

// WaitFor waits until the proxy passes on to the service at a path.
func WaitFor(t testing.TB, url string) {
	t.Helper()
	wait.Until(t, url+" is there", func() bool {
		response, err := http.Get(url)
		if err != nil {
			return false
		}
		response.Body.Close()
		return response.StatusCode == http.StatusOK
	})
}

var (
	listens     = regexp.MustCompile(`listen 443 ssl[^;]*;(.*\n\s*server_name (\w+)\.example\.com;)`)
	certificate = regexp.MustCompile(`(?m)^ +ssl_certificate.*\n`)
)

// nginx has the sample listen without TLS, as what /etc/nginx/nginx.conf includes.
func nginx(t testing.TB, dir, text string, front Front) string {
	t.Helper()
	at := map[string]string{"hooks": front.Callbacks, "api": front.API, "uploads": front.Uploads}
	if n := len(listens.FindAllString(text, -1)); n != len(at) {
		t.Fatalf("the sample has %d servers", n)
	}
	text = certificate.ReplaceAllString(listens.ReplaceAllStringFunc(text, func(found string) string {
		parts := listens.FindStringSubmatch(found)
		return "listen " + at[parts[2]] + ";" + parts[1]
	}), "")
	return NginxMain(dir, text)
}

// NginxMain returns a main configuration that includes text.
func NginxMain(dir, text string) string {
	paths := ""
	for _, path := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		paths += fmt.Sprintf("%s_temp_path %s;\n", path, filepath.Join(dir, path))
	}
	text = fmt.Sprintf("pid %s;\nevents {}\nhttp {\naccess_log off;\n%s%s}\n", filepath.Join(dir, "pid"), paths, text)
	if os.Getuid() == 0 {
		text = "user root;\n" + text // whose folder it is
	}
	return text
}

// caddy has the sample listen without TLS.
func caddy(text string, front Front) string {
	text = strings.NewReplacer("default_sni hooks.example.com", "admin off\n\tauto_https off",
		"\nhooks.example.com {", "\nhttp://"+front.Callbacks+" {", "\napi.example.com {", "\nhttp://"+front.API+" {",
		"\nuploads.example.com {", "\nhttp://"+front.Uploads+" {").Replace(text)
	return text
}
