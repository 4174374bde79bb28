package httpserver

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"upcall/internal/buildinfo"
)

// NewRegistry returns a registry for a program's /metrics, with the metrics of the Go runtime
// and the process. Each component adds its own, which must not read a table.
func NewRegistry() *prometheus.Registry {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	build := buildinfo.Current()
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "upcall_build_info", Help: "Always 1. Which build this is.",
		ConstLabels: prometheus.Labels{"version": build.Version, "commit": build.Commit, "date": build.Date, "go_version": build.Go},
	})
	info.Set(1)
	registry.MustRegister(info)
	return registry
}
