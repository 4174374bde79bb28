// Package toolchain lists the tools that the tests need besides Go, and skips a test if its tool
// is missing. Only tests and the program that make test runs import it.
package toolchain

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const (
	// VariableAll is set to 1 if a missing tool must fail the tests that need it.
	VariableAll = "UPCALL_TEST_ALL"
	// VariableMissing names the tools that make test found missing. Without it each test
	// checks for itself. Because it is a variable, go test does not reuse results that were
	// cached with other tools.
	VariableMissing = "UPCALL_TEST_MISSING"
)

// A Tool is a program, library or right that tests need.
type Tool struct {
	Name     string
	What     string // what does not run without it; "" if there is a substitute
	Packages string // Debian packages with it; "" if there are none
	probe    string // a shell command that succeeds if the tool is there
}

// Tools returns the list.
func Tools() []Tool {
	return []Tool{
		// This build succeeds if go test -race does: it needs cgo, a C compiler, its headers, and a
		// platform that supports it.
		{"race", "the race detector", "gcc libc6-dev", "go build -race -o /dev/null upcall/cmd/testdeps"},
		{"postgresql", "", "postgresql", "command -v postgres || ls /usr/lib/postgresql/*/bin/postgres"}, // or fetched
		{"pgbouncer", "receivers behind a connection pooler (internal/eventstore, internal/receiver)", "pgbouncer",
			"command -v pgbouncer || ls /usr/sbin/pgbouncer"},
		{"haproxy", "receivers behind HAProxy (deploy/high-availability)", "haproxy", "command -v haproxy || ls /usr/sbin/haproxy"},
		{"patroni", "a check of Patroni's settings (deploy/high-availability)", "postgresql patroni python3-etcd",
			"ls /usr/lib/postgresql/*/bin/postgres && command -v patroni && /usr/bin/python3 -I -c 'import etcd'"},
		{"standby", "failover to a standby (internal/receiver, cmd/chaos)", "postgresql",
			"command -v pg_basebackup || ls /usr/lib/postgresql/*/bin/pg_basebackup"},
		{"drill", "three database nodes on one machine (cmd/drill)", "postgresql patroni python3-etcd etcd-server iptables iproute2 util-linux",
			"ls /usr/lib/postgresql/*/bin/postgres && command -v patroni && /usr/bin/python3 -I -c 'import etcd' && command -v etcd && " +
				"unshare --net --pid --mount --fork iptables -A OUTPUT -m statistic --mode random --probability 0.3 -j DROP"},
		{"strace", "that nothing is acknowledged before it is fsynced (cmd/drill)", "strace", "strace -o /dev/null true"},
		{"git", "a comparison with an earlier commit (cmd/bench)", "git", "git rev-parse HEAD"}, // also fails outside a clone
		{"curl", "curl commands (cmd/ossemu, internal/api, internal/e2e, internal/snippet)", "curl", "command -v curl"},
		{"jq", "the commands of docs/uploads.md and docs/api.md (internal/api, internal/e2e)", "jq", "command -v jq"},
		{"openssl", "the commands of docs/uploads.md (internal/e2e)", "openssl", "command -v openssl"},
		{"xz", "fetching PostgreSQL from Maven (internal/embeddedpg)", "xz-utils", "command -v xz"},
		{"python", "Python programs (internal/snippet)", "python3-requests", "/usr/bin/python3 -I -c 'import requests'"},
		{"java", "Java and Android programs (internal/snippet)", "default-jdk-headless", "command -v javac && command -v java"},
		{"node", "Node.js programs (internal/snippet, internal/hooks, internal/e2e, internal/export)", "nodejs", "command -v node"},
		{"npm", "libraries from npm that upload, and that read deliveries and exports (internal/e2e, internal/hooks, internal/export)",
			"npm", "command -v npm"},
		{"php", "PHP programs (internal/snippet)", "php-cli php-curl", `php -r 'exit(extension_loaded("curl") ? 0 : 1);'`},
		{"cpp", "C++ programs (internal/snippet)", "g++ libcurl4-openssl-dev",
			"echo '#include <curl/curl.h>' | g++ -x c++ -fsyntax-only -"},
		{"csharp", "C# programs (internal/snippet)", "mono-mcs mono-runtime libmono-system-net-http4.0-cil",
			`command -v mcs && ls "$(dirname "$(command -v mono)")"/../lib/mono/*/System.Net.Http.dll`},
		{"chromium", "pages in a browser (internal/e2e, internal/snippet)", "chromium", "command -v chromium"},
		{"nginx", "programs behind nginx (internal/api, internal/e2e, deploy)", "nginx-light", "command -v nginx || ls /usr/sbin/nginx"},
		{"caddy", "programs behind Caddy (internal/api, internal/e2e, deploy)", "caddy", "command -v caddy"},
		{"promtool", "alerts and queries for Prometheus (deploy)", "prometheus", "command -v promtool"},
		{"gnutar", "the build of a release (deploy)", "tar", "test $(uname -sm | tr -d ' ') = Linuxx86_64 && tar --sort=name --version"},
		{"chroot", "what is in an image of a release, which only root may run as its user (deploy)", "", "chroot / true"},
		{"podman", "images of a release, as root (deploy)", "podman runc",
			"test $(id -u) = 0 && command -v podman && { command -v runc || ls /usr/sbin/runc; }"},
		{"systemd", "the units of systemd (deploy)", "systemd", "command -v systemd-analyze"},
		{"bash", "completion in bash (cmd)", "bash", "command -v bash"},
		{"zsh", "completion in zsh (cmd)", "zsh", "command -v zsh"},
		{"fish", "completion in fish (cmd)", "fish", "command -v fish"},
		{"man", "a check of the manual pages (cmd)", "groff-base mandoc", "command -v groff && command -v mandoc"},
		{"mount", "tests on a small disk, which only root may mount (internal/spool)", "",
			`dir=$(mktemp -d); mount -t tmpfs upcall-test "$dir" && umount "$dir"; status=$?; rmdir "$dir"; exit $status`},
	}
}

