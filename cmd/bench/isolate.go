package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5"

	"upcall/internal/cli"
	"upcall/internal/hooks"
	"upcall/internal/loadgen"
)

type isolateCommand struct {
	Endpoints int           `default:"100" help:"Endpoints, each with a key prefix of its own; the first is the bad one."`
	Rate      float64       `default:"500" help:"Callbacks a second, for all endpoints in turn."`
	Clients   int           `default:"32" help:"Keep-alive clients that send them."`
	Behind    int           `default:"100000" help:"Events that the bad endpoint was not told of."`
	Rounds    int           `default:"6" help:"Rounds; each has a phase without the bad endpoint and one with it."`
	Phase     time.Duration `default:"20s" help:"Length of a phase. A request is given up after 15 s."`
	Ratio     float64       `default:"1.1" help:"Fail if the bad endpoint makes the 99th percentile more than this many times longer."`
	Median    time.Duration `default:"50ms" help:"Fail if the median from a callback's answer to its delivery is above this."`
	P99       time.Duration `name:"p99" default:"250ms" help:"Fail if its 99th percentile is above this."`
}

var errNotIsolated = errors.New("an endpoint that hangs costs the others too much")

const badEndpoint = "e000"

// Run measures how long the others wait for deliveries while one endpoint hangs.
func (cmd *isolateCommand) Run(ctx context.Context, std cli.Stdio) error {
	if cmd.Endpoints < 2 || cmd.Rate <= 0 || cmd.Clients < 1 || cmd.Behind < 1 || cmd.Rounds < 1 || cmd.Phase <= 0 {
		return cli.Usage(errors.New("give at least two endpoints, a rate, clients, events, and a round"))
	}
	l, err := newLab(ctx)
	if err != nil {
		return err
	}
	defer l.close()
	requests, err := l.requestsIn(1+2*cmd.Rounds*cmd.perPhase(), func(i int) string { return cmd.name(i) })
	if err != nil {
		return err
	}
	s, err := startSink(ctx, l.program, cmd.Endpoints, true)
	if err != nil {
		return err
	}
	defer s.stop()
	child, err := startChild(ctx, l.program, variantNamed(upcallName), l.databaseURL, l.keys.KeyURL, "", false)
	if err != nil {
		return err
	}
	defer child.stop()
	o, err := newOperator(ctx, l.databaseURL)
	if err != nil {
		return err
	}
	defer o.close()
	var all []hooks.Settings
	for i, addr := range s.Addrs {
		prefixes := []string{cmd.name(i) + "/"}
		if i == 0 {
			prefixes = append(prefixes, "photos/") // what fill makes
		}
		all = append(all, hooks.Settings{Name: cmd.name(i), URL: "http://" + addr, Filter: hooks.Filter{KeyPrefixes: prefixes}})
	}
	if err := o.add(ctx, all, s.secret); err != nil {
		return err
	}
	bad, err := o.Pause(ctx, badEndpoint)
	if err != nil {
		return err
	}
	if err := l.fill(ctx, 0, cmd.Behind, cmd.Behind); err != nil {
		return err
	}
	if err := l.settle(ctx); err != nil {
		return err
	}
	if err := o.caughtUp(ctx, "hook/"+bad.ID.String(), time.Minute); err != nil {
		return err
	}
	fmt.Fprintf(std.Out, "PostgreSQL %s, fsync=on; %g callbacks/s for %d endpoints, of which one hangs with %d events behind; "+
		"phases of %s\n", l.postgres.Version(), cmd.Rate, cmd.Endpoints, cmd.Behind, cmd.Phase)
	t := &isolation{cmd, l, s, o, connect(child.addr, load{cmd.Clients, false}), requests, 1}
	defer t.clients.close()
	if _, err := t.clients.send(requests[:1], 0); err != nil { // the public key is fetched for it
		return err
	}
	return t.run(ctx, std.Out, bad)
}

func (cmd *isolateCommand) name(i int) string { return fmt.Sprintf("e%03d", i%cmd.Endpoints) }

func (cmd *isolateCommand) perPhase() int { return max(1, int(cmd.Rate*cmd.Phase.Seconds())) }

// requestsIn is [lab.requests] with each object in a folder of its own.
func (l *lab) requestsIn(n int, folder func(i int) string) ([][]byte, error) {
	generator, err := loadgen.New(l.keys.KeyURL)
	if err != nil {
		return nil, err
	}
	generator.Folder = folder
	return generator.Wire(n, false)
}

// An isolation is one run of an isolateCommand.
type isolation struct {
	*isolateCommand
	lab      *lab
	sink     *sink
	operator *operator
	clients  *fleet
	requests [][]byte
	next     int // the first request that was not sent
}

// waits are how long deliveries took, sorted.
type waits struct{ fromCommit, fromAnswer []time.Duration }

func (w *waits) add(more waits) {
	w.fromCommit, w.fromAnswer = append(w.fromCommit, more.fromCommit...), append(w.fromAnswer, more.fromAnswer...)
	slices.Sort(w.fromCommit)
	slices.Sort(w.fromAnswer)
}

func (w *waits) columns() string {
	var columns []string
	for _, of := range [][]time.Duration{w.fromCommit, w.fromAnswer} {
		columns = append(columns, ms(quantile(of, .5)), ms(quantile(of, .99)))
	}
	return strings.Join(columns, "\t")
}

func ms(d time.Duration) string {
	return strconv.FormatFloat(float64(d.Microseconds())/1000, 'f', 1, 64) + "ms"
}

