package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"

	"upcall/internal/cli"
	"upcall/internal/eventstore"
	"upcall/internal/fault"
	"upcall/internal/feed"
	"upcall/internal/oss"
	"upcall/internal/ossrule"
	"upcall/internal/receiver"
	"upcall/internal/reconcile"
	"upcall/internal/rollup"
	"upcall/migrations"
)

// graceFlag says how young an object may be to be left alone, for serve and reconcile.
type graceFlag struct {
	Grace time.Duration `name:"reconcile-grace" setting:"UPCALL_RECONCILE_GRACE" default:"10m" help:"${reconcile_grace}"`
}

// grace is the setting as package reconcile has it.
func (f *graceFlag) grace() (time.Duration, error) {
	if f.Grace < 0 {
		return 0, fault.At("UPCALL_RECONCILE_GRACE", "%s is negative", f.Grace)
	}
	if f.Grace == 0 {
		return -1, nil
	}
	return f.Grace, nil
}

// reconcileServeFlags are those of serve.
type reconcileServeFlags struct {
	Every time.Duration `name:"reconcile-every" setting:"UPCALL_RECONCILE_EVERY" default:"0s" help:"${reconcile_every}"`
	graceFlag
}

// config returns the settings.
func (f *reconcileServeFlags) config(access *cli.OSSFlags, env cli.Env) (cfg receiver.ReconcileConfig, err error) {
	cfg.Every = f.Every
	cfg.Grace, err = f.grace()
	if f.Every == 0 {
		return cfg, err
	}
	var accessErr error
	cfg.OSS, accessErr = access.Config(env)
	return cfg, fault.Join(err, accessErr)
}

type reconcileCommand struct {
	database
	Bucket    string  `placeholder:"NAME" help:"The bucket. Required."`
	Prefix    string  `placeholder:"PREFIX" help:"Only objects whose keys begin with this. Default all."`
	Since     string  `placeholder:"TIME" help:"${reconcile_since}"`
	Inventory string  `placeholder:"DIR" help:"${reconcile_inventory}"`
	Rate      float64 `default:"20" placeholder:"N" help:"Send at most this many requests a second to OSS."`
	DryRun    bool    `name:"dry-run" help:"${reconcile_dry_run}"`
	Format    string  `default:"text" placeholder:"FORMAT" help:"text or json."`
	Retention string  `setting:"UPCALL_RETENTION" placeholder:"DAYSd" help:"${reconcile_retention}"`
	graceFlag

	cli.OSSFlags `group:"oss"`
}

// Help is shown below the summary of the command.
func (*reconcileCommand) Help() string {
	return `Uploads that were issued, that are in the bucket, and that no callback or notification told of are recorded.
Objects of the log that are gone are noted as removed. Nothing in the bucket is changed.

It reads page by page, and each step is remembered: if it is killed, run it again, and it continues. Only one
runs at a time, receivers with UPCALL_RECONCILE_EVERY included. It needs the rights oss:ListObjects (not with
--inventory) and oss:GetObject, and in the database those of a receiver. See docs/reconcile.md.`
}

func (cmd *reconcileCommand) Run(ctx context.Context, env cli.Env, std cli.Stdio) error {
	cfg, client, err := cmd.config(env)
	_, urlErr := cmd.required(env)
	if err := fault.Join(err, urlErr); err != nil {
		return cli.Usage(err)
	}
	if cmd.Inventory != "" {
		if cfg.Inventory, err = reconcile.OpenInventory(ctx, cmd.store(client)); err != nil {
			return cli.Usage(fault.In("--inventory", err))
		}
		if err := cfg.Check(); err != nil {
			return cli.Usage(fault.Prefix("--", err))
		}
	}
	limitMemory()
	cfg.Logger = slog.New(slog.NewTextHandler(std.Err, nil))
	return cmd.with(ctx, env, std, func(url string) error {
		result, err := cmd.reconcile(ctx, cfg, url, std.Err)
		if err != nil {
			if ctx.Err() != nil {
				return fmt.Errorf("interrupted; run it again, and it continues: %w", context.Cause(ctx))
			}
			if errors.Is(err, reconcile.ErrInventory) {
				return cli.Usage(fault.In("--inventory", err))
			}
			return fault.OneLine(errors.Join(eventstore.Mistake(err), err))
		}
		if cmd.Format == "json" {
			return json.NewEncoder(std.Out).Encode(result)
		}
		return cmd.print(std.Out, result)
	})
}

