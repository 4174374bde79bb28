package reconcile

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"upcall/internal/callbackspec"
	"upcall/internal/event"
	"upcall/internal/eventstore"
	"upcall/internal/oss"
)

// headPage is how many objects OSS is asked for before what it said is committed.
const headPage = 100

// recover asks OSS for the candidates and records the uploads that are missing.
func (r *run) recover(ctx context.Context) error {
	for {
		keys, err := r.inState(ctx, "candidate", headPage)
		if err != nil || len(keys) == 0 {
			return err
		}
		next := r.record
		next.after = keys[len(keys)-1]
		missing, err := r.lookAt(ctx, keys, &next.counts)
		if err != nil {
			return err
		}
		if r.DryRun {
			next.counts.Missing += int64(len(missing))
			err = r.commit(ctx, next, func(tx pgx.Tx) error { return r.settle(ctx, tx, keys, keysOf(missing), nil) })
		} else {
			err = r.recordAll(ctx, next, keys, missing)
		}
		if err != nil {
			return err
		}
		r.report()
	}
}

// inState returns the next keys in a state.
func (r *run) inState(ctx context.Context, state string, limit int) (keys []string, err error) {
	_, err = eventstore.Exec(ctx, r.Pool, "upcall_reconcile_state", `SELECT object_key FROM upcall.reconcile_objects
		WHERE run_id = $1 AND state = $2 AND object_key > $3 ORDER BY object_key LIMIT $4`, func(rows pgx.Rows) (err error) {
		keys, err = pgx.CollectRows(rows, pgx.RowTo[string])
		return err
	}, r.id, state, r.after, limit)
	if err != nil {
		return nil, fmt.Errorf("read objects: %w", eventstore.Unavailable(err))
	}
	return keys, nil
}

// A missed is an object that the log does not tell of, as OSS has it now, with the event that will.
type missed struct {
	key   string
	event *event.Event
}

func keysOf(missing []missed) []string {
	keys := make([]string, len(missing))
	for i, m := range missing {
		keys[i] = m.key
	}
	return keys
}

