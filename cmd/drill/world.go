package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"upcall/internal/loadgen"
	"upcall/migrations"
)

// A world is the machines of a drill and what is outside of them: the senders and their key server.
type world struct {
	config
	dir       string
	self      string // this program
	progress  io.Writer
	keys      *loadgen.KeyServer
	cluster   *cluster
	receivers []*receiver
}

// newWorld makes all machines and returns when callbacks can be sent.
func newWorld(ctx context.Context, c config, dir string, progress io.Writer) (*world, error) {
	w := &world{config: c, dir: dir, progress: progress, cluster: &cluster{sync: c.Without != "synchronous"}}
	var err error
	if w.self, err = os.Executable(); err != nil {
		return nil, fmt.Errorf("find own program: %w", err)
	}
	if err := buildNetwork(ctx); err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", outside+":0")
	if err != nil {
		return nil, fmt.Errorf("serve key: %w", err)
	}
	w.keys = loadgen.NewKeyServerOn(listener)
	if err := w.buildNodes(ctx); err != nil {
		return nil, err
	}
	if _, err := w.cluster.await(ctx, settle); err != nil {
		return nil, err
	}
	if err := migrations.Up(ctx, w.cluster.url()); err != nil {
		return nil, err
	}
	if err := w.buildReceivers(ctx); err != nil || !w.streams() {
		return w, err
	}
	return w, w.awaitStreams(ctx)
}

func (w *world) buildNodes(ctx context.Context) error {
	postgres, err := binaries()
	if err != nil {
		return err
	}
	for i := range 3 {
		m, err := newMachine(ctx, fmt.Sprintf("n%d", i+1), fmt.Sprintf("10.77.0.%d", 11+i), w.machines())
		if err != nil {
			return err
		}
		n := &node{machine: m, settings: settings{bin: postgres, synchronous: w.Without != "synchronous", strict: w.Without != "strict"}}
		if w.streams() {
			n.settings.nats = w.self
		}
		w.cluster.nodes = append(w.cluster.nodes, n)
	}
	for _, n := range w.cluster.nodes {
		n.nodes = w.cluster.nodes
		if err := n.ensure(); err != nil {
			return err
		}
	}
	return nil
}

// binaries returns the directory of PostgreSQL's programs. The newest version is last.
func binaries() (string, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err == nil && len(found) == 0 {
		err = os.ErrNotExist
	}
	if err != nil {
		return "", fmt.Errorf("find PostgreSQL in /usr/lib/postgresql: %w", err)
	}
	return found[len(found)-1], nil
}

func (w *world) buildReceivers(ctx context.Context) error {
	for i := range 2 {
		m, err := newMachine(ctx, fmt.Sprintf("r%d", i+1), fmt.Sprintf("10.77.0.%d", 21+i), w.machines())
		if err != nil {
			return err
		}
		settings := []string{"UPCALL_DATABASE_URL=" + w.cluster.url(), "UPCALL_TOKEN_KEYS=" + loadgen.TokenKeys,
			"UPCALL_TRUST_KEY_URLS=" + w.keys.KeyURL}
		switch {
		case w.Engine == engineSpool:
			settings = append(settings, "UPCALL_SPOOL_DIR="+filepath.Join(m.dir, "spool"))
		case w.streams():
			settings = append(settings, w.streamSettings()...)
		}
		r := &receiver{machine: m, program: filepath.Join(w.dir, "receiver"), settings: settings}
		w.receivers = append(w.receivers, r)
		if err := r.ensure(); err != nil {
			return err
		}
	}
	for _, r := range w.receivers {
		if err := r.await(ctx); err != nil {
			return err
		}
	}
	return nil
}

// machines is the directory with the machines' directories.
func (w *world) machines() string {
	if w.Keep != "" {
		return w.Keep
	}
	return w.dir
}

// repair ends every fault and returns when all machines do their work again.
func (w *world) repair(ctx context.Context) (roles, error) {
	for _, n := range w.cluster.nodes {
		if err := n.heal(ctx); err != nil {
			return roles{}, err
		}
		if err := n.ensure(); err != nil {
			return roles{}, err
		}
	}
	for _, r := range w.receivers {
		if err := r.heal(ctx); err != nil {
			return roles{}, err
		}
		if err := r.ensure(); err != nil {
			return roles{}, err
		}
	}
	for _, r := range w.receivers {
		if err := r.await(ctx); err != nil {
			return roles{}, err
		}
	}
	if w.streams() {
		if err := w.awaitStreams(ctx); err != nil {
			return roles{}, err
		}
	}
	return w.cluster.await(ctx, settle)
}

// looks is how often a stream must have been empty: receivers look at it once a second, and what one has put there the
// other may not know of.
const looks = 10

// drain waits until no callback waits in a fallback.
func (w *world) drain(ctx context.Context) error {
	metric := "upcall_spool_depth"
	switch {
	case w.Engine == engineNone:
		return nil
	case w.streams():
		metric = "upcall_stream_depth"
	}
	deadline := time.Now().Add(settle)
	for empty := 0; ; {
		total, failure := 0.0, error(nil)
		for _, r := range w.receivers {
			depth, err := r.waiting(ctx, metric)
			if err != nil {
				failure = err
			}
			total += depth
		}
		if total == 0 && failure == nil {
			if empty++; !w.streams() || empty == looks {
				return nil
			}
		} else {
			empty = 0
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%.0f callbacks still wait for PostgreSQL: %w", total, failure)
		}
		if err := sleep(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
}
