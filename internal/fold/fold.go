// Package fold makes events of notifications whose callback has not come.
//
// A notification waits for its callback: see [Config.Grace]. Then it is settled, by whichever receiver comes
// first. If an event tells of the same upload, nothing more happens. If nothing says that we issued the upload,
// it is foreign: neither a token, nor the ledger for that bucket and key. Else it becomes an event, with the
// custom variables of the notification or of the ledger, and goes the way of every event. Its callback may still
// come, out of the spool of another receiver for example, and supersedes it then.
//
// Notifications of removals say which objects are gone.
package fold

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/event"
	"upcall/internal/eventstore"
)

const (
	// mostAtOnce is how many notifications are looked up at once, and mostRecorded how many become events in
	// one transaction, which readers of the log wait for.
	mostAtOnce, mostRecorded = 256, 64
	// stepTimeout bounds the work on as many, so that those that wait for another transaction do not keep the
	// others waiting.
	stepTimeout = 5 * time.Second
	// keepEvery is how often what need not be kept is deleted.
	keepEvery = 10 * time.Minute
	// failedFor is the pause after a failure.
	failedFor = time.Second
)

// Config configures a [Worker].
type Config struct {
	// Pool is from eventstore.Open. Required.
	Pool *pgxpool.Pool
	// Grace is how long a notification waits for its callback. 0 is not at all.
	Grace time.Duration
	// RetentionDays is how long events are kept; 0 is for good. What retention is about to drop is not recorded.
	RetentionDays int
	// Known is called for each event that was recorded, with the time. Default none.
	Known func(*event.Event, time.Time)
	// Wake is called when events have been recorded. Default none.
	Wake func()
	// Logger is told of failures. Required.
	Logger *slog.Logger
	// Now is the clock. Default time.Now.
	Now func() time.Time
	// Poll is how often notifications are looked for; default 500 ms.
	Poll time.Duration
}

// A Worker settles notifications.
type Worker struct {
	config  Config
	metrics *metrics
	failing bool      // has been logged
	kept    time.Time // when all that need not be kept was deleted
}

