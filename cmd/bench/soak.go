package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"time"
)

type soakCmd struct {
	For      time.Duration `default:"10m" help:"How long."`
	Clients  int           `default:"128" help:"Keep-alive clients."`
	Requests int           `default:"50000" help:"Callbacks between two looks."`
}

// Run keeps the receiver at full load and prints what its process holds.
func (cmd *soakCmd) Run(ctx context.Context, out io.Writer) error {
	if cmd.Clients < 1 || cmd.Requests < cmd.Clients || cmd.For <= 0 {
		return errors.New("give a time, at least one client, and a request for each client")
	}
	l, err := newLab(ctx)
	if err != nil {
		return err
	}
	defer l.close()
	child, err := startChild(ctx, variantNamed(upcallName), l.postgres.URL(), l.keys.KeyURL, "")
	if err != nil {
		return err
	}
	defer child.stop()
	idle, err := look(ctx, child.admin)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "idle: %s\n", idle)
	var start, peak, end state
	total := 0
	for began := time.Now(); time.Since(began) < cmd.For; {
		requests, err := l.requests(cmd.Requests, false)
		if err != nil {
			return err
		}
		if _, err := fire(child.addr, requests, load{cmd.Clients, false}); err != nil {
			return err
		}
		total += len(requests)
		if end, err = look(ctx, child.admin); err != nil {
			return err
		}
		if start == (state{}) {
			start = end
		}
		if end.resident > peak.resident {
			peak = end
		}
	}
	fmt.Fprintf(out, "after the first %d callbacks: %s\npeak: %s\nafter %d callbacks in %s: %s\n", cmd.Requests, start, peak, total, cmd.For, end)
	return nil
}

// A state is what a receiver's process holds.
type state struct{ resident, goroutines float64 }

func (s state) String() string {
	return fmt.Sprintf("%.1f MiB resident, %.0f goroutines", s.resident/(1<<20), s.goroutines)
}

var (
	residentMetric   = regexp.MustCompile(`(?m)^process_resident_memory_bytes (\S+)$`)
	goroutinesMetric = regexp.MustCompile(`(?m)^go_goroutines (\S+)$`)
)

// look reads a receiver's metrics.
func look(ctx context.Context, admin string) (state, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+admin+"/metrics", nil)
	if err != nil {
		return state{}, fmt.Errorf("read metrics: %w", err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return state{}, fmt.Errorf("read metrics: %w", err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return state{}, fmt.Errorf("read metrics: %w", err)
	}
	var s state
	for metric, value := range map[*regexp.Regexp]*float64{residentMetric: &s.resident, goroutinesMetric: &s.goroutines} {
		found := metric.FindSubmatch(body)
		if found == nil {
			return state{}, fmt.Errorf("read metrics: there is nothing like %s", metric)
		}
		if *value, err = strconv.ParseFloat(string(found[1]), 64); err != nil {
			return state{}, fmt.Errorf("read metrics: %w", err)
		}
	}
	return s, nil
}
