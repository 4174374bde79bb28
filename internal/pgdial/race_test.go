package pgdial_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"upcall/internal/dbtest"
	"upcall/internal/pgdial"
	"upcall/internal/testing/servetest"
)

// silent listens and says nothing, like the port of a server that is stopped.
func silent(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	return listener.Addr().String()
}

// TestConnect: whatever is wrong with the other servers, the good one is found long before
// connect_timeout, by which pgx would leave the first.
func TestConnect(t *testing.T) {
	t.Parallel()
	direct := dbtest.URL(t)
	readOnly := dbtest.URL(t)
	u, err := url.Parse(readOnly)
	if err != nil {
		t.Fatal(err)
	}
	dbtest.Execute(t, readOnly, "ALTER DATABASE "+u.Path[1:]+" SET default_transaction_read_only = on")
	const attempts = "connect_timeout=50&target_session_attrs=read-write"
	for name, before := range map[string][]string{
		"first":         nil,
		"silent":        {silent(t)},
		"refused":       {servetest.FreeAddress(t)},
		"both":          {servetest.FreeAddress(t), silent(t)},
		"silent thrice": {silent(t), silent(t), silent(t)},
		"nobody's":      {"256.256.256.256:5432"},
		"both TLS ways": {silent(t), servetest.FreeAddress(t)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			good, _ := url.Parse(direct)
			good.RawQuery = attempts + "&sslmode=disable"
			if name == "both TLS ways" {
				good.RawQuery = attempts + "&sslmode=prefer"
			}
			good.Host = strings.Join(append(before, good.Host), ",")
			config := parse(t, good.String())
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			conn, err := pgdial.Connect(ctx, config.Copy())
			if err != nil {
				t.Fatal(err)
			}
			conn.Close(ctx)
			if err := pgdial.Choose(ctx, config); err != nil {
				t.Fatal(err)
			}
			want, _ := url.Parse(direct)
			if got := fmt.Sprintf("%s:%d", config.Host, config.Port); got != want.Host || pgdial.Several(config) {
				t.Errorf("chose %s, want %s alone", got, want.Host)
			}
			conn, err = pgx.ConnectConfig(ctx, config)
			if err != nil {
				t.Fatal(err)
			}
			conn.Close(ctx)
		})
	}
}

// TestConnectFails: the error is that of all servers.
func TestConnectFails(t *testing.T) {
	t.Parallel()
	direct, _ := url.Parse(dbtest.URL(t))
	wrong := *direct
	wrong.User = url.UserPassword("nobody", "wrong")
	for name, tt := range map[string]struct {
		hosts []string
		user  *url.Userinfo
		ends  bool // when the context does
		code  string
	}{
		"refused":               {hosts: []string{servetest.FreeAddress(t), servetest.FreeAddress(t)}, user: direct.User},
		"silent":                {hosts: []string{silent(t), silent(t)}, user: direct.User, ends: true},
		"refused, then unknown": {hosts: []string{servetest.FreeAddress(t), direct.Host}, user: wrong.User, code: "28"},
		"unknown, then refused": {hosts: []string{direct.Host, servetest.FreeAddress(t)}, user: wrong.User, code: "28"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u := *direct
			u.Host, u.User = strings.Join(tt.hosts, ","), tt.user
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			if tt.ends {
				ctx, cancel = context.WithTimeout(t.Context(), time.Second)
			}
			defer cancel()
			_, err := pgdial.Connect(ctx, parse(t, u.String()))
			if err == nil {
				t.Fatal("connected")
			}
			if tt.ends != errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
			reported, _ := errors.AsType[*pgconn.PgError](err)
			if tt.code != "" && (reported == nil || !strings.HasPrefix(reported.Code, tt.code)) {
				t.Errorf("got %v, want SQLSTATE %s", err, tt.code)
			}
		})
	}
}

// TestPreferStandby: where pgx would take the second best, so does Connect.
func TestPreferStandby(t *testing.T) {
	t.Parallel()
	u, _ := url.Parse(dbtest.URL(t))
	u.Host = servetest.FreeAddress(t) + "," + u.Host
	config := parse(t, u.String()+"&target_session_attrs=prefer-standby")
	conn, err := pgdial.Connect(t.Context(), config.Copy())
	if err != nil {
		t.Fatal(err)
	}
	conn.Close(t.Context())
	if err := pgdial.Choose(t.Context(), config); err != nil || !pgdial.Several(config) {
		t.Errorf("choose: %v, several %t", err, pgdial.Several(config))
	}
}

// TestAddresses: one name with several addresses is several servers, but localhost is one.
func TestAddresses(t *testing.T) {
	t.Parallel()
	u, _ := url.Parse(dbtest.URL(t))
	config := parse(t, "postgres://"+u.User.String()+"@database.test:"+u.Port()+u.Path+"?connect_timeout=50&sslmode=disable")
	config.LookupFunc = func(context.Context, string) ([]string, error) {
		return []string{"192.0.2.1", "192.0.2.2"}, nil
	}
	dialed := make(chan string, 2)
	config.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		if dialed <- address; strings.HasPrefix(address, "192.0.2.1:") {
			<-ctx.Done() // as if nothing came back
			return nil, ctx.Err()
		}
		return pgdial.Dial(ctx, network, u.Host)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	conn, err := pgdial.Connect(ctx, config)
	if err != nil || len(dialed) != 2 {
		t.Fatalf("%d addresses tried: %v", len(dialed), err)
	}
	conn.Close(ctx)
}

func parse(t *testing.T, databaseURL string) *pgx.ConnConfig {
	t.Helper()
	config, err := pgx.ParseConfig(databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	config.DialFunc = pgdial.Dial
	return config
}