// heads asks OSS for objects; the result has no entry for those that are not there.
func (r *run) heads(ctx context.Context, keys []string) (map[string]oss.Head, error) {
	answers := make([]*oss.Head, len(keys))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(r.Parallel)
	for i, key := range keys {
		group.Go(func() error {
			head, there, err := r.caller.head(ctx, r.Bucket, key)
			if there {
				answers[i] = &head
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	found := make(map[string]oss.Head, len(keys))
	for i, head := range answers {
		if head != nil {
			found[keys[i]] = *head
		}
	}
	return found, nil
}

// lookAt returns which candidates are missing, by what OSS and the log say now. It counts those that are
// not, except what was stored or removed while the run was under way.
func (r *run) lookAt(ctx context.Context, keys []string, c *Counts) ([]missed, error) {
	found, err := r.heads(ctx, keys)
	if err != nil {
		return nil, err
	}
	var there []object
	for _, key := range keys {
		head, ok := found[key]
		switch {
		case !ok, r.young(head.LastModified):
		case !r.Since.IsZero() && head.LastModified.Before(r.Since):
		case head.LastModified.Before(r.kept):
			c.TooOld++
		default:
			there = append(there, object{key: key, etag: head.ETag, size: &head.Size, modified: head.LastModified})
		}
	}
	known, err := r.knownNow(ctx, there)
	if err != nil {
		return nil, err
	}
	c.Known += int64(len(known))
	there = slices.DeleteFunc(there, func(o object) bool { return known[o.key] })
	judged, err := r.issued(ctx, there)
	if err != nil {
		return nil, err
	}
	var missing []missed
	for _, j := range judged {
		switch {
		case j.told:
			c.Known++
		case j.upload.ID == uuid.Nil:
			c.Foreign++
		default:
			missing = append(missing, missed{j.key, r.eventOf(found[j.key], j)})
		}
	}
	return missing, nil
}

// knownNow returns which objects the roll-ups tell of by now.
func (r *run) knownNow(ctx context.Context, objects []object) (map[string]bool, error) {
	known := make(map[string]bool)
	if len(objects) == 0 {
		return known, nil
	}
	var keys, etags []string
	var sizes []*int64
	var times []time.Time
	for _, o := range objects {
		keys, etags, sizes, times = append(keys, o.key), append(etags, o.etag), append(sizes, o.size), append(times, o.modified)
	}
	_, err := eventstore.Exec(ctx, r.Pool, "upcall_reconcile_known", `SELECT g.object_key FROM (
			SELECT object_key, nullif(etag, '') AS etag, size, last_modified
			FROM unnest($2::text[], $3::text[], $4::bigint[], $5::timestamptz[]) AS given (object_key, etag, size, last_modified)
		) AS g `+rollupOf+` WHERE told.known`, func(rows pgx.Rows) error {
		var key string
		_, err := pgx.ForEachRow(rows, []any{&key}, func() error { known[key] = true; return nil })
		return err
	}, r.Bucket, keys, etags, sizes, times)
	if err != nil {
		return nil, fmt.Errorf("look for objects: %w", eventstore.Unavailable(err))
	}
	return known, nil
}

// eventOf returns what is known of an upload that no one told of: what OSS and the ledger say.
func (r *run) eventOf(head oss.Head, j judgement) *event.Event {
	size := head.Size
	callback := callbackspec.Callback{Bucket: r.Bucket, Object: j.key, ETag: head.ETag, Size: &size, CRC64: head.CRC64,
		MimeType: head.ContentType, Vars: j.upload.EventVars()}
	return &event.Event{
		ID:         event.RecoveredID(event.SourceReconcile, r.Bucket, j.key, "", head.ETag, head.LastModified),
		ReceivedAt: head.LastModified, Callback: callback, Source: event.SourceReconcile,
		UploadID: uuid.NullUUID{UUID: j.upload.ID, Valid: true},
	}
}

// recordAll records what is missing and settles all candidates of a page. If PostgreSQL does not accept one of the
// objects, it tries them one by one: what an uploader chose for one must not keep the others from being recorded.
func (r *run) recordAll(ctx context.Context, next record, keys []string, missing []missed) error {
	err := r.recordPage(ctx, next, keys, missing)
	if !errors.Is(err, event.ErrUnstorable) && !errors.Is(err, event.ErrDeadLetter) {
		return err
	}
	if len(missing) == 1 {
		r.Logger.ErrorContext(ctx, "an object could not become an event",
			slog.String("object", missing[0].key), slog.String("error", err.Error()))
		next.counts.Missing++
		return r.commit(ctx, next, func(tx pgx.Tx) error { return r.settle(ctx, tx, keys, keysOf(missing), nil) })
	}
	// All that is not missing is settled with the first: next counts it, and a run that is killed counts it once.
	step := without(keys, keysOf(missing))
	for i, m := range missing {
		next.after = m.key
		if err := r.recordAll(ctx, next, append(step, m.key), missing[i:i+1]); err != nil {
			return err
		}
		next, step = r.record, nil
	}
	return nil
}

// recordPage records what is missing and settles all candidates of a page, in one transaction, so that a run
// that is killed counts each once.
func (r *run) recordPage(ctx context.Context, next record, keys []string, missing []missed) error {
	events := make([]*event.Event, len(missing))
	for i, m := range missing {
		events[i] = m.event
	}
	r.saving.Lock()
	defer r.saving.Unlock()
	before := r.record
	var saved record
	var known []*event.Event
	err := eventstore.RecoverWith(ctx, r.Pool, events, func(tx pgx.Tx, became []eventstore.Recovery) error {
		var stay, recovered []string
		saved, known = next, nil
		for i, b := range became {
			switch b {
			case eventstore.Recovered:
				saved.counts.Missing++
				saved.counts.Recovered++
				recovered, known = append(recovered, missing[i].key), append(known, events[i])
			case eventstore.AlreadyKnown:
				saved.counts.Known++
			case eventstore.RecoveryRevoked:
				saved.counts.Foreign++
			case eventstore.RecoveryTooOld:
				saved.counts.TooOld++
			default:
				saved.counts.Missing++
				stay = append(stay, missing[i].key)
			}
		}
		r.record = saved
		defer func() { r.record = before }()
		if err := r.saveWith(ctx, tx, ""); err != nil { // its commit is relied upon
			return err
		}
		return r.settle(ctx, tx, keys, stay, recovered)
	})
	if err != nil {
		return err
	}
	r.record = saved
	for _, e := range known {
		r.Known(e, r.Now())
	}
	return nil
}

// settle gives the candidates of a page their states.
func (r *run) settle(ctx context.Context, tx pgx.Tx, all, missing, recovered []string) error {
	return errors.Join(r.mark(ctx, tx, without(without(all, missing), recovered), ""),
		r.mark(ctx, tx, missing, "missing"), r.mark(ctx, tx, recovered, "recovered"))
}

// without returns the keys that are not among others.
func without(keys, others []string) []string {
	return slices.DeleteFunc(slices.Clone(keys), func(key string) bool { return slices.Contains(others, key) })
}
