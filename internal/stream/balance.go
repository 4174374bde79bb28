package stream

import (
	"cmp"
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

const (
	// balanceEvery is how often a receiver looks whether streams have the same leader, and balancePause how long it waits
	// after it has asked for another one. All receivers ask for the same.
	balanceEvery, balancePause = time.Second, 5 * time.Second
	// freshFor is how long what the servers said about a stream holds.
	freshFor = 5 * time.Second
	// leadTimeout bounds the request for another leader.
	leadTimeout = 2 * time.Second
)

// balance keeps the leaders of the streams on different servers until ctx ends.
func (g *Group) balance(ctx context.Context) {
	ticker := time.NewTicker(balanceEvery)
	defer ticker.Stop()
	var quiet time.Time // until when nothing is asked for
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if time.Now().Before(quiet) {
			continue
		}
		clusters := make([]*jetstream.ClusterInfo, len(g.parts))
		for i, p := range g.parts {
			clusters[i] = p.leading()
		}
		i, server := uneven(clusters)
		if server == "" {
			continue
		}
		quiet = time.Now().Add(balancePause)
		if err := g.parts[i].lead(ctx, server); err != nil { // another receiver was quicker, perhaps
			g.config.Logger.DebugContext(ctx, "stream keeps its leader", slog.String("stream", g.parts[i].config.Name),
				slog.String("server", server), slog.String("error", err.Error()))
		}
	}
}

// leading returns who leads the stream and who follows, nil if that is not known.
func (s *Stream) leading() *jetstream.ClusterInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cluster == nil || s.cluster.Leader == "" || time.Since(s.clusterAt) > freshFor {
		return nil
	}
	return s.cluster
}

// uneven returns the first stream whose leader leads one before it, and the server that could lead it instead: one that
// is there, has all of it, and leads none. The server is "" if nothing is to be done, or not all leaders are known.
func uneven(clusters []*jetstream.ClusterInfo) (stream int, server string) {
	leads := make(map[string]bool)
	for _, c := range clusters {
		if c == nil {
			return 0, ""
		}
		leads[c.Leader] = true
	}
	taken := make(map[string]bool)
	for i, c := range clusters {
		if !taken[c.Leader] {
			taken[c.Leader] = true
			continue
		}
		followers := slices.SortedFunc(slices.Values(c.Replicas), func(a, b *jetstream.PeerInfo) int { return cmp.Compare(a.Name, b.Name) })
		for _, f := range followers {
			if f.Current && !f.Offline && !leads[f.Name] {
				return i, f.Name
			}
		}
	}
	return 0, ""
}

// lead asks the stream's leader to let another server lead.
func (s *Stream) lead(ctx context.Context, server string) error {
	request, err := json.Marshal(map[string]any{"placement": map[string]string{"preferred": server}})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, leadTimeout)
	defer cancel()
	answer, err := s.conn.RequestWithContext(ctx, jetstream.DefaultAPIPrefix+"STREAM.LEADER.STEPDOWN."+s.config.Name, request)
	if err != nil {
		return err
	}
	var said struct {
		Error *jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(answer.Data, &said); err != nil {
		return err
	}
	if said.Error != nil {
		return said.Error
	}
	return nil
}
