package intake

import (
	"context"
	"net"
	"sync"
	"time"

	"upcall/internal/httpserver"
)

// drain is how long a stopping receiver waits for accepted requests: each ends by its own
// deadline, and one more second is time to send the answer.
const drain = Deadline + time.Second

// Serve answers callbacks on public until ctx ends, then finishes those it has accepted. It
// also serves the other sites and ends them last. Its error is that of [httpserver.Serve].
func (s *Server) Serve(ctx context.Context, public net.Listener, others ...httpserver.Site) error {
	server := httpserver.New(s.Public(), s.cfg.Logger)
	server.ConnContext = withConn
	// A sender that stalls must not hold a request past its deadline, nor one that does not read
	// for much longer.
	server.ReadTimeout, server.WriteTimeout = Deadline, 2*Deadline
	server.IdleTimeout = time.Minute
	if s.cfg.Refusals != nil {
		answering, answered := context.WithCancel(context.WithoutCancel(ctx))
		var keeping sync.WaitGroup
		keeping.Go(func() { s.refusals.run(answering, refusalsEvery) })
		defer func() { answered(); keeping.Wait() }()
	}
	site := httpserver.Site{Server: server, Listener: protocolListener{public, s.cfg.Metrics}}
	return httpserver.Serve(ctx, s.cfg.Logger, drain, append([]httpserver.Site{site}, others...)...)
}
