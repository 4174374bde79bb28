package eventstore

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"upcall/internal/callbackspec"
	"upcall/internal/event"
)

// A Recorder commits events in groups.
type Recorder struct {
	group *group[eventRow]
	told  *group[eventRow] // what notifications tell, see [Recorder.Record]
	most  *int32           // events of an upload; nil is no limit
	under underWay
	finds chan struct{} // has room for as many as may look for an event at once
}

// NewRecorder starts the writers. PostgreSQL need not be running yet.
func NewRecorder(config Config) (*Recorder, error) {
	g, err := eventKind.start(config)
	if err != nil {
		return nil, fmt.Errorf("recorder config: %w", err)
	}
	config.Writers, config.OnBatch = 1, nil // notifications are neither urgent nor callbacks
	told, err := notifiedKind.start(config)
	if err != nil {
		return nil, fmt.Errorf("recorder config: %w", err)
	}
	r := &Recorder{group: g, told: told, under: underWay{events: make(map[uuid.UUID][]ongoing)}}
	// The writers keep their connections: anyone can repeat an expired callback, as often as
	// they like, and each repeat is looked for.
	r.finds = make(chan struct{}, max(int(g.config.Pool.Config().MaxConns)-g.config.Writers-1, 1))
	if config.MaxEvents > 0 {
		r.most = new(int32(min(config.MaxEvents, math.MaxInt32)))
	}
	return r, nil
}

// Record returns when the event is committed. It is a duplicate if an event with the same ID
// was committed before, or along with it. What a notification tells is not an event yet: it becomes
// a row of upcall.notifications, which waits there for its callback.
//
// An error wraps [event.ErrUnavailable], [event.ErrUnstorable], [event.ErrRevoked] or
// [event.ErrOverused]. When
// ctx ends, the caller gets event.ErrUnavailable, but the event is still recorded if
// PostgreSQL can be reached. Do not change the maps and pointers in the event afterwards.
func (r *Recorder) Record(ctx context.Context, e *event.Event) (duplicate bool, err error) {
	row, err := newEventRow(e)
	if err != nil {
		return false, err
	}
	now := r.group.config.Now()
	row.clock = now
	if e.Source == event.SourceNotification {
		outcome, err := r.told.commit(ctx, e.ID, row)
		return outcome == known && err == nil, err
	}
	if keep := r.group.config.KeepDays; keep > 0 && e.Acknowledged && e.ReceivedAt.Before(now.AddDate(0, 0, -keep)) {
		row.ReceivedAt = now // else it would be dropped within the hour
	}
	row.most = r.most
	limited := r.most != nil && e.UploadID.Valid && (!e.Acknowledged || r.group.config.LimitAcknowledged)
	if limited {
		row.room = new(max(*r.most-r.under.begin(e.UploadID.UUID, e.ID), 0))
		defer r.under.end(e.UploadID.UUID, e.ID)
	}
	for {
		outcome, err := r.group.commit(ctx, e.ID, row)
		switch {
		case err != nil:
			return false, err
		case outcome == revoked:
			return false, event.ErrRevoked
		case outcome == overused:
			return false, event.ErrOverused
		case outcome != crowded:
			return outcome == known, nil
		}
		if err := pause(ctx, joinTime); err != nil {
			return false, unavailable(err)
		}
		row.room = new(max(*r.most-r.under.ahead(e.UploadID.UUID, e.ID), 0))
	}
}

// Depth returns how many events wait for a writer.
func (r *Recorder) Depth() int { return r.group.depth() + r.told.depth() }

// Close accepts no more events, and returns when those it accepted are answered.
func (r *Recorder) Close() { r.group.close(); r.told.close() }

const findEvent = "SELECT EXISTS (SELECT FROM upcall.callback_ids WHERE upload_id IN ($2, " + noUpload + ") AND id = $1) AND NOT " + barrier

// Find reports whether an event with this ID, of this upload, is committed.
func (r *Recorder) Find(ctx context.Context, id uuid.UUID, upload uuid.NullUUID) (bool, error) {
	return find[bool](ctx, r, findEvent, id, upload.UUID)
}

// find reads one value while there is a connection to spare.
func find[T any](ctx context.Context, r *Recorder, query string, args ...any) (value T, err error) {
	select {
	case r.finds <- struct{}{}:
		defer func() { <-r.finds }()
	case <-ctx.Done():
		return value, fmt.Errorf("find event: %w", unavailable(context.Cause(ctx)))
	}
	if err = queryRow(ctx, r.group.config.Pool, &value, query, args...); err != nil {
		return value, fmt.Errorf("find event: %w", unavailable(err))
	}
	return value, nil
}

const findTime = "SELECT min(received_at) FROM upcall.callback_ids WHERE upload_id IN ($2, " + noUpload + ") AND id = $1"

