package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"upcall/internal/dbtest"
	"upcall/internal/embeddedpg"
	"upcall/internal/loadgen"
	"upcall/internal/natsserver"
	"upcall/internal/testing/servetest"
	"upcall/internal/testing/toolchain"
	"upcall/internal/testing/wait"
	"upcall/migrations"
)

// TestFsync looks, with strace, that no callback is acknowledged before what keeps it is on the disk:
// that PostgreSQL is killed loses nothing of what it has only written, so a drill cannot show it.
func TestFsync(t *testing.T) {
	t.Parallel()
	toolchain.Need(t, "strace")
	program := filepath.Join(t.TempDir(), "receiver")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, "upcall/cmd/receiver").CombinedOutput(); err != nil {
		t.Fatalf("build receiver: %v: %s", err, out)
	}
	for name, start := range map[string]func(t *testing.T) (settings []string, pids []int){
		"postgres": func(t *testing.T) ([]string, []int) { return tracedPostgres(t, embeddedpg.Config{}) },
		"spool":    spooled,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			calls, callbacks := traced(t, program, start)
			if mistakes := early(calls, callbacks, 1, anywhere); len(mistakes) > 0 {
				t.Error(strings.Join(mistakes, "\n"))
			}
		})
	}
	t.Run("stream", func(t *testing.T) {
		t.Parallel()
		calls, callbacks := traced(t, program, func(t *testing.T) ([]string, []int) { return tracedNATS(t, "always") })
		if mistakes := early(calls, callbacks, 2, natsServer); len(mistakes) > 0 {
			t.Error(strings.Join(mistakes, "\n"))
		}
	})
	// Servers that do not write to the disk must be noticed, or this shows nothing.
	t.Run("stream without fsync", func(t *testing.T) {
		t.Parallel()
		calls, callbacks := traced(t, program, func(t *testing.T) ([]string, []int) { return tracedNATS(t, "2m") })
		if mistakes := early(calls, callbacks, 2, natsServer); len(mistakes) != len(callbacks) {
			t.Errorf("%d of %d callbacks were acknowledged too early, want all", len(mistakes), len(callbacks))
		}
	})
	t.Run("postgres without fsync", func(t *testing.T) {
		t.Parallel()
		calls, callbacks := traced(t, program, func(t *testing.T) ([]string, []int) { return tracedPostgres(t, embeddedpg.Config{NoFsync: true}) })
		if mistakes := early(calls, callbacks, 1, anywhere); len(mistakes) != len(callbacks) {
			t.Errorf("%d of %d callbacks were acknowledged too early, want all", len(mistakes), len(callbacks))
		}
	})
}

// traced runs a receiver under strace, and what keeps its events, and sends callbacks.
func traced(t *testing.T, program string, start func(t *testing.T) ([]string, []int)) ([]call, []acknowledged) {
	t.Helper()
	keys := loadgen.NewKeyServer()
	t.Cleanup(keys.Close)
	settings, pids := start(t)
	there := func() []call { return nil }
	if len(pids) > 0 {
		there = trace(t, pids...) // before there are connections, so that none is missed
	}
	public, admin := servetest.FreeAddress(t), servetest.FreeAddress(t)
	cmd := exec.CommandContext(t.Context(), program, "serve")
	cmd.Env = append(append(os.Environ(), settings...), "UPCALL_LISTEN="+public, "UPCALL_ADMIN_LISTEN="+admin,
		"UPCALL_TOKEN_KEYS="+loadgen.TokenKeys, "UPCALL_TRUST_KEY_URLS="+keys.KeyURL)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
	})
	wait.Until(t, "the receiver serves", func() bool {
		_, err := loadgen.Metrics(t.Context(), admin, "go_goroutines")
		return err == nil
	})
	here := trace(t, cmd.Process.Pid)
	generator, err := loadgen.New(keys.KeyURL)
	if err != nil {
		t.Fatal(err)
	}
	var callbacks []acknowledged
	for i := range 21 {
		message, err := generator.Message(i, true)
		if err != nil {
			t.Fatal(err)
		}
		e, err := generator.Event(i)
		if err != nil {
			t.Fatal(err)
		}
		client := loadgen.Client{Addr: public, Closing: true, Timeout: time.Minute}
		status, body, err := client.Send(message)
		var answer struct {
			EventID string `json:"event_id"`
		}
		if err != nil || status != 200 || json.Unmarshal(body, &answer) != nil {
			t.Fatalf("callback %d: %d %s %v", i, status, body, err)
		}
		if i == 20 {
			break // strace may not have seen all of the last one
		}
		callbacks = append(callbacks, acknowledged{e.Callback.RequestID, e.Callback.Object, answer.EventID})
	}
	return append(there(), here()...), callbacks
}

// tracedPostgres starts a PostgreSQL and returns its processes, all of which may write the log.
func tracedPostgres(t *testing.T, config embeddedpg.Config) (settings []string, pids []int) {
	t.Helper()
	config.DataDir = dbtest.Dir(t)
	server, err := embeddedpg.Start(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Stop() })
	if err := migrations.Up(t.Context(), server.URL()); err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), server.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	var postmaster string
	if err := conn.QueryRow(t.Context(), "SELECT split_part(pg_read_file('postmaster.pid'), E'\\n', 1)").Scan(&postmaster); err != nil {
		t.Fatal(err)
	}
	children, err := os.ReadFile(fmt.Sprintf("/proc/%s/task/%[1]s/children", postmaster))
	if err != nil {
		t.Fatal(err)
	}
	for _, field := range append(strings.Fields(string(children)), postmaster) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	return []string{"UPCALL_DATABASE_URL=" + server.URL()}, pids
}

// spooled is a receiver that has no PostgreSQL.
func spooled(t *testing.T) (settings []string, pids []int) {
	return []string{"UPCALL_DATABASE_URL=postgres://upcall@" + servetest.FreeAddress(t) + "/upcall?sslmode=disable",
		"UPCALL_SPOOL_DIR=" + t.TempDir()}, nil
}

// tracedNATS starts three NATS servers, of which two must have a callback on their disks, and returns their processes.
func tracedNATS(t *testing.T, interval string) (settings []string, pids []int) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cluster, err := natsserver.Start(t.Context(), natsserver.Config{Dir: t.TempDir(), SyncInterval: interval, StartTimeout: 2 * time.Minute,
		Command: func(file string) *exec.Cmd { return exec.Command(self, "nats", file) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cluster.Stop() })
	for _, s := range cluster.Servers {
		pids = append(pids, s.Process().Pid)
	}
	settings = []string{"UPCALL_DATABASE_URL=postgres://upcall@" + servetest.FreeAddress(t) + "/upcall?sslmode=disable",
		"UPCALL_STREAM_URL=" + cluster.URL()}
	if interval == "always" { // a receiver that knows better refuses them
		settings = append(settings, "UPCALL_STREAM_MONITOR_URL="+cluster.MonitorURL())
	}
	return settings, pids
}

var natsDir = regexp.MustCompile(`/(n\d)/`)

// natsServer returns which server a file belongs to.
func natsServer(path string) string { return strings.Join(natsDir.FindStringSubmatch(path), "") }
