package embeddedpg

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// stopTimeout is how long a server may take to stop before it is killed.
const stopTimeout = 20 * time.Second

// watchdogScript runs the server given by its arguments and stops it with the signal $1
// when standard input ends, which it does when the owner closes it or dies, by SIGKILL
// too. Then it removes the directory $2, unless that is empty. Descriptor 3 is closed
// here so that only server processes hold it: its other end reads EOF when they are gone.
const watchdogScript = `
signal=$1 remove=$2; shift 2
"$@" </dev/null &
server=$!
exec 3>&-
while read -r _; do :; done
kill -s "$signal" "$server" 2>/dev/null
wait "$server"
[ -z "$remove" ] || rm -rf -- "$remove"
`

// startWatchdog starts the server under its watchdog and does not wait for it.
func (s *Server) startWatchdog() error {
	log, err := os.OpenFile(s.logPath(), os.O_CREATE|os.O_TRUNC|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	defer log.Close()
	alive, held, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("make pipe: %w", err)
	}
	defer held.Close()

	// Throwaway data needs no orderly shutdown.
	signal, remove := "INT", ""
	if s.config.DataDir == "" {
		signal, remove = "QUIT", s.home
	}
	args := append([]string{"-c", watchdogScript, "upcall-postgres-watchdog", signal, remove}, s.serverCommand()...)
	cmd := exec.Command("/bin/sh", args...)
	cmd.Dir = s.home
	cmd.Env = environment()
	cmd.Stdout, cmd.Stderr = log, log
	// The lock goes along, so that it is held until the last server process is gone.
	cmd.ExtraFiles = []*os.File{held, s.lock}
	// A session of its own: Ctrl-C in the owner's terminal is not for the server.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: s.user.credential()}
	leash, err := cmd.StdinPipe()
	if err != nil {
		alive.Close()
		return fmt.Errorf("make pipe: %w", err)
	}
	if err := cmd.Start(); err != nil {
		alive.Close()
		return fmt.Errorf("start watchdog as user %s: %w", s.user.name, err)
	}
	s.watchdog, s.leash, s.alive = cmd, leash, alive
	return nil
}

func (s *Server) serverCommand() []string {
	settings := []string{
		"port=" + strconv.Itoa(s.port),
		"max_connections=" + strconv.Itoa(s.config.MaxConnections),
		// Only this machine, and only with the password: there is no socket that
		// another local user could find.
		"listen_addresses=127.0.0.1",
		"unix_socket_directories=",
		"logging_collector=off",
		"log_checkpoints=off",
		"timezone=UTC",
	}
	if s.config.NoFsync {
		settings = append(settings, "fsync=off", "full_page_writes=off")
	}
	command := []string{filepath.Join(s.bin.dir, "postgres"), "-D", s.pgdata()}
	for _, setting := range settings {
		command = append(command, "-c", setting)
	}
	return command
}

// stopWatchdog stops the server and waits for it and its watchdog.
func (s *Server) stopWatchdog() error {
	if s.watchdog == nil {
		return nil
	}
	cmd := s.watchdog
	s.watchdog = nil
	defer s.alive.Close()
	s.leash.Close()
	if !s.gone(stopTimeout) {
		// The postmaster is in the watchdog's process group; its children end when
		// they see that it is gone.
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		cmd.Wait()
		return fmt.Errorf("stop PostgreSQL: killed, since it did not stop within %s", stopTimeout)
	}
	// How the server ended is in its log; the status of a killed one is no error here.
	cmd.Wait()
	return nil
}

// gone waits until no server process is left, at most for the given time.
func (s *Server) gone(wait time.Duration) bool {
	s.alive.SetReadDeadline(time.Now().Add(wait))
	_, err := s.alive.Read(make([]byte, 1))
	return err != nil && !os.IsTimeout(err)
}

// postmaster returns the process id of the server.
func (s *Server) postmaster() (int, error) {
	content, err := os.ReadFile(filepath.Join(s.pgdata(), "postmaster.pid"))
	if err != nil {
		return 0, fmt.Errorf("find the server process: %w", err)
	}
	line, _, _ := bytes.Cut(content, []byte("\n"))
	pid, err := strconv.Atoi(string(line))
	if err != nil || pid <= 1 {
		return 0, fmt.Errorf("find the server process: postmaster.pid holds %q", line)
	}
	return pid, nil
}

func (s *Server) pgdata() string  { return filepath.Join(s.home, "pgdata") }
func (s *Server) logPath() string { return filepath.Join(s.home, "postgres.log") }

// lastWords returns the end of the server's log, in one line.
func (s *Server) lastWords() string {
	content, err := os.ReadFile(s.logPath())
	if err != nil {
		return "no log: " + err.Error()
	}
	return tail(content)
}

// logPrefix is the time and process id that start a line of the server's log.
var logPrefix = regexp.MustCompile(`^[-\d]+ [:.\d]+ \S+ \[\d+\] `)

// tail returns the last five lines that say something, joined.
func tail(log []byte) string {
	var lines []string
	for line := range strings.Lines(string(log)) {
		if line = logPrefix.ReplaceAllString(strings.TrimSpace(line), ""); line != "" {
			lines = append(lines, line)
		}
	}
	if len(lines) == 0 {
		return "it logged nothing"
	}
	return strings.Join(lines[max(0, len(lines)-5):], "; ")
}

// environment is the owner's without PGPORT, PGDATA and their like, which are meant for
// another server, and with messages in English.
func environment() []string {
	var kept []string
	for _, entry := range os.Environ() {
		if !strings.HasPrefix(entry, "PG") && !strings.HasPrefix(entry, "LC_") && !strings.HasPrefix(entry, "LANG") {
			kept = append(kept, entry)
		}
	}
	return append(kept, "LC_ALL=C")
}
