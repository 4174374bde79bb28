package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"upcall/internal/admission"
	"upcall/internal/callbackspec"
	"upcall/internal/cli"
	"upcall/internal/embeddedpg"
	"upcall/internal/fault"
	"upcall/internal/hooks"
	"upcall/internal/httpserver"
	"upcall/internal/ossrule"
	"upcall/internal/receiver"
	"upcall/internal/tracing"
	"upcall/internal/uploadtoken"
	"upcall/migrations"
)

type serveCommand struct {
	database
	Listen         string   `setting:"UPCALL_LISTEN" default:":8080" placeholder:"ADDR" help:"${listen}"`
	AdminListen    string   `setting:"UPCALL_ADMIN_LISTEN" default:"127.0.0.1:8081" placeholder:"ADDR" help:"${admin_listen}"`
	CallbackPath   []string `setting:"UPCALL_CALLBACK_PATH" default:"/oss/callback" placeholder:"PATH" help:"${callback_path}"`
	Token          string   `setting:"UPCALL_TOKEN" default:"required" placeholder:"POLICY" help:"${token}"`
	TrustKeyURLs   []string `name:"trust-key-urls" setting:"UPCALL_TRUST_KEY_URLS" placeholder:"URL" help:"${trust_key_urls}"`
	TrustedProxies []string `setting:"UPCALL_TRUSTED_PROXIES" placeholder:"NETWORK" help:"${trusted_proxies}"`
	admissionFlags
	CaptureRefused string `setting:"UPCALL_CAPTURE_REFUSED" placeholder:"DIR" help:"${capture_refused}"`

	MaxEvents int `name:"max-events-per-upload" setting:"UPCALL_MAX_EVENTS_PER_UPLOAD" default:"100" placeholder:"N" help:"${max_events}"`
	retentionFlags
	spoolDir
	SpoolMaxBytes     int64 `setting:"UPCALL_SPOOL_MAX_BYTES" default:"1073741824" placeholder:"BYTES" help:"${spool_max}"`
	SpoolMinFreeBytes int64 `setting:"UPCALL_SPOOL_MIN_FREE_BYTES" default:"268435456" placeholder:"BYTES" help:"${spool_min_free}"`
	streamServeFlags
	hookServeFlags
	replyFlags
	notifyFlags
	confirmFlags
	reconcileServeFlags
	NotifyGrace time.Duration `name:"notify-grace" setting:"UPCALL_NOTIFY_GRACE" default:"2m" placeholder:"TIME" help:"${notify_grace}"`

	cli.LogFlags
	cli.OSSFlags `group:"oss"`
}

// admissionFlags say which callbacks are acceptable, for serve and doctor.
type admissionFlags struct {
	PublicURL string   `name:"public-url" setting:"UPCALL_PUBLIC_URL" placeholder:"URL" help:"${public_url}"`
	TokenKeys string   `placeholder:"KID:SECRET,…" help:"${token_keys}"`
	Buckets   []string `setting:"UPCALL_BUCKETS" placeholder:"NAME" help:"${buckets}"`
	Fields    string   `setting:"UPCALL_FIELDS" placeholder:"NAME=VARIABLE,…" help:"${fields}"`
}

// admission returns the settings of these flags, and all mistakes in them.
func (f *admissionFlags) admission(env cli.Env) (admission.Config, error) {
	cfg := admission.Config{PublicURL: f.PublicURL, Buckets: trimmed(f.Buckets)}
	var keys, fields error
	if cfg.Tokens, keys = cli.TokenKeys(f.TokenKeys, env); keys != nil {
		cfg.Tokens = &uploadtoken.Keyring{} // keeps Check from reporting that there are none
	}
	cfg.Fields, fields = callbackspec.ParseFields(f.Fields)
	return cfg, fault.Join(keys, fault.In("UPCALL_FIELDS", fields), checkBuckets(cfg.Buckets))
}

// checkBuckets rejects names that no bucket has: no callback could be accepted for them.
func checkBuckets(names []string) error {
	var faults fault.List
	for _, name := range names {
		faults.Add(fault.In("UPCALL_BUCKETS", ossrule.CheckBucket(name)))
	}
	return faults.Err()
}

