// Package capture keeps the last refused callbacks as files that receiver doctor reads, and has the
// doctor examine them for people who look.
//
// A capture is bytes that a stranger chose. It is never on the path of an answer: [Dir.Put] only
// queues it, and drops it if too many wait. Whatever goes wrong with the directory costs captures,
// and nothing else. Names of files have nothing of the request in them.
package capture

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"upcall/internal/admission"
)

const (
	// DefaultMaxFiles and DefaultMaxBytes bound what is kept. A callback of OSS has less than 10 KiB.
	DefaultMaxFiles, DefaultMaxBytes = 100, 16 << 20
	// mostQueued is how many may wait to be written, each with headers and a body of up to
	// admission.MaxBody.
	mostQueued = 32
)

// The reasons why a refused callback is not captured.
const (
	DroppedByRate  = "rate"  // too many in a short time
	DroppedByQueue = "queue" // too many are waiting
	DroppedByDisk  = "disk"  // it is full, or the directory cannot be written
)

// Config is what a [Dir] needs.
type Config struct {
	// Dir is the directory. It is made if it is missing. Required.
	Dir string
	// MaxFiles and MaxBytes bound what is kept in it. Defaults DefaultMaxFiles, DefaultMaxBytes.
	MaxFiles int
	MaxBytes int64
	// Logger is told once when captures begin to be lost, and once when that ends. Required.
	Logger *slog.Logger
}

// A Request is a refused callback as the receiver's HTTP server has read it.
type Request struct {
	Reason admission.Reason
	At     time.Time
	Method string
	Target string // from the request line
	Host   string
	Header http.Header
	Body   []byte
}

// A Dir keeps refused callbacks in a directory.
type Dir struct {
	cfg     Config
	root    *os.Root // so that no symbolic link in the directory leads out of it
	queue   chan *Request
	dropped *prometheus.CounterVec
	written prometheus.Counter
	failing bool // of the writer
}

// Check makes the directory if it is missing, and returns why it cannot be used.
func Check(dir string) error {
	root, err := openRoot(dir)
	if err != nil {
		return err
	}
	return root.Close()
}

// Open opens the directory. Files in it that are not captures are left alone.
func Open(cfg Config) (*Dir, error) {
	if cfg.Logger == nil {
		return nil, errors.New("capture: Logger is required")
	}
	cfg.MaxFiles, cfg.MaxBytes = cmp.Or(cfg.MaxFiles, DefaultMaxFiles), cmp.Or(cfg.MaxBytes, DefaultMaxBytes)
	root, err := openRoot(cfg.Dir)
	if err != nil {
		return nil, err
	}
	d := &Dir{
		cfg: cfg, root: root, queue: make(chan *Request, mostQueued),
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "upcall_captures_dropped_total",
			Help: "Refused callbacks that were not captured, by cause: rate, queue or disk.",
		}, []string{"cause"}),
		written: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "upcall_captures_total", Help: "Refused callbacks that were written to the directory of captures.",
		}),
	}
	for _, cause := range []string{DroppedByRate, DroppedByQueue, DroppedByDisk} {
		d.dropped.WithLabelValues(cause) // 0 rather than absent
	}
	d.sweep()
	if err := d.makeRoom(0, 0); err != nil {
		root.Close()
		return nil, err
	}
	return d, nil
}

// Close closes the directory, after Run has returned.
func (d *Dir) Close() error { return d.root.Close() }

// Put queues a request to be written, which nothing may change afterwards. It does not block.
func (d *Dir) Put(r *Request) {
	select {
	case d.queue <- r:
	default:
		d.Drop(DroppedByQueue)
	}
}

// Drop counts a request that is not captured.
func (d *Dir) Drop(cause string) { d.dropped.WithLabelValues(cause).Inc() }

// Run writes what is queued until ctx ends, and then what is left.
func (d *Dir) Run(ctx context.Context) {
	for {
		select {
		case r := <-d.queue:
			d.keep(ctx, r)
		case <-ctx.Done():
			for len(d.queue) > 0 {
				d.keep(ctx, <-d.queue)
			}
			return
		}
	}
}

// keep writes a request. A disk that is full for a day is one line of the log, not one a request.
func (d *Dir) keep(ctx context.Context, r *Request) {
	err := d.write(r)
	if err == nil {
		d.written.Inc()
	} else {
		d.Drop(DroppedByDisk)
	}
	switch failing := err != nil; {
	case failing && !d.failing:
		d.cfg.Logger.WarnContext(ctx, "refused callbacks are not captured", slog.String("error", err.Error()))
	case !failing && d.failing:
		d.cfg.Logger.InfoContext(ctx, "refused callbacks are captured again")
	}
	d.failing = err != nil
}

// Collectors returns the metrics for a registry.
func (d *Dir) Collectors() []prometheus.Collector {
	return []prometheus.Collector{d.dropped, d.written}
}

// openRoot opens a directory and tries to write to it.
func openRoot(dir string) (*os.Root, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make directory of captures: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open directory of captures: %w", err)
	}
	probe := unfinished(newName("probe", time.Now()))
	file, err := create(root, probe)
	if err == nil {
		err = errors.Join(file.Close(), root.Remove(probe))
	}
	if err != nil {
		root.Close()
		return nil, fmt.Errorf("write to directory of captures %q: %w", dir, err)
	}
	return root, nil
}
