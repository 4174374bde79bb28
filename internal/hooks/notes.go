package hooks

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"

	"upcall/internal/eventstore"
)

const (
	// writeEvery is how often attempts are written, and successesEvery how often those that
	// succeeded: only the latest of them are kept, so most need not be written at all.
	writeEvery, successesEvery = time.Second, 10 * time.Second
	// maxNotes bounds the attempts that wait to be written.
	maxNotes = 10_000
	// writeRows is how many rows one statement writes.
	writeRows = 500
	// keepEvery is how often old rows are deleted and partitions made, keepAgain when that is
	// tried again after it failed, and keepTimeout bounds it.
	keepEvery, keepAgain, keepTimeout = time.Hour, time.Minute, 5 * time.Second
)

// notes are attempts that are to be written.
type notes struct {
	mu        sync.Mutex
	others    []Attempt               // failures, and what operators asked for
	successes map[uuid.UUID][]Attempt // by endpoint, the latest
	lost      int                     // because there were too many
}

// note keeps an attempt for writing. It does not block.
func (p *Pump) note(e *Endpoint, a Attempt) {
	p.metrics.observe(a)
	n := &p.notes
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case a.Delivered && a.Reason != ForRedelivery:
		if n.successes == nil {
			n.successes = make(map[uuid.UUID][]Attempt)
		}
		latest := append(n.successes[e.ID], a)
		if len(latest) > 2*keepSuccesses {
			latest = append(latest[:0], latest[len(latest)-keepSuccesses:]...)
		}
		n.successes[e.ID] = latest
	case len(n.others) < maxNotes:
		n.others = append(n.others, a)
	default:
		n.lost++
	}
}

// writeNotes writes attempts until ctx ends, and then what is left.
func (p *Pump) writeNotes(ctx context.Context) {
	ticker := time.NewTicker(writeEvery)
	defer ticker.Stop()
	wrote := time.Now()
	for {
		select {
		case <-ticker.C:
			all := time.Since(wrote) >= successesEvery
			if all {
				wrote = time.Now()
			}
			p.write(ctx, all)
		case <-ctx.Done():
			bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
			defer cancel()
			p.write(bounded, true)
			return
		}
	}
}

func (p *Pump) write(ctx context.Context, successes bool) {
	n := &p.notes
	n.mu.Lock()
	rows, lost := n.others, n.lost
	n.others, n.lost = nil, 0
	var endpoints []uuid.UUID
	if successes {
		for id, latest := range n.successes {
			rows = append(rows, latest[max(0, len(latest)-keepSuccesses):]...)
			endpoints = append(endpoints, id)
		}
		n.successes = nil
	}
	n.mu.Unlock()
	if lost > 0 {
		p.warn(ctx, "attempts were not kept, because too many wait to be written", fmt.Errorf("%d attempts", lost))
	}
	for len(rows) > 0 {
		step := rows[:min(len(rows), writeRows)]
		if err := writeAttempts(ctx, p.config.Pool, step, p.now()); err != nil {
			p.warn(ctx, "attempts were not kept", err)
			return // deliveries matter, and this must not pile up
		}
		rows = rows[len(step):]
	}
	if len(endpoints) > 0 {
		if err := p.trimSuccesses(ctx, endpoints); err != nil {
			p.warn(ctx, "old attempts were not deleted", err)
		}
	}
}

// succeeded is the condition of the index on attempts of which only the latest are kept.
const succeeded = "delivered AND reason NOT IN ('test', 'redelivery')"

// trimSuccesses deletes all but the latest successes of endpoints.
func (p *Pump) trimSuccesses(ctx context.Context, endpoints []uuid.UUID) error {
	return p.exec(ctx, `
		DELETE FROM upcall.hook_attempts a USING (
			SELECT id, (SELECT at FROM upcall.hook_attempts WHERE endpoint_id = id AND `+succeeded+`
				ORDER BY at DESC OFFSET $2 LIMIT 1) AS last
			FROM unnest($1::uuid[]) AS endpoints (id)) e
		WHERE a.endpoint_id = e.id AND a.at <= e.last AND `+succeeded, endpoints, keepSuccesses)
}

// keep makes the partitions of attempts and deletes old rows, until ctx ends.
func (p *Pump) keep(ctx context.Context) {
	for {
		bounded, cancel := context.WithTimeout(ctx, keepTimeout)
		err := Keep(bounded, p.config.Pool, p.now())
		cancel()
		next := keepEvery
		if err != nil {
			p.warn(ctx, "attempts of hooks were not tidied", err)
			if !errors.Is(err, eventstore.ErrMistake) { // which no trying fixes
				next = keepAgain
			}
		}
		if sleep(ctx, next) != nil {
			return
		}
	}
}