// database says where PostgreSQL is, for every command that needs it.
type database struct {
	cli.DatabaseFlags
	DataDir string `setting:"UPCALL_DATA_DIR" default:".upcall" placeholder:"DIR" help:"Data directory of an embedded PostgreSQL."`
}

// embedded is the database URL that stands for a private PostgreSQL.
const embedded = "embedded"

// required returns the database's URL, or an error that says how to set it.
func (d *database) required(env cli.Env) (string, error) {
	url, err := d.URL(env)
	if err == nil && url == "" {
		err = errors.New("no database: set UPCALL_DATABASE_URL to postgres://user:password@host/database, or to embedded")
	}
	return url, err
}

// with runs work on the database that the flags name.
func (d *database) with(ctx context.Context, env cli.Env, std cli.Stdio, work func(url string) error) error {
	url, err := d.required(env)
	if err != nil {
		return cli.Usage(err)
	}
	return d.at(ctx, url, slog.New(slog.NewTextHandler(std.Err, nil)), work)
}

// at runs work on the database at url. An embedded one runs for as long as work does.
func (d *database) at(ctx context.Context, url string, logger *slog.Logger, work func(url string) error) error {
	if url != embedded {
		return work(url)
	}
	server, err := embeddedpg.Start(ctx, embeddedpg.Config{DataDir: d.DataDir, Logger: logger})
	if err != nil {
		return fmt.Errorf("start embedded PostgreSQL: %w", err)
	}
	return errors.Join(work(server.URL()), server.Stop())
}

