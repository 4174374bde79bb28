package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"upcall/internal/cli"
	"upcall/internal/rollup"
)

type rollupCommand struct {
	Parts       []string      `default:"rate,latency,lag,backlog" enum:"rate,latency,lag,backlog" help:"What to measure."`
	At          float64       `help:"Callbacks a second at which latencies are compared. Default: half of the rate without roll-ups."`
	Clients     int           `default:"128" help:"Keep-alive clients."`
	Requests    int           `default:"30000" help:"Callbacks that each receiver gets in a round."`
	Rounds      int           `default:"20" help:"Rounds; in each, the receivers take turns."`
	LeastRate   float64       `default:"0.9" help:"Fail if the roll-ups leave less than this part of the rate."`
	MostP99     float64       `name:"most-p99" default:"1.1" help:"Fail if, at half the rate, they make the 99th percentile this many times longer."`
	Intake      float64       `default:"5000" help:"Callbacks a second while the lag is watched."`
	For         time.Duration `default:"20s" help:"How long it is watched."`
	MostLag     time.Duration `default:"2s" help:"Fail if an event is not counted in so long."`
	MostRest    time.Duration `default:"1s" help:"Fail if, at rest, one is not counted in so long."`
	Rests       int           `default:"20" help:"How many events are recorded at rest."`
	Backlog     int           `default:"200000" help:"Events that a receiver finds when it starts."`
	LeastRows   float64       `default:"12000" help:"Fail if fewer of them are counted in a second."`
	LeastIntake float64       `default:"0.98" placeholder:"SHARE" help:"Fail if clients get less of the rate that is asked for."`
	ProfileTo   string        `help:"Write a CPU profile of the receiver whose lag is watched to this file."`
}

// Run measures what the roll-ups cost the intake, and how far they are behind it.
func (cmd *rollupCommand) Run(ctx context.Context, std cli.Stdio) error {
	if cmd.Clients < 1 || cmd.Rounds < 1 || cmd.Requests < 10*cmd.Clients || cmd.Intake <= 0 || cmd.For <= 0 || cmd.Rests < 1 || cmd.Backlog < 1000 {
		return cli.Usage(errors.New("give a client, a round, ten requests for each client, a rate, a time, and 1000 events"))
	}
	if cmd.At <= 0 && slices.Contains(cmd.Parts, "latency") && !slices.Contains(cmd.Parts, "rate") {
		return cli.Usage(errors.New("give --at, or measure the rate, too"))
	}
	l, err := newLab(ctx)
	if err != nil {
		return err
	}
	defer l.close()
	fmt.Fprintf(std.Out, "PostgreSQL %s, fsync=on, %d keep-alive clients; receivers, PostgreSQL and clients share one machine\n",
		l.postgres.Version(), cmd.Clients)
	var failures []error
	for _, part := range []struct {
		name, or string
		run      func(context.Context, io.Writer, *lab) error
	}{{"rate", "latency", cmd.intake}, {"lag", "", cmd.lag}, {"backlog", "", cmd.backlog}} {
		if !slices.Contains(cmd.Parts, part.name) && !slices.Contains(cmd.Parts, part.or) {
			continue
		}
		err := part.run(ctx, std.Out, l)
		if err != nil && !errors.Is(err, errCost) {
			return err
		}
		failures = append(failures, err)
	}
	return errors.Join(failures...)
}

// withoutRollups gives their lease away, so that no receiver works for them.
func withoutRollups(ctx context.Context, own *lab) error {
	return own.exec(ctx, `INSERT INTO upcall.feed_consumers (name, system_identifier, timeline, recorded_xid, id, lease_holder, lease_until)
		SELECT '`+rollup.Consumer+`', system_identifier, 1, '1', '00000000-0000-0000-0000-000000000000', 'none', 'infinity'
		FROM pg_control_system()`)
}