// ReceivedAt returns when an event with this ID, of this upload, was received first. The error
// wraps [event.ErrUnavailable] if it cannot be found.
func (r *Recorder) ReceivedAt(ctx context.Context, id uuid.UUID, upload uuid.NullUUID) (time.Time, error) {
	at, err := find[*time.Time](ctx, r, findTime, id, upload.UUID)
	switch {
	case err != nil:
		return time.Time{}, err
	case at == nil:
		return time.Time{}, fmt.Errorf("find event: %w: it is not recorded", event.ErrUnavailable)
	}
	return at.UTC(), nil
}

// Ping checks that PostgreSQL records: it commits a batch without events, which needs the same
// rights, connection and statement as any other, and makes this month's partition if it is
// missing.
func (r *Recorder) Ping(ctx context.Context) error {
	config := r.group.config
	_, err := newWriter(config, r.group.kind).commit(ctx, nil)
	if err == nil {
		err = ensureMonths(ctx, config.Pool, []time.Time{config.Now()})
	}
	if err != nil {
		return fmt.Errorf("ping: %w", unavailable(err))
	}
	return nil
}

// Fits returns an error that wraps [event.ErrNoRowFits] if PostgreSQL accepts no event, whatever
// is in it. It keeps none.
func (r *Recorder) Fits(ctx context.Context) error {
	row, err := newEventRow(&event.Event{ReceivedAt: r.group.config.Now()})
	if err != nil {
		return err
	}
	if !newWriter(r.group.config, r.group.kind).sampleFits(ctx, []*request[eventRow]{{row: row}}) {
		return event.ErrNoRowFits
	}
	return nil
}

// An eventRow is an event that PostgreSQL can hold, as far as we can tell.
type eventRow struct {
	event.Event
	vars  []byte    // Callback.Vars as JSON
	clock time.Time // ours, now
	until time.Time // it is refused if its upload was revoked before
	most  *int32    // the limit on the events of an upload; nil is none
	room  *int32    // it is refused if the upload has so many events already; nil is no limit
}

// underWay are the events that are being recorded, which no statement sees yet. Without
// them, many callbacks of one upload at once could pass the limit together. Of each upload,
// they are in the order in which they came, so that the first one waits for no other.
type underWay struct {
	mu     sync.Mutex
	events map[uuid.UUID][]ongoing
}

// An ongoing event is recorded for n callers.
type ongoing struct {
	event uuid.UUID
	n     int
}

// begin adds an event and returns what ahead does.
func (u *underWay) begin(upload, id uuid.UUID) int32 {
	u.mu.Lock()
	defer u.mu.Unlock()
	events := u.events[upload]
	i := place(events, id)
	if i < 0 {
		i, events = len(events), append(events, ongoing{event: id})
		u.events[upload] = events
	}
	events[i].n++
	return int32(i)
}

// ahead returns how many other events of the upload came before this one.
func (u *underWay) ahead(upload, id uuid.UUID) int32 {
	u.mu.Lock()
	defer u.mu.Unlock()
	return int32(place(u.events[upload], id))
}

func (u *underWay) end(upload, id uuid.UUID) {
	u.mu.Lock()
	defer u.mu.Unlock()
	events := u.events[upload]
	i := place(events, id)
	if events[i].n--; events[i].n == 0 {
		events = slices.Delete(events, i, i+1)
		u.events[upload] = events
	}
	if len(events) == 0 {
		delete(u.events, upload)
	}
}

func place(events []ongoing, id uuid.UUID) int {
	return slices.IndexFunc(events, func(o ongoing) bool { return o.event == id })
}

// always is later than any revocation.
var always = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)

// newEventRow encodes the event's variables and checks that PostgreSQL can hold its texts. An
// event that PostgreSQL itself rejects costs the whole batch more transactions, which a
// sender of bad callbacks must not be able to cause.
func newEventRow(e *event.Event) (eventRow, error) {
	if err := e.CheckTexts(); err != nil {
		return eventRow{}, err
	}
	vars, err := event.AppendVars(nil, e.Callback.Vars)
	if err != nil {
		return eventRow{}, err
	}
	row := eventRow{Event: *e, vars: vars}
	row.Source, row.clock = cmp.Or(e.Source, event.SourceCallback), always // as if there were no clock
	if row.until = always; e.Acknowledged {
		row.until = e.ReceivedAt
	}
	return row, nil
}

// storable checks that PostgreSQL can hold the texts.
func storable(texts ...string) error {
	for _, text := range texts {
		if !callbackspec.Storable(text) {
			return fmt.Errorf("%w: a text is not UTF-8, or holds NUL", event.ErrUnstorable)
		}
	}
	return nil
}