func (cmd *serveCommand) Run(ctx context.Context, env cli.Env, std cli.Stdio, settings cli.Settings) error {
	cfg, err := cmd.config(env)
	if err != nil {
		return cli.Usage(err)
	}
	if cfg.Logger, err = cmd.Logger(std.Err); err != nil {
		return cli.Usage(err)
	}
	if cfg.Traces, err = tracing.New(ctx, "receiver", env, cfg.Logger); err != nil {
		return cli.Usage(err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	redeclare := make(chan []hooks.Declared)
	cfg.Hooks.Redeclare = redeclare
	cli.OnHangup(ctx, func() { cmd.reload(ctx, cfg.Logger, redeclare) })
	defer cli.Started(ctx, cfg.Logger, settings)()
	if cfg.Admission.Tokens != nil { // with tokens required, config has refused them
		for _, kid := range cfg.Admission.Tokens.Weak() {
			cfg.Logger.WarnContext(ctx, "token secret is short enough to be guessed",
				slog.String("key_id", kid), slog.Int("recommended_bytes", uploadtoken.WeakSecret))
		}
	}
	return cmd.at(ctx, cfg.DatabaseURL, cfg.Logger, func(url string) error { return cmd.serve(ctx, cfg, url) })
}

// trimmed removes the spaces that people put after commas.
func trimmed(list []string) []string {
	for i := range list {
		list[i] = strings.TrimSpace(list[i])
	}
	return list
}

// A count is a number in a setting, and how to say what someone means who gives less.
type count struct {
	setting  string
	n, least int64
	fix      string
}

func maxRefusals(n int) count {
	return count{"UPCALL_MAX_REFUSALS", int64(n), 0, "give 0 to keep none"}
}

// checkCounts rejects what would work as another setting does, or never.
func checkCounts(counts ...count) fault.List {
	var faults fault.List
	for _, c := range counts {
		if c.n < c.least {
			faults.AddNew(nil, c.setting, c.fix, "%d is less than %d", c.n, c.least)
		}
	}
	return faults
}

// zeroIsNone converts a flag in which 0 means none to a configuration in which -1 does.
func zeroIsNone[T int | int64](n T) T {
	if n <= 0 {
		return -1
	}
	return n
}

// config reads every setting and reports all mistakes at once.
func (cmd *serveCommand) config(env cli.Env) (receiver.Config, error) {
	cfg := receiver.Config{
		TrustKeyURLs: trimmed(cmd.TrustKeyURLs),
		CaptureDir:   cmd.CaptureRefused,
		SpoolDir:     cmd.SpoolDir, SpoolMaxBytes: cmd.SpoolMaxBytes, SpoolMinFreeBytes: zeroIsNone(cmd.SpoolMinFreeBytes),
		MaxEvents: zeroIsNone(cmd.MaxEvents), MaxRefusals: zeroIsNone(cmd.MaxRefusals), NotifyGrace: cmd.NotifyGrace,
	}
	faults := checkCounts(
		count{"UPCALL_MAX_EVENTS_PER_UPLOAD", int64(cmd.MaxEvents), 0, "give 0 for no limit"}, maxRefusals(cmd.MaxRefusals),
		count{"UPCALL_SPOOL_MAX_BYTES", cmd.SpoolMaxBytes, 1 << 20, "leave out UPCALL_SPOOL_DIR for no spool"},
		count{"UPCALL_SPOOL_MIN_FREE_BYTES", cmd.SpoolMinFreeBytes, 0, "give 0 to fill the disk"})
	var err error
	if cfg.DatabaseURL, err = cmd.required(env); err == nil && cfg.DatabaseURL != embedded {
		_, err = migrations.ParseURL(cfg.DatabaseURL)
		err = fault.In("UPCALL_DATABASE_URL", err)
	}
	_, levelErr := cli.ParseLevel("UPCALL_LOG_LEVEL", cmd.LogLevel)
	faults.Add(err, levelErr, tracing.Check(env), cli.CheckListener("UPCALL_LISTEN", cmd.Listen, "8080"),
		cli.CheckListener("UPCALL_ADMIN_LISTEN", cmd.AdminListen, "8081"))
	cfg.RetentionDays, cfg.Keeper, err = cmd.retention(&cmd.OSSFlags, env, true)
	faults.Add(err)
	cfg.Admission, err = cmd.admission(env)
	faults.Add(err)
	cfg.Stream, cfg.StreamFront, err = cmd.streamServeFlags.config(env)
	faults.Add(err)
	cfg.Hooks, err = cmd.hookServeFlags.config()
	faults.Add(err)
	cfg.Reply, err = cmd.replyFlags.config(env)
	faults.Add(err)
	cfg.Notify, err = cmd.notifyFlags.config(env)
	faults.Add(err)
	cfg.Confirm, err = cmd.confirmFlags.config(&cmd.OSSFlags, env)
	faults.Add(err)
	cfg.Reconcile, err = cmd.reconcileServeFlags.config(&cmd.OSSFlags, env)
	faults.Add(err)
	cfg.Proxies, err = httpserver.ParseProxies(cmd.TrustedProxies)
	faults.Add(err)
	cfg.Admission.CallbackPaths, cfg.Admission.TokenPolicy = trimmed(cmd.CallbackPath), admission.TokenPolicy(strings.TrimSpace(cmd.Token))
	if cfg.Admission.TokenPolicy == admission.TokenRequired && cfg.Admission.Tokens != nil {
		for _, kid := range cfg.Admission.Tokens.Weak() {
			faults.AddNew(nil, "UPCALL_TOKEN_KEYS", "make one with openssl rand -hex 32, for the issuers, too",
				"the secret of key %s can be guessed: it is shorter than %d bytes or has few different characters",
				kid, uploadtoken.WeakSecret)
		}
	}
	return cfg, fault.Join(faults, cfg.Check())
}

// Check returns all mistakes in the settings.
func (cmd *serveCommand) Check(env cli.Env) error {
	_, err := cmd.config(env)
	return err
}

func (cmd *serveCommand) serve(ctx context.Context, cfg receiver.Config, url string) error {
	if cfg.DatabaseURL == embedded { // no other process can migrate it
		if err := migrations.Up(ctx, url); err != nil {
			return err
		}
	}
	cfg.DatabaseURL = url
	public, admin, err := httpserver.Listen("callbacks", cmd.Listen, cmd.AdminListen)
	if err != nil {
		return err
	}
	defer public.Close()
	defer admin.Close()
	return receiver.Run(ctx, cfg, public, admin)
}
