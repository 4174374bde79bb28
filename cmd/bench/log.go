package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"upcall/internal/cli"
	"upcall/internal/hooks"
	"upcall/internal/webhook"
)

type logCommand struct {
	Parts     []string `default:"index,readers" enum:"index,readers" help:"What to measure."`
	Clients   int      `default:"128" help:"Keep-alive clients."`
	Requests  int      `default:"30000" help:"Callbacks that each receiver gets in a round; of readers, two thirds of them."`
	Rounds    int      `default:"20" help:"Rounds; in each, the receivers take turns."`
	Endpoints int      `default:"100" help:"Endpoints whose filters match nothing."`
	MostCPU   float64  `name:"most-cpu" default:"1.03" help:"Fail if column and index make the CPU time this many times longer."`
	LeastRate float64  `default:"0.9" help:"Fail if the endpoints leave less than this part of the rate."`
	MostP99   float64  `name:"most-p99" default:"1.1" help:"Fail if, at half the rate, they make the 99th percentile this many times longer."`
}

var errCost = errors.New("the log costs the intake too much")

// Run measures what the log, and those that read it, cost the intake.
func (cmd *logCommand) Run(ctx context.Context, std cli.Stdio) error {
	if cmd.Clients < 1 || cmd.Rounds < 1 || cmd.Endpoints < 1 || cmd.Requests < 30*cmd.Clients {
		return cli.Usage(errors.New("give a client, a round, an endpoint, and thirty requests for each client"))
	}
	l, err := newLab(ctx)
	if err != nil {
		return err
	}
	defer l.close()
	requests, err := l.requests(cmd.Requests, false)
	if err != nil {
		return err
	}
	fmt.Fprintf(std.Out, "PostgreSQL %s, fsync=on, %d keep-alive clients; two receivers take turns; "+
		"receivers, PostgreSQL and clients share one machine\n", l.postgres.Version(), cmd.Clients)
	var failures []error
	for _, part := range cmd.Parts {
		run := cmd.index
		if part == "readers" {
			run = cmd.readers
		}
		err := run(ctx, std.Out, l, requests)
		if err != nil && !errors.Is(err, errCost) {
			return err
		}
		failures = append(failures, err)
	}
	return errors.Join(failures...)
}

// index compares the CPU time of a callback with and without the log's column and index.
func (cmd *logCommand) index(ctx context.Context, out io.Writer, l *lab, requests [][]byte) error {
	how := load{cmd.Clients, false}
	without, err := l.newSide(ctx, "no_log", how, func(own *lab) error {
		return own.exec(ctx, "ALTER TABLE upcall.upload_events DROP COLUMN recorded_xid CASCADE") // and the index
	})
	if err != nil {
		return err
	}
	defer without.close()
	with, err := l.newSide(ctx, "with_log", how, nil)
	if err != nil {
		return err
	}
	defer with.close()
	const turns = 10
	m := &match{sides: [2]*side{without, with}, requests: requests, turns: turns}
	if err := m.warmUp(); err != nil {
		return err
	}
	fmt.Fprintf(out, "\nCPU time a callback without and with the log's column and index, no consumer, %d turns of %d callbacks a round\n",
		turns, len(requests)/turns)
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "round\twithout: receiver\tPostgreSQL\tboth\twith: receiver\tPostgreSQL\tboth\tratio\tof the rate\t")
	var ratios, rates []float64
	for round := range cmd.Rounds {
		got, err := m.round(ctx, round)
		if err != nil {
			return err
		}
		before, after := got[0], got[1]
		ratios, rates = append(ratios, float64(after.cpu())/float64(before.cpu())), append(rates, after.rate()/before.rate())
		fmt.Fprintf(table, "%d\t%s\t%s\t%s\t%s\t%s\t%s\t%.3f\t%.3f\t\n", round+1,
			before.each(before.receiverCPU), before.each(before.postgresCPU), before.each(before.cpu()),
			after.each(after.receiverCPU), after.each(after.postgresCPU), after.each(after.cpu()), ratios[round], rates[round])
	}
	if err := table.Flush(); err != nil {
		return err
	}
	middle := middleOf(ratios)
	fmt.Fprintf(out, "median of the ratios: %.3f of the CPU time, %.3f of the rate\n", middle, middleOf(rates))
	if middle > cmd.MostCPU {
		return fmt.Errorf("%w: the index makes it %.3f of the CPU time, more than %.3f", errCost, middle, cmd.MostCPU)
	}
	return nil
}

