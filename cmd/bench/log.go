package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"upcall/internal/cli"
	"upcall/internal/rollup"
	"upcall/internal/webhook"
	"upcall/migrations"
)

type logCommand struct {
	Parts     []string `default:"index,readers" enum:"index,readers,variable,finding" help:"What to measure."`
	Clients   int      `default:"128" help:"Keep-alive clients."`
	Requests  int      `default:"30000" help:"Callbacks that each receiver gets in a round; of readers, two thirds of them."`
	Rounds    int      `default:"20" help:"Rounds; in each, the receivers take turns."`
	Endpoints int      `default:"100" help:"Endpoints whose filters match nothing."`
	MostCPU   float64  `name:"most-cpu" default:"1.03" help:"Fail if what is measured makes the CPU time this many times longer."`
	LeastRate float64  `default:"0.9" help:"Fail if the endpoints leave less than this part of the rate."`
	MostP99   float64  `name:"most-p99" default:"1.1" help:"Fail if they make the 99th percentile this many times longer at half the rate."`
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
		run := map[string]func(context.Context, io.Writer, *lab, [][]byte) error{
			"index": cmd.index, "readers": cmd.readers, "variable": cmd.variable, "finding": cmd.finding,
		}[part]
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
	middle, err := cmd.compare(ctx, out, l, requests, "log", "the log's column and index, no consumer", func(own *lab) error {
		return own.exec(ctx, "ALTER TABLE upcall.upload_events DROP COLUMN recorded_xid CASCADE") // and the index
	}, nil)
	if err == nil && middle > cmd.MostCPU {
		err = fmt.Errorf("%w: the index makes it %.3f of the CPU time, more than %.3f", errCost, middle, cmd.MostCPU)
	}
	return err
}

// finding compares it with and without what finds lost uploads and confirms them: the path of
// notifications, the worker that waits for their callbacks, and confirmation of one in a hundred, which
// looks at what is two minutes old and so has less to do here than elsewhere.
func (cmd *logCommand) finding(ctx context.Context, out io.Writer, l *lab, requests [][]byte) error {
	middle, err := cmd.compare(ctx, out, l, requests, "finding", "what finds lost uploads", nil, func(own *lab) error {
		own.args = []string{"--finding"}
		return nil
	})
	if err == nil && middle > cmd.MostCPU {
		err = fmt.Errorf("%w: finding lost uploads makes it %.3f of the CPU time, more than %.3f", errCost, middle, cmd.MostCPU)
	}
	return err
}

// variable compares it with and without an index on a variable, which has 1,000 values.
func (cmd *logCommand) variable(ctx context.Context, out io.Writer, l *lab, requests [][]byte) error {
	_, err := cmd.compare(ctx, out, l, requests, "variable", "an index on a variable", nil, func(own *lab) error {
		_, err := migrations.AddVariableIndex(ctx, own.databaseURL, "uid", migrations.Report{Line: func(string) {}})
		return err
	})
	return err
}

// compare compares the CPU time of a callback without and with something, for which each side is
// prepared, and returns the median of the ratios.
func (cmd *logCommand) compare(ctx context.Context, out io.Writer, l *lab, requests [][]byte, name, what string,
	prepareWithout, prepareWith func(*lab) error,
) (middle float64, err error) {
	how := load{cmd.Clients, false}
	without, err := l.newSide(ctx, "no_"+name, how, prepareWithout)
	if err != nil {
		return 0, err
	}
	defer without.close()
	with, err := l.newSide(ctx, "with_"+name, how, prepareWith)
	if err != nil {
		return 0, err
	}
	defer with.close()
	const turns = 10
	m := &match{sides: [2]*side{without, with}, requests: requests, turns: turns}
	if err := m.warmUp(ctx); err != nil {
		return 0, err
	}
	fmt.Fprintf(out, "\nCPU time a callback without and with %s, %d turns of %d callbacks a round\n", what, turns, len(requests)/turns)
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "round\twithout: receiver\tPostgreSQL\tboth\twith: receiver\tPostgreSQL\tboth\tratio\tof the rate\t")
	var ratios, rates []float64
	for round := range cmd.Rounds {
		got, err := m.round(ctx, round)
		if err != nil {
			return 0, err
		}
		before, after := got[0], got[1]
		ratios, rates = append(ratios, float64(after.cpu())/float64(before.cpu())), append(rates, after.rate()/before.rate())
		fmt.Fprintf(table, "%d\t%s\t%s\t%s\t%s\t%s\t%s\t%.3f\t%.3f\t\n", round+1,
			before.each(before.receiverCPU), before.each(before.postgresCPU), before.each(before.cpu()),
			after.each(after.receiverCPU), after.each(after.postgresCPU), after.each(after.cpu()), ratios[round], rates[round])
	}
	if err := table.Flush(); err != nil {
		return 0, err
	}
	middle = middleOf(ratios)
	fmt.Fprintf(out, "median of the ratios: %.3f of the CPU time, %.3f of the rate\n", middle, middleOf(rates))
	return middle, nil
}

// readerRest is for readers to read what was recorded last.
func readerRest(context.Context, *side) error {
	time.Sleep(150 * time.Millisecond)
	return nil
}

// readers compares a receiver without endpoints with one whose endpoints match nothing.
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
	if err := o.add(ctx, idleEndpoints(cmd.Endpoints), webhook.Secret{}); err != nil {
		return err
	}
	t := &trial{match: match{sides: [2]*side{without, with}, requests: requests[:len(requests)/3*2], turns: 2, rest: readerRest},
		what: fmt.Sprintf("no endpoint, and %d endpoints whose filters match nothing", cmd.Endpoints), rounds: cmd.Rounds,
		leastRate: cmd.LeastRate, mostP99: cmd.MostP99,
		caughtUp: func(ctx context.Context) error { return o.caughtUp(ctx, rollup.Consumer, 30*time.Second) }}
	return t.run(ctx, out)
}
