package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"upcall/internal/eventstore"
	"upcall/internal/feed"
	"upcall/internal/hooks"
	"upcall/internal/webhook"
)

// loopback lets deliveries go to this machine.
var loopback = hooks.Rules{AllowHTTP: true, AllowedCIDRs: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}

// An operator manages the endpoints of a receiver, through its database.
type operator struct {
	*hooks.Endpoints
	ordinary, readers *pgxpool.Pool
}

func newOperator(ctx context.Context, databaseURL string) (*operator, error) {
	logger := slog.New(slog.DiscardHandler)
	ordinary, err := eventstore.Open(ctx, databaseURL)
	if err != nil {
		return nil, err
	}
	readers, err := eventstore.OpenFeed(ctx, databaseURL)
	if err != nil {
		ordinary.Close()
		return nil, err
	}
	o := &operator{ordinary: ordinary, readers: readers}
	log, err := feed.New(feed.Config{Pool: readers, Logger: logger})
	if err == nil {
		o.Endpoints, err = hooks.NewEndpoints(hooks.Config{Pool: ordinary, Log: log, Rules: loopback, Logger: logger})
	}
	if err != nil {
		o.close()
		return nil, err
	}
	return o, nil
}

func (o *operator) close() {
	o.ordinary.Close()
	o.readers.Close()
}

// idleEndpoints have filters that match nothing.
func idleEndpoints(n int) (all []hooks.Settings) {
	for i := range n {
		name := fmt.Sprintf("e%03d", i)
		all = append(all, hooks.Settings{Name: name, URL: "http://127.0.0.1:9/", Filter: hooks.Filter{KeyPrefixes: []string{name + "/"}}})
	}
	return all
}

// add makes endpoints, all at once, because each takes a moment to hold.
func (o *operator) add(ctx context.Context, all []hooks.Settings, secret webhook.Secret) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, settings := range all {
		group.Go(func() error {
			_, _, err := o.Add(ctx, settings, secret, hooks.Start{})
			return err
		})
	}
	return group.Wait()
}

// caughtUp waits until the consumers have nothing left to read of what is recorded, except
// those with a name in except. The time that it took is no measure: cursors are moved seldom.
func (o *operator) caughtUp(ctx context.Context, except string, patience time.Duration) error {
	const behind = `SELECT count(*) FROM upcall.feed_consumers
		WHERE coalesce(recorded_xid, '0') < coalesce((SELECT recorded_xid FROM upcall.upload_events
			WHERE recorded_xid IS NOT NULL ORDER BY recorded_xid DESC, id DESC LIMIT 1), '0') AND name <> $1`
	for began := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		var n int
		if err := o.ordinary.QueryRow(ctx, behind, except).Scan(&n); err != nil {
			return fmt.Errorf("look at consumers: %w", err)
		}
		if n == 0 {
			return nil
		}
		if time.Since(began) > patience {
			return fmt.Errorf("%d consumers are behind after %s", n, patience)
		}
	}
}
