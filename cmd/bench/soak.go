package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"upcall/internal/cli"
	"upcall/internal/loadgen"
)

type soakCommand struct {
	For      time.Duration `default:"10m" help:"How long to run."`
	Clients  int           `default:"128" help:"Keep-alive clients."`
	Requests int           `default:"50000" help:"Callbacks between two measurements."`
}

// Run keeps the receiver at full load and prints its memory and goroutines.
func (cmd *soakCommand) Run(ctx context.Context, std cli.Stdio) error {
	if cmd.Clients < 1 || cmd.Requests < cmd.Clients || cmd.For <= 0 {
		return cli.Usage(errors.New("give a time, at least one client, and a request for each client"))
	}
	l, err := newLab(ctx)
	if err != nil {
		return err
	}
	defer l.close()
	child, err := startChild(ctx, l.program, variantNamed(upcallName), l.databaseURL, l.keys.KeyURL, "", false)
	if err != nil {
		return err
	}
	defer child.stop()
	idle, err := settled(ctx, child.admin)
	if err != nil {
		return err
	}
	fmt.Fprintf(std.Out, "idle: %s\n", idle)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	batches := l.supply(ctx, cmd.Requests)
	var start, end state
	total := 0
	began := time.Now()
	for time.Since(began) < cmd.For {
		next := <-batches
		if next.err != nil {
			return next.err
		}
		if _, err := fire(child.addr, next.requests, load{cmd.Clients, false}); err != nil {
			return err
		}
		total += len(next.requests)
		if end, err = look(ctx, child.admin); err != nil {
			return err
		}
		if start == (state{}) {
			start = end
		}
	}
	took := time.Since(began).Round(time.Second)
	peak, err := peakMemory(child.cmd.Process.Pid)
	if err != nil {
		return err
	}
	fmt.Fprintf(std.Out, "after the first %d callbacks: %s\npeak: %s\nafter %d callbacks in %s: %s\n",
		cmd.Requests, start, mebibytes(peak), total, took, end)
	// The goroutines of closed connections end by themselves.
	for waited := time.Now(); end.goroutines > idle.goroutines; {
		if time.Since(waited) > 30*time.Second {
			return fmt.Errorf("%.0f goroutines are left over", end.goroutines-idle.goroutines)
		}
		time.Sleep(100 * time.Millisecond)
		if end, err = look(ctx, child.admin); err != nil {
			return err
		}
	}
	fmt.Fprintf(std.Out, "idle again: %s\n", end)
	return l.expect(ctx, total)
}

// settleFor is how long no goroutine may have come for a receiver to have all.
const settleFor = 5 * time.Second

// settled waits until a receiver is ready and has all its goroutines: some workers read their tables before they start
// others, which takes a while where the machine is busy.
func settled(ctx context.Context, admin string) (most state, err error) {
	if _, err := loadgen.Get(ctx, "http://"+admin+"/readyz"); err != nil {
		return state{}, err
	}
	for since := time.Now(); time.Since(since) < settleFor; time.Sleep(100 * time.Millisecond) {
		s, err := look(ctx, admin)
		if err != nil {
			return state{}, err
		}
		if s.goroutines > most.goroutines {
			most, since = s, time.Now()
		}
	}
	return most, nil
}

// A batch is what is sent between two measurements.
type batch struct {
	requests [][]byte
	err      error
}

// supply makes the next batch while one is being sent, so that the load does not pause.
func (l *lab) supply(ctx context.Context, n int) <-chan batch {
	batches := make(chan batch)
	go func() {
		for {
			requests, err := l.requests(n, false)
			select {
			case batches <- batch{requests, err}:
			case <-ctx.Done():
				return
			}
		}
	}()
	return batches
}

// A state is the memory and goroutines of a receiver's process.
type state struct{ resident, goroutines float64 }

func (s state) String() string {
	return fmt.Sprintf("%s, %.0f goroutines", mebibytes(s.resident), s.goroutines)
}

func mebibytes(bytes float64) string { return fmt.Sprintf("%.1f MiB resident", bytes/(1<<20)) }

// look reads a receiver's metrics.
func look(ctx context.Context, admin string) (state, error) {
	values, err := loadgen.Metrics(ctx, admin, "process_resident_memory_bytes", "go_goroutines")
	if err != nil {
		return state{}, err
	}
	return state{values[0], values[1]}, nil
}
