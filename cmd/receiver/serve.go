package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"upcall/internal/admission"
	"upcall/internal/callbackspec"
	"upcall/internal/cli"
	"upcall/internal/embeddedpg"
	"upcall/internal/fault"
	"upcall/internal/httpserver"
	"upcall/internal/receiver"
	"upcall/internal/uploadtoken"
	"upcall/migrations"
)

type serveCommand struct {
	database
	Listen       string   `setting:"UPCALL_LISTEN" default:":8080" placeholder:"ADDR" help:"${listen}"`
	AdminListen  string   `setting:"UPCALL_ADMIN_LISTEN" default:"127.0.0.1:8081" placeholder:"ADDR" help:"${admin_listen}"`
	CallbackPath string   `setting:"UPCALL_CALLBACK_PATH" default:"/oss/callback" placeholder:"PATH" help:"Path that OSS calls."`
	PublicURL    string   `name:"public-url" setting:"UPCALL_PUBLIC_URL" placeholder:"URL" help:"${public_url}"`
	TokenKeys    string   `placeholder:"KID:SECRET,…" help:"${token_keys}"`
	Token        string   `setting:"UPCALL_TOKEN" default:"required" placeholder:"POLICY" help:"${token}"`
	Buckets      []string `setting:"UPCALL_BUCKETS" placeholder:"NAME" help:"${buckets}"`
	Fields       string   `setting:"UPCALL_FIELDS" placeholder:"NAME=VARIABLE,…" help:"${fields}"`
	TrustKeyURLs []string `name:"trust-key-urls" setting:"UPCALL_TRUST_KEY_URLS" placeholder:"URL" help:"${trust_key_urls}"`
	Retention    string   `setting:"UPCALL_RETENTION" placeholder:"DAYSd" help:"${retention}"`
	MaxRefusals  int      `setting:"UPCALL_MAX_REFUSALS" default:"100000" placeholder:"ROWS" help:"${max_refusals}"`
	spoolLimits
}

// spoolDir is where the spool is, for every command that needs it.
type spoolDir struct {
	SpoolDir string `setting:"UPCALL_SPOOL_DIR" placeholder:"DIR" help:"${spool_dir}"`
}

type spoolLimits struct {
	spoolDir
	SpoolMaxBytes     int64 `setting:"UPCALL_SPOOL_MAX_BYTES" default:"1073741824" placeholder:"BYTES" help:"${spool_max}"`
	SpoolMinFreeBytes int64 `setting:"UPCALL_SPOOL_MIN_FREE_BYTES" default:"268435456" placeholder:"BYTES" help:"${spool_min_free}"`
}

// minFree returns the limit as spool.Config has it, where 0 is the default.
func (l *spoolLimits) minFree() int64 {
	if l.SpoolMinFreeBytes == 0 {
		return -1
	}
	return l.SpoolMinFreeBytes
}

// database is where PostgreSQL is, for every command that needs it.
type database struct {
	cli.DatabaseFlags
	DataDir string `setting:"UPCALL_DATA_DIR" default:".upcall" placeholder:"DIR" help:"Data directory of an embedded PostgreSQL."`
}

// embedded is the database URL that stands for a private PostgreSQL.
const embedded = "embedded"

// required returns the database's URL, or what to do where there is none.
func (d *database) required(env cli.Env) (string, error) {
	url, err := d.URL(env)
	if err == nil && url == "" {
		err = errors.New("no database: set UPCALL_DATABASE_URL to postgres://user:password@host/database, or to embedded")
	}
	return url, err
}

// open returns the URL of a running PostgreSQL and what to do with it at the end.
func (d *database) open(ctx context.Context, url string, logger *slog.Logger) (string, func() error, error) {
	if url != embedded {
		return url, func() error { return nil }, nil
	}
	server, err := embeddedpg.Start(ctx, embeddedpg.Config{DataDir: d.DataDir, Logger: logger})
	if err != nil {
		return "", nil, fmt.Errorf("start embedded PostgreSQL: %w", err)
	}
	return server.URL(), server.Stop, nil
}

func (cmd *serveCommand) Run(ctx context.Context, env cli.Env, std cli.Stdio) error {
	logger := slog.New(slog.NewJSONHandler(std.Err, nil))
	cfg, databaseURL, err := cmd.config(env)
	if err != nil {
		return cli.Usage(err)
	}
	cfg.Logger = logger
	if cfg.Admission.Tokens != nil {
		for _, kid := range cfg.Admission.Tokens.Weak() {
			logger.WarnContext(ctx, "token secret is short enough to be guessed",
				slog.String("key_id", kid), slog.Int("recommended_bytes", uploadtoken.WeakSecret))
		}
	}
	url, stop, err := cmd.open(ctx, databaseURL, logger)
	if err != nil {
		return err
	}
	return errors.Join(cmd.serve(ctx, cfg, url, databaseURL == embedded), stop())
}

// trimmed takes the blanks off that people put after commas.
func trimmed(list []string) []string {
	for i := range list {
		list[i] = strings.TrimSpace(list[i])
	}
	return list
}

// config reads every setting and reports all mistakes at once.
func (cmd *serveCommand) config(env cli.Env) (receiver.Config, string, error) {
	var faults fault.List
	note := func(variable string, err error) { faults.Add(fault.In(variable, err)) }
	databaseURL, err := cmd.required(env)
	faults.Add(err)
	if err == nil && databaseURL != embedded {
		note("UPCALL_DATABASE_URL", migrations.CheckURL(databaseURL))
	}
	faults.Add(cli.CheckListener("UPCALL_LISTEN", cmd.Listen, "8080"), cli.CheckListener("UPCALL_ADMIN_LISTEN", cmd.AdminListen, "8081"))
	cfg := receiver.Config{
		Admission: admission.Config{
			CallbackPath: cmd.CallbackPath,
			PublicURL:    cmd.PublicURL,
			Buckets:      trimmed(cmd.Buckets),
			TokenPolicy:  admission.TokenPolicy(strings.TrimSpace(cmd.Token)),
		},
		TrustKeyURLs: trimmed(cmd.TrustKeyURLs),
		SpoolDir:     cmd.SpoolDir, SpoolMaxBytes: cmd.SpoolMaxBytes, SpoolMinFreeBytes: cmd.minFree(),
	}
	cfg.RetentionDays, err = receiver.ParseRetention(cmd.Retention)
	note("UPCALL_RETENTION", err)
	if cfg.MaxRefusals = cmd.MaxRefusals; cfg.MaxRefusals <= 0 {
		cfg.MaxRefusals = -1
	}
	if cfg.Admission.Tokens, err = cli.TokenKeys(cmd.TokenKeys, env); err != nil {
		faults.Add(err)
		cfg.Admission.Tokens = &uploadtoken.Keyring{} // there are keys, so that Check says nothing of them
	}
	cfg.Admission.Fields, err = callbackspec.ParseFields(cmd.Fields)
	note("UPCALL_FIELDS", err)
	return cfg, databaseURL, fault.Join(faults, cfg.Check())
}

func (cmd *serveCommand) serve(ctx context.Context, cfg receiver.Config, databaseURL string, private bool) error {
	cfg.DatabaseURL = databaseURL
	if private {
		// Nobody but this process can reach a private database to migrate it.
		if err := migrations.Up(ctx, databaseURL); err != nil {
			return err
		}
	}
	public, admin, err := httpserver.Listen("callbacks", cmd.Listen, cmd.AdminListen)
	if err != nil {
		return err
	}
	defer public.Close()
	defer admin.Close()
	return receiver.Run(ctx, cfg, public, admin)
}