// intake compares a receiver without roll-ups with one that has them.
func (cmd *rollupCommand) intake(ctx context.Context, out io.Writer, l *lab) error {
	requests, err := l.requests(cmd.Requests, false)
	if err != nil {
		return err
	}
	how := load{cmd.Clients, false}
	without, err := l.newSide(ctx, "no_rollups", how, nil)
	if err != nil {
		return err
	}
	defer without.close()
	with, err := l.newRollupSide(ctx, "rollups", how, "", nil)
	if err != nil {
		return err
	}
	defer with.close()
	rest := func(ctx context.Context, s *side) error {
		if s == without {
			return nil
		}
		return s.allCounted(ctx)
	}
	t := &trial{match: match{sides: [2]*side{without, with}, requests: requests, turns: 1, rest: rest, also: rollupTables},
		what: "without roll-ups and with them", at: cmd.At, noRate: !slices.Contains(cmd.Parts, "rate"),
		noLatency: !slices.Contains(cmd.Parts, "latency"), rounds: cmd.Rounds, leastRate: cmd.LeastRate, mostP99: cmd.MostP99}
	return t.run(ctx, out)
}

// rollupTables are emptied before each round, so that its uploads are new objects again.
const rollupTables = ", upcall.rollup_hourly, upcall.rollup_objects, upcall.rollup_versions"

const countedSQL = "SELECT coalesce(sum(uploads), 0)::bigint FROM upcall.rollup_hourly"

// counted waits until the roll-ups have so many uploads.
func (l *lab) counted(ctx context.Context, want int) error {
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		var n int
		if err := l.pool.QueryRow(ctx, countedSQL).Scan(&n); err != nil {
			return fmt.Errorf("look at roll-ups: %w", err)
		}
		if n >= want {
			return nil
		}
		if time.Since(began) > time.Minute {
			return fmt.Errorf("%d uploads are counted, but should be %d", n, want)
		}
	}
}

// allCounted waits until the roll-ups have all that is recorded.
func (l *lab) allCounted(ctx context.Context) error {
	var recorded int
	if err := l.pool.QueryRow(ctx, "SELECT count(*) FROM upcall.upload_events").Scan(&recorded); err != nil {
		return fmt.Errorf("count rows: %w", err)
	}
	return l.counted(ctx, recorded)
}

// ageSQL returns the age of the first event that is committed and not counted.
const ageSQL = `SELECT coalesce(extract(epoch FROM clock_timestamp() - (
		SELECT received_at FROM upcall.upload_events
		WHERE recorded_xid IS NOT NULL AND (recorded_xid, id) > (coalesce(c.recorded_xid, '0'), c.id)
		ORDER BY recorded_xid, id LIMIT 1)), 0)::float8
	FROM upcall.feed_consumers c WHERE name = '` + rollup.Consumer + `'`

const sampleEvery = 50 * time.Millisecond

// lag watches how old the events are that are not counted, under load and at rest.
func (cmd *rollupCommand) lag(ctx context.Context, out io.Writer, l *lab) error {
	how := load{cmd.Clients, false}
	n := int(cmd.Intake * cmd.For.Seconds())
	requests, err := l.requests(1+n+cmd.Rests, false)
	if err != nil {
		return err
	}
	s, err := l.newRollupSide(ctx, "lag", how, cmd.ProfileTo, nil)
	if err != nil {
		return err
	}
	defer s.close()
	send := func(some [][]byte, rate float64) (result, error) { return s.turn(ctx, some, rate, nil) }
	if _, err := send(requests[:1], 0); err != nil { // the public key is fetched for it
		return err
	}
	if err := s.counted(ctx, 1); err != nil {
		return err
	}
	watching, stop := context.WithCancel(ctx)
	watched := make(chan error, 1)
	var ages []time.Duration
	go func() {
		var err error
		for err == nil && watching.Err() == nil {
			var age float64
			if err = s.pool.QueryRow(ctx, ageSQL).Scan(&age); err == nil {
				ages = append(ages, time.Duration(age*float64(time.Second)))
			}
			time.Sleep(sampleEvery)
		}
		watched <- err
	}()
	got, err := send(requests[1:1+n], cmd.Intake)
	stop()
	if err := errors.Join(err, <-watched); err != nil {
		return err
	}
	if err := s.counted(ctx, 1+n); err != nil {
		return err
	}
	slices.Sort(ages)
	most := ages[len(ages)-1]
	fmt.Fprintf(out, "\nat %.0f callbacks/s for %s, the oldest event that was not counted was, in %d samples, at most %s old; median %s, p99 %s\n"+
		"receiver CPU %s a callback, PostgreSQL CPU %s; p99 of the answers %s\n", got.rate(), got.took.Round(time.Second), len(ages),
		round(most), round(quantile(ages, .5)), round(quantile(ages, .99)), got.each(got.receiverCPU), got.each(got.postgresCPU),
		quantile(got.latencies, .99).Round(10*time.Microsecond))
	var failures []error
	if most > cmd.MostLag {
		failures = append(failures, fmt.Errorf("%w: roll-ups are up to %s behind, more than %s", errCost, most, cmd.MostLag))
	}
	if got.rate() < cmd.LeastIntake*cmd.Intake {
		failures = append(failures, fmt.Errorf("%w: %.0f callbacks/s instead of %.0f", errCost, got.rate(), cmd.Intake))
	}
	return errors.Join(append(failures, cmd.rest(ctx, out, s, requests[1+n:], 1+n))...)
}

