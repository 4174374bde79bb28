package pgdial

import (
	"context"
	"errors"
	"net"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// stagger is how long a server has before the next one is tried, too (the delay between attempts
// of RFC 8305). A healthy first server is therefore asked alone.
const stagger = 250 * time.Millisecond

// Connect is pgx.ConnectConfig, but tries the servers of the URL beside each other instead of one
// after another. The first that accepts the connection, in the state that target_session_attrs
// wants, is taken. Each has the whole of connect_timeout, so that a server that does not answer
// takes no time from the next (https://github.com/jackc/pgx/issues/2171).
func Connect(ctx context.Context, config *pgx.ConnConfig) (*pgx.Conn, error) {
	servers := split(ctx, config)
	if len(servers) < 2 {
		return pgx.ConnectConfig(ctx, config)
	}
	conn, _, err := race(ctx, servers)
	if errors.Is(err, errSecondBest) {
		return pgx.ConnectConfig(ctx, config)
	}
	return conn, err
}

// Choose reduces a configuration with several servers to the one that Connect would connect to,
// for a pool, which connects by itself.
func Choose(ctx context.Context, config *pgx.ConnConfig) error {
	servers := split(ctx, config)
	if len(servers) < 2 {
		return nil
	}
	conn, winner, err := race(ctx, servers)
	if err != nil {
		if errors.Is(err, errSecondBest) {
			return nil
		}
		return err
	}
	go conn.Close(context.WithoutCancel(ctx))
	chosen := servers[winner]
	config.Host, config.Port, config.TLSConfig, config.Fallbacks = chosen.Host, chosen.Port, chosen.TLSConfig, chosen.Fallbacks
	config.LookupFunc = chosen.LookupFunc
	return nil
}

// Several reports whether the configuration names more than one server.
func Several(config *pgx.ConnConfig) bool {
	return slices.ContainsFunc(config.Fallbacks, func(f *pgconn.FallbackConfig) bool {
		return f.Host != config.Host || f.Port != config.Port
	})
}

// errSecondBest says that target_session_attrs prefers another kind of server, but would take this
// one. pgx alone knows when: if there is no better one.
var errSecondBest = errors.New("the server is not of the preferred kind")

// strict makes a server that is not preferred one that failed.
func strict(validate pgconn.ValidateConnectFunc) pgconn.ValidateConnectFunc {
	if validate == nil {
		return nil
	}
	return func(ctx context.Context, conn *pgconn.PgConn) error {
		err := validate(ctx, conn)
		if _, ok := errors.AsType[*pgconn.NotPreferredError](err); ok {
			return errSecondBest
		}
		return err
	}
}

// split returns a configuration for each server. One host can be in pgx's list twice, with and
// without TLS: these ways to one server stay together. One host with several addresses is as
// many servers.
func split(ctx context.Context, config *pgx.ConnConfig) []*pgx.ConnConfig {
	ways := append([]*pgconn.FallbackConfig{{Host: config.Host, Port: config.Port, TLSConfig: config.TLSConfig}}, config.Fallbacks...)
	var servers []*pgx.ConnConfig
	for i, way := range ways {
		if i > 0 && way.Host == ways[i-1].Host && way.Port == ways[i-1].Port {
			last := servers[len(servers)-1]
			last.Fallbacks = append(last.Fallbacks, way)
			continue
		}
		server := config.Copy()
		server.Host, server.Port, server.TLSConfig, server.Fallbacks = way.Host, way.Port, way.TLSConfig, nil
		server.ValidateConnect = strict(config.ValidateConnect)
		servers = append(servers, server)
	}
	if len(servers) != 1 || network(config) != "tcp" {
		return servers
	}
	addresses, err := config.LookupFunc(ctx, config.Host)
	if err != nil || len(addresses) < 2 || slices.ContainsFunc(addresses, isLoopback) {
		return servers // localhost has two addresses, and is one server
	}
	each := make([]*pgx.ConnConfig, 0, len(addresses))
	for _, address := range addresses {
		server := servers[0].Copy()
		server.LookupFunc = func(context.Context, string) ([]string, error) { return []string{address}, nil }
		each = append(each, server)
	}
	return each
}

func network(config *pgx.ConnConfig) string {
	network, _ := pgconn.NetworkAddress(config.Host, config.Port)
	return network
}

func isLoopback(address string) bool {
	ip := net.ParseIP(address)
	return ip != nil && ip.IsLoopback()
}

// race connects to the first server and, whenever one fails or the time is up, to the next. It
// returns the first connection and the place of its server, or the errors of all.
func race(ctx context.Context, servers []*pgx.ConnConfig) (*pgx.Conn, int, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type attempt struct {
		conn   *pgx.Conn
		server int
		err    error
	}
	attempts := make(chan attempt)
	begin := func(i int) {
		conn, err := pgx.ConnectConfig(ctx, servers[i])
		select {
		case attempts <- attempt{conn, i, err}:
		case <-ctx.Done():
			if err == nil { // another one was quicker
				_ = conn.Close(context.WithoutCancel(ctx))
			}
		}
	}
	errs := make([]error, len(servers))
	ticker := time.NewTicker(stagger)
	defer ticker.Stop()
	begun, failed := 0, 0
	next := func() {
		if begun < len(servers) {
			go begin(begun)
			begun++
			ticker.Reset(stagger)
		}
	}
	for next(); failed < len(servers); {
		select {
		case a := <-attempts:
			if a.err == nil {
				return a.conn, a.server, nil
			}
			errs[a.server] = a.err
			failed++
			next()
		case <-ticker.C:
			next()
		case <-ctx.Done():
			return nil, 0, errors.Join(append(errs, context.Cause(ctx))...)
		}
	}
	return nil, 0, errors.Join(errs...)
}
