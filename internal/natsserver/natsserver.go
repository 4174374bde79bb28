// Package natsserver runs private NATS servers with JetStream as processes on this machine, for tests and the
// benchmark. They are of the module that go.mod names, because packages of distributions are too old.
package natsserver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// Serve runs the server of a configuration file until standard input ends, so that it does not outlive
// who started it.
func Serve(file string) error {
	options, err := server.ProcessConfigFile(file)
	if err != nil {
		return err
	}
	s, err := server.NewServer(options)
	if err != nil {
		return err
	}
	s.ConfigureLogger()
	s.Start()
	_, err = io.Copy(io.Discard, os.Stdin)
	s.Shutdown()
	return err
}

// Config says which servers to start.
type Config struct {
	// Dir is where they keep their data. Required.
	Dir string
	// Command returns a command that calls Serve with the file. Required.
	Command func(file string) *exec.Cmd
	// Servers is how many there are; default 3.
	Servers int
	// SyncInterval is how often they fsync; default always.
	SyncInterval string
	// More is added to the configuration of each.
	More string
	// StartTimeout bounds the start; default 30 s.
	StartTimeout time.Duration
}

// A Cluster is a group of servers that know each other.
type Cluster struct {
	config  Config
	Servers []*Server
}

// A Server is one of them.
type Server struct {
	Name    string
	file    string
	client  string // addresses
	monitor string
	cmd     *exec.Cmd // nil while it is down
	stdin   io.Closer
}

// Start starts the servers and waits until each is ready.
func Start(ctx context.Context, config Config) (*Cluster, error) {
	config.Servers, config.SyncInterval = cmp.Or(config.Servers, 3), cmp.Or(config.SyncInterval, "always")
	config.StartTimeout = cmp.Or(config.StartTimeout, 30*time.Second)
	c := &Cluster{config: config}
	addresses, err := free(3 * config.Servers)
	if err != nil {
		return nil, err
	}
	routes := addresses[2*config.Servers:]
	for i := range config.Servers {
		s := &Server{Name: fmt.Sprint("n", i+1), client: addresses[i], monitor: addresses[config.Servers+i]}
		s.file = filepath.Join(config.Dir, s.Name+".conf")
		if err := os.WriteFile(s.file, []byte(c.settings(s, routes[i], routes)), 0o600); err != nil {
			return nil, err
		}
		c.Servers = append(c.Servers, s)
	}
	for _, s := range c.Servers {
		if err := c.StartServer(s); err != nil {
			return nil, errors.Join(err, c.Stop())
		}
	}
	if err := c.WaitReady(ctx); err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	return c, nil
}

// settings returns the configuration of a server.
func (c *Cluster) settings(s *Server, route string, routes []string) string {
	text := fmt.Sprintf("server_name: %s\nlisten: %q\nhttp: %q\njetstream { store_dir: %q, sync_interval: %s }\n%s\n",
		s.Name, s.client, s.monitor, filepath.Join(c.config.Dir, s.Name), c.config.SyncInterval, c.config.More)
	if len(routes) == 1 {
		return text
	}
	var others []string
	for _, r := range routes {
		if r != route {
			others = append(others, fmt.Sprintf("%q", "nats://"+r))
		}
	}
	return text + fmt.Sprintf("cluster { name: upcall, listen: %q, routes: [%s] }\n", route, strings.Join(others, ", "))
}

// free returns addresses on which nobody listens.
func free(n int) ([]string, error) {
	addresses := make([]string, n)
	for i := range addresses {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer listener.Close()
		addresses[i] = listener.Addr().String()
	}
	return addresses, nil
}

// StartServer starts a server that is down.
func (c *Cluster) StartServer(s *Server) error {
	cmd := c.config.Command(s.file)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	log, err := os.OpenFile(s.file+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start NATS server: %w", err)
	}
	s.cmd, s.stdin = cmd, stdin
	return nil
}

// Kill ends a server at once, as a crash does.
func (s *Server) Kill() error {
	if s.cmd == nil {
		return nil
	}
	err := s.cmd.Process.Kill()
	_ = s.cmd.Wait() // says that it was killed
	s.stdin.Close()
	s.cmd = nil
	return err
}

// PIDs returns the processes of the servers that run.
func (c *Cluster) PIDs() (pids []int) {
	for _, s := range c.Servers {
		if s.cmd != nil {
			pids = append(pids, s.cmd.Process.Pid)
		}
	}
	return pids
}

// Process returns the server's process, to stop it for a while.
func (s *Server) Process() *os.Process { return s.cmd.Process }

// Stop ends all servers.
func (c *Cluster) Stop() error {
	var errs []error
	for _, s := range c.Servers {
		errs = append(errs, s.Kill())
	}
	return errors.Join(errs...)
}

// WaitReady waits until each server that runs says that it is healthy.
func (c *Cluster) WaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.config.StartTimeout)
	defer cancel()
	for _, s := range c.Servers {
		for s.cmd != nil && !healthy(ctx, s.monitor) {
			select {
			case <-ctx.Done():
				log, _ := os.ReadFile(s.file + ".log")
				return fmt.Errorf("NATS server %s is not ready: %w: %s", s.Name, ctx.Err(), log)
			case <-time.After(50 * time.Millisecond):
			}
		}
	}
	return nil
}

func healthy(ctx context.Context, monitor string) bool {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+monitor+"/healthz", nil)
	if err != nil {
		return false
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Do(r)
	if err != nil {
		return false
	}
	answer.Body.Close()
	return answer.StatusCode == http.StatusOK
}

// URL returns the addresses of all servers, as clients write them.
func (c *Cluster) URL() string {
	var all []string
	for _, s := range c.Servers {
		all = append(all, s.client)
	}
	return "nats://" + strings.Join(all, ",")
}

// MonitorURL returns the addresses at which they say how they are.
func (c *Cluster) MonitorURL() string {
	var all []string
	for _, s := range c.Servers {
		all = append(all, "http://"+s.monitor)
	}
	return strings.Join(all, ",")
}
