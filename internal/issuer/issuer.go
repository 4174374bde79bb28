// Package issuer assembles the issuer's service, from the database to the listeners, and
// runs it until it is told to stop. The program and the demo both run it.
package issuer

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"time"

	"golang.org/x/time/rate"

	"upcall/internal/eventstore"
	"upcall/internal/httpserver"
	"upcall/internal/issue"
	"upcall/internal/issueapi"
	"upcall/internal/issueapi/page"
	"upcall/internal/oss"
	"upcall/internal/policy"
	"upcall/internal/tracing"
	"upcall/internal/uploadtoken"
	"upcall/migrations"
)

// Config says what issuer to run.
type Config struct {
	// DatabaseURL of PostgreSQL, which holds the ledger and the API keys. Required.
	DatabaseURL string
	// OSS is where uploads go, with the credentials that sign them. Required.
	OSS oss.Config
	// Tokens mints the upload tokens, which tie callbacks to the uploads in the ledger.
	// Required.
	Tokens *uploadtoken.Keyring

	// These are as in issueapi.Config.
	Policies *policy.Set
	Rate     rate.Limit
	Burst    int

	// Reloads takes sets of policies that replace Policies. Default none.
	Reloads <-chan *policy.Set

	// Proxies are our own, between the applications and us. Default none.
	Proxies httpserver.Proxies
	// Page serves the upload page at /. Default off.
	Page bool
	// Traces traces calls and the batches of the ledger. Default none.
	Traces *tracing.Traces
	// Logger gets one event for each request. Required.
	Logger *slog.Logger
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

// Run serves applications on api, and health and metrics on admin, until ctx ends. Then it
// finishes the requests that it has accepted and returns. Both listeners accept connections
// before Run is called, so the caller need not wait.
//
// Run does not serve on a schema that is too old: its error then wraps
// migrations.ErrTooOld. An unreachable database is not an error: it may come back, and
// until then the issuer is not ready and answers 503.
func Run(ctx context.Context, cfg Config, api, admin net.Listener) error {
	defer cfg.Traces.Close()
	if cfg.Tokens == nil {
		return errors.New("issuer: Tokens are required")
	}
	pool, err := eventstore.Open(ctx, cfg.DatabaseURL)
	if err != nil {
		return err
	}
	defer pool.Close()
	err = eventstore.IssuerRights().Check(ctx, pool)
	if err == nil {
		err = migrations.Check(ctx, pool)
	}
	switch {
	case errors.Is(err, migrations.ErrTooOld), errors.Is(err, migrations.ErrDirty), errors.Is(err, eventstore.ErrMistake):
		return err
	case eventstore.Mistake(err) != nil:
		return eventstore.Mistake(err)
	case err != nil && ctx.Err() == nil:
		cfg.Logger.WarnContext(ctx, "database cannot be reached; serving 503 until it can", slog.String("error", err.Error()))
	}
	metrics, batches, registry := issueapi.NewMetrics(), eventstore.NewBatches("upcall_issuer", "Uploads"), httpserver.NewRegistry()
	registry.MustRegister(append(metrics.Collectors(), batches.Collectors()...)...)
	writers, err := eventstore.OpenTracedRecorder(ctx, cfg.DatabaseURL, cfg.Traces.Queries())
	if err != nil {
		return err
	}
	defer writers.Close()
	ledger, err := eventstore.NewLedger(eventstore.Config{Pool: writers, OnBatch: batches.Observe, Batch: cfg.Traces.Batch()})
	if err != nil {
		return err
	}
	defer ledger.Close()
	ready := func(ctx context.Context) error {
		if err := migrations.Check(ctx, pool); err != nil {
			return err
		}
		return ledger.Ping(ctx)
	}
	client, err := oss.New(cfg.OSS)
	if err != nil {
		return err
	}
	uploads, err := issue.New(issue.Config{OSS: client, Tokens: cfg.Tokens, Ledger: ledger, Now: cfg.Now})
	if err != nil {
		return err
	}
	uploadPage, err := cfg.page(ctx, client)
	if err != nil {
		return err
	}
	server, err := issueapi.New(issueapi.Config{
		Issuer: uploads, CallbackHosts: issue.CallbackHosts(cfg.OSS.Host()), Ledger: eventstore.NewUploads(pool),
		Repeats:  eventstore.NewRepeatables(pool),
		Keys:     eventstore.NewAPIKeys(pool),
		Policies: cfg.Policies, Rate: cfg.Rate, Burst: cfg.Burst, Page: uploadPage, Module: page.Module(false), Types: page.Module(true),
		Proxies: cfg.Proxies, Trace: cfg.Traces.Calls(),
		Metrics: metrics, Logger: cfg.Logger, Now: cfg.Now,
	})
	if err != nil {
		return err
	}
	cfg.Logger.InfoContext(ctx, "serving", slog.String("api_listen", api.Addr().String()),
		slog.String("admin_listen", admin.Addr().String()), slog.Any("policies", cfg.Policies.Names()))
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	go cfg.reload(ctx, client, server)
	private := httpserver.New(httpserver.Admin(httpserver.Plain(ready), registry), cfg.Logger)
	return server.Serve(ctx, api, httpserver.Site{Server: private, Listener: admin})
}

// reload replaces the policies until ctx ends.
func (cfg Config) reload(ctx context.Context, client *oss.Client, server *issueapi.Server) {
	for {
		select {
		case cfg.Policies = <-cfg.Reloads:
		case <-ctx.Done():
			return
		}
		uploadPage, err := cfg.page(ctx, client)
		if err != nil {
			cfg.Logger.WarnContext(ctx, "policies were not reloaded; those from before apply", slog.String("error", err.Error()))
			continue
		}
		server.SetPolicies(cfg.Policies, uploadPage)
		cfg.Logger.InfoContext(ctx, "policies reloaded", slog.Any("policies", cfg.Policies.Names()))
	}
}

// page returns the upload page, or nil if it is off. The page may upload only to the buckets
// of the policies.
func (cfg Config) page(ctx context.Context, client *oss.Client) (http.Handler, error) {
	if !cfg.Page {
		return nil, nil
	}
	var origins []string
	for _, name := range cfg.Policies.Names() {
		for _, bucket := range cfg.Policies.Policy(name).Buckets {
			origin, err := client.Origin(ctx, bucket)
			if err != nil {
				return nil, err
			}
			if !slices.Contains(origins, origin) {
				origins = append(origins, origin)
			}
		}
	}
	return page.Handler(origins), nil
}
