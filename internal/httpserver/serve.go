// Package httpserver is what the listeners of the receiver and of the issuer have in
// common: how they start and end, what the private one shows, how a request is read,
// logged and counted.
//
// Gin is known here, where its engine is set up, and in the two packages whose routes it
// runs, intake and issueapi. The private listener is plain net/http, so that a component
// can add its routes there without Gin.
package httpserver

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"
)

// A Site is a server and where it listens.
type Site struct {
	Server   *http.Server
	Listener net.Listener
}

// Serve serves all sites until ctx ends or one of them breaks, because one without the
// others is of no use. Then it ends them in their order: each takes no further connections
// and answers what it has accepted, for which all of them together have the time drain. So
// health and metrics are there to the end if they come last.
//
// The error is of a listener that broke, or of requests that were still open after drain.
func Serve(ctx context.Context, logger *slog.Logger, drain time.Duration, sites ...Site) error {
	running, stop := context.WithCancel(ctx)
	defer stop()
	var group errgroup.Group
	for _, site := range sites {
		group.Go(func() error {
			defer stop()
			if err := site.Server.Serve(site.Listener); !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			return nil
		})
	}
	<-running.Done()
	logger.InfoContext(ctx, "draining", slog.Duration("at_most", drain))
	// The signal has ended ctx; draining needs a life of its own.
	patience, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
	defer cancel()
	var errs []error
	for _, site := range sites {
		if err := site.Server.Shutdown(patience); err != nil {
			errs = append(errs, err, site.Server.Close())
		}
	}
	return errors.Join(append(errs, group.Wait())...)
}

// New returns a server with timeouts that fit short requests. The caller may change them
// before it serves.
func New(handler http.Handler, logger *slog.Logger) *http.Server {
	return &http.Server{
		Handler: handler,
		// Someone who sends headers or a body byte by byte could hold a connection forever.
		ReadHeaderTimeout: 3 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      time.Minute,
		IdleTimeout:       2 * time.Minute,
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}
}
