package hooks

import (
	"context"
	"errors"
)

// dispatch begins as many deliveries as may be in flight: first tries before retries, and only
// a probe while the breaker is open.
func (l *lane) dispatch(ctx context.Context) {
	if !l.working() || ctx.Err() != nil {
		return
	}
	if l.breaker.open {
		for d := range l.flying {
			if d.probe {
				return
			}
		}
		if l.breaker.mayProbe(l.pump.now()) {
			d := l.oldest(ctx)
			switch {
			case d == nil:
			case l.pump.slots.take(len(l.flying), l.wake):
				d.probe = true
				l.begin(ctx, d)
			default:
				l.putBack(d)
			}
		}
		return
	}
	next := 0
	for len(l.flying) < l.endpoint.MaxInFlight {
		for next < len(l.window) && (l.window[next].done || l.window[next].attempt != nil) {
			next++
		}
		var d *delivery
		switch {
		case next < len(l.window):
			d = l.window[next]
		case len(l.due) > 0:
			d = l.due[0]
		default:
			return
		}
		if !l.pump.slots.take(len(l.flying), l.wake) {
			return
		}
		if !d.first {
			l.due = l.due[1:]
		}
		l.begin(ctx, d)
	}
}

// oldest returns the oldest delivery that is due, nil if there is none.
func (l *lane) oldest(ctx context.Context) *delivery {
	if len(l.due) == 0 && !l.pump.now().Before(l.lookAt) {
		l.loadRetries(ctx, 1)
	}
	if len(l.due) > 0 {
		d := l.due[0]
		l.due = l.due[1:]
		return d
	}
	for _, d := range l.window {
		if !d.done && d.attempt == nil {
			return d
		}
	}
	return nil
}

// begin sends a delivery, for which a slot was taken.
func (l *lane) begin(ctx context.Context, d *delivery) {
	ctx, cancel := context.WithCancel(ctx)
	flight := &inFlight{cancel: cancel, connected: make(chan struct{}), settled: make(chan struct{})}
	d.attempt = flight
	l.flying[d] = true
	var body []byte
	err := errDropped
	if d.event != nil {
		body, err = d.message().Body()
	}
	connected, settled := onceClose(flight.connected), onceClose(flight.settled)
	r := request{
		url: l.endpoint.URL, headers: l.endpoint.Headers, secrets: l.endpoint.secrets(l.pump.now()), id: d.id.String(), body: body,
		connected: connected, sent: settled,
	}
	l.pump.metrics.inFlight.Add(1)
	go func() {
		defer l.pump.slots.give()
		defer l.pump.metrics.inFlight.Add(-1)
		defer cancel()
		defer settled()
		if err != nil { // nothing can be sent, ever
			l.results <- result{d, outcome{began: l.pump.now(), problem: err.Error()}, errPoison}
			return
		}
		o, err := l.pump.sender.send(ctx, r)
		l.results <- result{d, o, err}
	}()
}

var (
	// errDropped says that the event of a retry is no longer kept.
	errDropped = errors.New("the event was dropped from the log")
	// errPoison says that a message can never be sent.
	errPoison = errors.New("message cannot be sent")
)
