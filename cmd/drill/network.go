package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// network is that of the drill: everyone has an address in 10.77.0.0/24 and a link to one bridge.
const (
	network = "10.77.0.0/24"
	outside = "10.77.0.1" // of the senders and the key server, who are not in a namespace of a machine
)

// A machine is a network namespace with the processes in it.
type machine struct {
	name, addr string
	dir        string // of its data

	mu       sync.Mutex
	children map[*exec.Cmd]chan struct{} // closed when the process has ended
	log      *os.File
}

// command runs a program of this machine to its end.
func command(ctx context.Context, name string, args ...string) error {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
	}
	return nil
}

// buildNetwork makes the bridge to which machines are linked.
func buildNetwork(ctx context.Context) error {
	for _, line := range []string{
		"link set lo up", "link add br0 type bridge", "addr add " + outside + "/24 dev br0", "link set br0 up",
	} {
		if err := command(ctx, "ip", strings.Fields(line)...); err != nil {
			return err
		}
	}
	return nil
}

// newMachine makes a machine and links it to the bridge.
func newMachine(ctx context.Context, name, addr, dir string) (*machine, error) {
	m := &machine{name: name, addr: addr, dir: filepath.Join(dir, name), children: make(map[*exec.Cmd]chan struct{})}
	for _, line := range []string{
		"netns add " + name,
		"link add to-" + name + " type veth peer name eth0 netns " + name,
		"link set to-" + name + " master br0 up",
		"-n " + name + " link set lo up",
		"-n " + name + " addr add " + addr + "/24 dev eth0",
		"-n " + name + " link set eth0 up",
	} {
		if err := command(ctx, "ip", strings.Fields(line)...); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(m.dir, 0o777); err != nil {
		return nil, fmt.Errorf("make directory of %s: %w", name, err)
	}
	if err := os.Chmod(m.dir, 0o777); err != nil { // several users write there
		return nil, fmt.Errorf("make directory of %s: %w", name, err)
	}
	return m, nil
}

// start starts a program on the machine. A user of "" is root.
func (m *machine) start(user string, env []string, args ...string) (*exec.Cmd, error) {
	full := []string{"netns", "exec", m.name}
	if user != "" {
		full = append(full, "setpriv", "--reuid", user, "--regid", user, "--clear-groups")
	}
	cmd := exec.Command("ip", append(full, args...)...) // each of them replaces itself by the next
	cmd.Env = append(os.Environ(), env...)
	cmd.Dir = m.dir
	log, err := os.OpenFile(filepath.Join(m.dir, filepath.Base(args[0])+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if _, err := cmd.StdinPipe(); err != nil { // some programs end with it
		return nil, fmt.Errorf("make pipe: %w", err)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s on %s: %w", args[0], m.name, err)
	}
	ended := make(chan struct{})
	m.mu.Lock()
	m.children[cmd] = ended
	m.mu.Unlock()
	go func() {
		cmd.Wait()
		close(ended)
	}()
	return cmd, nil
}

// running reports whether a process that start returned has not ended.
func (m *machine) running(cmd *exec.Cmd) bool {
	if cmd == nil {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	select {
	case <-m.children[cmd]:
		return false
	default:
		return true
	}
}

// end sends a process a signal and waits until it has ended.
func (m *machine) end(cmd *exec.Cmd, signal syscall.Signal) {
	if !m.running(cmd) {
		return
	}
	syscall.Kill(cmd.Process.Pid, signal)
	m.mu.Lock()
	ended := m.children[cmd]
	m.mu.Unlock()
	<-ended
}

// processes returns the processes of the machine whose command line begins so.
func (m *machine) processes(beginning string) (pids []int) {
	var home syscall.Stat_t
	if syscall.Stat("/run/netns/"+m.name, &home) != nil {
		return nil
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		var there syscall.Stat_t
		if syscall.Stat(fmt.Sprintf("/proc/%d/ns/net", pid), &there) != nil || there.Ino != home.Ino {
			continue
		}
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err == nil && strings.HasPrefix(strings.ReplaceAll(string(line), "\x00", " "), beginning) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// signalUser sends a signal to all processes of the machine that belong to a user.
func (m *machine) signalUser(name string, signal syscall.Signal) error {
	account, err := user.Lookup(name)
	if err != nil {
		return fmt.Errorf("find user: %w", err)
	}
	for _, pid := range m.processes("") {
		var owner syscall.Stat_t
		if syscall.Stat(fmt.Sprintf("/proc/%d", pid), &owner) == nil && strconv.Itoa(int(owner.Uid)) == account.Uid {
			syscall.Kill(pid, signal)
		}
	}
	return nil
}

// signal sends a signal to all processes of the machine whose command line begins so, and returns
// how many there were.
func (m *machine) signal(signal syscall.Signal, beginning string) int {
	pids := m.processes(beginning)
	for _, pid := range pids {
		syscall.Kill(pid, signal)
	}
	return len(pids)
}

// powerOff kills every process of the machine, as if it lost its power, and returns when they
// are gone.
func (m *machine) powerOff(ctx context.Context) error {
	for m.signal(syscall.SIGKILL, "") > 0 {
		if err := sleep(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// filter runs iptables on the machine.
func (m *machine) filter(ctx context.Context, line string) error {
	return command(ctx, "ip", append([]string{"netns", "exec", m.name, "iptables", "-w"}, strings.Fields(line)...)...)
}

// cut cuts the machine's link to all others but those given. Nothing tells either side.
func (m *machine) cut(ctx context.Context, but ...*machine) error {
	for _, friend := range append(but, &machine{addr: m.addr}) {
		if err := m.filter(ctx, "-A INPUT -s "+friend.addr+" -j ACCEPT"); err != nil {
			return err
		}
		if err := m.filter(ctx, "-A OUTPUT -d "+friend.addr+" -j ACCEPT"); err != nil {
			return err
		}
	}
	return m.refuse(ctx, network)
}

// refuse drops what comes from these addresses or goes to them.
func (m *machine) refuse(ctx context.Context, addrs ...string) error {
	for _, addr := range addrs {
		if err := m.filter(ctx, "-A INPUT -s "+addr+" -j DROP"); err != nil {
			return err
		}
		if err := m.filter(ctx, "-A OUTPUT -d "+addr+" -j DROP"); err != nil {
			return err
		}
	}
	return nil
}

// heal ends everything that was done to the machine's link.
func (m *machine) heal(ctx context.Context) error {
	if err := m.filter(ctx, "-F"); err != nil {
		return err
	}
	return m.filter(ctx, "-t nat -F")
}

// sleep lets time pass.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
