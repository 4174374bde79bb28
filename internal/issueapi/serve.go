package issueapi

import (
	"context"
	"net"
	"time"

	"upcall/internal/httpserver"
)

// drain is how long a stopping issuer waits for accepted requests: each ends by its own
// deadline, and the rest is time to send the answer.
const drain = multipartDeadline + 5*time.Second

// Serve answers requests on api until ctx ends, then finishes those it has accepted. It also
// serves the other sites and ends them last. Its error is that of [httpserver.Serve].
func (s *Server) Serve(ctx context.Context, api net.Listener, others ...httpserver.Site) error {
	server := httpserver.New(s.API(), s.cfg.Logger)
	// Enough for the longest request, and a manifest of some megabytes on a slow line.
	server.WriteTimeout = multipartDeadline + 40*time.Second
	server.MaxHeaderBytes = 16 << 10
	return httpserver.Serve(ctx, s.cfg.Logger, drain, append([]httpserver.Site{{Server: server, Listener: api}}, others...)...)
}
