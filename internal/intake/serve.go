package intake

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"
)

// drain is how long a stopping receiver waits for the requests it has accepted: each
// ends by its own deadline, and the second more is for the answer to leave.
const drain = Deadline + time.Second

// Serve serves both listeners until ctx ends, then takes no further callbacks, answers
// those it has accepted, and returns. The error is of a listener that broke, or of
// requests that were still open after the drain.
func (s *Server) Serve(ctx context.Context, public, admin net.Listener) error {
	public = protocolListener{public, s.cfg.Metrics}
	publicServer := s.httpServer(s.Public())
	publicServer.ConnContext = withConn
	adminServer := s.httpServer(s.Admin())
	stopped, stop := context.WithCancel(ctx)
	defer stop()
	var group errgroup.Group
	for server, listener := range map[*http.Server]net.Listener{publicServer: public, adminServer: admin} {
		group.Go(func() error {
			defer stop() // one listener without the other is of no use
			if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			return nil
		})
	}
	answering, answered := context.WithCancel(context.WithoutCancel(ctx))
	defer answered()
	if s.cfg.Refusals != nil {
		group.Go(func() error { s.refusals.run(answering, refusalsEvery); return nil })
	}
	<-stopped.Done()
	s.cfg.Logger.InfoContext(ctx, "draining", slog.Duration("at_most", drain))
	deadline, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
	defer cancel()
	// Metrics and health stay up while the last callbacks are answered.
	err := publicServer.Shutdown(deadline)
	answered()
	return errors.Join(err, adminServer.Shutdown(deadline), group.Wait())
}

func (s *Server) httpServer(handler http.Handler) *http.Server {
	return &http.Server{
		Handler: handler,
		// Whoever sends headers byte by byte would hold a connection for ever.
		ReadHeaderTimeout: 3 * time.Second,
		// The handler sets tighter deadlines; these are for whoever does not read.
		ReadTimeout:  2 * Deadline,
		WriteTimeout: 2 * Deadline,
		IdleTimeout:  time.Minute,
		// Well above admission.MaxHeaders, so that large headers get our answer, not net/http's.
		MaxHeaderBytes: 2 << 20,
		ErrorLog:       slog.NewLogLogger(s.cfg.Logger.Handler(), slog.LevelDebug),
	}
}
