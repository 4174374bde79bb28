package issueapi

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"
)

// drain is how long a stopping issuer waits for the requests that it has accepted: each
// ends by its own deadline, and the rest is for the answer to leave.
const drain = multipartDeadline + 5*time.Second

// Serve answers applications on api, and health and metrics on admin, until ctx ends;
// then it answers what it has accepted, and returns. The error is of a listener that
// broke, or of requests that were still open after the drain.
func (s *Server) Serve(ctx context.Context, api, admin net.Listener) error {
	apiServer, adminServer := s.httpServer(s.API()), s.httpServer(s.Admin())
	running, stop := context.WithCancel(ctx)
	defer stop()
	var group errgroup.Group
	serve := func(server *http.Server, listener net.Listener) {
		group.Go(func() error {
			defer stop() // one listener without the other is of no use
			err := server.Serve(listener)
			if errors.Is(err, http.ErrServerClosed) {
				return nil
			}
			return err
		})
	}
	serve(apiServer, api)
	serve(adminServer, admin)
	<-running.Done()
	s.cfg.Logger.InfoContext(ctx, "draining", slog.Duration("at_most", drain))
	patience, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
	defer cancel()
	// Health and metrics stay up while the last requests are answered.
	err := apiServer.Shutdown(patience)
	return errors.Join(err, adminServer.Shutdown(patience), group.Wait())
}

func (s *Server) httpServer(handler http.Handler) *http.Server {
	return &http.Server{
		Handler: handler,
		// Whoever sends headers or a body byte by byte would hold a connection for ever.
		ReadHeaderTimeout: 3 * time.Second,
		ReadTimeout:       10 * time.Second,
		// For the longest work, and a manifest of some megabytes on a slow line.
		WriteTimeout:   multipartDeadline + 40*time.Second,
		IdleTimeout:    2 * time.Minute,
		MaxHeaderBytes: 16 << 10,
		ErrorLog:       slog.NewLogLogger(s.cfg.Logger.Handler(), slog.LevelDebug),
	}
}
