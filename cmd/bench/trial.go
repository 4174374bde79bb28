package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"
)

const (
	// latencyTurns is how often the receivers take turns where latencies are compared, so that what
	// disturbs the machine for a second meets both: a 99th percentile shows it at once.
	latencyTurns = 10
	// latencyRepeats is how often each gets all callbacks in such a round.
	latencyRepeats = 2
)

// A trial compares the intake of a receiver without something that reads the log, and with it: the
// rate, and the latency at half of it.
type trial struct {
	match     // without and with
	what      string
	rounds    int
	leastRate float64                     // is the least part of the rate that it may leave
	mostP99   float64                     // is how many times longer it may make the 99th percentile
	caughtUp  func(context.Context) error // is called after each round; nil does nothing
	at        float64                     // the rate at which latencies are compared; 0 is half of what it is without
	noRate    bool                        // compare latencies only
	noLatency bool                        // compare rates only
}

func (t *trial) run(ctx context.Context, out io.Writer) error {
	if err := t.warmUp(ctx); err != nil {
		return err
	}
	var failure error
	if !t.noRate {
		rate, err := t.rates(ctx, out)
		if err != nil && !errors.Is(err, errCost) {
			return err
		}
		t.at, failure = cmp.Or(t.at, rate/2), err
	}
	if t.noLatency {
		return failure
	}
	t.rate, t.turns = t.at, latencyTurns
	return errors.Join(failure, t.latencies(ctx, out))
}

// once returns what both sides did in a round, in which they get all callbacks so many times.
func (t *trial) once(ctx context.Context, round, repeats int) (without, with result, err error) {
	for range repeats {
		got, err := t.round(ctx, round)
		if err == nil && t.caughtUp != nil {
			err = t.caughtUp(ctx)
		}
		if err != nil {
			return result{}, result{}, err
		}
		without.add(got[0])
		with.add(got[1])
	}
	slices.Sort(without.latencies)
	slices.Sort(with.latencies)
	return without, with, nil
}

// rates returns the median rate without readers.
func (t *trial) rates(ctx context.Context, out io.Writer) (float64, error) {
	fmt.Fprintf(out, "\n%s, %d turns of %d callbacks a round\n", t.what, t.turns, len(t.requests)/t.turns)
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "round\twithout: callbacks/s\treceiver CPU\tPostgreSQL CPU\twith: callbacks/s\treceiver CPU\tPostgreSQL CPU\t"+
		"of the rate\tCPU time an event costs the reader\t")
	var rates, ratios, costs []float64
	for round := range t.rounds {
		without, with, err := t.once(ctx, round, 1)
		if err != nil {
			return 0, err
		}
		cost := with.each(with.cpu()) - without.each(without.cpu())
		rates, ratios, costs = append(rates, without.rate()), append(ratios, with.rate()/without.rate()), append(costs, float64(cost))
		fmt.Fprintf(table, "%d\t%.0f\t%s\t%s\t%.0f\t%s\t%s\t%.3f\t%s\t\n", round+1,
			without.rate(), without.each(without.receiverCPU), without.each(without.postgresCPU),
			with.rate(), with.each(with.receiverCPU), with.each(with.postgresCPU), ratios[round], cost)
	}
	if err := table.Flush(); err != nil {
		return 0, err
	}
	middle := middleOf(ratios)
	fmt.Fprintf(out, "median of the ratios: %.3f of the rate; an event costs the reader %s of CPU time\n",
		middle, time.Duration(middleOf(costs)).Round(100*time.Nanosecond))
	if middle < t.leastRate {
		return middleOf(rates), fmt.Errorf("%w: readers leave %.3f of the rate, less than %.3f", errCost, middle, t.leastRate)
	}
	return middleOf(rates), nil
}

// latencies compares them at a rate below the most.
func (t *trial) latencies(ctx context.Context, out io.Writer) error {
	fmt.Fprintf(out, "\n%s, at %.0f callbacks/s, %d times %d turns of %d a round\n",
		t.what, t.rate, latencyRepeats, t.turns, len(t.requests)/t.turns)
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "round\twithout: p50\tp99\tp99.9\twith: p50\tp99\tp99.9\tratio of p99\tof turns\t")
	var whole, turns []float64
	for round := range t.rounds {
		without, with, err := t.once(ctx, round, latencyRepeats)
		if err != nil {
			return err
		}
		whole = append(whole, float64(quantile(with.latencies, .99))/float64(quantile(without.latencies, .99)))
		turns = append(turns, tailRatio(without, with))
		fmt.Fprintf(table, "%d\t%s\t%s\t%.3f\t%.3f\t\n", round+1, without.percentiles(), with.percentiles(), whole[round], turns[round])
	}
	if err := table.Flush(); err != nil {
		return err
	}
	middle := middleOf(turns)
	fmt.Fprintf(out, "median of the ratios: %.3f of the 99th percentile of turns, %.3f of that of rounds\n", middle, middleOf(whole))
	if middle > t.mostP99 {
		return fmt.Errorf("%w: readers make the 99th percentile %.3f of what it is, more than %.3f", errCost, middle, t.mostP99)
	}
	return nil
}

// tailRatio returns the median of how many times longer the 99th percentile of a turn is than that of
// the turn beside it without readers. The percentile of a whole round is that of the few moments in
// which the machine stood still, and which side they met is chance: it differs by half between two
// receivers of the same kind.
func tailRatio(without, with result) float64 {
	var ratios []float64
	for i := range with.tails {
		ratios = append(ratios, float64(with.tails[i])/float64(without.tails[i]))
	}
	return middleOf(ratios)
}
