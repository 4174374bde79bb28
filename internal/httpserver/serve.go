// Package httpserver is what the servers of the receiver and the issuer have in common: how
// they start and stop, what the private listener shows, and how requests are logged and
// counted.
//
// Only this package, which sets up the engine, and intake and issueapi, which add routes to
// it, use Gin. The private listener is plain net/http, so a component can add its routes
// without Gin.
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

// Serve serves all sites until ctx ends or one of them fails, because one is useless without
// the others. Then it stops them in order: each accepts no more connections and finishes the
// requests that it has accepted. All of them together have the time drain. If health and
// metrics come last, they work until the end.
//
// The error says which listener failed, or that requests were still open after drain.
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
	logger.InfoContext(ctx, "draining", slog.Int64("at_most_ms", drain.Milliseconds()))
	// ctx has ended, but draining must go on.
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

// MaxHeaderBytes limits a request line with its headers, unless a caller of [New] sets another
// limit. OSS sends less than 2 KiB.
const MaxHeaderBytes = 80 << 10

// New returns a server with timeouts for short requests. The caller may change them before
// it serves.
func New(handler http.Handler, logger *slog.Logger) *http.Server {
	return &http.Server{
		Handler: handler,
		// Without them, a client that sends byte by byte could keep a connection open forever.
		ReadHeaderTimeout: 3 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      time.Minute,
		IdleTimeout:       2 * time.Minute,
		// Anyone may open connections; net/http's default lets each of them hold some megabytes.
		MaxHeaderBytes: MaxHeaderBytes,
		// The handler answers OPTIONS *, too: what watches over requests must see each.
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}
}
