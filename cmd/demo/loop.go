package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"

	"upcall/internal/embeddedpg"
	"upcall/internal/issue"
	"upcall/internal/oss"
	"upcall/internal/ossemu"
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
)

// places say where the parts of a loop are.
type places struct {
	data               string // "" means nowhere for long
	public, admin, oss string // listeners
}

// A loop is everything an upload needs, running.
type loop struct {
	databaseURL string
	callbackURL string
	ossURL      string
	issuer      *issue.Issuer
	broken      chan struct{} // closed when a part ended by itself
	stop        func() error  // ends every part, in order; callable once
}

// start starts every part. What was started before a failure is stopped.
func start(ctx context.Context, at places, logger *slog.Logger) (*loop, error) {
	var stops []func() error
	l := &loop{broken: make(chan struct{})}
	l.stop = func() error {
		var err error
		for _, stop := range stops {
			err = errors.Join(stop(), err)
		}
		return err
	}
	later := func(stop func() error) { stops = append([]func() error{stop}, stops...) }
	fail := func(err error) (*loop, error) { return nil, errors.Join(err, l.stop()) }

	postgresDir, objectsDir := "", ""
	if at.data != "" {
		postgresDir, objectsDir = filepath.Join(at.data, "postgres"), filepath.Join(at.data, "objects")
	}
	postgres, err := embeddedpg.Start(ctx, embeddedpg.Config{DataDir: postgresDir, Logger: logger})
	if err != nil {
		return fail(err)
	}
	later(postgres.Stop)
	l.databaseURL = postgres.URL()
	if err := migrations.Up(ctx, l.databaseURL); err != nil {
		return fail(err)
	}

	ossListener, err := net.Listen("tcp", at.oss)
	if err != nil {
		return fail(err)
	}
	l.ossURL = "http://" + ossListener.Addr().String()
	emulator, err := ossemu.New(ossemu.Config{AccessKeyID: keyID, AccessKeySecret: keySecret, Region: region,
		Buckets: []string{bucket}, DataDir: objectsDir, PublicURL: l.ossURL, Logger: logger})
	if err != nil {
		return fail(errors.Join(err, ossListener.Close()))
	}
	ossServer := &http.Server{Handler: emulator}
	go ossServer.Serve(ossListener)
	later(func() error { emulator.Close(); return ossServer.Close() })

	stopReceiver, err := l.startReceiver(ctx, at, logger)
	if err != nil {
		return fail(err)
	}
	later(stopReceiver)

	if l.issuer, err = newIssuer(l.ossURL); err != nil {
		return fail(err)
	}
	return l, nil
}

func (l *loop) startReceiver(ctx context.Context, at places, logger *slog.Logger) (func() error, error) {
	public, err := net.Listen("tcp", at.public)
	if err != nil {
		return nil, err
	}
	admin, err := net.Listen("tcp", at.admin)
	if err != nil {
		return nil, errors.Join(err, public.Close())
	}
	l.callbackURL = "http://" + public.Addr().String() + "/oss/callback"
	keys, err := uploadtoken.ParseKeys(tokenKeys)
	if err != nil {
		return nil, err
	}
	// The receiver is told to stop by us, in its turn, and not by the signal.
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 1)
	go func() {
		ended <- receiver.Run(ctx, receiver.Config{
			DatabaseURL: l.databaseURL, Tokens: keys, Logger: logger,
			TrustKeyURLs: []string{l.ossURL + ossemu.PublicKeyPath},
		}, public, admin)
		close(l.broken)
	}()
	return func() error { cancel(); return <-ended }, nil
}

func newIssuer(ossURL string) (*issue.Issuer, error) {
	presigner, err := oss.New(oss.Config{Region: region, Endpoint: ossURL, AccessKeyID: keyID, AccessKeySecret: keySecret})
	if err != nil {
		return nil, err
	}
	keys, err := uploadtoken.ParseKeys(tokenKeys)
	if err != nil {
		return nil, err
	}
	return issue.New(issue.Config{Presigner: presigner, Tokens: keys})
}

// printCommands says what is up and what to try.
func (l *loop) printCommands(out io.Writer) {
	fmt.Fprintf(out, `Everything is up until Ctrl-C: PostgreSQL, the OSS emulator at %[1]s, the receiver at %[2]s.

Issue an upload, upload a file, and see the receiver's answer:

  export OSS_ENDPOINT=%[1]s OSS_REGION=%[3]s OSS_ACCESS_KEY_ID=%[4]s OSS_ACCESS_KEY_SECRET=%[5]s
  export UPCALL_CALLBACK_URL=%[2]s UPCALL_TOKEN_KEYS='%[6]s'
  go run ./cmd/issuer put --bucket %[7]s --key hello.txt --var uid=42

See the rows:

  psql '%[8]s' -c 'SELECT * FROM upcall.upload_events'

See what the emulator sent and what came back, and make it misbehave:

  curl %[1]s/_ossemu/callbacks
  curl -X PUT %[1]s/_ossemu/faults -d '{"corrupt_signature": true}'
`, l.ossURL, l.callbackURL, region, keyID, keySecret, tokenKeys, bucket, l.databaseURL)
}
