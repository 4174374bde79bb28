package recorder

import "github.com/prometheus/client_golang/prometheus"

// Collectors returns the metrics of the path to PostgreSQL.
func (f *Failover) Collectors() []prometheus.Collector {
	return []prometheus.Collector{
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "upcall_queue_depth",
			Help: "Callbacks that wait for a group commit.",
		}, func() float64 { return float64(f.primary.Depth()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "upcall_database_away",
			Help: "1 while PostgreSQL takes no callbacks, so that they go to the spool or the stream, or are refused; else 0.",
		}, func() float64 {
			if f.away.Load() || f.unfit.Load() {
				return 1
			}
			return 0
		}),
	}
}
