package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// superuser is PostgreSQL's user on the nodes, and the operating system's.
const superuser = "postgres"

// A node is a machine with PostgreSQL, the Patroni that looks after it, and one of three etcd.
type node struct {
	*machine
	settings settings
	nodes    []*node // all three
	etcd     *exec.Cmd
	patroni  *exec.Cmd
	nats     *exec.Cmd // nil if there is no stream
}

// settings are what a cluster is bootstrapped with.
type settings struct {
	bin                 string // directory of PostgreSQL's programs
	synchronous, strict bool
	nats                string // the program of NATS servers; "" if there are none
}

// ensure starts what does not run, as the machine's own init would.
func (n *node) ensure() error {
	if n.settings.nats != "" {
		if err := n.ensureNATS(); err != nil {
			return err
		}
	}
	var err error
	if !n.running(n.etcd) {
		if n.etcd, err = n.start("", nil, n.etcdCommand()...); err != nil {
			return err
		}
	}
	if n.running(n.patroni) {
		return nil
	}
	config := filepath.Join(n.dir, "patroni.yaml")
	if err := os.WriteFile(config, []byte(n.patroniConfig()), 0o644); err != nil {
		return fmt.Errorf("configure Patroni: %w", err)
	}
	n.patroni, err = n.start(superuser, []string{"LC_ALL=C.UTF-8"}, "patroni", config)
	return err
}

// peers returns something of each node, joined by commas.
func (n *node) peers(of func(*node) string) string {
	var list []string
	for _, peer := range n.nodes {
		list = append(list, of(peer))
	}
	return strings.Join(list, ",")
}

func (n *node) etcdCommand() []string {
	client, peer := "http://"+n.addr+":2379", "http://"+n.addr+":2380"
	return []string{"etcd", "--name", n.name, "--data-dir", filepath.Join(n.dir, "etcd"), "--enable-v2",
		"--listen-client-urls", client + ",http://127.0.0.1:2379", "--advertise-client-urls", client,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
		"--initial-cluster", n.peers(func(p *node) string { return p.name + "=http://" + p.addr + ":2380" }),
		"--initial-cluster-state", "new", "--heartbeat-interval", "200", "--election-timeout", "2000", "--logger", "zap"}
}

// patroniConfig returns the configuration. It is etcd's second API that Patroni uses: with the third,
// the Patroni 3.0.2 of Debian 12 lets a former primary take the leader's key back.
func (n *node) patroniConfig() string {
	lag := 1 << 30 // a synchronous standby has what was acknowledged, however far it seems to lag
	if !n.settings.synchronous {
		lag = 1 << 20 // the default
	}
	return fmt.Sprintf(`
scope: upcall
name: %[1]s
restapi: {listen: "%[2]s:8008", connect_address: "%[2]s:8008"}
etcd: {hosts: "%[3]s"}
bootstrap:
  dcs:
    ttl: 20
    loop_wait: 5
    retry_timeout: 5
    maximum_lag_on_failover: %[4]d
    synchronous_mode: %[5]t
    synchronous_mode_strict: %[6]t
    postgresql:
      use_pg_rewind: true
      parameters: {max_connections: 100, max_wal_size: 256MB, wal_keep_size: 256MB, shared_buffers: 64MB,
        wal_sender_timeout: 10s, wal_receiver_status_interval: 2s}
  initdb: [{encoding: UTF8}, {locale: C.UTF-8}, data-checksums]
postgresql:
  listen: "%[2]s,127.0.0.1:5432"
  connect_address: "%[2]s:5432"
  data_dir: %[7]s
  bin_dir: %[8]s
  pgpass: %[9]s
  basebackup: [{checkpoint: fast}]
  remove_data_directory_on_rewind_failure: true
  remove_data_directory_on_diverged_timelines: true
  pg_hba:
  - local all all trust
  - host all all 127.0.0.1/32 trust
  - host all all %[10]s trust
  - host replication all %[10]s trust
  authentication:
    superuser: {username: %[11]s, password: drill}
    replication: {username: replicator, password: drill}
  parameters: {unix_socket_directories: %[12]s, log_checkpoints: "off"}
`, n.name, n.addr, n.peers(func(p *node) string { return p.addr + ":2379" }), lag, n.settings.synchronous,
		n.settings.synchronous && n.settings.strict, n.data(), n.settings.bin, filepath.Join(n.dir, "pgpass"), network, superuser, n.dir)
}

// data is PostgreSQL's data directory.
func (n *node) data() string { return filepath.Join(n.dir, "data") }

// crash kills the postmaster; PostgreSQL's other processes then end themselves.
func (n *node) crash() error {
	// The process title of a postmaster is its command line, those of its children begin with "postgres:".
	if n.signal(syscall.SIGKILL, n.settings.bin+"/postgres ")+n.signal(syscall.SIGKILL, "postgres -D") == 0 {
		return fmt.Errorf("find PostgreSQL on %s", n.name)
	}
	return nil
}

// promote makes the node's PostgreSQL a primary without asking Patroni.
func (n *node) promote(ctx context.Context) error {
	return command(ctx, "ip", "netns", "exec", n.name, "setpriv", "--reuid", superuser, "--regid", superuser, "--clear-groups",
		filepath.Join(n.settings.bin, "pg_ctl"), "promote", "-D", n.data(), "-w")
}
