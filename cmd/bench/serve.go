package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime/pprof"

	"upcall/internal/admission"
	"upcall/internal/cli"
	"upcall/internal/confirm"
	"upcall/internal/eventstore"
	"upcall/internal/httpserver"
	"upcall/internal/intake"
	"upcall/internal/loadgen"
	"upcall/internal/notify"
	"upcall/internal/oss"
	"upcall/internal/receiver"
	"upcall/internal/stream"
	"upcall/internal/uploadtoken"
	"upcall/internal/verify"
)

// databaseURLVariable holds the receivers' database URL, which everyone on the machine could
// see on a command line.
const databaseURLVariable = "BENCH_DATABASE_URL"

type serveCommand struct {
	Variant string `required:""`
	KeyURL  string `name:"key-url" required:""`
	Profile string // file for a CPU profile; "" takes none

	LogLevel    string `name:"log-level" default:"info"`
	TokensOff   bool
	StreamURL   string `name:"stream-url"`
	StreamFront bool
	Finding     bool // with what finds uploads whose callbacks were lost
}

// Run runs the receiver of one variant.
func (cmd *serveCommand) Run(ctx context.Context, env cli.Env, std cli.Stdio) error {
	v, known := findVariant(cmd.Variant)
	if !known {
		return cli.Usage(fmt.Errorf("there is no variant %q", cmd.Variant))
	}
	if cmd.Profile != "" {
		file, err := os.Create(cmd.Profile)
		if err != nil {
			return fmt.Errorf("take profile: %w", err)
		}
		defer file.Close()
		if err := pprof.StartCPUProfile(file); err != nil {
			return fmt.Errorf("take profile: %w", err)
		}
		defer pprof.StopCPUProfile()
	}
	public, admin, err := httpserver.Listen("callbacks", "127.0.0.1:0", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer public.Close()
	defer admin.Close()
	keys, err := uploadtoken.ParseKeys(loadgen.TokenKeys)
	if err != nil {
		return err
	}
	// Clients that connect before it serves wait in the listeners' queues.
	fmt.Fprintln(std.Out, public.Addr(), admin.Addr())
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		io.Copy(io.Discard, std.In)
		stop()
	}()
	if v.name == tunedName {
		return serveTuned(ctx, env[databaseURLVariable], cmd.KeyURL, public)
	}
	level, err := cli.ParseLevel("log-level", cmd.LogLevel)
	if err != nil {
		return cli.Usage(err)
	}
	cfg := receiver.Config{
		DatabaseURL: env[databaseURLVariable], TrustKeyURLs: []string{cmd.KeyURL},
		Admission: admission.Config{Tokens: keys}, Logger: slog.New(slog.NewJSONHandler(io.Discard, &slog.HandlerOptions{Level: level})),
		Hooks: receiver.HooksConfig{Rules: loopback},
	}
	if cmd.StreamURL != "" {
		cfg.Stream, cfg.StreamFront = &stream.Config{URL: cmd.StreamURL}, cmd.StreamFront
	}
	if cmd.TokensOff {
		cfg.Admission.TokenPolicy = admission.TokenOff
	}
	if cmd.Finding {
		mode, err := confirm.ParseMode("sample:0.01")
		if err != nil {
			return err
		}
		cfg.Notify.Topics, cfg.NotifyGrace = []notify.Topic{{Owner: "1", Name: "bench"}}, receiver.DefaultNotifyGrace
		// Nothing listens there: what is confirmed is as old as NotifyGrace, and gone before.
		cfg.Confirm = &receiver.ConfirmConfig{Mode: mode, OSS: oss.Config{
			Region: "cn-hangzhou", Endpoint: "http://127.0.0.1:9", AccessKeyID: "bench", AccessKeySecret: "bench"}}
	}
	if v.recorder != nil {
		return cmd.imitate(ctx, v, cfg, public, admin)
	}
	return receive(ctx, cfg, public, admin)
}

// receive runs the receiver as shipped, with a spool and its own defaults.
func receive(ctx context.Context, cfg receiver.Config, public, admin net.Listener) error {
	if cfg.Stream != nil {
		return receiver.Run(ctx, cfg, public, admin)
	}
	spool, err := os.MkdirTemp("", "upcall-bench-")
	if err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	cfg.SpoolDir = spool
	return errors.Join(receiver.Run(ctx, cfg, public, admin), os.RemoveAll(spool))
}

// imitate runs Upcall's HTTP side with another recorder behind it.
func (cmd *serveCommand) imitate(ctx context.Context, v variant, cfg receiver.Config, public, admin net.Listener) error {
	pool, err := eventstore.OpenRecorder(ctx, cfg.DatabaseURL)
	if err != nil {
		return err
	}
	defer pool.Close()
	verifier, err := verify.New(verify.Config{TrustKeyURLs: cfg.TrustKeyURLs})
	if err != nil {
		return err
	}
	metrics, registry := intake.NewMetrics(), httpserver.NewRegistry()
	registry.MustRegister(metrics.Collectors()...)
	server, err := intake.New(intake.Config{
		Admission: cfg.Admission, Verifier: verifier, Recorder: v.recorder(pool, cmd.KeyURL), Metrics: metrics, Logger: cfg.Logger,
	})
	if err != nil {
		return err
	}
	private := httpserver.New(httpserver.Admin(httpserver.Plain(pool.Ping), registry), cfg.Logger)
	return server.Serve(ctx, public, httpserver.Site{Server: private, Listener: admin})
}
