package stream

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"

	"upcall/internal/kept"
)

const (
	// measureEvery is how often a receiver looks at what the stream holds, for others put callbacks there, too.
	measureEvery = time.Second
	// checkEvery is how often it looks at the settings of the stream, which someone may change.
	checkEvery = time.Minute
)

// watch works until ctx ends.
func (s *Stream) watch(ctx context.Context) {
	var there time.Time // since when the server that the connection is to be to has been there again
	ticker := time.NewTicker(measureEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if s.conn.IsConnected() {
			there = s.goHome(ctx, there)
			s.look(ctx)
		} else {
			s.silent.Store(true)
		}
	}
}

// greetTimeout bounds the question whether a server is there.
const greetTimeout = 300 * time.Millisecond

// homeAfter is how long a server has to be there again before a connection moves back to it: when it returns to the
// others, its routes and its knowledge of their streams are old for a moment. If the one that the connection is to does
// not answer, it moves at once.
const homeAfter = 10 * time.Second

// goHome moves the connection back to the server that it is to be to, if that has been there again since a while ago, and
// returns since when. Otherwise the connections of a group would meet at one server in the end.
func (s *Stream) goHome(ctx context.Context, since time.Time) time.Time {
	servers := s.config.servers()
	home := address(servers[0])
	switch {
	case home == "" || home == address(s.conn.ConnectedUrl()) || !greets(ctx, home):
		return time.Time{}
	case s.isLate(time.Now()): // where it is now is no better
	case since.IsZero():
		return time.Now()
	case time.Since(since) < homeAfter:
		return since
	}
	if s.conn.SetServerPool(servers) == nil {
		_ = s.conn.ForceReconnect() // to the first, because it is connected to another one
	}
	return time.Time{}
}

// address returns a server's host and port.
func address(server string) string {
	u, err := url.Parse(server)
	if err != nil || u.Hostname() == "" {
		return ""
	}
	return net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "4222"))
}

// greets reports whether a server says something to a new connection. One that has stopped does not, though its kernel
// takes the connection.
func greets(ctx context.Context, address string) bool {
	conn, err := (&net.Dialer{Timeout: greetTimeout}).DialContext(ctx, "tcp", address)
	if err != nil {
		return false
	}
	defer conn.Close()
	if conn.SetReadDeadline(time.Now().Add(greetTimeout)) != nil {
		return false
	}
	_, err = conn.Read(make([]byte, 1))
	return err == nil
}

// look checks the stream if that is due, and measures it.
func (s *Stream) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	s.mu.Lock()
	before, at := s.unfit, s.checks.at
	s.mu.Unlock()
	if before != nil || s.config.Now().Sub(at) >= checkEvery {
		err := s.check(ctx, true)
		switch {
		case err == nil && before != nil:
			s.config.Logger.InfoContext(ctx, "stream is usable")
		case err != nil && before == nil && errors.Is(err, ErrUnfit):
			s.config.Logger.ErrorContext(ctx, "stream takes no more callbacks", slog.String("error", err.Error()))
		case err != nil:
			s.config.Logger.DebugContext(ctx, "stream could not be checked", slog.String("error", err.Error()))
		}
	}
	if s.handle() != nil {
		s.measure(ctx)
	}
}

// measure notes what the stream holds. Without an answer, it holds what it held.
func (s *Stream) measure(ctx context.Context) {
	s.mu.Lock()
	stream, queue, puts := s.stream, s.queue, s.puts
	s.mu.Unlock()
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(s.config.dead("*")))
	s.silent.Store(err != nil || keepUp(info.Cluster) == 0)
	if err != nil {
		return
	}
	waits, err := queue.Info(ctx)
	if err != nil {
		return
	}
	now := Stats{Queued: int(waits.NumPending) + waits.NumAckPending, Bytes: int64(info.State.Bytes),
		MaxBytes: max(info.Config.MaxBytes, 0), Replicas: keepUp(info.Cluster)}
	if now.Queued > 0 {
		if first, err := stream.GetMsg(ctx, 1, jetstream.WithGetMsgSubject(s.config.waiting())); err == nil {
			if h, err := kept.Check(first.Data); err == nil {
				now.Oldest = h.ReceivedAt
			}
		}
	}
	dead := make(map[uuid.UUID]struct{})
	for subject := range info.State.Subjects {
		if id, err := uuid.Parse(strings.TrimPrefix(subject, s.config.dead(""))); err == nil {
			dead[id] = struct{}{}
		}
	}
	now.DeadLetters = len(dead)
	s.mu.Lock()
	s.cluster, s.clusterAt = info.Cluster, time.Now()
	now.Queued += s.puts - puts // that were put meanwhile, and perhaps not counted
	s.stats, s.dead = now, dead
	s.mu.Unlock()
}

const (
	// mostSilent is how long a server that keeps up may have told its leader nothing, and mostBehind how many messages
	// it may lack: while callbacks come, the last ones are always on their way.
	mostSilent = 10 * time.Second
	mostBehind = 1000
)

// keepUp returns how many servers of the stream have its messages and take new ones.
func keepUp(c *jetstream.ClusterInfo) int {
	if c == nil || c.Leader == "" {
		return 0
	}
	n := 1
	for _, peer := range c.Replicas {
		if !peer.Offline && peer.Active < mostSilent && peer.Lag <= mostBehind {
			n++
		}
	}
	return n
}