// reconcile runs beside what counts roll-ups, so that no receiver need run.
func (cmd *reconcileCommand) reconcile(
	ctx context.Context, cfg reconcile.Config, url string, progress io.Writer,
) (reconcile.Result, error) {
	if _, err := migrations.Status(ctx, url); err != nil { // has the clearest error for an unreachable database
		return reconcile.Result{}, err
	}
	pool, err := eventstore.OpenFeed(ctx, url)
	if err != nil {
		return reconcile.Result{}, err
	}
	defer pool.Close()
	if err := migrations.Check(ctx, pool); err != nil {
		return reconcile.Result{}, err
	}
	log, err := feed.New(feed.Config{Pool: pool, Logger: cfg.Logger})
	if err != nil {
		return reconcile.Result{}, err
	}
	consumers, err := feed.NewConsumers(feed.ConsumersConfig{Pool: pool})
	if err != nil {
		return reconcile.Result{}, err
	}
	worker, err := rollup.New(rollup.Config{Pool: pool, Log: log, Consumers: consumers, Logger: cfg.Logger})
	if err != nil {
		return reconcile.Result{}, err
	}
	working, stop := context.WithCancel(ctx)
	var others sync.WaitGroup
	others.Go(func() { log.Run(working) })
	others.Go(func() { worker.Run(working) })
	defer func() { stop(); others.Wait() }()
	cfg.Pool, cfg.Log, cfg.Patience = pool, log, time.Hour
	bar := cli.NewBar(progress)
	cfg.Report = func(p reconcile.Progress) { bar.Set(p.Share, progressText(p)) }
	result, err := reconcile.Run(ctx, cfg)
	bar.End()
	if result.Resumed {
		fmt.Fprintln(progress, "receiver: continued run", result.RunID)
	}
	return result, err
}

func progressText(p reconcile.Progress) string {
	switch p.Stage {
	case "list":
		return fmt.Sprintf("%d listed", p.Listed)
	case "compare":
		return fmt.Sprintf("compared; %d known", p.Known)
	case "recover":
		return fmt.Sprintf("%d missing, %d recorded", p.Missing, p.Recovered)
	}
	return fmt.Sprintf("%d vanished", p.Vanished)
}

func (cmd *reconcileCommand) print(out io.Writer, r reconcile.Result) error {
	recorded := fmt.Sprintf("%d recorded", r.Recovered)
	if cmd.DryRun {
		recorded = "none recorded in a dry run"
	}
	_, err := fmt.Fprintf(out, `%s: %d objects (run %d)
known      %d
missing    %d, %s; %.3g %% of what was issued
vanished   %d
foreign    %d, never issued
too old    %d
`, cmd.Bucket, r.Listed, r.RunID, r.Known, r.Missing, recorded, 100*r.LostShare, r.Vanished, r.Foreign, r.TooOld)
	return err
}

// config reads the flags. The error joins all mistakes.
func (cmd *reconcileCommand) config(env cli.Env) (reconcile.Config, *oss.Client, error) {
	cfg := reconcile.Config{Bucket: cmd.Bucket, Prefix: cmd.Prefix, Rate: cmd.Rate, DryRun: cmd.DryRun, Now: time.Now}
	var faults fault.List
	faults.Add(fault.Prefix("--", cfg.Check()))
	if cmd.Rate == 0 {
		faults.AddAt("--rate", "0 is not a number of requests a second")
	}
	var err error
	cfg.Since, err = parseTime("--since", cmd.Since)
	faults.Add(err)
	cfg.Grace, err = cmd.grace()
	faults.Add(err)
	cfg.KeepDays, err = receiver.ParseRetention(cmd.Retention)
	faults.Add(fault.In("UPCALL_RETENTION", err))
	if cmd.Format != "text" && cmd.Format != "json" {
		faults.AddAt("--format", "%q is unknown; use text or json", cmd.Format)
	}
	if rest, inOSS := strings.CutPrefix(cmd.Inventory, "oss://"); inOSS {
		bucket, prefix, _ := strings.Cut(rest, "/")
		faults.Add(fault.In("--inventory", fault.Join(ossrule.CheckBucket(bucket), ossrule.CheckKey(prefix))))
	} else if strings.Contains(cmd.Inventory, "://") {
		faults.AddAt("--inventory", "%q is of a scheme that is unknown; write oss://BUCKET/PREFIX", cmd.Inventory)
	}
	access, err := cmd.OSSFlags.Config(env)
	if faults.Add(err); faults.Err() != nil {
		return cfg, nil, faults.Err()
	}
	client, err := oss.New(access)
	cfg.OSS = client
	return cfg, client, err
}

// store returns where the inventory is.
func (cmd *reconcileCommand) store(client *oss.Client) reconcile.Store {
	rest, inOSS := strings.CutPrefix(cmd.Inventory, "oss://")
	if !inOSS {
		return reconcile.Dir(cmd.Inventory)
	}
	bucket, prefix, _ := strings.Cut(rest, "/")
	return reconcile.Objects{Client: client, Bucket: bucket, Prefix: prefix}
}
