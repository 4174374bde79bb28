package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/cli"
)

type versusCommand struct {
	Before   string  `required:"" help:"Git commit to compare with; it is built in a directory of its own."`
	Clients  int     `default:"128" help:"Number of clients."`
	Closing  bool    `help:"Open a connection for each request, as OSS does, and not one for each client."`
	Requests int     `default:"30000" help:"Callbacks in each run, after a tenth as many to warm up."`
	Rounds   int     `default:"20" help:"Rounds; each runs both receivers, and the first one alternates."`
	Limit    float64 `help:"Fail if the median ratio of CPU time a callback is above this. Default: no limit."`
}

var errSlower = errors.New("a callback costs more CPU time")

// Run measures the CPU time that a callback costs the receiver and PostgreSQL, with the
// code of an earlier commit and with this code.
func (cmd *versusCommand) Run(ctx context.Context, std cli.Stdio) error {
	if cmd.Clients < 1 || cmd.Rounds < 1 || cmd.Requests < cmd.Clients {
		return cli.Usage(errors.New("give at least one round, one client, and a request for each client"))
	}
	after, err := newLab(ctx)
	if err != nil {
		return err
	}
	defer after.close()
	dir, err := os.MkdirTemp("", "upcall-versus-")
	if err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	defer os.RemoveAll(dir)
	before, err := after.earlier(ctx, cmd.Before, dir)
	if err != nil {
		return err
	}
	defer before.pool.Close()
	how := load{cmd.Clients, cmd.Closing}
	fmt.Fprintf(std.Out, "PostgreSQL %s, %d clients, %s, %d callbacks a run after a warm-up; CPU time a callback\n",
		after.postgres.Version(), cmd.Clients, how, cmd.Requests)
	table := tabwriter.NewWriter(std.Out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "round\tbefore: receiver\tPostgreSQL\tboth\tafter: receiver\tPostgreSQL\tboth\tafter / before\tof the rate\t")
	var ratios, rates []float64
	for round := range cmd.Rounds {
		labs := []*lab{before, after}
		results := make([]result, len(labs))
		for turn := range labs {
			i := (turn + round) % len(labs)
			if results[i], err = cmd.measure(ctx, labs[i], how); err != nil {
				return err
			}
		}
		old, now := results[0], results[1]
		ratios = append(ratios, float64(now.cpu())/float64(old.cpu()))
		rates = append(rates, now.rate()/old.rate())
		fmt.Fprintf(table, "%d\t%s\t%s\t%s\t%s\t%s\t%s\t%.3f\t%.3f\t\n", round+1,
			old.each(old.receiverCPU), old.each(old.postgresCPU), old.each(old.cpu()),
			now.each(now.receiverCPU), now.each(now.postgresCPU), now.each(now.cpu()), ratios[round], rates[round])
	}
	if err := table.Flush(); err != nil {
		return err
	}
	middle := middleOf(ratios)
	fmt.Fprintf(std.Out, "median of the ratios: %.3f of the CPU time, %.3f of the rate\n", middle, middleOf(rates))
	if cmd.Limit > 0 && middle > cmd.Limit {
		return fmt.Errorf("%w: %.3f of what it was at %s, more than %.3f", errSlower, middle, cmd.Before, cmd.Limit)
	}
	return nil
}

func (cmd *versusCommand) measure(ctx context.Context, l *lab, how load) (result, error) {
	warm := how.warmUp(cmd.Requests)
	requests, err := l.ownRequests(ctx, warm+cmd.Requests, how.closing)
	if err != nil {
		return result{}, err
	}
	if err := l.empty(ctx, ""); err != nil {
		return result{}, err
	}
	return l.measure(ctx, variantNamed(upcallName), requests[:warm], requests[warm:], how, 0, "")
}

// cpu is what the receiver and PostgreSQL used.
func (r result) cpu() time.Duration { return r.receiverCPU + r.postgresCPU }

// each is a callback's share of d, to a tenth of a microsecond.
func (r result) each(d time.Duration) time.Duration {
	return (d / time.Duration(len(r.latencies))).Round(100 * time.Nanosecond)
}

func middleOf(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// earlier builds the programs of a commit in dir. It returns a lab on the same server, with
// that commit's receiver and a database of its own made by that commit's migrations.
func (l *lab) earlier(ctx context.Context, commit, dir string) (*lab, error) {
	source := filepath.Join(dir, "source")
	if err := command(ctx, "", nil, "git", "worktree", "add", "--detach", source, commit); err != nil {
		return nil, err
	}
	bin := filepath.Join(dir, "bin") + string(filepath.Separator)
	err := command(ctx, source, nil, "go", "build", "-o", bin, "./cmd/bench", "./cmd/receiver")
	if err := errors.Join(err, command(ctx, "", nil, "git", "worktree", "remove", "--force", source)); err != nil {
		return nil, err
	}
	database, err := l.createDatabase(ctx, "before")
	if err != nil {
		return nil, err
	}
	old := &lab{postgres: l.postgres, keys: l.keys, program: bin + "bench", databaseURL: database}
	env := append(os.Environ(), "UPCALL_DATABASE_URL="+old.databaseURL)
	if err := command(ctx, "", env, bin+"receiver", "migrate", "up"); err != nil {
		return nil, err
	}
	if old.pool, err = pgxpool.New(ctx, old.databaseURL); err != nil {
		return nil, err
	}
	return old, nil
}

// command runs a program in a directory. The error holds the program's output.
func command(ctx context.Context, dir string, env []string, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = dir, env
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", filepath.Base(name), err, text)
	}
	return nil
}
