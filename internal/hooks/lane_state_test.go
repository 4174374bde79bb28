package hooks

import (
	"log/slog"
	"testing"
)

// TestStaysPaused: what becomes of requests that were in flight when an operator paused an endpoint
// does not have more sent to it.
func TestStaysPaused(t *testing.T) {
	t.Parallel()
	for _, state := range []State{Paused, Disabled, removing, Active, Failing} {
		for _, v := range []verdict{opened, closed, disabled} {
			l := &lane{
				pump:     &Pump{config: PumpConfig{Logger: slog.New(slog.DiscardHandler)}},
				endpoint: &Endpoint{State: state, Reason: "an operator"},
			}
			was := l.working()
			l.stateChanged(t.Context(), v, "the answer is 500")
			if !was && (l.endpoint.State != state || l.endpoint.Reason != "an operator") || was && l.working() == (v == disabled) {
				t.Errorf("%s, verdict %d: it is %s, %q", state, v, l.endpoint.State, l.endpoint.Reason)
			}
		}
	}
}
