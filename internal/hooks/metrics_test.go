package hooks

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"upcall/internal/testing/metrictest"
	"upcall/internal/testing/wait"
)

// number returns how many series a metric has.
func number(all map[string]float64, metric string) (n int) {
	for name := range all {
		if strings.HasPrefix(name, metric+"{") {
			n++
		}
	}
	return n
}

// TestMetrics follows an endpoint that fails, is paused, and is removed.
func TestMetrics(t *testing.T) {
	t.Parallel()
	w, a := newWorld(t), newApp(t, nil)
	pump, _ := w.receiver(t, func(c *PumpConfig) { c.Schedule = Schedule{} })
	shown := func(name string) float64 { return metrictest.Values(t, pump.metrics.collectors()...)[name] }
	w.add(t, "app", a)
	a.waitFor(t, w.upload(t, "k", 3))
	wait.Until(t, "they are counted", func() bool { return shown("upcall_hook_attempts_total{app,delivered}") == 3 })
	a.answers(status(500))
	w.upload(t, "k", openInRow+DefaultMaxInFlight+5)
	wait.Until(t, "the breaker opens", func() bool {
		return shown("upcall_hook_state{app,failing}") == 1 && shown("upcall_hook_state{app,active}") == 0
	})
	wait.Until(t, "the lag is known", func() bool {
		return shown("upcall_hook_lag_events{app}") >= 5 && shown("upcall_hook_lag_seconds{app}") > 0
	})
	all := metrictest.Values(t, pump.metrics.collectors()...)
	if n := all["upcall_hook_attempts_total{app,dead}"]; n < openInRow || all["upcall_hook_attempts_total{app,failed}"] != 0 ||
		all["upcall_hook_attempt_seconds{false}"] != n || all["upcall_hook_attempt_seconds{true}"] != 3 {
		t.Errorf("%v", all)
	}
	if _, err := w.Pause(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
	w.upload(t, "k", 1000)
	wait.Until(t, "what comes in while it is paused counts as well", func() bool {
		return shown("upcall_hook_state{app,paused}") == 1 && shown("upcall_hook_state{app,failing}") == 0 &&
			shown("upcall_hook_lag_events{app}") >= 1000
	})
	if err := w.Remove(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
	wait.Until(t, "nothing is shown of a removed endpoint", func() bool {
		for name := range metrictest.Values(t, pump.metrics.collectors()...) {
			if strings.Contains(name, "{app") {
				return false
			}
		}
		return true
	})
}

// TestLabelsAreBounded: any number of endpoints makes a bounded number of series.
func TestLabelsAreBounded(t *testing.T) {
	t.Parallel()
	p := &Pump{metrics: newMetrics(), config: PumpConfig{Now: time.Now}}
	endpoints := make([]*Endpoint, 10_000)
	levels := make(map[string]*level)
	for i := range endpoints {
		endpoints[i] = &Endpoint{ID: uuid.New(), Settings: Settings{Name: fmt.Sprintf("app%d", i)}, State: Active}
		if i%10 == 9 {
			endpoints[i].State = Failing
		}
		p.metrics.count(endpoints[i], delivered)
		behind := len(endpoints) - i
		s := &standing{endpoint: endpoints[i], waiting: behind, oldest: time.Now().Add(time.Duration(-behind) * time.Second)}
		p.look(t.Context(), s, levels)
	}
	p.metrics.show(levels)
	all, others := metrictest.Values(t, p.metrics.collectors()...), float64(len(endpoints)-maxLabels)
	for metric, want := range map[string]int{
		"upcall_hook_attempts_total": maxLabels + 1, "upcall_hook_state": 4 * (maxLabels + 1), "upcall_hook_lag_events": maxLabels + 1,
		"upcall_hook_lag_seconds": maxLabels + 1,
	} {
		if n := number(all, metric); n != want {
			t.Errorf("%s has %d series, want %d", metric, n, want)
		}
	}
	for name, want := range map[string]float64{
		"upcall_hook_attempts_total{_other,delivered}": others,
		"upcall_hook_state{_other,active}":             others * 9 / 10,
		"upcall_hook_state{_other,failing}":            others / 10,
		"upcall_hook_lag_events{_other}":               others, // of the one that is furthest behind, not of the last
	} {
		if all[name] != want {
			t.Errorf("%s is %v, want %v", name, all[name], want)
		}
	}
	if lag := all["upcall_hook_lag_seconds{_other}"]; lag < others-1 || lag > others+100 {
		t.Errorf("lag %v", lag)
	}
	if checkName(otherLabel) == nil {
		t.Errorf("an endpoint can have the name %s", otherLabel)
	}
	renamed := *endpoints[0]
	renamed.Name = "renamed"
	p.metrics.count(&renamed, delivered)
	p.forget(endpoints[1])
	if n := number(metrictest.Values(t, p.metrics.collectors()...), "upcall_hook_attempts_total"); n != maxLabels {
		t.Errorf("%d series after one was renamed and one forgotten", n)
	}
}

// TestDeadLetterIsLogged: the line has all that is needed to send the event again.
func TestDeadLetterIsLogged(t *testing.T) {
	t.Parallel()
	w, a := newWorld(t), newApp(t, status(503))
	w.receiver(t, func(c *PumpConfig) { c.Schedule = Schedule{} })
	e := w.add(t, "app", a)
	ids := w.upload(t, "a key", 1)
	wait.Until(t, "it is dead", func() bool { r, ok := w.retry(t); return ok && r.due == nil })
	type dead struct {
		Level, Msg, Endpoint, Bucket, Problem, Redeliver string
		EndpointID                                       string    `json:"endpoint_id"`
		EventID                                          string    `json:"event_id"`
		ReceivedAt                                       time.Time `json:"received_at"`
		ObjectKey                                        string    `json:"object_key"`
		Attempts, Status                                 int
	}
	var lines []dead
	for line := range strings.Lines(w.logs.String()) {
		var one dead
		if strings.Contains(line, ids[0].String()) {
			if err := json.Unmarshal([]byte(line), &one); err != nil {
				t.Fatal(err)
			}
			lines = append(lines, one)
		}
	}
	if len(lines) != 1 {
		t.Fatalf("%d lines about it: %+v", len(lines), lines)
	}
	one, id := lines[0], ids[0].String()
	if one.Level != "ERROR" || one.Msg != "delivery is a dead letter" || one.Endpoint != "app" || one.EndpointID != e.ID.String() ||
		one.EventID != id || one.ReceivedAt.IsZero() || one.Attempts != 1 || one.Status != 503 || one.Problem == "" ||
		one.Bucket != "photos" || one.ObjectKey != "a key1" {
		t.Errorf("%+v", one)
	}
	var name, event, since string
	if n, err := fmt.Sscanf(one.Redeliver, "receiver hooks redeliver --endpoint %s --event %s --since %s", &name, &event, &since); n != 3 {
		t.Fatalf("%q: %v", one.Redeliver, err)
	}
	at, err := ParseTime(since)
	if err != nil {
		t.Fatal(err)
	}
	a.answers(nil)
	if n, err := w.Redeliver(t.Context(), Redelivery{Endpoint: name, Event: uuid.MustParse(event), Since: at}); err != nil || n != 1 {
		t.Errorf("%d, %v", n, err)
	}
	wait.Until(t, "it is delivered", func() bool { _, ok := w.retry(t); return !ok })
}
