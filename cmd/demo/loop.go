package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"upcall/internal/admission"
	"upcall/internal/callbackspec"
	"upcall/internal/embeddedpg"
	"upcall/internal/httpserver"
	"upcall/internal/issuer"
	"upcall/internal/notify"
	"upcall/internal/oss"
	"upcall/internal/ossemu"
	"upcall/internal/policy"
	"upcall/internal/receiver"
	"upcall/internal/uploadtoken"
	"upcall/migrations"
)

const (
	bucket    = "demo"
	region    = "cn-hangzhou"
	keyID     = "ossemu"
	keySecret = "ossemu-secret"
	tokenKeys = "demo:a secret of this machine only"
	// notifyGrace is how long a notification waits for its callback. The emulator calls back at once.
	notifyGrace = 5 * time.Second
	// drain is how long the emulator waits for uploads when it is stopped.
	drain = 5 * time.Second
)

// policies allow everything that the demo suggests to try. The callback URL is filled in.
const policies = `policies:
  demo:
    buckets: [demo]
    key_prefixes: ["*"]
    key_templates: ["uploads/${date}/${uuid}-${filename}"]
    content_types: ["*/*"]
    max_size: 1GiB
    max_expiry: 7d
    callback_urls: [%q]
    allowed_vars: [uid, album]
`

// A loop is everything an upload needs, running.
type loop struct {
	logger      *slog.Logger
	tokens      *uploadtoken.Keyring
	databaseURL string
	public      net.Listener // of the receiver, once it is known where OSS calls back and notifies
	admin       net.Listener
	adminURL    string // of the receiver's API and console
	callbackURL string
	ossURL      string
	apiURL      string // of the issuer
	appURL      string // of the application that is told of uploads
	told        *told
	pageKey     string // of the upload page and the issuer's API
	operatorKey string // of the console and the receiver's API

	ended chan struct{} // closed once a part ends, by itself or because it is stopped
	end   func()        // closes ended
	stops []func() error
}

// start starts every part. After a failure, it stops those that it has started.
func start(ctx context.Context, opts *command, logger *slog.Logger) (*loop, error) {
	tokens, err := uploadtoken.ParseKeys(tokenKeys)
	if err != nil {
		return nil, err
	}
	l := &loop{logger: logger, tokens: tokens, ended: make(chan struct{}), told: newTold()}
	l.end = sync.OnceFunc(func() { close(l.ended) })
	for _, part := range []func(context.Context, *command) error{
		l.startPostgres, l.listenReceiver, l.startOSS, l.startApp, l.startReceiver, l.startIssuer, l.makeKeys} {
		if err := part(ctx, opts); err != nil {
			return nil, errors.Join(err, l.stop())
		}
	}
	return l, nil
}

// stop stops every part, the last first. Call it once.
func (l *loop) stop() error {
	var errs []error
	for _, stop := range slices.Backward(l.stops) {
		errs = append(errs, stop())
	}
	return errors.Join(errs...)
}

// background runs a part until stop stops it. The signal, which ends ctx, does not.
func (l *loop) background(ctx context.Context, part func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 1)
	go func() {
		ended <- part(ctx)
		l.end()
	}()
	l.stops = append(l.stops, func() error { cancel(); return <-ended })
}

func (l *loop) startPostgres(ctx context.Context, opts *command) error {
	cfg := embeddedpg.Config{Logger: l.logger}
	if opts.DataDir != "" {
		cfg.DataDir = filepath.Join(opts.DataDir, "postgres")
	}
	postgres, err := embeddedpg.Start(ctx, cfg)
	if err != nil {
		return err
	}
	l.stops = append(l.stops, postgres.Stop)
	l.databaseURL = postgres.URL()
	return migrations.Up(ctx, l.databaseURL)
}

// listenReceiver opens the receiver's listeners, which what comes before it must know. What waits there is
// served once the receiver is.
func (l *loop) listenReceiver(_ context.Context, opts *command) error {
	var err error
	if l.public, err = listen("callbacks", opts.ReceiverPort, 8080); err != nil {
		return err
	}
	if l.admin, err = listen("the console", opts.ReceiverAdminPort, 8081); err != nil {
		return errors.Join(err, l.public.Close())
	}
	l.adminURL = "http://" + l.admin.Addr().String()
	l.callbackURL = "http://" + l.public.Addr().String() + "/oss/callback"
	l.stops = append(l.stops, func() error { // the receiver closes them, if it was started
		_, _ = l.public.Close(), l.admin.Close()
		return nil
	})
	return nil
}

func (l *loop) startOSS(ctx context.Context, opts *command) error {
	listener, err := listen("the emulator", opts.OSSPort, 9000)
	if err != nil {
		return err
	}
	l.ossURL = "http://" + listener.Addr().String()
	cfg := ossemu.Config{
		AccessKeyID: keyID, AccessKeySecret: keySecret, Region: region, Buckets: []string{bucket},
		PublicURL: l.ossURL, Logger: l.logger,
		NotifyURL: "http://" + l.public.Addr().String() + notify.DefaultPath,
	}
	if opts.DataDir != "" {
		cfg.DataDir = filepath.Join(opts.DataDir, "objects")
	}
	emulator, err := ossemu.New(cfg)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	server := httpserver.New(emulator, l.logger)
	server.ReadTimeout, server.WriteTimeout = 0, 0 // a large object may take any time
	server.RegisterOnShutdown(emulator.Close)
	l.background(ctx, func(ctx context.Context) error {
		return httpserver.Serve(ctx, l.logger, drain, httpserver.Site{Server: server, Listener: listener})
	})
	return nil
}

func (l *loop) startReceiver(ctx context.Context, opts *command) error {
	topics, err := notify.ParseTopics([]string{ossemu.DefaultTopic})
	if err != nil {
		return err
	}
	cfg := receiver.Config{
		DatabaseURL: l.databaseURL, Admission: admission.Config{Tokens: l.tokens}, Logger: l.logger,
		TrustKeyURLs: []string{l.ossURL + ossemu.PublicKeyPath},
		Notify:       notify.Config{Topics: topics}, NotifyGrace: notifyGrace,
	}
	if cfg.Hooks, err = l.hooks(); err != nil {
		return err
	}
	if opts.Stay {
		cfg.Logger = slog.New(callbackLines{l.logger.Handler(), l.told})
	}
	l.background(ctx, func(ctx context.Context) error { return receiver.Run(ctx, cfg, l.public, l.admin) })
	return nil
}

func (l *loop) startIssuer(ctx context.Context, opts *command) error {
	allowed, err := policy.Parse(fmt.Appendf(nil, policies, l.callbackURL), callbackspec.AnyHost)
	if err != nil {
		return err
	}
	api, err := listen("applications", opts.IssuerPort, 8082)
	if err != nil {
		return err
	}
	admin, err := listen("the issuer's health", new(int), 0)
	if err != nil {
		return errors.Join(err, api.Close())
	}
	l.apiURL = "http://" + api.Addr().String()
	cfg := issuer.Config{
		DatabaseURL: l.databaseURL, Tokens: l.tokens, Policies: allowed, Page: true, Logger: l.logger,
		OSS: oss.Config{Region: region, Endpoint: l.ossURL, AccessKeyID: keyID, AccessKeySecret: keySecret},
	}
	l.background(ctx, func(ctx context.Context) error { return issuer.Run(ctx, cfg, api, admin) })
	return nil
}
