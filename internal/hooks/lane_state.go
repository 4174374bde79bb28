package hooks

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// sentTimeout is how long a change waits for a request that has a connection to be written.
const sentTimeout = time.Second

type waitGroup = sync.WaitGroup

// onceClose returns a function that closes a channel and may be called again.
func onceClose(c chan struct{}) func() {
	var once sync.Once
	return func() { once.Do(func() { close(c) }) }
}

// apply makes the lane work with a newer version of its endpoint. When it confirms, no request
// with the former version begins any more.
func (l *lane) apply(ctx context.Context, e *Endpoint) {
	if !e.retryAt.IsZero() && e.retryAt.Before(l.lookAt) {
		l.lookAt = e.retryAt // of one that someone else has made, or one that was held
	}
	if e.version <= l.endpoint.version {
		return
	}
	if l.breaker.open && e.FailingSince.IsZero() && e.State == Active { // resumed
		l.breaker = newBreaker(l.pump.config.Schedule)
	}
	if e.State == Active || e.State == Failing {
		// What was to be committed in the meantime was about the former version.
		l.pending.state = l.pending.state || l.breaker.open || e.State == Failing
		if !l.breaker.open {
			e.State, e.Reason = Active, ""
		}
	}
	l.set(e)
	l.settle()
	waiting := l.window[:0]
	for _, d := range l.window {
		if d.done || d.attempt != nil || l.sieve.Load().asksFor(d) {
			waiting = append(waiting, d)
		}
	}
	clear(l.window[len(waiting):])
	l.window = waiting
	l.confirm(ctx)
}

// settle returns when each request in flight is either written or given up.
func (l *lane) settle() {
	for d := range l.flying {
		select {
		case <-d.attempt.connected: // it is being written
		default:
			d.attempt.cancel()
		}
	}
	timeout := time.NewTimer(sentTimeout)
	defer timeout.Stop()
	for d := range l.flying {
		select {
		case <-d.attempt.settled:
			continue
		case <-timeout.C:
			timeout.Reset(0)
		}
		d.attempt.cancel()
		<-d.attempt.settled
	}
}

// confirm says that the lane works with its version of the endpoint. If that fails, it is said
// again with the next commit.
func (l *lane) confirm(ctx context.Context) {
	l.pending.confirm = true
	if err := l.pump.exec(ctx, "UPDATE upcall.hook_endpoints SET confirmed = $2 WHERE id = $1 AND confirmed < $2",
		l.endpoint.ID, l.endpoint.version); err != nil {
		l.pump.warn(ctx, "change of an endpoint was not confirmed", err)
		return
	}
	l.pending.confirm = false
}

// stateChanged notes and logs what a verdict means.
func (l *lane) stateChanged(ctx context.Context, v verdict, problem string) {
	if v == unchanged {
		return
	}
	l.pending.state = true
	logger, attrs := l.pump.config.Logger, l.attrs()
	if problem != "" {
		attrs = append(attrs, slog.String("problem", problem))
	}
	changed := *l.endpoint
	changed.Reason, changed.FailingSince = problem, l.breaker.since
	switch v {
	case opened:
		changed.State = Failing
		logger.WarnContext(ctx, "endpoint is failing; it gets only probes until one succeeds",
			append(attrs, slog.Time("probe_at", l.breaker.probeAt))...)
	case closed:
		changed.State, changed.Reason = Active, ""
		logger.InfoContext(ctx, "endpoint works again", attrs...)
	case disabled:
		changed.State = Disabled
		l.pending.disabled = true
		logger.ErrorContext(ctx, "endpoint is disabled; it keeps its place in the log: run receiver hooks resume "+l.endpoint.Name,
			append(attrs, slog.Time("failing_since", l.breaker.since))...)
	}
	if !l.working() { // an operator paused it while requests were in flight
		changed.State, changed.Reason = l.endpoint.State, l.endpoint.Reason
	}
	l.set(&changed)
}

// interrupt gives up all requests in flight.
func (l *lane) interrupt() {
	for d := range l.flying {
		d.attempt.cancel()
	}
	for d := range l.flying {
		<-d.attempt.settled
	}
	l.standing.Store(nil)
	l.pump.forget(l.endpoint)
}

// finishUp ends the lane in an orderly way: what is in flight may end, and is committed.
func (l *lane) finishUp(ctx context.Context) {
	timeout := time.NewTimer(stopTimeout)
	defer timeout.Stop()
	for len(l.flying) > 0 {
		select {
		case r := <-l.results:
			l.finish(ctx, r)
			continue
		case <-ctx.Done():
		case <-timeout.C:
		}
		break
	}
	bounded, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	l.commit(bounded)
	l.interrupt()
	l.release(ctx)
}

func (l *lane) release(ctx context.Context) {
	if err := l.lease.Release(ctx); err != nil {
		l.pump.warn(ctx, "lease of an endpoint was not released", err)
	}
}
