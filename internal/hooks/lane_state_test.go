package hooks

import (
	"log/slog"
	"testing"
	"time"

	"github.com/google/uuid"
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

// TestNothingToDo: a lane that is left alone for a second has nothing that would have to be done
// within it.
func TestNothingToDo(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		name string
		set  func(*lane)
		want bool
	}{
		{"it waits for its reader", func(*lane) {}, true},
		{"it has not asked it", func(l *lane) { l.reading = false }, false},
		{"a delivery is to be sent", func(l *lane) { l.window = []*delivery{{}} }, false},
		{"a retry is due or in flight", func(l *lane) { l.held[uuid.UUID{1}] = true }, false},
		{"a retry is due soon", func(l *lane) { l.lookAt = at.Add(900 * time.Millisecond) }, false},
		{"a retry is overdue", func(l *lane) { l.lookAt = at.Add(-time.Hour) }, false},
		{"a retry is due later", func(l *lane) { l.lookAt = at.Add(2 * time.Second) }, true},
		{"the breaker is open", func(l *lane) { l.breaker.open = true }, false},
		{"an outcome is to be committed", func(l *lane) { l.pending.since = at }, false},
		{"a state is to be committed", func(l *lane) { l.pending.state = true }, false},
		{"a change is to be confirmed", func(l *lane) { l.pending.confirm = true }, false},
	} {
		l := &lane{
			pump:     &Pump{config: PumpConfig{Now: func() time.Time { return at }, tick: tick}},
			endpoint: &Endpoint{State: Active}, held: make(map[uuid.UUID]bool), lookAt: at.Add(never), reading: true,
		}
		if tt.set(l); l.nothingToDo() != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, !tt.want, tt.want)
		}
	}
}

// TestToldAgain: a lane that is told of an endpoint that has not changed, as all are once a second,
// asks PostgreSQL for retries only if there is one that it does not know of. A hundred that asked
// each time did so at once, and held up the intake.
func TestToldAgain(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		name          string
		lookAt, retry time.Time
		want          time.Time
	}{
		{"no retry", at.Add(never), time.Time{}, at.Add(never)},
		{"one that others made", at.Add(never), at, at},
		{"one before that of the lane", at.Add(time.Hour), at.Add(time.Minute), at.Add(time.Minute)},
		{"one after that of the lane", at.Add(time.Minute), at.Add(time.Hour), at.Add(time.Minute)},
	} {
		l := &lane{endpoint: &Endpoint{version: 7}, lookAt: tt.lookAt}
		if l.apply(t.Context(), &Endpoint{version: 7, retryAt: tt.retry}); !l.lookAt.Equal(tt.want) {
			t.Errorf("%s: it looks at %v, want %v", tt.name, l.lookAt, tt.want)
		}
	}
}