// readerRest is for readers to read what was recorded last.
const readerRest = 400 * time.Millisecond

// halfTurns is how often the receivers take turns at half the rate, so that what disturbs the machine
// for a second meets both: a 99th percentile shows it at once.
const halfTurns = 10

// readers compares a receiver without endpoints with one whose endpoints match nothing: the
// rate, and the latency at half of it.
func (cmd *logCommand) readers(ctx context.Context, out io.Writer, l *lab, requests [][]byte) error {
	how := load{cmd.Clients, false}
	without, err := l.newSide(ctx, "no_readers", how, nil)
	if err != nil {
		return err
	}
	defer without.close()
	with, err := l.newSide(ctx, "readers", how, nil)
	if err != nil {
		return err
	}
	defer with.close()
	o, err := newOperator(ctx, with.databaseURL)
	if err != nil {
		return err
	}
	defer o.close()
	var all []hooks.Settings
	for i := range cmd.Endpoints {
		name := fmt.Sprintf("e%03d", i)
		all = append(all, hooks.Settings{Name: name, URL: "http://127.0.0.1:9/", Filter: hooks.Filter{KeyPrefixes: []string{name + "/"}}})
	}
	if err := o.add(ctx, all, webhook.Secret{}); err != nil {
		return err
	}
	const turns = 2
	m := &match{sides: [2]*side{without, with}, requests: requests[:len(requests)/3*2], turns: turns, rest: readerRest}
	if err := m.warmUp(); err != nil {
		return err
	}
	rate, failure := cmd.rates(ctx, out, m, o)
	if failure != nil && !errors.Is(failure, errCost) {
		return failure
	}
	m.rate, m.turns = rate/2, halfTurns
	return errors.Join(failure, cmd.half(ctx, out, m, o))
}

// rates returns the median rate without readers.
func (cmd *logCommand) rates(ctx context.Context, out io.Writer, m *match, o *operator) (float64, error) {
	fmt.Fprintf(out, "\nno endpoint, and %d endpoints whose filters match nothing, %d turns of %d callbacks a round\n",
		cmd.Endpoints, m.turns, len(m.requests)/m.turns)
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "round\twithout: callbacks/s\treceiver CPU\tPostgreSQL CPU\twith: callbacks/s\treceiver CPU\tPostgreSQL CPU\t"+
		"of the rate\tCPU time an event costs the reader\t")
	var rates, ratios, costs []float64
	for round := range cmd.Rounds {
		got, err := m.round(ctx, round)
		if err == nil {
			err = o.caughtUp(ctx, "", 30*time.Second)
		}
		if err != nil {
			return 0, err
		}
		without, with := got[0], got[1]
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
	if middle < cmd.LeastRate {
		return middleOf(rates), fmt.Errorf("%w: readers leave %.3f of the rate, less than %.3f", errCost, middle, cmd.LeastRate)
	}
	return middleOf(rates), nil
}

// half compares latencies at half the rate.
func (cmd *logCommand) half(ctx context.Context, out io.Writer, m *match, o *operator) error {
	fmt.Fprintf(out, "\nthe same at half of that rate, %.0f callbacks/s\n", m.rate)
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "round\twithout: p50\tp99\tp99.9\twith: p50\tp99\tp99.9\tratio of p99\t")
	var ratios []float64
	for round := range cmd.Rounds {
		got, err := m.round(ctx, round)
		if err == nil {
			err = o.caughtUp(ctx, "", 30*time.Second)
		}
		if err != nil {
			return err
		}
		ratios = append(ratios, float64(quantile(got[1].latencies, .99))/float64(quantile(got[0].latencies, .99)))
		fmt.Fprintf(table, "%d\t%s\t%s\t%.3f\t\n", round+1, got[0].percentiles(), got[1].percentiles(), ratios[round])
	}
	if err := table.Flush(); err != nil {
		return err
	}
	middle := middleOf(ratios)
	fmt.Fprintf(out, "median of the ratios: %.3f of the 99th percentile\n", middle)
	if middle > cmd.MostP99 {
		return fmt.Errorf("%w: readers make the 99th percentile %.3f of what it is, more than %.3f", errCost, middle, cmd.MostP99)
	}
	return nil
}