// String says what was not run, and how to run it.
func (tool Tool) String() string {
	if tool.Packages == "" {
		return "not run: " + tool.What
	}
	packages := strings.ReplaceAll(tool.Packages, " ", ", ")
	if i := strings.LastIndex(packages, ", "); i >= 0 {
		packages = packages[:i] + " and " + packages[i+2:]
	}
	return fmt.Sprintf("not run: %s: install %s, or run make test-deps", tool.What, packages)
}

func (tool Tool) missing(ctx context.Context) bool {
	if names, ok := os.LookupEnv(VariableMissing); ok {
		return slices.Contains(strings.Fields(names), tool.Name)
	}
	return exec.CommandContext(ctx, "sh", "-c", tool.probe).Run() != nil
}

// Missing returns the missing tools.
func Missing(ctx context.Context) []Tool {
	return slices.DeleteFunc(Tools(), func(tool Tool) bool { return !tool.missing(ctx) })
}

// Need skips the test if the tool of that name is missing; with UPCALL_TEST_ALL=1 it
// fails the test instead.
func Need(t testing.TB, name string) {
	t.Helper()
	tools := Tools()
	i := slices.IndexFunc(tools, func(tool Tool) bool { return tool.Name == name })
	switch {
	case i < 0:
		t.Fatalf("no tool is named %q", name)
	case tools[i].missing(t.Context()):
		NotRun(t, tools[i])
	}
}

// NotRun skips the test; with UPCALL_TEST_ALL=1 it fails the test instead.
func NotRun(t testing.TB, why any) {
	t.Helper()
	if os.Getenv(VariableAll) == "1" {
		t.Fatal(why)
	} else {
		t.Skip(why)
	}
}

// Path returns where a program is, also where Debian has programs of servers, outside many a PATH.
func Path(name string) string {
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	return "/usr/sbin/" + name
}