// rest sends callbacks that find the roll-ups at rest.
func (cmd *rollupCommand) rest(ctx context.Context, out io.Writer, s *side, requests [][]byte, before int) error {
	var waits []time.Duration
	for i, request := range requests {
		time.Sleep(time.Duration(500+37*i) * time.Millisecond) // at another moment of whatever has a period
		if _, err := s.clients.send([][]byte{request}, 0); err != nil {
			return err
		}
		answered := time.Now()
		if err := s.counted(ctx, before+i+1); err != nil {
			return err
		}
		waits = append(waits, time.Since(answered))
	}
	slices.Sort(waits)
	most := waits[len(waits)-1]
	fmt.Fprintf(out, "at rest, %d callbacks one by one were counted within %s of their answers; median %s\n",
		len(waits), round(most), round(quantile(waits, .5)))
	if most > cmd.MostRest {
		return fmt.Errorf("%w: at rest, an event is counted after %s, more than %s", errCost, most, cmd.MostRest)
	}
	return nil
}

func round(d time.Duration) time.Duration { return d.Round(time.Millisecond) }

// backlog lets a receiver find many events at its start: of transactions of a hundred, and of one.
func (cmd *rollupCommand) backlog(ctx context.Context, out io.Writer, l *lab) error {
	fmt.Fprintf(out, "\n%d events that were recorded while no receiver counted\n", cmd.Backlog)
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "events in a transaction\tevents/s\treceiver CPU\tPostgreSQL CPU\t")
	var failures []error
	for _, size := range []int{100, cmd.Backlog} {
		rate, used, err := cmd.catchUp(ctx, l, size)
		if err != nil {
			return err
		}
		fmt.Fprintf(table, "%d\t%.0f\t%s\t%s\t\n", size, rate, used.each(used.receiverCPU), used.each(used.postgresCPU))
		if rate < cmd.LeastRows {
			failures = append(failures, fmt.Errorf("%w: %.0f events/s of a backlog, fewer than %.0f", errCost, rate, cmd.LeastRows))
		}
	}
	return errors.Join(append(failures, table.Flush())...)
}

// catchUp returns how many events a second are counted, once it has begun.
func (cmd *rollupCommand) catchUp(ctx context.Context, l *lab, size int) (rate float64, used result, err error) {
	s, err := l.newRollupSide(ctx, fmt.Sprintf("backlog_%d", size), load{1, false}, "", func(own *lab) error {
		if err := own.fillBy(ctx, 0, cmd.Backlog, cmd.Backlog, size); err != nil {
			return err
		}
		return own.settle(ctx)
	})
	if err != nil {
		return 0, used, err
	}
	defer s.close()
	began, before := time.Time{}, 0
	for ; ; time.Sleep(5 * time.Millisecond) {
		var n int
		if err := s.pool.QueryRow(ctx, countedSQL).Scan(&n); err != nil {
			return 0, used, fmt.Errorf("look at roll-ups: %w", err)
		}
		switch {
		case n > cmd.Backlog:
			return 0, used, fmt.Errorf("%d uploads are counted of %d", n, cmd.Backlog)
		case n > 0 && began.IsZero():
			began, before = time.Now(), n
		}
		if n == cmd.Backlog {
			used.latencies = make([]time.Duration, n)
			used.receiverCPU, used.postgresCPU, err = s.used()
			return float64(n-before) / time.Since(began).Seconds(), used, err
		}
	}
}
