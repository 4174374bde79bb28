package rollup

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"

	"upcall/internal/feed"
)

// stepRows is how many rows are copied or deleted in one transaction.
const stepRows = 2000

// tend does what the other generation needs, under the lease of the current one, so that no two do
// it at once. It reports whether there is more to do.
func (s *stint) tend(ctx context.Context) (more bool, err error) {
	at := s.lease.Cursor()
	switch {
	case s.other.stage == seed: // whoever began is gone
		return true, s.lease.Commit(ctx, at, func(tx pgx.Tx) error { return setStage(ctx, tx, s.other.number, seed, clearing) })
	case s.other.stage == clearing:
		return true, s.lease.Commit(ctx, at, func(tx pgx.Tx) error { return clearStep(ctx, tx, s.other.number) })
	case s.other.stage == empty && s.mine.wanted:
		return true, s.begin(ctx)
	}
	return false, nil
}

// clearStep deletes some rows of a generation, or makes it empty.
func clearStep(ctx context.Context, tx pgx.Tx, number int16) error {
	for _, table := range []string{"rollup_hourly", "rollup_objects", "rollup_versions", "rollup_superseded"} {
		tag, err := tx.Exec(ctx, fmt.Sprintf(`DELETE FROM upcall.%[1]s WHERE ctid = ANY (ARRAY(
			SELECT ctid FROM upcall.%[1]s WHERE generation = $1 LIMIT $2))`, table), number, stepRows)
		if err != nil {
			return fmt.Errorf("delete roll-ups: %w", err)
		}
		if tag.RowsAffected() > 0 {
			return nil
		}
	}
	if _, err := tx.Exec(ctx, `UPDATE upcall.rollup_generations SET counted = '', kept_before = NULL, kept_until = ''
		WHERE generation = $1 AND stage = 'clear'`, number); err != nil {
		return fmt.Errorf("delete roll-ups: %w", err)
	}
	return setStage(ctx, tx, number, clearing, empty)
}

// begin copies what retention has dropped, and lets the other generation be built. Nothing is counted
// meanwhile, so that what is copied is that of one moment.
func (s *stint) begin(ctx context.Context) error {
	at := s.lease.Cursor()
	end, err := s.config.Log.Now(ctx)
	if err != nil {
		return err
	}
	var before *time.Time
	err = s.lease.Commit(ctx, at, func(tx pgx.Tx) error {
		if err := tx.QueryRow(ctx, "SELECT dropped_before FROM upcall.feed_log").Scan(&before); err != nil {
			return err
		}
		until := s.mine.counted
		if until != (feed.Cursor{}) && !until.SameSystem(end) {
			until = end // late events of another cluster cannot be told from those that are counted
		}
		_, err := tx.Exec(ctx, "UPDATE upcall.rollup_generations SET kept_before = $2, kept_until = $3 WHERE generation = $1",
			s.other.number, before, until.String())
		if err != nil {
			return err
		}
		return setStage(ctx, tx, s.other.number, empty, seed)
	})
	if err != nil {
		return err
	}
	if before != nil {
		c := copier{stint: s, before: *before}
		if err := c.run(ctx); err != nil {
			return err
		}
	}
	oldest, err := s.config.Log.Oldest(ctx)
	if err != nil {
		return err
	}
	return s.lease.Commit(ctx, at, func(tx pgx.Tx) error {
		if err := setStage(ctx, tx, s.other.number, seed, build); err != nil {
			return err
		}
		return feed.AddConsumer(ctx, tx, nextConsumer, oldest)
	})
}

// swap makes the generation that has reached the end of the log the current one. Days that are stored
// are computed again; until then they are shown as they are if the other consumer has covered what
// this one has read, and so has marked what changed.
func (s *stint) swap(ctx context.Context, covered bool) error {
	at := s.lease.Cursor()
	err := s.lease.Commit(ctx, at, func(tx pgx.Tx) error {
		var same bool
		if err := tx.QueryRow(ctx, "SELECT dropped_before IS NOT DISTINCT FROM $1 FROM upcall.feed_log", s.mine.keptBefore).
			Scan(&same); err != nil {
			return err
		}
		if !same {
			return errDropped
		}
		// In the order in which the other consumer locks them. It has lost its lease then.
		if err := feed.MoveConsumer(ctx, tx, Consumer, at); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `UPDATE upcall.rollup_generations SET wanted_at = NULL, stage = 'clear', changed_at = now()
			WHERE stage = 'current'`)
		if err != nil {
			return err
		}
		if err := setStage(ctx, tx, s.mine.number, build, current); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `UPDATE upcall.rollup_days SET version = version + 1, recheck = true, stored = stored AND $1
			WHERE day >= `+firstDay, covered)
		if err != nil {
			return err
		}
		return feed.RemoveConsumer(ctx, tx, nextConsumer)
	})
	if errors.Is(err, errDropped) {
		return s.restart(ctx, err.Error())
	}
	if err == nil {
		s.config.Logger.InfoContext(ctx, "roll-ups were built again")
	}
	return err
}

// restart gives up a generation that is being built, so that it is begun again.
func (s *stint) restart(ctx context.Context, why string) error {
	s.config.Logger.WarnContext(ctx, "roll-ups are built again from the beginning", slog.String("reason", why))
	return s.lease.Commit(ctx, s.lease.Cursor(), func(tx pgx.Tx) error {
		if err := setStage(ctx, tx, s.mine.number, build, clearing); err != nil {
			return err
		}
		return feed.RemoveConsumer(ctx, tx, nextConsumer)
	})
}
