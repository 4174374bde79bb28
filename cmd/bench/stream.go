package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"text/tabwriter"
	"time"

	"upcall/internal/cli"
	"upcall/internal/embeddedpg"
	"upcall/internal/natsserver"
)

type streamCommand struct {
	Clients  int `default:"128" help:"Number of clients."`
	Requests int `default:"20000" help:"Callbacks that each receiver gets in a round, after a warm-up of a tenth as many."`
	Rounds   int `default:"3" help:"Rounds; in each, the receivers take turns. The table has the median."`
}

// natsCommand is a server of the stream.
type natsCommand struct {
	File string `arg:""`
}

func (cmd *natsCommand) Run() error { return natsserver.Serve(cmd.File) }

// A way is one of those to keep a callback that are compared.
type way struct {
	name    string
	lab     *lab
	args    []string
	away    bool // PostgreSQL is away while callbacks come, and records them afterwards
	results []result
	servers []float64       // CPU time of the stream's servers, for each result, until all are in PostgreSQL
	settled []time.Duration // from the last answer until all are in PostgreSQL
}

// nowhere is a PostgreSQL that is away.
const nowhere = "postgres://nobody@127.0.0.1:1/none"

// Run compares the stream with PostgreSQL, alone and with a synchronous standby.
func (cmd *streamCommand) Run(ctx context.Context, std cli.Stdio) error {
	if cmd.Clients < 1 || cmd.Rounds < 1 || cmd.Requests < 10*cmd.Clients {
		return cli.Usage(errors.New("give a client, a round, and ten requests for each client"))
	}
	var labs [3]*lab // each PostgreSQL has its own past
	for i := range labs {
		l, err := newLab(ctx)
		if err != nil {
			return err
		}
		defer l.close()
		labs[i] = l
	}
	alone, pair, behind := labs[0], labs[1], labs[2]
	standby, err := embeddedpg.Start(ctx, embeddedpg.Config{StandbyOf: pair.databaseURL, MaxConnections: maxConnections})
	if err != nil {
		return fmt.Errorf("start standby: %w", err)
	}
	defer standby.Stop()
	if err := pair.postgres.Synchronous(ctx); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "upcall-bench-nats-")
	if err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	defer os.RemoveAll(dir)
	servers, err := natsserver.Start(ctx, natsserver.Config{Dir: dir, Command: func(file string) *exec.Cmd {
		return exec.Command(alone.program, "nats", file)
	}})
	if err != nil {
		return err
	}
	defer servers.Stop()
	onStream := onStream(servers)
	ways := []*way{
		{name: "PostgreSQL", lab: alone},
		{name: "PostgreSQL with a synchronous standby", lab: pair},
		{name: "stream in front of PostgreSQL", lab: behind, args: append(onStream, "--stream-front")},
		{name: "stream, PostgreSQL away", lab: behind, args: onStream, away: true},
	}
	how := load{clients: cmd.Clients}
	for round := range cmd.Rounds {
		for i := range ways {
			if err := cmd.measure(ctx, ways[(round+i)%len(ways)], servers, how); err != nil {
				return err
			}
		}
	}
	return cmd.print(std.Out, alone, how, ways)
}

func (cmd *streamCommand) print(out io.Writer, l *lab, how load, ways []*way) error {
	fmt.Fprintf(out, "PostgreSQL %s, fsync=on; three NATS servers with sync_interval: always; all on one machine with receivers and clients\n"+
		"%s, %d clients, %d callbacks a turn, %d rounds; the median by rate; CPU time is of one callback\n\n",
		l.postgres.Version(), how, cmd.Clients, cmd.Requests, cmd.Rounds)
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "kept by\tcallbacks/s\tp50\tp99\tp99.9\treceiver CPU\tPostgreSQL CPU\tstream CPU\tall in PostgreSQL after\t")
	for _, w := range ways {
		r := median(w.results)
		fmt.Fprintf(table, "%s\t%.0f\t%s\t%s\t%s\t%s\t%s\t\n", w.name, r.rate(), r.percentiles(), r.each(r.receiverCPU), r.each(r.postgresCPU),
			r.each(time.Duration(middleOf(w.servers))), slices.Max(w.settled).Round(10*time.Millisecond))
	}
	return table.Flush()
}

// cpuOf returns the CPU time that servers of the stream have used.
func cpuOf(servers *natsserver.Cluster) (sum time.Duration, err error) {
	for _, pid := range servers.PIDs() {
		used, err := processCPU(pid)
		if err != nil {
			return 0, err
		}
		sum += used
	}
	return sum, nil
}

func onStream(servers *natsserver.Cluster) []string { return []string{"--stream-url", servers.URL()} }

// measure runs one turn.
func (cmd *streamCommand) measure(ctx context.Context, w *way, servers *natsserver.Cluster, how load) error {
	l := w.lab
	if err := l.empty(ctx, ""); err != nil {
		return err
	}
	warm := how.warmUp(cmd.Requests)
	requests, err := l.requests(warm+cmd.Requests, false)
	if err != nil {
		return err
	}
	databaseURL := l.databaseURL
	if w.away {
		databaseURL = nowhere
	}
	child, err := startChild(ctx, l.program, variantNamed(upcallName), databaseURL, l.keys.KeyURL, "", false, w.args...)
	if err != nil {
		return err
	}
	before, err := cpuOf(servers)
	if err != nil {
		return errors.Join(err, child.stop())
	}
	got, err := l.run(child, requests[:warm], requests[warm:], how)
	ended := time.Now()
	if err == nil && w.away {
		if err = child.stop(); err == nil {
			child, err = startChild(ctx, l.program, variantNamed(upcallName), l.databaseURL, l.keys.KeyURL, "", false, onStream(servers)...)
		}
	}
	if err == nil {
		err = l.expect(ctx, len(requests))
	}
	w.results, w.settled = append(w.results, got), append(w.settled, time.Since(ended))
	if err == nil {
		var after time.Duration
		after, err = cpuOf(servers)
		// With the warm-up, of which each callback costs as much.
		w.servers = append(w.servers, float64(after-before)*float64(cmd.Requests)/float64(len(requests)))
	}
	if child != nil {
		err = errors.Join(err, child.stop())
	}
	if err != nil {
		return fmt.Errorf("%s: %w", w.name, err)
	}
	return nil
}
