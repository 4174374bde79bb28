package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
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
logtime: true
jetstream { store_dir: %q, sync_interval: always }
cluster { name: upcall, listen: "%[2]s:6222", routes: [%[4]s], ping_interval: "2s", ping_max: 2 }
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
		{name: "nats leader killed", make: killNATS},
		{name: "nats leader killed while PostgreSQL is away", make: awayToo(killNATS)},
		{name: "all nats restarted", make: restartNATS},
		{name: "nats leader cut off", make: cutNATS},
		{name: "nats leader cut off while PostgreSQL is away", make: awayToo(cutNATS)},
		{name: "receiver's machine lost while PostgreSQL is away", receiver: true, make: loseReceiver},
	}
}

// homeAfter is how long receivers take to go back to a server that is there again.
const homeAfter = 12 * time.Second

// awaitStreams waits until the streams have a leader each on another node again, and receivers a connection to each node.
func (w *world) awaitStreams(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, settle)
	defer cancel()
	for {
		leaders, err := w.cluster.nodes[0].streamLeaders(ctx)
		slices.Sort(leaders)
		if err == nil && len(slices.Compact(leaders)) == len(w.cluster.nodes) && !slices.Contains(leaders, "") {
			return sleep(ctx, homeAfter)
		}
		if err := sleep(ctx, 500*time.Millisecond); err != nil {
			return fmt.Errorf("wait for leaders of the streams, who are now %q: %w", leaders, err)
		}
	}
}

// streamLeader returns the node whose NATS server leads one of the streams.
func (f *fault) streamLeader(ctx context.Context) (*node, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		for _, n := range f.cluster.nodes {
			leaders, err := n.streamLeaders(ctx)
			if err != nil || len(leaders) == 0 {
				continue
			}
			name := leaders[f.random.IntN(len(leaders))]
			if i := slices.IndexFunc(f.cluster.nodes, func(n *node) bool { return n.name == name }); i >= 0 {
				return f.cluster.nodes[i], nil
			}
		}
		if err := sleep(ctx, 200*time.Millisecond); err != nil {
			return nil, fmt.Errorf("find the leader of a stream: %w", err)
		}
	}
}

// streamLeaders asks the node's NATS server who leads the streams.
func (n *node) streamLeaders(ctx context.Context) (names []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.addr+":8222/jsz?streams=true", nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	var said struct {
		Accounts []struct {
			Streams []struct {
				Cluster struct{ Leader string }
			} `json:"stream_detail"`
		} `json:"account_details"`
	}
	if err := json.NewDecoder(response.Body).Decode(&said); err != nil {
		return nil, err
	}
	for _, account := range said.Accounts {
		for _, stream := range account.Streams {
			names = append(names, stream.Cluster.Leader)
		}
	}
	return names, nil
}

func killNATS(ctx context.Context, f *fault) error {
	n, err := f.streamLeader(ctx)
	if err != nil {
		return err
	}
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

// awayToo returns what does the same when PostgreSQL has been away for a while.
func awayToo(what func(context.Context, *fault) error) func(context.Context, *fault) error {
	return func(ctx context.Context, f *fault) error {
		return f.withoutPostgres(func() error {
			if err := f.hold(ctx, 10*time.Second); err != nil {
				return err
			}
			return what(ctx, f)
		})
	}
}

func restartNATS(ctx context.Context, f *fault) error {
	for _, n := range f.cluster.nodes {
		n.end(n.nats, syscall.SIGKILL)
	}
	return f.hold(ctx, 5*time.Second)
}

func cutNATS(ctx context.Context, f *fault) error {
	n, err := f.streamLeader(ctx)
	if err != nil {
		return err
	}
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
