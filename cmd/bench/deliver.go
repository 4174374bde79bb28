package main

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"text/tabwriter"
	"time"

	"upcall/internal/cli"
	"upcall/internal/hooks"
)

type deliverCommand struct {
	Behind    int           `default:"200000" help:"Events that wait for the endpoint, so that it never waits for one."`
	Intake    float64       `default:"2000" help:"Callbacks a second that the receiver takes meanwhile."`
	Clients   int           `default:"128" help:"Keep-alive clients that send them."`
	Rounds    int           `default:"6" help:"Rounds, which follow each other without a pause."`
	Round     time.Duration `default:"5s" help:"Length of a round."`
	AtLeast   float64       `default:"2000" help:"Fail below so many deliveries a second, over all rounds."`
	Taken     float64       `default:"0.99" help:"Fail if the receiver took fewer than this part of the callbacks in time."`
	ProfileTo string        `help:"Write a CPU profile of the receiver to this file."`
}

var errRate = errors.New("the rate is too low")

// Run measures how many signed deliveries one endpoint gets while callbacks come in.
func (cmd *deliverCommand) Run(ctx context.Context, std cli.Stdio) error {
	if cmd.Behind < 1 || cmd.Intake <= 0 || cmd.Clients < 1 || cmd.Rounds < 1 || cmd.Round <= 0 {
		return cli.Usage(errors.New("give events, callbacks a second, clients, and at least one round"))
	}
	l, err := newLab(ctx)
	if err != nil {
		return err
	}
	defer l.close()
	requests, err := l.requests(1+int(cmd.Intake*(time.Duration(cmd.Rounds)*cmd.Round+warmUp).Seconds()), false)
	if err != nil {
		return err
	}
	s, err := startSink(ctx, l.program, 1, false)
	if err != nil {
		return err
	}
	defer s.stop()
	child, err := startChild(ctx, l.program, variantNamed(upcallName), l.databaseURL, l.keys.KeyURL, cmd.ProfileTo, false)
	if err != nil {
		return err
	}
	defer child.stop()
	o, err := newOperator(ctx, l.databaseURL)
	if err != nil {
		return err
	}
	defer o.close()
	if err := o.add(ctx, []hooks.Settings{{Name: "sink", URL: "http://" + s.Addrs[0]}}, s.secret); err != nil {
		return err
	}
	if _, err := o.Pause(ctx, "sink"); err != nil {
		return err
	}
	if err := l.fill(ctx, 0, cmd.Behind, cmd.Behind); err != nil {
		return err
	}
	if err := l.settle(ctx); err != nil {
		return err
	}
	fmt.Fprintf(std.Out, "PostgreSQL %s, fsync=on; %g callbacks/s from %d keep-alive clients, one endpoint with %d events behind; "+
		"receiver, PostgreSQL, clients and endpoint share one machine\n", l.postgres.Version(), cmd.Intake, cmd.Clients, cmd.Behind)
	return cmd.measure(ctx, std, l, requests, child, s, o)
}

// warmUp precedes what is measured.
const warmUp = 2 * time.Second

func (cmd *deliverCommand) measure(ctx context.Context, std cli.Stdio, l *lab, requests [][]byte, c *child, s *sink, o *operator) error {
	clients := connect(c.addr, load{cmd.Clients, false})
	defer clients.close()
	if _, err := clients.send(requests[:1], 0); err != nil { // the public key is fetched for it
		return err
	}
	if _, err := o.Resume(ctx, "sink"); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() {
		_, err := clients.send(requests[1:], cmd.Intake)
		ended <- err
	}()
	defer func() { <-ended }()
	time.Sleep(warmUp)
	last, err := observe(l, c, s, clients)
	if err != nil {
		return err
	}
	first, total, least := last, 0, 0.0
	table := tabwriter.NewWriter(std.Out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "round\tdeliveries/s\tcallbacks/s\tcores used by receiver\tPostgreSQL\tendpoint\tclients\t")
	row := func(name string, from, to moment, delivered int) float64 {
		seconds := to.at.Sub(from.at).Seconds()
		cores := func(used time.Duration) float64 { return used.Seconds() / seconds }
		rate := float64(delivered) / seconds
		fmt.Fprintf(table, "%s\t%.0f\t%.0f\t%.2f\t%.2f\t%.2f\t%.2f\t\n", name, rate, float64(to.answered-from.answered)/seconds,
			cores(to.receiver-from.receiver), cores(to.postgres-from.postgres), cores(to.sink-from.sink), cores(to.clients-from.clients))
		return rate
	}
	for round := range cmd.Rounds {
		time.Sleep(time.Until(first.at.Add(time.Duration(round+1) * cmd.Round)))
		now, err := observe(l, c, s, clients)
		if err != nil {
			return err
		}
		if rate := row(fmt.Sprint(round+1), last, now, now.arrived); round == 0 || rate < least {
			least = rate
		}
		total, last = total+now.arrived, now
	}
	rate := row("all", first, last, total)
	if err := table.Flush(); err != nil {
		return err
	}
	taken := float64(last.answered-first.answered) / last.at.Sub(first.at).Seconds()
	fmt.Fprintf(std.Out, "%.0f deliveries/s, %.0f in the slowest round, all signed; %.0f callbacks/s\n", rate, least, taken)
	if rate < cmd.AtLeast || taken < cmd.Taken*cmd.Intake {
		return fmt.Errorf("%w: %.0f deliveries/s of %.0f, %.0f callbacks/s of %.0f", errRate, rate, cmd.AtLeast, taken, cmd.Intake)
	}
	return nil
}

// A moment is what has been done until a time.
type moment struct {
	at                                time.Time
	receiver, postgres, sink, clients time.Duration // of CPU time
	answered                          int64
	arrived                           int // since the moment before
}

func observe(l *lab, c *child, s *sink, clients *fleet) (m moment, err error) {
	report, err := s.report()
	m.at, m.answered, m.arrived = time.Now(), clients.answered.Load(), len(report.Arrivals)
	var receiverErr, postgresErr, sinkErr, ownErr error
	m.receiver, receiverErr = processCPU(c.cmd.Process.Pid)
	m.postgres, postgresErr = postgresCPU(l.postgres)
	m.sink, sinkErr = processCPU(s.cmd.Process.Pid)
	var own syscall.Rusage
	ownErr = syscall.Getrusage(syscall.RUSAGE_SELF, &own)
	m.clients = time.Duration(own.Utime.Nano() + own.Stime.Nano())
	return m, errors.Join(err, receiverErr, postgresErr, sinkErr, ownErr)
}
