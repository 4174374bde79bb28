package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"

	"upcall/internal/embeddedpg"
	"upcall/internal/loadgen"
	"upcall/migrations"
)

// A world is everything that can fail: PostgreSQL, a proxy in front of it, and two receivers
// that reach it through the proxy, each with its spool on a small disk.
type world struct {
	dir       string
	program   string // the receiver's
	progress  io.Writer
	keys      *loadgen.KeyServer
	postgres  *embeddedpg.Server
	home      string             // of its data
	standby   *embeddedpg.Server // only during a failover
	proxy     *toxiproxy.Proxy
	receivers []*receiver
	messages  *messages // that they log
	telling   *telling
	stillness loadgen.Stillness
	mountErr  error // why the spools are not on small disks
}

func newWorld(ctx context.Context, c command, progress io.Writer) (*world, error) {
	w := &world{progress: progress, keys: loadgen.NewKeyServer(), messages: &messages{counts: make(map[string]int)}}
	if err := w.build(ctx, c); err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

func (w *world) build(ctx context.Context, c command) error {
	var err error
	if w.dir, err = os.MkdirTemp("", "upcall-chaos-"); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	if err := os.Chmod(w.dir, 0o711); err != nil { // PostgreSQL does not run as root, and must get in
		return fmt.Errorf("make directory: %w", err)
	}
	if w.program = c.Receiver; w.program == "" {
		w.program = filepath.Join(w.dir, "receiver")
		if out, err := exec.CommandContext(ctx, "go", "build", "-o", w.program, "upcall/cmd/receiver").CombinedOutput(); err != nil {
			return fmt.Errorf("build receiver: %w: %s", err, out)
		}
	}
	w.home = filepath.Join(w.dir, "postgres")
	if w.postgres, err = embeddedpg.Start(ctx, embeddedpg.Config{DataDir: w.home}); err != nil {
		return err
	}
	if err := migrations.Up(ctx, w.postgres.URL()); err != nil {
		return err
	}
	if w.telling, err = newTelling(ctx, w, c); err != nil {
		return err
	}
	if w.proxy, err = w.newProxy("postgres", w.postgres.Port()); err != nil {
		return err
	}
	databaseURL, err := throughProxy(w.postgres.URL(), w.proxy.Listen)
	if err != nil {
		return err
	}
	for i := range 2 {
		disk := filepath.Join(w.dir, fmt.Sprintf("disk%d", i))
		if err := os.Mkdir(disk, 0o700); err != nil {
			return fmt.Errorf("make disk: %w", err)
		}
		err := mountDisk(disk, diskSize)
		switch {
		case errors.Is(err, fs.ErrPermission), errors.Is(err, errors.ErrUnsupported):
			w.mountErr = err // no disk is filled then, and the table says so
		case err != nil:
			return fmt.Errorf("mount disk: %w", err)
		}
		r := &receiver{program: w.program, disk: disk, mounted: err == nil, databaseURL: databaseURL, keyURL: w.keys.KeyURL,
			messages: w.messages}
		w.receivers = append(w.receivers, r)
		if err := r.choosePorts(); err != nil {
			return err
		}
		if err := r.start(ctx); err != nil {
			return err
		}
	}
	return nil
}

// newProxy starts a proxy before a port of this machine.
func (w *world) newProxy(name string, port int) (*toxiproxy.Proxy, error) {
	proxy := toxiproxy.NewProxy(toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop()),
		name, "127.0.0.1:0", fmt.Sprintf("127.0.0.1:%d", port))
	if err := proxy.Start(); err != nil {
		return nil, fmt.Errorf("start proxy: %w", err)
	}
	return proxy, nil
}

// close ends and removes everything.
func (w *world) close() {
	for _, r := range w.receivers {
		r.kill()
		if r.mounted {
			unmountDisk(r.disk)
		}
	}
	if w.proxy != nil {
		w.proxy.Stop()
	}
	if w.postgres != nil {
		w.postgres.Stop()
	}
	if w.standby != nil {
		w.standby.Stop()
	}
	if w.telling != nil {
		w.telling.close()
	}
	w.keys.Close()
	os.RemoveAll(w.dir)
}

// restartPostgres starts PostgreSQL again with its data and port.
func (w *world) restartPostgres(ctx context.Context) error {
	postgres, err := embeddedpg.Start(ctx, embeddedpg.Config{DataDir: w.home, Port: w.postgres.Port()})
	if err != nil {
		return fmt.Errorf("restart: %w", err)
	}
	w.postgres = postgres
	return nil
}
