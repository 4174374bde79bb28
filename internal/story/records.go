package story

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype/zeronull"

	"upcall/internal/eventstore"
)

// MostRecords is the most rows of one list.
const MostRecords = 1000

// mostCounted is up to where refusals of one reason are counted, so that it takes as long however many there are.
const mostCounted = 1000

// A Reason is why callbacks are refused, and how many of them are kept.
type Reason struct {
	Reason string    `json:"reason"`
	Kept   int       `json:"kept"` // up to 1000
	Latest time.Time `json:"latest"`
}

// Reasons returns why callbacks were refused, the latest first.
func (s *Stories) Reasons(ctx context.Context) ([]Reason, error) {
	all := []Reason{}
	// One look at the index for each reason, instead of all rows.
	_, err := eventstore.Exec(ctx, s.config.Pool, "", `
		WITH RECURSIVE reasons AS (
			(SELECT reason FROM upcall.refused_callbacks ORDER BY reason LIMIT 1)
			UNION ALL
			SELECT (SELECT reason FROM upcall.refused_callbacks r WHERE r.reason > reasons.reason ORDER BY reason LIMIT 1)
			FROM reasons WHERE reason IS NOT NULL
		)
		SELECT reason, (SELECT count(*) FROM (SELECT FROM upcall.refused_callbacks r WHERE r.reason = reasons.reason LIMIT $1) AS counted),
			(SELECT max(refused_at) FROM upcall.refused_callbacks r WHERE r.reason = reasons.reason) AS latest
		FROM reasons WHERE reason IS NOT NULL ORDER BY latest DESC`, func(rows pgx.Rows) (err error) {
		all, err = pgx.AppendRows(all, rows, func(row pgx.CollectableRow) (r Reason, err error) {
			err = row.Scan(&r.Reason, &r.Kept, &r.Latest)
			r.Latest = r.Latest.UTC()
			return r, err
		})
		return err
	}, mostCounted)
	if err != nil {
		return nil, fmt.Errorf("read reasons of refusals: %w", eventstore.Unavailable(err))
	}
	return all, nil
}

// Refused returns the latest callbacks that were refused for a reason.
func (s *Stories) Refused(ctx context.Context, reason string, limit int) ([]Refusal, error) {
	all := []Refusal{}
	_, err := eventstore.Exec(ctx, s.config.Pool, "", `
		SELECT reason, refused_at, source_addr, bucket, object_key, request_id, upload_id
		FROM upcall.refused_callbacks WHERE reason = $1 ORDER BY refused_at DESC LIMIT $2`, func(rows pgx.Rows) (err error) {
		all, err = pgx.AppendRows(all, rows, scanRefusal)
		return err
	}, reason, limit)
	if err != nil {
		return nil, fmt.Errorf("read refusals: %w", eventstore.Unavailable(err))
	}
	return all, nil
}

// A Run is one that compared a bucket with the log.
type Run struct {
	ID        int64      `json:"run_id"`
	Bucket    string     `json:"bucket"`
	Prefix    string     `json:"prefix"`
	DryRun    bool       `json:"dry_run"`
	Stage     string     `json:"stage"` // done, failed, or what it does
	BegunAt   time.Time  `json:"begun_at"`
	EndedAt   *time.Time `json:"ended_at"`
	Listed    int64      `json:"listed"`
	Known     int64      `json:"known"`
	Missing   int64      `json:"missing"`
	Recovered int64      `json:"recovered"`
	Vanished  int64      `json:"vanished"`
	Foreign   int64      `json:"foreign"`
	TooOld    int64      `json:"too_old"`
	Problem   *string    `json:"problem"`
}

// Runs returns the latest runs, the latest first.
func (s *Stories) Runs(ctx context.Context, limit int) ([]Run, error) {
	all := []Run{}
	_, err := eventstore.Exec(ctx, s.config.Pool, "", `
		SELECT run_id, bucket, prefix, dry_run, stage, begun_at, ended_at, listed, known, missing, recovered, vanished, unissued, too_old,
			problem
		FROM upcall.reconcile_runs ORDER BY run_id DESC LIMIT $1`, func(rows pgx.Rows) (err error) {
		all, err = pgx.AppendRows(all, rows, func(row pgx.CollectableRow) (r Run, err error) {
			err = row.Scan(&r.ID, &r.Bucket, &r.Prefix, &r.DryRun, &r.Stage, &r.BegunAt, &r.EndedAt, &r.Listed, &r.Known, &r.Missing,
				&r.Recovered, &r.Vanished, &r.Foreign, &r.TooOld, &r.Problem)
			if r.BegunAt = r.BegunAt.UTC(); r.EndedAt != nil {
				*r.EndedAt = r.EndedAt.UTC()
			}
			return r, err
		})
		return err
	}, limit)
	if err != nil {
		return nil, fmt.Errorf("read runs: %w", eventstore.Unavailable(err))
	}
	return all, nil
}

// A Loss is how many uploads of a day a callback told of, and how many it did not.
type Loss struct {
	Day            string   `json:"day"` // in UTC
	Bucket         *string  `json:"bucket"`
	Received       int64    `json:"received"`
	ByNotification int64    `json:"by_notification"`
	ByReconcile    int64    `json:"by_reconcile"`
	LostShare      *float64 `json:"lost_share"` // null if there was no upload
}

// Losses returns the losses since a time, by day and bucket, the latest first. The view upload_loss says the same of all days;
// this reads the hours of those that are asked for.
func (s *Stories) Losses(ctx context.Context, since time.Time) ([]Loss, error) {
	all := []Loss{}
	_, err := eventstore.Exec(ctx, s.config.Pool, "", `
		SELECT day::text, bucket, received, by_notification, by_reconcile,
			(by_notification + by_reconcile)::float8 / nullif(received + by_notification + by_reconcile, 0)
		FROM (SELECT (hour AT TIME ZONE 'UTC')::date AS day, bucket,
				coalesce(sum(uploads) FILTER (WHERE source = 'callback'), 0)::bigint AS received,
				coalesce(sum(uploads) FILTER (WHERE source = 'notification'), 0)::bigint AS by_notification,
				coalesce(sum(uploads) FILTER (WHERE source = 'reconcile'), 0)::bigint AS by_reconcile
			FROM upcall.rollup_hourly WHERE generation = `+current+` AND hour >= $1 AND uploads <> 0
			GROUP BY 1, bucket) AS days
		ORDER BY day DESC, bucket LIMIT $2`, func(rows pgx.Rows) (err error) {
		all, err = pgx.AppendRows(all, rows, func(row pgx.CollectableRow) (l Loss, err error) {
			var bucket string
			err = row.Scan(&l.Day, (*zeronull.Text)(&bucket), &l.Received, &l.ByNotification, &l.ByReconcile, &l.LostShare)
			l.Bucket = orNil(bucket)
			return l, err
		})
		return err
	}, since, MostRecords)
	if err != nil {
		return nil, fmt.Errorf("read losses: %w", eventstore.Unavailable(err))
	}
	return all, nil
}
