package spool

import "github.com/prometheus/client_golang/prometheus"

// Collectors returns the metrics of the spool. They do not read the disk.
func (s *Spool) Collectors() []prometheus.Collector {
	gauge := func(name, help string, value func(Stats) float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return value(s.Stats()) })
	}
	return []prometheus.Collector{
		gauge("upcall_spool_depth", "Callbacks in the spool that wait for PostgreSQL.",
			func(st Stats) float64 { return float64(st.Queued) }),
		gauge("upcall_spool_bytes", "Bytes that the spool's callbacks take on disk.",
			func(st Stats) float64 { return float64(st.Bytes) }),
		gauge("upcall_spool_oldest_seconds", "Age of the callback that waits longest in the spool; 0 if none waits.",
			func(st Stats) float64 {
				if st.Oldest.IsZero() {
					return 0
				}
				return max(0, s.config.Now().Sub(st.Oldest).Seconds())
			}),
		gauge("upcall_spool_rejected", "Dead letters: callbacks in the spool that PostgreSQL cannot hold.",
			func(st Stats) float64 { return float64(st.DeadLetters) }),
		gauge("upcall_spool_damaged_files", "Spool files that were found damaged and set aside.",
			func(st Stats) float64 { return float64(st.Damaged) }),
	}
}
