package vitals

import (
	"encoding/json"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

func TestSampler(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	requests := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "upcall_requests_total"}, []string{"outcome"})
	commits := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "upcall_commit_seconds", Buckets: []float64{.001, .01, .1}})
	depth := prometheus.NewGauge(prometheus.GaugeOpts{Name: "upcall_spool_depth"})
	away := prometheus.NewGauge(prometheus.GaugeOpts{Name: "upcall_database_away"})
	registry.MustRegister(requests, commits, depth, away)
	s := New(registry)
	if got := s.Series(); len(got.Recorded) != 0 {
		t.Errorf("before the first sample: %v", got)
	}
	commits.Observe(.05) // before the hour
	s.Sample()
	requests.WithLabelValues("recorded").Add(60)
	requests.WithLabelValues("spooled").Add(30)
	requests.WithLabelValues("bad_signature").Add(3)
	for range 1000 {
		commits.Observe(.005)
	}
	depth.Set(7)
	away.Set(1)
	s.Sample()
	got := s.Series()
	if got.Recorded[0] != 3 || got.Refused[0] != .1 || got.SpoolDepth[0] != 7 || got.CommitP99Seconds[0] != .01 {
		t.Errorf("series: %+v", got)
	}
	now := s.Now()
	if !now.DatabaseAway || now.CommitP99Seconds != .01 {
		t.Errorf("now: %+v", now)
	}
	if text, err := json.Marshal(now); err != nil || !json.Valid(text) {
		t.Errorf("%s, %v: what is not known must be null", text, err)
	}
	for range 2 * points {
		s.Sample()
	}
	if got := s.Series(); len(got.Recorded) != points || len(s.past) != points+1 {
		t.Errorf("%d points are kept, want an hour's: %d", len(got.Recorded), points)
	}
}
