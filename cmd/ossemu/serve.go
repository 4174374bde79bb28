package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"time"

	"upcall/internal/cli"
	"upcall/internal/fault"
	"upcall/internal/httpserver"
	"upcall/internal/ossemu"
)

type serveCommand struct {
	Listen          string   `default:"127.0.0.1:9000" placeholder:"ADDR" setting:"OSSEMU_LISTEN" help:"Address to listen on."`
	AccessKeyID     string   `name:"access-key-id" default:"ossemu" placeholder:"ID" setting:"OSSEMU_ACCESS_KEY_ID" help:"${access_key_id}"`
	AccessKeySecret string   `placeholder:"SECRET" help:"${access_key_secret}"`
	SecurityToken   string   `placeholder:"TOKEN" help:"${security_token}"`
	Region          string   `default:"cn-hangzhou" placeholder:"REGION" setting:"OSSEMU_REGION" help:"Region, without a leading oss-."`
	Buckets         []string `default:"demo" placeholder:"NAME" setting:"OSSEMU_BUCKETS" help:"Buckets that exist."`
	PublicURL       string   `name:"public-url" placeholder:"URL" setting:"OSSEMU_PUBLIC_URL" help:"${public_url}"`
	DataDir         string   `placeholder:"DIR" setting:"OSSEMU_DATA_DIR" help:"Directory for the objects. By default they stay in memory."`

	CORSOrigins []string      `name:"cors-origins" default:"*" placeholder:"ORIGIN" setting:"OSSEMU_CORS_ORIGINS" help:"${cors_origins}"`
	CORSMethods []string      `name:"cors-methods" default:"${methods}" setting:"OSSEMU_CORS_METHODS" help:"${cors_methods}"`
	CORSHeaders []string      `name:"cors-headers" default:"*" placeholder:"NAME" setting:"OSSEMU_CORS_HEADERS" help:"${cors_headers}"`
	CORSExpose  []string      `name:"cors-expose" default:"${expose}" placeholder:"NAME" setting:"OSSEMU_CORS_EXPOSE" help:"${cors_expose}"`
	CORSMaxAge  time.Duration `name:"cors-max-age" default:"60s" placeholder:"DURATION" setting:"OSSEMU_CORS_MAX_AGE" help:"${cors_age}"`

	NotifyURL    string        `name:"notify-url" placeholder:"URL" setting:"OSSEMU_NOTIFY_URL" help:"${notify_url}"`
	NotifyTopic  string        `default:"${topic}" placeholder:"OWNER/TOPIC" setting:"OSSEMU_NOTIFY_TOPIC" help:"${notify_topic}"`
	NotifyFormat string        `default:"XML" placeholder:"FORMAT" setting:"OSSEMU_NOTIFY_FORMAT" help:"${notify_format}"`
	NotifyDelay  time.Duration `default:"0s" placeholder:"DURATION" setting:"OSSEMU_NOTIFY_DELAY" help:"${notify_delay}"`

	LogLevel string `default:"info" placeholder:"LEVEL" setting:"OSSEMU_LOG_LEVEL" help:"Least level to log: debug, info, warn or error."`

	AllowedOrigins []string `placeholder:"ORIGIN" setting:"OSSEMU_ALLOWED_ORIGINS" help:"${allowed_origins}"`
}

// noCORS stands for a bucket without a CORS rule, where origins are listed.
const noCORS = "none"

// errOrigins: two settings are one.
var errOrigins = errors.New("--allowed-origins (OSSEMU_ALLOWED_ORIGINS) is the older name of --cors-origins (OSSEMU_CORS_ORIGINS); " +
	"set one of them")

// cors is the rule that the flags describe.
func (s serveCommand) cors() (ossemu.CORSRule, error) {
	rule := ossemu.CORSRule{
		Origins: s.CORSOrigins, Methods: s.CORSMethods, Headers: s.CORSHeaders, Expose: s.CORSExpose, MaxAge: s.CORSMaxAge,
	}
	var err error
	if len(s.AllowedOrigins) > 0 {
		if !slices.Equal(rule.Origins, []string{"*"}) {
			err = errOrigins
		}
		rule.Origins = s.AllowedOrigins
	}
	if slices.Equal(rule.Origins, []string{noCORS}) {
		rule.Origins = nil
	}
	return rule, err
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
	rule, err3 := s.cors()
	return ossemu.Config{AccessKeyID: s.AccessKeyID, AccessKeySecret: cmp.Or(secret, defaultSecret), SecurityToken: token, Region: s.Region,
		Buckets: s.Buckets, PublicURL: s.PublicURL, DataDir: s.DataDir, CORS: &rule,
		NotifyURL: s.NotifyURL, NotifyTopic: s.NotifyTopic, NotifyFormat: s.NotifyFormat, NotifyDelay: s.NotifyDelay,
		Logger: log}, fault.Join(err1, err2, err3)
}

// Check returns all mistakes in the settings.
func (s serveCommand) Check(env cli.Env) error {
	cfg, err := s.config(env, slog.New(slog.DiscardHandler))
	_, levelErr := cli.ParseLevel("OSSEMU_LOG_LEVEL", s.LogLevel)
	return fault.Join(cli.CheckListener("OSSEMU_LISTEN", s.Listen, "9000"), levelErr, err, cfg.Check())
}

// Run serves until ctx is done, then answers what is under way.
func (s serveCommand) Run(ctx context.Context, env cli.Env, std cli.Stdio, settings cli.Settings) error {
	if err := s.Check(env); err != nil {
		return cli.Usage(err)
	}
	level, _ := cli.ParseLevel("", s.LogLevel)
	cfg, _ := s.config(env, slog.New(slog.NewTextHandler(std.Err, &slog.HandlerOptions{Level: level})))
	defer cli.Started(ctx, cfg.Logger, settings)()
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
	server := httpserver.New(emulator, cfg.Logger)
	server.ReadTimeout, server.WriteTimeout = 0, 0 // a large object takes as long as it takes
	server.RegisterOnShutdown(emulator.Close)
	fmt.Fprintf(std.Out, "ossemu: serving %s, callback key at %s\n", address, strings.TrimSuffix(cfg.PublicURL, "/")+ossemu.PublicKeyPath)
	return httpserver.Serve(ctx, cfg.Logger, drainTimeout, httpserver.Site{Server: server, Listener: listener})
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
	Listen  string        `default:"127.0.0.1:9000" placeholder:"ADDR" setting:"OSSEMU_LISTEN" help:"Address that the emulator listens on."`
	Timeout time.Duration `default:"3s" placeholder:"DURATION" setting:"OSSEMU_TIMEOUT" help:"How long to wait; 0s waits without limit."`
}

func (h healthcheckCommand) Run(ctx context.Context, std cli.Stdio) error {
	if err := cli.CheckHealth(ctx, reachable(h.Listen), "/_ossemu/health", h.Timeout); err != nil {
		return err
	}
	fmt.Fprintln(std.Out, "ok")
	return nil
}
