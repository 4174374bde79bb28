package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"upcall/internal/cli"
	"upcall/internal/fault"
	"upcall/internal/ossemu"
)

type serveCommand struct {
	Listen          string   `default:":9000" placeholder:"ADDR" setting:"OSSEMU_LISTEN" help:"Address to listen on."`
	AccessKeyID     string   `name:"access-key-id" default:"ossemu" placeholder:"ID" setting:"OSSEMU_ACCESS_KEY_ID" help:"${access_key_id}"`
	AccessKeySecret string   `placeholder:"SECRET" help:"${access_key_secret}"`
	SecurityToken   string   `placeholder:"TOKEN" help:"${security_token}"`
	Region          string   `default:"cn-hangzhou" placeholder:"REGION" setting:"OSSEMU_REGION" help:"Region, without a leading oss-."`
	Buckets         []string `default:"demo" placeholder:"NAME" setting:"OSSEMU_BUCKETS" help:"Buckets that exist."`
	PublicURL       string   `name:"public-url" placeholder:"URL" setting:"OSSEMU_PUBLIC_URL" help:"${public_url}"`
	DataDir         string   `placeholder:"DIR" setting:"OSSEMU_DATA_DIR" help:"Directory for the objects. By default they stay in memory."`
	AllowedOrigins  []string `placeholder:"ORIGIN" setting:"OSSEMU_ALLOWED_ORIGINS" help:"Origins that browsers may upload from. Default all."`
}

const (
	defaultSecret = "ossemu-secret"
	drainTimeout  = 30 * time.Second
)

// config builds the emulator's configuration and collects what is wrong with the
// secrets; the rest is for ossemu.Config.Check.
func (s serveCommand) config(env cli.Env, log *slog.Logger) (ossemu.Config, error) {
	secret, err1 := cli.Secret(s.AccessKeySecret, env, "OSSEMU_ACCESS_KEY_SECRET")
	token, err2 := cli.Secret(s.SecurityToken, env, "OSSEMU_SECURITY_TOKEN")
	return ossemu.Config{AccessKeyID: s.AccessKeyID, AccessKeySecret: cmp.Or(secret, defaultSecret), SecurityToken: token, Region: s.Region,
		Buckets: s.Buckets, PublicURL: s.PublicURL, DataDir: s.DataDir, AllowedOrigins: s.AllowedOrigins, Logger: log}, fault.Join(err1, err2)
}

// Run serves until ctx is done, then answers what is under way.
func (s serveCommand) Run(ctx context.Context, env cli.Env, std cli.Stdio) error {
	cfg, err := s.config(env, slog.New(slog.NewTextHandler(std.Err, nil)))
	_, _, addrErr := net.SplitHostPort(s.Listen)
	if addrErr != nil {
		addrErr = fmt.Errorf("listen address %q is not host:port; write :9000, say", s.Listen)
	}
	if err := fault.Join(addrErr, err, cfg.Check()); err != nil {
		return cli.Usage(err)
	}
	listener, err := net.Listen("tcp", s.Listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	address := "http://" + reachable(listener.Addr().String())
	if cfg.PublicURL == "" {
		cfg.PublicURL = address
	}
	emulator, err := ossemu.New(cfg)
	if err != nil {
		return errors.Join(fmt.Errorf("start: %w", err), listener.Close())
	}
	server := &http.Server{
		Handler:           emulator,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		ErrorLog:          slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelWarn),
	}
	server.RegisterOnShutdown(emulator.Close)
	fmt.Fprintf(std.Out, "ossemu: serving %s, callback key at %s\n", address, strings.TrimSuffix(cfg.PublicURL, "/")+ossemu.PublicKeyPath)

	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	// The signal has ended ctx; draining needs a life of its own.
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	if err := server.Shutdown(drain); err != nil {
		return errors.Join(fmt.Errorf("drain: %w", err), server.Close())
	}
	return nil
}

// reachable turns a listener's address into one that this machine can dial.
func reachable(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

type healthcheckCommand struct {
	Listen  string        `default:":9000" placeholder:"ADDR" setting:"OSSEMU_LISTEN" help:"Address that the emulator listens on."`
	Timeout time.Duration `default:"3s" placeholder:"DURATION" setting:"OSSEMU_TIMEOUT" help:"How long to wait."`
}

func (h healthcheckCommand) Run(ctx context.Context, std cli.Stdio) error {
	ctx, cancel := context.WithTimeout(ctx, h.Timeout)
	defer cancel()
	url := "http://" + reachable(h.Listen) + "/_ossemu/health"
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return cli.Usage(fmt.Errorf("listen address %q is not host:port", h.Listen))
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("check health: %w", err)
	}
	defer response.Body.Close() // only its status counts
	if response.StatusCode != http.StatusOK {
		return errors.New("check health: the emulator answered " + strconv.Itoa(response.StatusCode))
	}
	fmt.Fprintln(std.Out, "ok")
	return nil
}
