package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"upcall/internal/ossemu"
)

type serveCommand struct {
	Listen              string   `default:":9000" placeholder:"ADDR" help:"Address to listen on. [OSSEMU_LISTEN, ${default}]"`
	AccessKeyID         string   `name:"access-key-id" default:"ossemu" placeholder:"ID" help:"The one access key id that exists. [OSSEMU_ACCESS_KEY_ID, ${default}]"`
	AccessKeySecret     string   `placeholder:"SECRET" help:"Its secret. [OSSEMU_ACCESS_KEY_SECRET, ossemu-secret]"`
	AccessKeySecretFile string   `placeholder:"FILE" help:"File that holds the secret. [OSSEMU_ACCESS_KEY_SECRET_FILE]"`
	SecurityToken       string   `placeholder:"TOKEN" help:"STS token that requests must carry; none without. [OSSEMU_SECURITY_TOKEN]"`
	SecurityTokenFile   string   `placeholder:"FILE" help:"File that holds the token. [OSSEMU_SECURITY_TOKEN_FILE]"`
	Region              string   `default:"cn-hangzhou" help:"Region, without oss- before it. [OSSEMU_REGION, ${default}]"`
	Buckets             []string `default:"demo" help:"Buckets that exist, separated by commas. [OSSEMU_BUCKETS, ${default}]"`
	PublicURL           string   `name:"public-url" placeholder:"URL" help:"Address under which callback receivers fetch the public key. [OSSEMU_PUBLIC_URL, from the listener]"`
	DataDir             string   `placeholder:"DIR" help:"Directory that keeps the objects; in memory without. [OSSEMU_DATA_DIR]"`
	AllowedOrigins      []string `placeholder:"ORIGIN" help:"Origins that browsers may upload from. [OSSEMU_ALLOWED_ORIGINS, all]"`
}

const (
	defaultSecret = "ossemu-secret"
	drainTimeout  = 30 * time.Second
)

// config builds the emulator's configuration and collects what is wrong with the
// secrets; the rest is for ossemu.Config.Check.
func (s serveCommand) config(log *slog.Logger) (ossemu.Config, error) {
	secret, err1 := secretFrom("access key secret", s.AccessKeySecret, s.AccessKeySecretFile, defaultSecret)
	token, err2 := secretFrom("security token", s.SecurityToken, s.SecurityTokenFile, "")
	cfg := ossemu.Config{AccessKeyID: s.AccessKeyID, AccessKeySecret: secret, SecurityToken: token, Region: s.Region,
		Buckets: s.Buckets, PublicURL: s.PublicURL, DataDir: s.DataDir, AllowedOrigins: s.AllowedOrigins, Logger: log}
	if err1 != nil {
		cfg.AccessKeySecret = defaultSecret // so that it is not reported twice
	}
	return cfg, errors.Join(err1, err2)
}

func secretFrom(what, value, file, fallback string) (string, error) {
	switch {
	case value != "" && file != "":
		return "", fmt.Errorf("%s is given both directly and by file; use one", what)
	case file != "":
		data, err := os.ReadFile(file)
		if err != nil {
			return "", fmt.Errorf("read %s: %w", what, err)
		}
		if value = strings.TrimRight(string(data), "\r\n"); value == "" {
			return "", fmt.Errorf("read %s: the file %s is empty", what, file)
		}
		return value, nil
	case value == "":
		return fallback, nil
	}
	return value, nil
}

// Run serves until ctx is done, then answers what is under way.
func (s serveCommand) Run(ctx context.Context, std streams) error {
	cfg, err := s.config(slog.New(slog.NewTextHandler(std.err, nil)))
	_, _, addrErr := net.SplitHostPort(s.Listen)
	if addrErr != nil {
		addrErr = fmt.Errorf("listen address %q is not host:port; write :9000, say", s.Listen)
	}
	if err := errors.Join(addrErr, err, cfg.Check()); err != nil {
		return fmt.Errorf("%w\n%w", err, errUsage)
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
	fmt.Fprintf(std.out, "ossemu: serving %s, callback key at %s\n", address, strings.TrimSuffix(cfg.PublicURL, "/")+ossemu.PublicKeyPath)

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
	Listen  string        `default:":9000" placeholder:"ADDR" help:"Address that the emulator listens on. [OSSEMU_LISTEN, ${default}]"`
	Timeout time.Duration `default:"3s" help:"How long to wait. [OSSEMU_TIMEOUT, ${default}]"`
}

func (h healthcheckCommand) Run(ctx context.Context, std streams) error {
	ctx, cancel := context.WithTimeout(ctx, h.Timeout)
	defer cancel()
	url := "http://" + reachable(h.Listen) + "/_ossemu/health"
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("listen address %q is not host:port; %w", h.Listen, errUsage)
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
	fmt.Fprintln(std.out, "ok")
	return nil
}
