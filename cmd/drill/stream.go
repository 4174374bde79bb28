package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"upcall/internal/natsserver"
)

type natsCommand struct {
	File string `arg:"" help:"Its configuration."`
}

// Run runs a NATS server. kong calls it.
func (c *natsCommand) Run() error { return natsserver.Serve(c.File) }

// ensureNATS starts the node's NATS server if it does not run.
func (n *node) ensureNATS() (err error) {
	if n.running(n.nats) {
		return nil
	}
	var routes []string
	for _, peer := range n.nodes {
		if peer != n {
			routes = append(routes, fmt.Sprintf("%q", "nats://"+peer.addr+":6222"))
		}
	}
	file := filepath.Join(n.dir, "nats.conf")
	text := fmt.Sprintf(`server_name: %s
listen: "%[2]s:4222"
http: "%[2]s:8222"
jetstream { store_dir: %q, sync_interval: always }
cluster { name: upcall, listen: "%[2]s:6222", routes: [%[4]s] }
`, n.name, n.addr, filepath.Join(n.dir, "nats"), strings.Join(routes, ", "))
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		return fmt.Errorf("configure NATS: %w", err)
	}
	n.nats, err = n.start("", nil, n.settings.nats, "nats", file)
	return err
}

// streamSettings returns those of a receiver whose fallback is the stream.
func (w *world) streamSettings() []string {
	nodes := w.cluster.nodes[0]
	return []string{"UPCALL_STREAM_MODE=" + w.Engine,
		"UPCALL_STREAM_URL=nats://" + nodes.peers(func(n *node) string { return n.addr + ":4222" }),
		"UPCALL_STREAM_MONITOR_URL=" + nodes.peers(func(n *node) string { return "http://" + n.addr + ":8222" })}
}

// streamKinds returns the faults of the NATS servers.
func streamKinds() []kind {
	return []kind{
		{name: "nats killed", make: killNATS},
		{name: "nats killed while PostgreSQL is away", make: killNATSWithoutPostgres},
		{name: "all nats restarted", make: restartNATS},
		{name: "nats cut off", make: cutNATS},
		{name: "receiver's machine lost while PostgreSQL is away", receiver: true, make: loseReceiver},
	}
}

// someNode returns one of the nodes.
func (f *fault) someNode() *node { return f.cluster.nodes[f.random.IntN(len(f.cluster.nodes))] }

func killNATS(ctx context.Context, f *fault) error {
	n := f.someNode()
	n.end(n.nats, syscall.SIGKILL)
	return f.hold(ctx, 20*time.Second)
}

// withoutPostgres stops every PostgreSQL and Patroni while something else happens.
func (f *fault) withoutPostgres(meanwhile func() error) error {
	for _, n := range f.cluster.nodes {
		if err := n.signalUser(superuser, syscall.SIGSTOP); err != nil {
			return err
		}
	}
	err := meanwhile()
	for _, n := range f.cluster.nodes {
		err = errors.Join(err, n.signalUser(superuser, syscall.SIGCONT))
	}
	return err
}

func killNATSWithoutPostgres(ctx context.Context, f *fault) error {
	return f.withoutPostgres(func() error {
		if err := f.hold(ctx, 10*time.Second); err != nil {
			return err
		}
		return killNATS(ctx, f)
	})
}

func restartNATS(ctx context.Context, f *fault) error {
	for _, n := range f.cluster.nodes {
		n.end(n.nats, syscall.SIGKILL)
	}
	return f.hold(ctx, 5*time.Second)
}

func cutNATS(ctx context.Context, f *fault) error {
	n := f.someNode()
	for _, port := range []string{"4222", "6222"} {
		for _, side := range []string{"INPUT -p tcp --dport ", "INPUT -p tcp --sport ", "OUTPUT -p tcp --dport ", "OUTPUT -p tcp --sport "} {
			if err := n.filter(ctx, "-A "+side+port+" -j DROP"); err != nil {
				return err
			}
		}
	}
	return f.hold(ctx, 30*time.Second)
}

// loseReceiver loses a receiver with everything on its disk, and with callbacks that no PostgreSQL has.
func loseReceiver(ctx context.Context, f *fault) error {
	return f.withoutPostgres(func() error {
		if err := f.hold(ctx, 15*time.Second); err != nil {
			return err
		}
		r := f.one()
		if err := r.powerOff(ctx); err != nil {
			return err
		}
		left, err := filepath.Glob(filepath.Join(r.dir, "*"))
		for _, path := range left {
			if !strings.HasSuffix(path, ".log") {
				err = errors.Join(err, os.RemoveAll(path))
			}
		}
		if err != nil {
			return fmt.Errorf("lose machine: %w", err)
		}
		return f.hold(ctx, 5*time.Second)
	})
}
