package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"

	"golang.org/x/time/rate"

	"upcall/internal/event"
	"upcall/internal/eventstore"
	"upcall/internal/loadgen"
)

// run makes all faults under load and compares after each.
func (w *world) run(ctx context.Context) (*report, error) {
	random := rand.New(rand.NewPCG(w.Seed, 0))
	chosen, err := choose(w.kinds(), w.Only, w.Faults, random)
	if err != nil {
		return nil, err
	}
	generator, err := loadgen.New(w.keys.KeyURL)
	if err != nil {
		return nil, err
	}
	l := &load{make: generator, one: w.OneURL, pace: rate.NewLimiter(rate.Limit(w.Rate), 1)}
	l.Patience = w.Slowest
	for _, r := range w.receivers {
		l.addrs = append(l.addrs, r.public())
	}
	report := &report{config: w.config, began: time.Now()}
	watched, stop := context.WithCancel(ctx)
	defer stop()
	go report.stillness.Watch(watched, func(from, to time.Time) {
		fmt.Fprintf(w.progress, "the machine stood still for %v\n", to.Sub(from))
	})
	ended := make(chan error, 1)
	go func() { ended <- l.run(watched, w.Clients, w.Seed) }()
	for _, k := range chosen {
		err := w.one(ctx, k, l, random, report)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", k.name, err)
		}
		if w.Without != "nothing" && report.lost() > 0 {
			break
		}
	}
	stop()
	report.reinitialized = w.cluster.reinitialized
	return report, <-ended
}

// one makes a fault, repairs everything, and compares.
func (w *world) one(ctx context.Context, k kind, l *load, random *rand.Rand, report *report) error {
	began := time.Now()
	r, err := w.cluster.await(ctx, settle)
	if err != nil {
		return err
	}
	if err := sleep(ctx, 3*time.Second); err != nil {
		return err
	}
	fmt.Fprintf(w.progress, "%s %s: %s, primary %s\n", time.Now().Format(time.TimeOnly), k.name, strconv.Itoa(l.Begun())+" callbacks", r.primary.name)
	if err := k.make(ctx, &fault{world: w, kind: k, random: random, roles: r}); err != nil {
		return err
	}
	next, err := w.repair(ctx)
	if err != nil {
		return err
	}
	if err := sleep(ctx, 3*time.Second); err != nil {
		return err
	}
	resume := l.pause()
	defer resume()
	paused := time.Now()
	if err := w.drain(ctx); err != nil {
		return err
	}
	row := outcome{kind: k, took: paused.Sub(began), drained: time.Since(paused), moved: next.primary != r.primary}
	row.seen = l.Take(&report.stillness)
	if row.recorded, err = w.compare(ctx, l); err != nil {
		return err
	}
	report.outcomes = append(report.outcomes, row)
	fmt.Fprintf(w.progress, "%s %s\n", time.Now().Format(time.TimeOnly), row)
	return nil
}

// compare compares what was acknowledged with what is on the primary.
func (w *world) compare(ctx context.Context, l *load) (loadgen.Comparison, error) {
	pool, err := eventstore.OpenReader(ctx, w.cluster.url())
	if err != nil {
		return loadgen.Comparison{}, err
	}
	defer pool.Close()
	return l.Compare(func(record func(*event.Event)) error { return eventstore.Each(ctx, pool, record) })
}

// post sends a document to a Patroni.
func post(ctx context.Context, url, document string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(document))
	if err != nil {
		return fmt.Errorf("ask Patroni: %w", err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("ask Patroni: %w", err)
	}
	defer response.Body.Close()
	said, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = errors.New(response.Status + ": " + string(said))
	}
	if err != nil {
		return fmt.Errorf("ask Patroni: %w", err)
	}
	return nil
}
