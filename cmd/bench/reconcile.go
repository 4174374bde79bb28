package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/cli"
	"upcall/internal/embeddedpg"
	"upcall/internal/eventstore"
	"upcall/internal/reconcile"
	"upcall/migrations"
)

type reconcileCommand struct {
	Objects int    `default:"10000000" help:"Objects in the bucket, and in the log, about."`
	Rate    int    `default:"1000" help:"Most requests a second."`
	DataDir string `placeholder:"DIR" help:"Where PostgreSQL has its data; filled if it is empty. Default temporary."`
}

// Run fills a database, has receiver reconcile compare it with a bucket of which it knows the differences, kills
// it in the middle of the listing and of the comparison, and says what it took.
func (cmd *reconcileCommand) Run(ctx context.Context, std cli.Stdio) error {
	if cmd.Objects < blockSize || cmd.Rate < 1 {
		return cli.Usage(fmt.Errorf("give at least %d objects, and a request a second", blockSize))
	}
	b := bucketOf(cmd.Objects, time.Now().Truncate(24*time.Hour).UTC())
	server, err := embeddedpg.Start(ctx, embeddedpg.Config{MaxConnections: 50, DataDir: cmd.DataDir})
	if err != nil {
		return err
	}
	defer server.Stop()
	if err := migrations.Up(ctx, server.URL()); err != nil {
		return err
	}
	patient, err := withoutTimeout(server.URL())
	if err != nil {
		return err
	}
	pool, err := eventstore.Open(ctx, patient)
	if err != nil {
		return err
	}
	defer pool.Close()
	if err := b.fill(ctx, pool, std.Err); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "upcall-reconcile")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "receiver")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", program, "upcall/cmd/receiver").CombinedOutput(); err != nil {
		return fmt.Errorf("build receiver: %w: %s", err, out)
	}
	oss := httptest.NewServer(b)
	defer oss.Close()
	want := b.differences()
	fmt.Fprintf(std.Out, "PostgreSQL %s, fsync=on; %d objects are listed, at most %d requests a second; %d rows in the log\n",
		server.Version(), want.Listed, cmd.Rate, b.rows())
	trial := reconcileTrial{program: program, databaseURL: server.URL(), endpoint: oss.URL, rate: cmd.Rate, pool: pool, out: std.Out}
	began := time.Now()
	inList := fmt.Sprintf("stage = 'list' AND listed > %d", want.Listed/2)
	inCompare := fmt.Sprintf("stage = 'compare' AND known > %d", want.Known/2)
	for _, kill := range []string{inList, inCompare, "false"} {
		if err := trial.run(ctx, kill); err != nil {
			return err
		}
	}
	fmt.Fprintf(std.Out, "all in %s, with 2 waits for the lease of a process that was killed; %d listings and %d objects were asked for\n",
		time.Since(began).Round(time.Second), b.lists.Load(), b.heads.Load())
	fmt.Fprintf(std.Out, "longest writing transaction of the three: %s or a little more\n", trial.longest.Round(time.Millisecond))
	return trial.compare(ctx, want)
}

// A reconcileTrial runs receiver reconcile.
type reconcileTrial struct {
	program, databaseURL, endpoint string
	rate                           int
	pool                           *pgxpool.Pool
	out                            io.Writer
	result                         reconcile.Result
	longest                        time.Duration // of a writing transaction
}

// run runs one process until it ends, or its row satisfies a condition, upon which it is killed.
func (t *reconcileTrial) run(ctx context.Context, kill string) error {
	cmd := exec.CommandContext(ctx, t.program, "reconcile", "--bucket", benchBucket, "--format", "json", "--retention", "400d",
		"--rate", fmt.Sprint(t.rate))
	cmd.Env = append(os.Environ(), "UPCALL_DATABASE_URL="+t.databaseURL, "OSS_REGION=cn-hangzhou", "OSS_ENDPOINT="+t.endpoint,
		"UPCALL_PATH_STYLE=true", "OSS_ACCESS_KEY_ID=bench", "OSS_ACCESS_KEY_SECRET=bench")
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start receiver: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	ticker := time.NewTicker(25 * time.Millisecond)
	defer ticker.Stop()
	var peak float64
	stages, killed, former := make(map[string]time.Duration), false, int64(-1)
	for last := began; ; {
		select {
		case err := <-ended:
			fmt.Fprintf(t.out, "%s: %s; peak memory %.1f MB (VmHWM); %s\n", map[bool]string{true: "killed", false: "ended"}[killed],
				time.Since(began).Round(100*time.Millisecond), peak/1e6, stagesText(stages))
			if killed {
				return nil
			}
			if err != nil {
				return fmt.Errorf("receiver reconcile: %w: %s", err, said.String())
			}
			return json.Unmarshal(out.Bytes(), &t.result)
		case <-ticker.C:
		}
		if n, err := peakMemory(cmd.Process.Pid); err == nil {
			peak = max(peak, n)
		}
		var stage string
		var fence int64
		var open *float64
		var enough bool
		err := t.pool.QueryRow(ctx, `SELECT coalesce((SELECT stage FROM upcall.reconcile_runs WHERE ended_at IS NULL), ''),
			coalesce((SELECT fence FROM upcall.reconcile_runs WHERE ended_at IS NULL), 0),
			(SELECT max(extract(epoch FROM clock_timestamp() - xact_start))::float8 FROM pg_stat_activity
				WHERE backend_xid IS NOT NULL AND application_name = 'upcall' AND pid <> pg_backend_pid()),
			EXISTS (SELECT FROM upcall.reconcile_runs WHERE ended_at IS NULL AND `+kill+`)`).Scan(&stage, &fence, &open, &enough)
		if err != nil {
			return errors.Join(fmt.Errorf("watch run: %w", err), cmd.Process.Kill())
		}
		if open != nil {
			t.longest = max(t.longest, time.Duration(*open*float64(time.Second)))
		}
		if former < 0 {
			former = fence
		}
		if fence == former {
			stage = "waiting" // for the lease
		}
		now := time.Now()
		stages[stage] += now.Sub(last)
		last = now
		if enough && !killed {
			killed = true
			if err := cmd.Process.Kill(); err != nil {
				return fmt.Errorf("kill receiver: %w", err)
			}
		}
	}
}

func stagesText(stages map[string]time.Duration) (text string) {
	for _, stage := range []string{"waiting", "list", "compare", "recover", "vanish", "note"} {
		if took := stages[stage]; took > 0 {
			text += fmt.Sprintf(" %s %s", stage, took.Round(100*time.Millisecond))
		}
	}
	return text
}

// compare compares what was found with the differences that there are.
func (t *reconcileTrial) compare(ctx context.Context, want reconcile.Counts) error {
	fmt.Fprintf(t.out, "found %+v\nthere %+v\n", t.result.Counts, want)
	var events, removals int64
	err := t.pool.QueryRow(ctx, `SELECT (SELECT count(*) FROM upcall.upload_events WHERE source = 'reconcile'),
		(SELECT count(*) FROM upcall.removals WHERE source = 'reconcile')`).Scan(&events, &removals)
	if err != nil {
		return fmt.Errorf("count rows: %w", err)
	}
	if t.result.Counts != want || events != want.Recovered || removals != want.Vanished {
		return fmt.Errorf("the differences are not exact; %d events, %d removals", events, removals)
	}
	fmt.Fprintf(t.out, "the differences are exact; %d events, %d removals\n", events, removals)
	return nil
}