// New returns a worker. PostgreSQL need not be running yet.
func New(config Config) (*Worker, error) {
	if config.Pool == nil || config.Logger == nil {
		return nil, errors.New("fold config: Pool and Logger are required")
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.Wake == nil {
		config.Wake = func() {}
	}
	if config.Known == nil {
		config.Known = func(*event.Event, time.Time) {}
	}
	config.Poll = cmp.Or(config.Poll, 500*time.Millisecond)
	return &Worker{config: config, metrics: newMetrics()}, nil
}

// Run settles notifications until ctx ends.
func (w *Worker) Run(ctx context.Context) {
	for ctx.Err() == nil {
		wait, err := w.turn(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil && !w.failing {
			w.config.Logger.WarnContext(ctx, "notifications were not settled", slog.String("error", err.Error()))
		}
		w.failing = err != nil
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
}

// turn settles some of what is due, and deletes some of what need not be kept: folding does not wait until all of it is
// gone. It returns when the next turn is.
func (w *Worker) turn(ctx context.Context) (wait time.Duration, err error) {
	n, err := w.Once(ctx)
	if now := w.config.Now(); err == nil && now.Sub(w.kept) >= keepEvery {
		var more bool
		if _, more, err = eventstore.KeepNotifications(ctx, w.config.Pool, now); err == nil && !more {
			w.kept = now
		}
	}
	switch {
	case err != nil:
		return failedFor, err
	case n == mostAtOnce:
		return 0, nil
	}
	return w.config.Poll, nil
}

// Once settles the notifications that have waited longest, and returns how many it looked at.
func (w *Worker) Once(ctx context.Context) (n int, err error) {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	now := w.config.Now()
	_, since, err := eventstore.Waiting(ctx, w.config.Pool, 1)
	if err != nil {
		return 0, err
	}
	w.metrics.wait(since, now.Add(-w.config.Grace))
	if since.IsZero() || since.After(now.Add(-w.config.Grace)) {
		return 0, nil
	}
	due, err := eventstore.DueNotifications(ctx, w.config.Pool, now.Add(-w.config.Grace), mostAtOnce)
	if err != nil {
		return 0, err
	}
	return len(due), w.settle(ctx, due)
}

// Behind says whether notifications wait, also those that are not due yet.
func (w *Worker) Behind(ctx context.Context) ([]string, error) {
	const most = 1000
	n, since, err := eventstore.Waiting(ctx, w.config.Pool, most)
	switch {
	case err != nil || n == 0:
		return nil, err
	case n == most:
		return []string{fmt.Sprintf("notifications: %d or more, the first since %s", n, since.Format(time.RFC3339))}, nil
	}
	return []string{fmt.Sprintf("notifications: %d, the first since %s", n, since.Format(time.RFC3339))}, nil
}

// settle settles notifications that are due.
func (w *Worker) settle(ctx context.Context, due []*event.Event) error {
	var removals []eventstore.Removal
	var removed []uuid.UUID
	var uploads []*event.Event
	for _, e := range due {
		if e.IsRemoval() {
			removals = append(removals, eventstore.Removal{
				Bucket: e.Callback.Bucket, Object: e.Callback.Object, At: e.ReceivedAt, Source: string(event.SourceNotification)})
			removed = append(removed, e.ID)
		} else {
			uploads = append(uploads, e)
		}
	}
	if len(removals) > 0 {
		err := w.commit(ctx, eventstore.OutcomeRemoval, removed, func(tx pgx.Tx) error {
			return eventstore.NoteRemovalsIn(ctx, tx, removals)
		})
		if err != nil {
			return err
		}
	}
	if len(uploads) == 0 {
		return nil
	}
	known, err := eventstore.FindKnown(ctx, w.config.Pool, uploads)
	if err != nil {
		return err
	}
	became := make(map[eventstore.Outcome][]uuid.UUID)
	var unknown []*event.Event
	for i, e := range uploads {
		switch {
		case known[i] != "":
			became[eventstore.Outcome(known[i])] = append(became[eventstore.Outcome(known[i])], e.ID)
		case e.ReceivedAt.Before(eventstore.KeptSince(w.config.Now(), w.config.RetentionDays)):
			became[eventstore.OutcomeTooOld] = append(became[eventstore.OutcomeTooOld], e.ID)
		default:
			unknown = append(unknown, e)
		}
	}
	ours, err := w.issued(ctx, unknown, became)
	if err != nil {
		return err
	}
	for outcome, ids := range became {
		if err := w.commit(ctx, outcome, ids, nil); err != nil {
			return err
		}
	}
	for len(ours) > 0 {
		n := min(len(ours), mostRecorded)
		if err := w.record(ctx, ours[:n]); err != nil {
			return err
		}
		ours = ours[n:]
	}
	return nil
}

// issued returns the events of uploads that we issued, each with its upload and its variables. It sorts the others
// by what becomes of them.
func (w *Worker) issued(ctx context.Context, unknown []*event.Event, became map[eventstore.Outcome][]uuid.UUID) ([]*event.Event, error) {
	var objects []eventstore.StoredObject
	var ids []uuid.UUID // of those that have no variables
	for _, e := range unknown {
		switch {
		case !e.UploadID.Valid:
			objects = append(objects, storedObject(e))
		case len(e.Callback.Vars) == 0:
			ids = append(ids, e.UploadID.UUID)
		}
	}
	var found []eventstore.FoundUpload
	var known map[uuid.UUID]eventstore.IssuedUpload
	var err error
	if len(objects) > 0 {
		if found, err = eventstore.FindIssued(ctx, w.config.Pool, objects); err != nil {
			return nil, err
		}
	}
	if len(ids) > 0 {
		if known, err = eventstore.FindVars(ctx, w.config.Pool, ids); err != nil {
			return nil, err
		}
	}
	var ours []*event.Event
	for _, e := range unknown {
		if e.UploadID.Valid {
			if u, there := known[e.UploadID.UUID]; there && len(e.Callback.Vars) == 0 {
				e.Callback.Vars = u.EventVars()
			}
			ours = append(ours, e)
			continue
		}
		chosen, revoked := eventstore.ChooseIssued(found, storedObject(e).Object, e.ReceivedAt, e.Callback.Size)
		switch {
		case chosen.ID != uuid.Nil:
			e.UploadID = uuid.NullUUID{UUID: chosen.ID, Valid: true}
			if len(e.Callback.Vars) == 0 {
				e.Callback.Vars = chosen.EventVars()
			}
			for i := range found { // another notification of this batch is not of the same use
				found[i].Used = found[i].Used || found[i].ID == chosen.ID
			}
			ours = append(ours, e)
		case revoked:
			became[eventstore.OutcomeRevoked] = append(became[eventstore.OutcomeRevoked], e.ID)
		default:
			became[eventstore.OutcomeForeign] = append(became[eventstore.OutcomeForeign], e.ID)
		}
	}
	return ours, nil
}

func storedObject(e *event.Event) eventstore.StoredObject {
	return eventstore.StoredObject{Object: eventstore.Object{Bucket: e.Callback.Bucket, Key: e.Callback.Object}, At: e.ReceivedAt}
}

// record makes events of notifications, and settles them in the same transaction. If PostgreSQL does not accept
// one of them, it tries them one by one.
func (w *Worker) record(ctx context.Context, ours []*event.Event) error {
	var settled map[eventstore.Outcome]int64
	var recorded []*event.Event
	err := eventstore.RecoverWith(ctx, w.config.Pool, ours, func(tx pgx.Tx, became []eventstore.Recovery) error {
		settled, recorded = make(map[eventstore.Outcome]int64), nil
		ids := make(map[eventstore.Outcome][]uuid.UUID)
		for i, e := range ours {
			ids[eventstore.Outcome(became[i])] = append(ids[eventstore.Outcome(became[i])], e.ID)
			if became[i] == eventstore.Recovered {
				recorded = append(recorded, e)
			}
		}
		for outcome, ids := range ids {
			n, err := eventstore.Settle(ctx, tx, ids, outcome, w.config.Now())
			if err != nil {
				return err
			}
			settled[outcome] = n
		}
		return nil
	})
	switch {
	case errors.Is(err, event.ErrDeadLetter) && len(ours) > 1:
		for i := range ours {
			if err := w.record(ctx, ours[i:i+1]); err != nil {
				return err
			}
		}
		return nil
	case errors.Is(err, event.ErrDeadLetter):
		w.config.Logger.ErrorContext(ctx, "a notification could not become an event",
			slog.String("event_id", ours[0].ID.String()), slog.String("error", err.Error()))
		return w.commit(ctx, eventstore.OutcomeUnrecorded, []uuid.UUID{ours[0].ID}, nil)
	case err != nil:
		return err
	}
	for outcome, n := range settled {
		w.metrics.settled(outcome, n)
	}
	if len(recorded) > 0 {
		for _, e := range recorded {
			w.config.Known(e, w.config.Now())
		}
		w.config.Wake()
	}
	return nil
}

// commit settles notifications, with what else belongs to it.
func (w *Worker) commit(ctx context.Context, became eventstore.Outcome, ids []uuid.UUID, also func(pgx.Tx) error) error {
	var n int64
	err := eventstore.Transact(ctx, w.config.Pool, func(tx pgx.Tx) (err error) {
		if also != nil {
			if err := also(tx); err != nil {
				return err
			}
		}
		n, err = eventstore.Settle(ctx, tx, ids, became, w.config.Now())
		return err
	})
	if err != nil {
		return fmt.Errorf("settle notifications: %w", eventstore.Unavailable(err))
	}
	w.metrics.settled(became, n)
	return nil
}
