package intake

import (
	"context"
	"net"
	"sync"
	"time"

	"upcall/internal/httpserver"
)

// drain is how long a stopping receiver waits for the requests it has accepted: each
// ends by its own deadline, and the second more is for the answer to leave.
const drain = Deadline + time.Second

// Serve takes callbacks on public until ctx ends, and then answers those it has accepted.
// It serves the other sites as well, and ends them after that. The error is as of
// [httpserver.Serve].
func (s *Server) Serve(ctx context.Context, public net.Listener, others ...httpserver.Site) error {
	server := httpserver.New(s.Public(), s.cfg.Logger)
	server.ConnContext = withConn
	// The handler sets tighter deadlines; these are for a sender that does not read.
	server.ReadTimeout, server.WriteTimeout = 2*Deadline, 2*Deadline
	server.IdleTimeout = time.Minute
	// Well above admission.MaxHeaders, so that large headers get our answer, not net/http's.
	server.MaxHeaderBytes = 2 << 20
	if s.cfg.Refusals != nil {
		answering, answered := context.WithCancel(context.WithoutCancel(ctx))
		var keeping sync.WaitGroup
		keeping.Go(func() { s.refusals.run(answering, refusalsEvery) })
		defer func() { answered(); keeping.Wait() }()
	}
	site := httpserver.Site{Server: server, Listener: protocolListener{public, s.cfg.Metrics}}
	return httpserver.Serve(ctx, s.cfg.Logger, drain, append([]httpserver.Site{site}, others...)...)
}
