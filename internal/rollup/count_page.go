package rollup

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"upcall/internal/feed"
	"upcall/migrations"
)

// count counts a page, in one transaction or several.
func (s *stint) count(ctx context.Context, page feed.Page) error {
	if s.mine.foreign(page.Entries[0]) {
		return s.recount(ctx)
	}
	for rest := page.Entries; len(rest) > 0; {
		n := min(s.chunk, len(rest))
		began := time.Now()
		err := s.countChunk(ctx, rest[:n], "")
		took := time.Since(began)
		switch {
		case err == nil:
			rest = rest[n:]
			s.metrics.seconds.Observe(took.Seconds())
			if took > mostTime {
				s.chunk = max(n/2, 50)
			} else {
				s.chunk = min(s.chunk+s.chunk/4+1, pageSize)
			}
		case !isDataError(err):
			return err
		case n > 1:
			s.chunk = n / 2 // until it is known which event it is
		default:
			// Each event must be counted or set aside, or the consumer would stop at it.
			if err := s.countChunk(ctx, rest[:1], "not counted: "+firstLine(err)); err != nil {
				return err
			}
			rest = rest[1:]
		}
	}
	return nil
}

// countChunk counts entries in one transaction with the cursor. With a problem, they become dead
// letters instead.
func (s *stint) countChunk(ctx context.Context, entries []feed.Entry, problem string) error {
	last := entries[len(entries)-1].Cursor
	not := make(map[key]bool)
	for _, e := range entries {
		if !s.mine.counts(e) {
			not[keyOf(e)] = true
		}
	}
	var b *batch
	err := s.lease.Commit(ctx, last, func(tx pgx.Tx) error {
		if len(not) == len(entries) {
			return nil
		}
		b = &batch{generation: s.mine.number, stage: s.mine.stage, counted: last.String(), now: s.config.Now(), counts: make(counts), there: s.there}
		if problem == "" {
			return b.apply(ctx, tx, entries, not)
		}
		for _, e := range entries {
			b.dead = append(b.dead, deadLetter{e.Event.ID, e.Event.ReceivedAt, problem})
		}
		if err := b.apply(ctx, tx, nil, nil); err != nil {
			return err
		}
		return b.markDays(ctx, tx, entries) // they are in the views of issued uploads
	})
	if err != nil || b == nil {
		return err
	}
	s.mine.counted = last
	for g := range b.counts {
		if g.source = ""; len(s.there) < mostThere {
			s.there[g] = true
		}
	}
	if !s.now {
		s.building.Store(&entries[len(entries)-1].Event.ReceivedAt)
	}
	s.metrics.events.Add(float64(len(entries) - len(not)))
	s.metrics.dead.Add(float64(len(b.dead)))
	for _, d := range b.dead {
		s.config.Logger.WarnContext(ctx, "event is a dead letter of the roll-ups", slog.String("event_id", d.id.String()),
			slog.Time("received_at", d.at), slog.String("problem", d.problem))
	}
	return nil
}

// isDataError reports whether PostgreSQL cannot hold the values: data exceptions (class 22),
// constraints (23) and limits (54).
func isDataError(err error) bool {
	code := migrations.ServerError(err).Code
	return strings.HasPrefix(code, "22") || strings.HasPrefix(code, "23") || strings.HasPrefix(code, "54")
}

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

// recount asks for a new generation, because the log is that of another cluster, and what of it is
// counted is not known: its events may have other places now.
func (s *stint) recount(ctx context.Context) error {
	if !s.now {
		return s.restart(ctx, "the log is that of another cluster now")
	}
	if !s.mine.wanted {
		s.config.Logger.WarnContext(ctx, "the log is that of another cluster now: all roll-ups are built again")
		if err := Rebuild(ctx, s.config.Pool); err != nil {
			return err
		}
	}
	sleep(ctx, lookEvery)
	return nil
}

var errDropped = errors.New("retention has dropped a month since")
