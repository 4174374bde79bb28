package main

import (
	"context"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"upcall/internal/loadgen"
)

// A receiver is a machine that runs the real program.
type receiver struct {
	*machine
	program  string
	settings []string // of its environment
	process  *exec.Cmd
}

func (r *receiver) public() string { return r.addr + ":8080" }
func (r *receiver) admin() string  { return r.addr + ":8081" }

// ensure starts the receiver if it does not run.
func (r *receiver) ensure() (err error) {
	if !r.running(r.process) {
		r.process, err = r.start("", slices.Concat(r.settings, []string{"UPCALL_LISTEN=" + r.public(), "UPCALL_ADMIN_LISTEN=" + r.admin()}),
			r.program, "serve")
	}
	return err
}

// await waits until the receiver serves.
func (r *receiver) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		_, err := loadgen.Metrics(ctx, r.admin(), "go_goroutines")
		if err == nil {
			return nil
		}
		if sleep(ctx, 100*time.Millisecond) != nil {
			return fmt.Errorf("start receiver %s: %w; its log is %s", r.name, err, filepath.Join(r.dir, "receiver.log"))
		}
	}
}

// kill ends the receiver with SIGKILL.
func (r *receiver) kill() { r.end(r.process, syscall.SIGKILL) }

// waiting returns how many callbacks wait in the receiver's fallback.
func (r *receiver) waiting(ctx context.Context, metric string) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	defer http.DefaultClient.CloseIdleConnections()
	depth, err := loadgen.Metrics(ctx, r.admin(), metric)
	if err != nil {
		return 0, err
	}
	return depth[0], nil
}
