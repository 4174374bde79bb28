package stream

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"upcall/internal/event"
)

// Collectors returns the metrics of the stream. They ask no server. All receivers tell the same of one stream.
func (s *Stream) Collectors() []prometheus.Collector {
	return collectors(s.config.Now, s.Stats, s.reachable, s.failures.Load, s.refusals.Load)
}

func collectors(now func() time.Time, stats func() Stats, reachable func() error, failures, refused func() int64) []prometheus.Collector {
	gauge := func(name, help string, value func(Stats) float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return value(stats()) })
	}
	return []prometheus.Collector{
		gauge("upcall_stream_depth", "Callbacks in the stream that wait for PostgreSQL.",
			func(st Stats) float64 { return float64(st.Queued) }),
		gauge("upcall_stream_bytes", "Bytes of the messages in the stream.",
			func(st Stats) float64 { return float64(st.Bytes) }),
		gauge("upcall_stream_oldest_seconds", "Age of the callback that waits longest in the stream; 0 if none waits.",
			func(st Stats) float64 {
				if st.Oldest.IsZero() {
					return 0
				}
				return max(0, now().Sub(st.Oldest).Seconds())
			}),
		gauge("upcall_stream_rejected", "Dead letters: callbacks in the stream that PostgreSQL cannot hold.",
			func(st Stats) float64 { return float64(st.DeadLetters) }),
		gauge("upcall_stream_max_bytes", "The most that the stream may hold; 0 if it has no limit.",
			func(st Stats) float64 { return float64(st.MaxBytes) }),
		gauge("upcall_stream_replicas", "Servers that have the messages of the stream and keep up with it.",
			func(st Stats) float64 { return float64(st.Replicas) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "upcall_stream_usable",
			Help: "1 while this receiver is connected to the stream, which answers and was found fit; else 0."}, func() float64 {
			if reachable() == nil {
				return 1
			}
			return 0
		}),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "upcall_stream_put_failures_total",
			Help: "Callbacks that the stream did not keep, because it was full or could not be reached in time."},
			func() float64 { return float64(failures()) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "upcall_stream_refused_total",
			Help: "Acknowledged callbacks that PostgreSQL then refused, because their upload was revoked or has too many."},
			func() float64 { return float64(refused()) }),
	}
}

// Trouble returns why the stream takes no callbacks, as far as it is known; nil if it does. It asks no server.
func (s *Stream) Trouble() error {
	if err := s.reachable(); err != nil {
		return err
	}
	if st := s.Stats(); st.MaxBytes > 0 && st.Bytes+maxFrame > st.MaxBytes {
		return fmt.Errorf("%w: it may take %d bytes", event.ErrStreamFull, st.MaxBytes)
	}
	return nil
}

// reachable returns why the stream could not be used when it was last looked at, or nil.
func (s *Stream) reachable() error {
	if err := s.usable(); err != nil {
		return err
	}
	if !s.conn.IsConnected() || s.silent.Load() {
		return fmt.Errorf("%w: no server answers for it, or most of them are down", event.ErrStreamUnwritable)
	}
	return nil
}
