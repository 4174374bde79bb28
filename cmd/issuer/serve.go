package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"

	"golang.org/x/time/rate"

	"upcall/internal/callbackspec"
	"upcall/internal/cli"
	"upcall/internal/fault"
	"upcall/internal/httpserver"
	"upcall/internal/issue"
	"upcall/internal/issuer"
	"upcall/internal/policy"
	"upcall/internal/tracing"
	"upcall/migrations"
)

type serveCommand struct {
	serviceFlags `group:"service"`
	databaseFlags
	cli.LogFlags `group:"service"`
	cli.OSSFlags `group:"oss"`
}

type serviceFlags struct {
	APIListen      string   `default:"127.0.0.1:8082" placeholder:"ADDR" setting:"UPCALL_API_LISTEN" help:"Listener for applications."`
	APIAdminListen string   `default:"127.0.0.1:8083" placeholder:"ADDR" setting:"UPCALL_API_ADMIN_LISTEN" help:"${api_admin_listen}"`
	APIRate        string   `default:"100" placeholder:"N" setting:"UPCALL_API_RATE" help:"${api_rate}"`
	APIBurst       string   `default:"200" placeholder:"N" setting:"UPCALL_API_BURST" help:"${api_burst}"`
	TrustedProxies []string `placeholder:"NETWORK" setting:"UPCALL_TRUSTED_PROXIES" help:"${trusted_proxies}"`
	Policies       string   `placeholder:"FILE" setting:"UPCALL_POLICIES" help:"${policies}"`
	Page           bool     `setting:"UPCALL_PAGE" help:"${page}"`
}

// Help is shown below the summary of the command.
func (*serveCommand) Help() string {
	return `/openapi.yaml describes the API. To create an API key, run issuer keys add.

The policy file is read when the program starts, and again after SIGHUP; if it has a mistake then, the
log says so and the policies from before apply:

  policies:
    photos:
      buckets: [demo]
      key_prefixes: ["photos/${apikey.id}/"]
      key_templates: ["made/${apikey.id}/${date}/${uuid}-${filename}"]
      content_types: [image/*]
      max_size: 20MiB
      max_expiry: 1h
      callback_urls: ["https://uploads.example.com/oss/callback"]
      required_vars: [uid]
      allowed_vars: [album]`
}

// Run serves until ctx ends. kong calls it.
func (c *serveCommand) Run(ctx context.Context, env cli.Env, std cli.Stdio, settings cli.Settings) error {
	cfg, err := c.config(env)
	if err != nil {
		return cli.Usage(err)
	}
	if cfg.Logger, err = c.Logger(std.Err); err != nil {
		return cli.Usage(err)
	}
	if cfg.Traces, err = tracing.New(ctx, "issuer", env, cfg.Logger); err != nil {
		return cli.Usage(err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	reloads := make(chan *policy.Set)
	cfg.Reloads = reloads
	cli.OnHangup(ctx, func() { c.reload(ctx, cfg, reloads) })
	defer cli.Started(ctx, cfg.Logger, settings)()
	warnRegion(std.Err, c.Region)
	warn(std.Err, true, cfg.Tokens)
	api, admin, err := httpserver.Listen("applications", c.APIListen, c.APIAdminListen)
	if err != nil {
		return err
	}
	defer api.Close()
	defer admin.Close()
	err = issuer.Run(ctx, cfg, api, admin)
	if errors.Is(err, migrations.ErrURL) {
		return cli.Usage(fault.In("UPCALL_DATABASE_URL", err))
	}
	return err
}

// reload reads the policy file again. A file with a mistake changes nothing.
func (c *serveCommand) reload(ctx context.Context, cfg issuer.Config, reloads chan<- *policy.Set) {
	policies, err := readPolicies(c.Policies, issue.CallbackHosts(cfg.OSS.Host()))
	if err != nil {
		cfg.Logger.WarnContext(ctx, "policies were not reloaded; those from before apply", slog.String("error", fault.Line(err.Error())))
		return
	}
	select {
	case reloads <- policies:
	case <-ctx.Done():
	}
}

// Check returns all mistakes in the settings.
func (c *serveCommand) Check(env cli.Env) error {
	_, err := c.config(env)
	return err
}

// config reads every setting and reports all mistakes at once.
func (c *serveCommand) config(env cli.Env) (issuer.Config, error) {
	cfg := issuer.Config{Page: c.Page}
	var faults fault.List
	_, err := cli.ParseLevel("--log-level", c.LogLevel)
	faults.Add(err, tracing.Check(env), cli.CheckListener("--api-listen", c.APIListen, "8082"),
		cli.CheckListener("--api-admin-listen", c.APIAdminListen, "8083"))
	if c.APIListen == c.APIAdminListen && !strings.HasSuffix(c.APIListen, ":0") {
		faults.AddAt("--api-admin-listen", "%q is the listener for applications; choose another port, which they do not reach",
			c.APIAdminListen)
	}
	cfg.OSS, err = c.OSSFlags.Config(env)
	faults.Add(err)
	cfg.Tokens, err = cli.TokenKeys("", env)
	faults.Add(err)
	if err == nil && cfg.Tokens == nil {
		// Without a token a callback cannot be matched with an upload in the ledger.
		faults.AddAt("UPCALL_TOKEN_KEYS",
			"is not set, but callbacks are matched with issued uploads by their tokens; set it to kid:secret, as for the receiver")
	}
	cfg.DatabaseURL, err = c.required(env)
	faults.Add(err)
	cfg.Policies, err = readPolicies(c.Policies, issue.CallbackHosts(cfg.OSS.Host()))
	faults.Add(err)
	cfg.Proxies, err = httpserver.ParseProxies(c.TrustedProxies)
	faults.Add(err)
	limit, err := strconv.ParseFloat(c.APIRate, 64)
	if err != nil || !(limit > 0 && limit <= 1e6) {
		faults.AddAt("--api-rate", "%q is not a number of requests per second; write 100, or 0.5 for one every two seconds", c.APIRate)
	}
	cfg.Burst, err = strconv.Atoi(c.APIBurst)
	if err != nil || cfg.Burst < 1 || cfg.Burst > 1e6 {
		faults.AddAt("--api-burst", "%q is not a number of requests; write 200, say", c.APIBurst)
	}
	cfg.Rate = rate.Limit(limit)
	return cfg, faults.Err()
}

// readPolicies reads a policy file. Each mistake is reported with the file, its line and
// its column.
func readPolicies(path string, hosts callbackspec.Hosts) (*policy.Set, error) {
	if path == "" {
		return nil, fault.At("--policies", "no policy file is given; issuer serve --help shows one")
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, fault.In("--policies", err)
	}
	defer file.Close()
	// One byte more than is allowed, so that an endless file, such as /dev/zero, is rejected
	// and does not fill the memory.
	data, err := io.ReadAll(io.LimitReader(file, policy.MaxFile+1))
	if err != nil {
		return nil, fault.In("--policies", err)
	}
	set, err := policy.Parse(data, hosts)
	return set, fault.Prefix(path+":", err)
}
