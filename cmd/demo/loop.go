package main

import (
	"context"
	"errors"
	"fmt"
	"io"
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
	"upcall/internal/oss"
	"upcall/internal/ossemu"
	"upcall/internal/policy"
	"upcall/internal/receiver"
	"upcall/internal/uploadtoken"
	"upcall/migrations"
)

const (
	anyPort   = "127.0.0.1:0"
	bucket    = "demo"
	region    = "cn-hangzhou"
	keyID     = "ossemu"
	keySecret = "ossemu-secret"
	tokenKeys = "demo:a secret of this machine only"
	// drain is how long the emulator waits for uploads when it is stopped.
	drain = 5 * time.Second
)

// policies allow what there is to try. The callback's URL is filled in.
const policies = `policies:
  demo:
    buckets: [demo]
    key_prefixes: ["*"]
    content_types: ["*/*"]
    max_size: 1GiB
    max_expiry: 7d
    callback_urls: [%q]
    allowed_vars: [uid, album]
`

// options say where the parts of a loop listen, and what is kept.
type options struct {
	data                    string // "" keeps nothing
	public, admin, oss, api string // listeners
}

// A loop is everything an upload needs, running.
type loop struct {
	logger      *slog.Logger
	tokens      *uploadtoken.Keyring
	databaseURL string
	callbackURL string
	ossURL      string
	apiURL      string // of the issuer

	broken chan struct{} // closed when a part ended by itself, or was stopped
	end    func()        // closes broken
	stops  []func() error
}

// start starts every part. What was started before a failure is stopped.
func start(ctx context.Context, opts options, logger *slog.Logger) (*loop, error) {
	tokens, err := uploadtoken.ParseKeys(tokenKeys)
	if err != nil {
		return nil, err
	}
	l := &loop{logger: logger, tokens: tokens, broken: make(chan struct{})}
	l.end = sync.OnceFunc(func() { close(l.broken) })
	for _, part := range []func(context.Context, options) error{l.startPostgres, l.startOSS, l.startReceiver, l.startIssuer} {
		if err := part(ctx, opts); err != nil {
			return nil, errors.Join(err, l.stop())
		}
	}
	return l, nil
}

// stop ends every part, the last first. It is called once.
func (l *loop) stop() error {
	var errs []error
	for _, stop := range slices.Backward(l.stops) {
		errs = append(errs, stop())
	}
	return errors.Join(errs...)
}

// background runs a part until it is stopped in its turn, and not by the signal.
func (l *loop) background(ctx context.Context, part func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 1)
	go func() {
		ended <- part(ctx)
		l.end()
	}()
	l.stops = append(l.stops, func() error { cancel(); return <-ended })
}

func (l *loop) startPostgres(ctx context.Context, opts options) error {
	cfg := embeddedpg.Config{Logger: l.logger}
	if opts.data != "" {
		cfg.DataDir = filepath.Join(opts.data, "postgres")
	}
	postgres, err := embeddedpg.Start(ctx, cfg)
	if err != nil {
		return err
	}
	l.stops = append(l.stops, postgres.Stop)
	l.databaseURL = postgres.URL()
	return migrations.Up(ctx, l.databaseURL)
}

func (l *loop) startOSS(ctx context.Context, opts options) error {
	listener, err := net.Listen("tcp", opts.oss)
	if err != nil {
		return err
	}
	l.ossURL = "http://" + listener.Addr().String()
	cfg := ossemu.Config{
		AccessKeyID: keyID, AccessKeySecret: keySecret, Region: region, Buckets: []string{bucket},
		PublicURL: l.ossURL, Logger: l.logger,
	}
	if opts.data != "" {
		cfg.DataDir = filepath.Join(opts.data, "objects")
	}
	emulator, err := ossemu.New(cfg)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	server := httpserver.New(emulator, l.logger)
	server.ReadTimeout, server.WriteTimeout = 0, 0 // a large object takes as long as it takes
	server.RegisterOnShutdown(emulator.Close)
	l.background(ctx, func(ctx context.Context) error {
		return httpserver.Serve(ctx, l.logger, drain, httpserver.Site{Server: server, Listener: listener})
	})
	return nil
}

func (l *loop) startReceiver(ctx context.Context, opts options) error {
	public, admin, err := httpserver.Listen("callbacks", opts.public, opts.admin)
	if err != nil {
		return err
	}
	l.callbackURL = "http://" + public.Addr().String() + "/oss/callback"
	cfg := receiver.Config{
		DatabaseURL: l.databaseURL, Admission: admission.Config{Tokens: l.tokens}, Logger: l.logger,
		TrustKeyURLs: []string{l.ossURL + ossemu.PublicKeyPath},
	}
	l.background(ctx, func(ctx context.Context) error { return receiver.Run(ctx, cfg, public, admin) })
	return nil
}

func (l *loop) startIssuer(ctx context.Context, opts options) error {
	allowed, err := policy.Parse(fmt.Appendf(nil, policies, l.callbackURL), callbackspec.AnyHost)
	if err != nil {
		return err
	}
	api, admin, err := httpserver.Listen("applications", opts.api, anyPort)
	if err != nil {
		return err
	}
	l.apiURL = "http://" + api.Addr().String()
	cfg := issuer.Config{
		DatabaseURL: l.databaseURL, Tokens: l.tokens, Policies: allowed, Logger: l.logger,
		OSS: oss.Config{Region: region, Endpoint: l.ossURL, AccessKeyID: keyID, AccessKeySecret: keySecret},
	}
	l.background(ctx, func(ctx context.Context) error { return issuer.Run(ctx, cfg, api, admin) })
	return nil
}

// printCommands says what is up and what to try.
func (l *loop) printCommands(out io.Writer) {
	fmt.Fprintf(out, `Everything is up until Ctrl-C: PostgreSQL, the OSS emulator at %[1]s, the receiver at %[2]s,
the issuer at %[9]s.

Issue an upload, upload a file, and see the receiver's answer:

  export OSS_ENDPOINT=%[1]s OSS_REGION=%[3]s OSS_ACCESS_KEY_ID=%[4]s OSS_ACCESS_KEY_SECRET=%[5]s
  export UPCALL_CALLBACK_URL=%[2]s UPCALL_TOKEN_KEYS='%[6]s'
  export UPCALL_DATABASE_URL='%[8]s'
  go run ./cmd/issuer put --bucket %[7]s --key hello.txt --var uid=42

Or ask the issuer for one, as an application does:

  KEY=$(go run ./cmd/issuer keys add --policy demo)
  curl -H "Authorization: Bearer $KEY" -H 'Content-Type: application/json' %[9]s/v1/uploads \
    -d '{"key":"hello.txt","content_type":"text/plain","size":12,"vars":{"uid":"42"}}'

See the rows, and what became of each issued upload:

  psql '%[8]s' -c 'SELECT * FROM upcall.upload_events'
  psql '%[8]s' -c 'SELECT * FROM upcall.upload_status'

See what the emulator sent and what came back, and make it misbehave:

  curl %[1]s/_ossemu/callbacks
  curl -X PUT %[1]s/_ossemu/faults -d '{"corrupt_signature": true}'
`, l.ossURL, l.callbackURL, region, keyID, keySecret, tokenKeys, bucket, l.databaseURL, l.apiURL)
}
