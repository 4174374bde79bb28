package httpserver

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// readyTimeout limits the answer to a load balancer, which asks often.
const readyTimeout = time.Second

// Admin returns the handler of a private listener: health, readiness and metrics. A
// component can add its routes. ready returns an error if no requests should be sent now,
// else what operators should know of, as a line, or "".
func Admin(ready func(context.Context) (note string, err error), metrics prometheus.Gatherer) *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { // the orchestrator: restart if not 200
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) { // the load balancer: send nothing if not 200
		ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
		defer cancel()
		note, err := ready(ctx)
		if err != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprintln(w, "not ready:", err)
			return
		}
		fmt.Fprintln(w, "ok")
		if note != "" {
			fmt.Fprintln(w, note)
		}
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{})) // Prometheus
	mux.HandleFunc("/", http.NotFound)
	return mux
}

// Plain makes a check whose result is all that there is to say into one for [Admin].
func Plain(ready func(context.Context) error) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) { return "", ready(ctx) }
}
