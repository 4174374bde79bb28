// Package vitals keeps the last hour of a receiver's own metrics in memory, for people who look
// at the process itself and not at a dashboard. It reads no table.
package vitals

import (
	"context"
	"encoding/json"
	"math"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

const (
	// Step is from one point of a series to the next, and points how many there are: an hour's.
	Step   = 30 * time.Second
	points = int(time.Hour / Step)
	// recent is the time over which the 99th percentile of commits is taken.
	recent = 5 * time.Minute
)

// A Value is a number of a metric, null in JSON if there is none.
type Value float64

// MarshalJSON shows what is not a number as null.
func (v Value) MarshalJSON() ([]byte, error) {
	if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
		return []byte("null"), nil
	}
	return json.Marshal(float64(v))
}

// Now is what the metrics say at a moment.
type Now struct {
	DatabaseAway     bool  `json:"database_away"`
	CommitP99Seconds Value `json:"commit_p99_seconds"` // of the last five minutes
	FeedLagSeconds   Value `json:"feed_lag_seconds"`
	FeedLagEvents    Value `json:"feed_lag_events"`
	MonthsAhead      Value `json:"months_ahead"`
	HooksInFlight    Value `json:"hooks_in_flight"`
}

// Series are numbers of the last hour, the oldest first, one for each step. Rates are per second.
type Series struct {
	StepSeconds      int     `json:"step_seconds"`
	Recorded         []Value `json:"recorded"` // callbacks, in PostgreSQL or the fallback
	Refused          []Value `json:"refused"`  // requests that were not recorded
	CommitP99Seconds []Value `json:"commit_p99_seconds"`
	SpoolDepth       []Value `json:"spool_depth"` // or that of the stream
	FeedLagSeconds   []Value `json:"feed_lag_seconds"`
	HooksDelivered   []Value `json:"hooks_delivered"`
	HooksFailed      []Value `json:"hooks_failed"`
}

// A Sampler reads metrics. Its methods may be called concurrently.
type Sampler struct {
	from prometheus.Gatherer

	mu   sync.Mutex
	past []reading // the oldest first, at most points+1
}

// New returns a sampler of the process's metrics.
func New(from prometheus.Gatherer) *Sampler { return &Sampler{from: from} }

// Run reads the metrics at each step until ctx ends.
func (s *Sampler) Run(ctx context.Context) {
	ticker := time.NewTicker(Step)
	defer ticker.Stop()
	for {
		s.Sample()
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// Sample reads the metrics as Run does at each step.
func (s *Sampler) Sample() {
	r := read(s.from)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.past = append(s.past, r); len(s.past) > points+1 {
		s.past = append([]reading(nil), s.past[1:]...)
	}
}

// Now reads the metrics.
func (s *Sampler) Now() Now {
	now := read(s.from)
	now.now.CommitP99Seconds = Value(math.NaN())
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.past); n > 0 {
		now.now.CommitP99Seconds = now.commits.since(s.past[max(0, n-1-int(recent/Step))].commits)
	}
	return now.now
}

// Series returns the last hour.
func (s *Sampler) Series() Series {
	s.mu.Lock()
	defer s.mu.Unlock()
	series := Series{StepSeconds: int(Step / time.Second), Recorded: []Value{}, Refused: []Value{}, CommitP99Seconds: []Value{},
		SpoolDepth: []Value{}, FeedLagSeconds: []Value{}, HooksDelivered: []Value{}, HooksFailed: []Value{}}
	for i := 1; i < len(s.past); i++ {
		before, r := s.past[i-1], s.past[i]
		rate := func(a, b float64) Value { return Value((b - a) / Step.Seconds()) }
		series.Recorded = append(series.Recorded, rate(before.recorded, r.recorded))
		series.Refused = append(series.Refused, rate(before.refused, r.refused))
		series.CommitP99Seconds = append(series.CommitP99Seconds, r.commits.since(before.commits))
		series.SpoolDepth = append(series.SpoolDepth, Value(r.spooled))
		series.FeedLagSeconds = append(series.FeedLagSeconds, r.now.FeedLagSeconds)
		series.HooksDelivered = append(series.HooksDelivered, rate(before.delivered, r.delivered))
		series.HooksFailed = append(series.HooksFailed, rate(before.failed, r.failed))
	}
	return series
}

// A reading is what was read at one moment.
type reading struct {
	now               Now
	recorded, refused float64
	delivered, failed float64
	spooled           float64
	commits           histogram
}

// A histogram is the cumulative buckets of one, by their upper bounds.
type histogram []*dto.Bucket

// since returns the 99th percentile of what came after an earlier reading: the upper bound of its bucket.
func (h histogram) since(earlier histogram) Value {
	var before, all uint64
	if n := len(earlier); n > 0 {
		before = earlier[n-1].GetCumulativeCount()
	}
	if n := len(h); n > 0 {
		all = h[n-1].GetCumulativeCount() - before
	}
	for i, b := range h {
		var was uint64
		if i < len(earlier) {
			was = earlier[i].GetCumulativeCount()
		}
		if all > 0 && float64(b.GetCumulativeCount()-was) >= 0.99*float64(all) {
			return Value(b.GetUpperBound())
		}
	}
	return Value(math.NaN())
}

// read gathers once. A collector that fails leaves its metrics out.
func read(from prometheus.Gatherer) reading {
	families, _ := from.Gather()
	r := reading{now: Now{FeedLagSeconds: nan, FeedLagEvents: nan, MonthsAhead: nan, HooksInFlight: nan}}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			r.add(f.GetName(), m)
		}
	}
	return r
}

var nan = Value(math.NaN())

func (r *reading) add(name string, m *dto.Metric) {
	gauge := Value(m.GetGauge().GetValue())
	switch name {
	case "upcall_requests_total":
		switch label(m, "outcome") {
		case "recorded", "spooled", "duplicate":
			r.recorded += m.GetCounter().GetValue()
		default:
			r.refused += m.GetCounter().GetValue()
		}
	case "upcall_hook_attempts_total":
		if label(m, "outcome") == "delivered" {
			r.delivered += m.GetCounter().GetValue()
		} else {
			r.failed += m.GetCounter().GetValue()
		}
	case "upcall_commit_seconds":
		r.commits = m.GetHistogram().GetBucket()
	case "upcall_spool_depth", "upcall_stream_depth":
		r.spooled = float64(gauge)
	case "upcall_database_away":
		r.now.DatabaseAway = gauge != 0
	case "upcall_feed_lag_seconds":
		r.now.FeedLagSeconds = gauge
	case "upcall_feed_lag_events":
		r.now.FeedLagEvents = gauge
	case "upcall_partitions_ahead_months":
		r.now.MonthsAhead = gauge
	case "upcall_hook_requests_in_flight":
		r.now.HooksInFlight = gauge
	}
}

func label(m *dto.Metric, name string) string {
	for _, l := range m.GetLabel() {
		if l.GetName() == name {
			return l.GetValue()
		}
	}
	return ""
}