func (t *isolation) run(ctx context.Context, out io.Writer, bad hooks.Endpoint) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "round\twithout, from commit: p50\tp99\tfrom answer: p50\tp99\twith, from commit: p50\tp99\t"+
		"from answer: p50\tp99\tratio of p99\t")
	var all [2]waits // without the bad endpoint, and with it
	var ratios []float64
	for round := range t.Rounds {
		var phases [2]waits
		for turn := range phases {
			with := (turn + round) % 2
			if err := t.set(ctx, with == 1); err != nil {
				return err
			}
			var err error
			if phases[with], err = t.phase(ctx); err != nil {
				return err
			}
			all[with].add(phases[with])
		}
		ratios = append(ratios, float64(quantile(phases[1].fromCommit, .99))/float64(quantile(phases[0].fromCommit, .99)))
		fmt.Fprintf(table, "%d\t%s\t%s\t%.3f\t\n", round+1, phases[0].columns(), phases[1].columns(), ratios[round])
	}
	pooled := float64(quantile(all[1].fromCommit, .99)) / float64(quantile(all[0].fromCommit, .99))
	fmt.Fprintf(table, "all\t%s\t%s\t%.3f\t\n", all[0].columns(), all[1].columns(), pooled)
	if err := table.Flush(); err != nil {
		return err
	}
	report, err := t.sink.report()
	if err != nil {
		return err
	}
	var rows int
	err = t.lab.pool.QueryRow(ctx, "SELECT count(*) FROM upcall.hook_retries WHERE endpoint_id = $1", bad.ID).Scan(&rows)
	if err != nil {
		return fmt.Errorf("count retries: %w", err)
	}
	middle := middleOf(ratios)
	fmt.Fprintf(out, "median of the ratios: %.3f; the bad endpoint had %d requests, at most %d at once, and %d rows of retries\n",
		middle, report.Hung, report.MostHeld, rows)
	p50, p99 := quantile(all[1].fromAnswer, .5), quantile(all[1].fromAnswer, .99)
	switch {
	case middle > t.Ratio:
		return fmt.Errorf("%w: the 99th percentile is %.3f times what it is without, more than %.3f", errNotIsolated, middle, t.Ratio)
	case p50 > t.Median || p99 > t.P99:
		return fmt.Errorf("%w: median %s, 99th percentile %s; the most are %s and %s", errNotIsolated, p50, p99, t.Median, t.P99)
	case report.MostHeld > hooks.DefaultMaxInFlight:
		return fmt.Errorf("%w: it holds %d requests", errNotIsolated, report.MostHeld)
	case rows > report.Hung:
		return fmt.Errorf("%w: %d rows for %d requests", errNotIsolated, rows, report.Hung)
	}
	return nil
}

// set lets the bad endpoint take part, anew, or not.
func (t *isolation) set(ctx context.Context, with bool) error {
	// It was paused, or else its breaker may be open.
	if _, err := t.operator.Pause(ctx, badEndpoint); err != nil {
		return err
	}
	if err := t.held(0); err != nil || !with {
		return err
	}
	if _, err := t.operator.Resume(ctx, badEndpoint); err != nil {
		return err
	}
	return t.held(hooks.DefaultMaxInFlight)
}

// held waits until the bad endpoint holds so many requests.
func (t *isolation) held(want int) error {
	for began := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		report, err := t.sink.report()
		if err != nil || report.Held == want {
			return err
		}
		if time.Since(began) > 30*time.Second {
			return fmt.Errorf("the bad endpoint holds %d requests, want %d", report.Held, want)
		}
	}
}

// phase sends its share of the callbacks and waits until the others have them.
func (t *isolation) phase(ctx context.Context) (w waits, err error) {
	first := t.next
	t.next += t.perPhase()
	sent, err := t.clients.send(t.requests[first:t.next], t.Rate)
	if err != nil {
		return w, err
	}
	want := 0
	for i := first; i < t.next; i++ {
		if t.name(i) != badEndpoint {
			want++
		}
	}
	var arrivals []arrival
	for began := time.Now(); len(arrivals) < want; time.Sleep(50 * time.Millisecond) {
		report, err := t.sink.report()
		if err != nil {
			return w, err
		}
		arrivals = append(arrivals, report.Arrivals...)
		if time.Since(began) > 30*time.Second {
			return w, fmt.Errorf("%w: %d of %d events were delivered", errNotIsolated, len(arrivals), want)
		}
	}
	committed, err := t.commits(ctx, first)
	if err != nil {
		return w, err
	}
	seen := make(map[int]bool)
	for _, a := range arrivals {
		at, i := time.Unix(0, a.At), int(a.Number)
		if i < first || i >= t.next || seen[i] {
			return w, fmt.Errorf("event %d was delivered twice", i)
		}
		seen[i] = true
		w.fromCommit = append(w.fromCommit, at.Sub(committed[i]))
		w.fromAnswer = append(w.fromAnswer, at.Sub(sent.answers[i-first]))
	}
	slices.Sort(w.fromCommit)
	slices.Sort(w.fromAnswer)
	return w, nil
}

// commits returns when PostgreSQL committed the events of callbacks, by their numbers.
func (t *isolation) commits(ctx context.Context, from int) (map[int]time.Time, error) {
	rows, err := t.lab.pool.Query(ctx, `
		SELECT number, pg_xact_commit_timestamp(recorded_xid::xid) FROM (
			SELECT substring(object_key FROM '(\d+)\.jpg$')::integer AS number, recorded_xid FROM upcall.upload_events
			WHERE object_key LIKE 'e%'
		) AS events WHERE number >= $1`, from)
	if err != nil {
		return nil, fmt.Errorf("read times of commits: %w", err)
	}
	committed := make(map[int]time.Time)
	var number int
	var at time.Time
	_, err = pgx.ForEachRow(rows, []any{&number, &at}, func() error {
		committed[number] = at
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read times of commits: %w", err)
	}
	return committed, nil
}
