package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"upcall/internal/loadgen"
)

// diskSize is the size of a spool's disk: enough for the callbacks of an outage.
const diskSize = 256 << 20

// A receiver is a process of the real program. It keeps its ports when it restarts.
type receiver struct {
	program, disk       string
	mounted             bool
	databaseURL, keyURL string
	public, admin       string // addresses
	messages            *messages
	cmd                 *exec.Cmd
}

// choosePorts finds two free ports for the receiver to keep through its restarts.
func (r *receiver) choosePorts() error {
	for _, address := range []*string{&r.public, &r.admin} {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return fmt.Errorf("choose port: %w", err)
		}
		defer listener.Close()
		*address = listener.Addr().String()
	}
	return nil
}

// listenAgain starts a program that listens on its previous port. It retries, because a
// connection may have been given that port for a moment.
func listenAgain(ctx context.Context, start func() error) error {
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for attempt := 1; ; attempt++ {
		err := start()
		if err == nil || attempt == 100 || !strings.Contains(err.Error(), syscall.EADDRINUSE.Error()) {
			return err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return err
		}
	}
}

// start starts the receiver and returns when it serves.
func (r *receiver) start(ctx context.Context) error {
	return listenAgain(ctx, func() error { return r.launch(ctx) })
}

func (r *receiver) launch(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, r.program, "serve")
	cmd.Env = append(append(os.Environ(), hookRules...), "UPCALL_HOOKS_SCHEDULE="+hookSchedule(), "UPCALL_LISTEN="+r.public,
		"UPCALL_ADMIN_LISTEN="+r.admin, "UPCALL_DATABASE_URL="+r.databaseURL,
		"UPCALL_TOKEN_KEYS="+loadgen.TokenKeys, "UPCALL_TRUST_KEY_URLS="+r.keyURL,
		"UPCALL_SPOOL_DIR="+filepath.Join(r.disk, "spool"), "UPCALL_SPOOL_MIN_FREE_BYTES="+strconv.Itoa(diskSize/16))
	stderr, err := cmd.StderrPipe()
	if err := errors.Join(err, cmd.Start()); err != nil {
		return fmt.Errorf("start receiver: %w", err)
	}
	r.cmd = cmd
	log := bufio.NewReader(stderr)
	var seen bytes.Buffer
	for {
		line, err := log.ReadBytes('\n')
		if seen.Write(line); err != nil {
			return fmt.Errorf("the receiver did not start: %w: %s", errors.Join(err, cmd.Wait()), &seen)
		}
		if bytes.Contains(line, []byte(`"msg":"serving"`)) {
			break
		}
	}
	go r.messages.read(log)
	return nil
}

// kill ends the receiver with SIGKILL.
func (r *receiver) kill() { r.end(syscall.SIGKILL) }

// end sends a signal and returns when the process has ended.
func (r *receiver) end(signal syscall.Signal) error {
	cmd := r.cmd
	r.cmd = nil
	if cmd == nil {
		return nil
	}
	if err := cmd.Process.Signal(signal); err != nil {
		return fmt.Errorf("end receiver: %w", err)
	}
	err := cmd.Wait()
	if signal == syscall.SIGKILL {
		return nil // its error is the signal
	}
	return err
}

// messages counts the lines that receivers log.
type messages struct {
	mu     sync.Mutex
	counts map[string]int
}

// read counts until the receiver ends.
func (m *messages) read(log *bufio.Reader) {
	for {
		line, err := log.ReadBytes('\n')
		if err != nil {
			return
		}
		var message struct{ Level, Msg string }
		if json.Unmarshal(line, &message) != nil || message.Level == "INFO" {
			continue
		}
		m.mu.Lock()
		m.counts[message.Msg]++
		m.mu.Unlock()
	}
}

// count returns how often there was a warning or error that begins so.
func (m *messages) count(beginning string) (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for message, count := range m.counts {
		if strings.HasPrefix(message, beginning) {
			n += count
		}
	}
	return n
}

// print prints how often each came.
func (m *messages) print(out io.Writer) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, message := range slices.Sorted(maps.Keys(m.counts)) {
		fmt.Fprintf(out, "logged %d times: %s\n", m.counts[message], message)
	}
}

// throughProxy puts the proxy's address into a database URL.
func throughProxy(databaseURL, address string) (string, error) {
	u, err := url.Parse(databaseURL)
	if err != nil {
		return "", errors.New("read database URL")
	}
	u.Host = address
	return u.String(), nil
}
