package issueapi

import (
	"context"
	"net"
	"time"

	"upcall/internal/httpserver"
)

// drain is how long a stopping issuer waits for the requests that it has accepted: each
// ends by its own deadline, and the rest is for the answer to leave.
const drain = multipartDeadline + 5*time.Second

// Serve answers applications on api until ctx ends, and then those it has accepted. It
// serves the other sites as well, and ends them after that. The error is as of
// [httpserver.Serve].
func (s *Server) Serve(ctx context.Context, api net.Listener, others ...httpserver.Site) error {
	server := httpserver.New(s.API(), s.cfg.Logger)
	// For the longest work, and a manifest of some megabytes on a slow line.
	server.WriteTimeout = multipartDeadline + 40*time.Second
	server.MaxHeaderBytes = 16 << 10
	return httpserver.Serve(ctx, s.cfg.Logger, drain, append([]httpserver.Site{{Server: server, Listener: api}}, others...)...)
}
