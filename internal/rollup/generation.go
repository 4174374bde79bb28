package rollup

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/eventstore"
	"upcall/internal/feed"
)

// The consumers of the log: that of the current generation, and that of the one which is built.
const (
	Consumer     = "rollup"
	nextConsumer = "rollup/next"
)

// Stages of a generation.
const (
	current  = "current"
	empty    = "empty"
	seed     = "seed"
	build    = "build"
	clearing = "clear"
)

// A generation is a row of rollup_generations.
type generation struct {
	number     int16
	stage      string
	wanted     bool
	counted    feed.Cursor // the zero value if nothing is
	keptBefore *time.Time
	keptUntil  feed.Cursor
}

const generationColumns = "generation, stage, wanted_at IS NOT NULL, counted, kept_before, kept_until"

// generations returns the current one and the other.
func generations(ctx context.Context, pool *pgxpool.Pool) (now, other generation, err error) {
	found := 0
	_, err = eventstore.Exec(ctx, pool, "", "SELECT "+generationColumns+" FROM upcall.rollup_generations ORDER BY stage = 'current'",
		func(rows pgx.Rows) error {
			for rows.Next() {
				var g generation
				var counted, keptUntil string
				if err := rows.Scan(&g.number, &g.stage, &g.wanted, &counted, &g.keptBefore, &keptUntil); err != nil {
					return err
				}
				if g.counted, err = parse(counted); err != nil {
					return err
				}
				if g.keptUntil, err = parse(keptUntil); err != nil {
					return err
				}
				found++
				if other, now = now, g; found == 1 {
					other = g
				}
			}
			return rows.Err()
		})
	switch {
	case err != nil:
		return now, other, fmt.Errorf("read the generations of roll-ups: %w", err)
	case found != 2 || now.stage != current:
		return now, other, errors.New("read the generations of roll-ups: there is none that is current")
	}
	return now, other, nil
}

func parse(cursor string) (feed.Cursor, error) {
	if cursor == "" {
		return feed.Cursor{}, nil
	}
	return feed.ParseCursor(cursor)
}

// counts reports whether an entry is to be counted: it is not counted yet, neither here nor in
// what was copied.
func (g generation) counts(e feed.Entry) bool {
	return !g.counted.Covers(e.Cursor) &&
		(g.keptBefore == nil || !e.Event.ReceivedAt.Before(*g.keptBefore) || !g.keptUntil.Covers(e.Cursor))
}

// foreign reports whether what is counted was numbered by another cluster than an entry.
func (g generation) foreign(e feed.Entry) bool {
	return g.counted != (feed.Cursor{}) && !g.counted.SameSystem(e.Cursor)
}

// setStage changes a generation's stage.
func setStage(ctx context.Context, tx pgx.Tx, number int16, from, to string) error {
	tag, err := tx.Exec(ctx, `UPDATE upcall.rollup_generations SET stage = $3, changed_at = now()
		WHERE generation = $1 AND stage = $2`, number, from, to)
	if err == nil && tag.RowsAffected() == 0 {
		err = errStage
	}
	if err != nil {
		return fmt.Errorf("change the stage of roll-ups: %w", err)
	}
	return nil
}

// ErrName says that no roll-up has the name.
var ErrName = errors.New("no such roll-up: it is rollup, for hourly counts and objects")

// Rebuild asks for a new generation, which a [Worker] builds. Until it is complete, the current one
// is there as before.
func Rebuild(ctx context.Context, pool *pgxpool.Pool) error {
	_, err := eventstore.Exec(ctx, pool, "", `UPDATE upcall.rollup_generations SET wanted_at = coalesce(wanted_at, now())
		WHERE stage = 'current'`, nil)
	if err != nil {
		return fmt.Errorf("ask for new roll-ups: %w", err)
	}
	return nil
}

// A Progress says how far a rebuild is.
type Progress struct {
	Done   bool
	stage  string    // of the generation that is built
	readAt time.Time // received_at of the last event that it has counted; zero if there is none
	days   int       // to compute again
}

// String says so in one line.
func (p Progress) String() string {
	switch {
	case p.Done:
		return "done"
	case p.days > 0:
		return fmt.Sprintf("computing %d days again", p.days)
	case p.stage == clearing:
		return "deleting what an earlier one has left"
	case p.stage == seed:
		return "copying what retention has dropped"
	case p.stage == build && !p.readAt.IsZero():
		return "counting: has come to what was received at " + p.readAt.UTC().Format(time.RFC3339)
	case p.stage == build:
		return "counting"
	}
	return "waiting for a receiver to begin"
}

// Progress returns how far a rebuild is.
func (w *Worker) Progress(ctx context.Context) (Progress, error) {
	now, other, err := generations(ctx, w.config.Pool)
	if err != nil {
		return Progress{}, err
	}
	p := Progress{stage: other.stage}
	if !now.wanted {
		p.days, err = w.daysLeft(ctx, "recheck")
	}
	p.Done = !now.wanted && p.days == 0
	if at := w.building.Load(); at != nil {
		p.readAt = *at
	}
	return p, err
}
