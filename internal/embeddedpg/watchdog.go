package embeddedpg

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// stopTimeout is how long a server may take to stop before it is killed.
const stopTimeout = 20 * time.Second

// watchdogScript runs the server that its arguments name. When standard input ends, because
// the owner closes it or dies, even by SIGKILL, the script stops the server with the signal
// $1. Then it removes the directory $2 unless that is empty. It closes descriptor 3 so that
// only server processes hold it: the other end reads EOF when they are gone.
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

// startWatchdog starts the server under its watchdog, without waiting for it.
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
	// The server inherits the lock, which is then held until its last process is gone.
	cmd.ExtraFiles = []*os.File{held, s.lock}
	// In its own session the server does not get Ctrl-C from the owner's terminal.
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
		// Only this machine, and only with the password: other local users cannot come in
		// through a socket.
		"listen_addresses=127.0.0.1",
		"unix_socket_directories=",
		"logging_collector=off",
		"log_checkpoints=off",
		"timezone=UTC",
	}
	if s.config.NoFsync {
		settings = append(settings, "fsync=off", "full_page_writes=off")
	}
	if s.config.CommitTimes {
		settings = append(settings, "track_commit_timestamp=on")
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
		// The postmaster is in the watchdog's process group. Its children end when they
		// see that it is gone.
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		cmd.Wait()
		return fmt.Errorf("stop PostgreSQL: killed because it did not stop within %s", stopTimeout)
	}
	// The server's log says how it ended. That it was killed is not an error here.
	cmd.Wait()
	return nil
}

// gone waits until all server processes have ended, but not longer than wait, and reports
// whether they have.
func (s *Server) gone(wait time.Duration) bool {
	s.alive.SetReadDeadline(time.Now().Add(wait))
	_, err := s.alive.Read(make([]byte, 1))
	return err != nil && !os.IsTimeout(err)
}

// postmaster returns the process id of the server.
func (s *Server) postmaster() (int, error) {
	pid, err := readNumber(filepath.Join(s.pgdata(), "postmaster.pid"))
	if err == nil && pid <= 1 { // a signal to it would reach other processes
		err = fmt.Errorf("postmaster.pid holds %d", pid)
	}
	if err != nil {
		return 0, fmt.Errorf("find the server process: %w", err)
	}
	return pid, nil
}

func (s *Server) pgdata() string  { return filepath.Join(s.home, "pgdata") }
func (s *Server) logPath() string { return filepath.Join(s.home, "postgres.log") }

// lastWords returns the end of the server's log on one line.
func (s *Server) lastWords() string {
	content, err := os.ReadFile(s.logPath())
	if err != nil {
		return "no log: " + err.Error()
	}
	return tail(content)
}

// logPrefix is the time and process id that start a line of the server's log.
var logPrefix = regexp.MustCompile(`^[-\d]+ [:.\d]+ \S+ \[\d+\] `)

// tail joins the last five lines that are not empty.
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

// environment returns the owner's environment without PGPORT, PGDATA and the like, which are
// meant for another server, and with messages in English.
func environment() []string {
	kept := slices.DeleteFunc(os.Environ(), func(entry string) bool {
		return strings.HasPrefix(entry, "PG") || strings.HasPrefix(entry, "LC_") || strings.HasPrefix(entry, "LANG")
	})
	return append(kept, "LC_ALL=C")
}
