package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/jackc/pgx/v5"
)

// A cluster is three nodes, of which one is the primary.
type cluster struct {
	nodes []*node
	sync  bool // it has a synchronous standby

	reinitialized int // standbys that were copied anew by hand
}

// url is the database's URL for a client that wants the primary.
func (c *cluster) url() string {
	return "postgres://" + superuser + "@" + c.nodes[0].peers(func(n *node) string { return n.addr + ":5432" }) +
		"/postgres?sslmode=disable&target_session_attrs=read-write"
}

// roles are who is what.
type roles struct {
	primary  *node
	sync     *node   // the synchronous standby; nil if there is none
	standbys []*node // all, the synchronous one first
}

// roles asks Patroni and then the primary, and returns an error unless every node has its role: the
// cluster is whole.
func (c *cluster) roles(ctx context.Context) (roles, error) {
	r, err := c.view(ctx)
	if err != nil {
		return roles{}, err
	}
	conn, err := pgx.Connect(ctx, "postgres://"+superuser+"@"+r.primary.addr+":5432/postgres?sslmode=disable&connect_timeout=2")
	if err != nil {
		return roles{}, fmt.Errorf("ask primary: %w", err)
	}
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, `SELECT application_name, sync_state = 'sync' FROM pg_stat_replication
		WHERE state = 'streaming' AND NOT pg_is_in_recovery() ORDER BY 2 DESC, 1`)
	if err != nil {
		return roles{}, fmt.Errorf("ask primary: %w", err)
	}
	var name string
	var isSync bool
	_, err = pgx.ForEachRow(rows, []any{&name, &isSync}, func() error {
		for _, n := range c.nodes {
			if n.name != name {
				continue
			}
			if r.standbys = append(r.standbys, n); isSync {
				r.sync = n
			}
		}
		return nil
	})
	switch {
	case err != nil:
		return roles{}, fmt.Errorf("ask primary: %w", err)
	case len(r.standbys) != len(c.nodes)-1:
		return roles{}, fmt.Errorf("%d standbys stream from %s", len(r.standbys), r.primary.name)
	case c.sync && r.sync == nil:
		return roles{}, errors.New("there is no synchronous standby")
	}
	return r, nil
}

// view asks each Patroni what it sees, until one answers for a whole cluster.
func (c *cluster) view(ctx context.Context) (roles, error) {
	failure := errors.New("no Patroni answers")
	for _, n := range c.nodes {
		var seen struct {
			Members []struct {
				Name, Role, State string
				Timeline          int
			}
		}
		if err := patroni(ctx, n, &seen); err != nil {
			failure = err
			continue
		}
		var r roles
		running, timelines := 0, make(map[int]bool)
		for _, member := range seen.Members {
			if member.State == "running" || member.State == "streaming" {
				running++
				timelines[member.Timeline] = true
			}
			for _, n := range c.nodes {
				if n.name == member.Name && member.Role == "leader" {
					r.primary = n
				}
			}
		}
		if r.primary != nil && running == len(c.nodes) && len(timelines) == 1 {
			return r, nil
		}
		failure = fmt.Errorf("%s sees %+v", n.name, seen.Members)
	}
	return roles{}, failure
}

// patroni asks the Patroni of a node for its view of the cluster.
func patroni(ctx context.Context, n *node, seen any) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.addr+":8008/cluster", nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	return json.NewDecoder(response.Body).Decode(seen)
}

// await waits until the cluster is whole and returns its roles.
func (c *cluster) await(ctx context.Context, limit time.Duration) (roles, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for patience := time.Now().Add(stuck); ; {
		r, err := c.roles(ctx)
		if err == nil {
			return r, nil
		}
		if time.Now().After(patience) {
			patience = time.Now().Add(stuck)
			c.reinitialize(ctx)
		}
		if sleep(ctx, 500*time.Millisecond) != nil {
			return roles{}, fmt.Errorf("the cluster is not whole after %v: %w", limit, err)
		}
	}
}

// stuck is after what time an operator would look why a standby does not stream.
const stuck = 40 * time.Second

// reinitialize does what an operator must do if a standby has more of the log than that which was
// promoted: Patroni 3.0 leaves such a standby where it is.
func (c *cluster) reinitialize(ctx context.Context) {
	leader := c.leader(ctx, nil)
	if leader == nil {
		return
	}
	conn, err := pgx.Connect(ctx, "postgres://"+superuser+"@"+leader.addr+":5432/postgres?sslmode=disable&connect_timeout=2")
	if err != nil {
		return
	}
	defer conn.Close(ctx)
	for _, n := range c.nodes {
		var streams bool
		err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_stat_replication WHERE application_name = $1)", n.name).Scan(&streams)
		if n != leader && err == nil && !streams {
			_ = post(ctx, "http://"+n.addr+":8008/reinitialize", `{"force":true}`) // if it cannot now, then the next time
			c.reinitialized++
		}
	}
}

// leader returns the node that some Patroni other than that of a node sees as the leader, if there is
// one.
func (c *cluster) leader(ctx context.Context, not *node) *node {
	for _, n := range c.nodes {
		var seen struct{ Members []struct{ Name, Role string } }
		if n == not || patroni(ctx, n, &seen) != nil {
			continue
		}
		for _, member := range seen.Members {
			for _, n := range c.nodes {
				if n != not && n.name == member.Name && member.Role == "leader" {
					return n
				}
			}
		}
	}
	return nil
}

// received returns how much of the log a standby has.
func (n *node) received(ctx context.Context) (position int64, err error) {
	conn, err := pgx.Connect(ctx, "postgres://"+superuser+"@"+n.addr+":5432/postgres?sslmode=disable&connect_timeout=2")
	if err != nil {
		return 0, fmt.Errorf("ask %s: %w", n.name, err)
	}
	defer conn.Close(ctx)
	err = conn.QueryRow(ctx, "SELECT (coalesce(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) - '0/0')::bigint").Scan(&position)
	if err != nil {
		return 0, fmt.Errorf("ask %s: %w", n.name, err)
	}
	return position, nil
}
