package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// A place is where an event is in the log, and who should have been told of it.
type place struct {
	rank   int    // from the beginning
	xid    uint64 // recorded_xid
	hooked bool   // the applications asked for it
}

// toldVerdict compares what is in the log with what was told of it.
type toldVerdict struct {
	events    int // that the applications asked for
	requests  int // to the one that fails half of the time
	failed    int // of those, answered with a failure
	untold    int // events of which an application was never told, or the reader
	invented  int // told and not recorded
	twice     map[string]int
	disturbed int // requests to a paused application
	bad       []string
	pages     int
	unheard   int // calls of the reader without an answer
	misplaced int // events that the reader got before an earlier one
	setBacks  int // times that it was told again from an earlier place, after a failover
	reread    int // events that it was told twice therefore
	breaker   int // times that it opened
	ended     int // endpoints disabled, dead letters, events dropped untold
	killed    int
	most      int
	held      holding
}

// unexplained is the reason of what nothing explains.
const unexplained = "without a reason"

func (v *toldVerdict) good() bool {
	return v.events > 0 && v.failed > v.requests/3 && v.failed < v.requests*2/3 && v.untold == 0 && v.invented == 0 &&
		v.twice[unexplained] == 0 && v.disturbed == 0 && len(v.bad) == 0 && v.misplaced == 0 && v.ended == 0 &&
		v.most <= mostUncommitted && v.held.early == 0 && v.held.unseen == 0
}

// settle waits until everyone that is not paused has been told of everything, then resumes the
// application that was paused all the time and waits for that. The verdict says what is missing.
func (t *telling) settle(ctx context.Context) error {
	log, err := t.log(ctx)
	if err != nil {
		return err
	}
	var hooked, all []uuid.UUID
	for id, p := range log {
		if all = append(all, id); p.hooked {
			hooked = append(hooked, id)
		}
	}
	t.until(ctx, func() bool {
		return !t.flaky.lacks(hooked) && !t.napper.lacks(hooked) && len(missing(all, t.reader.seen(0))) == 0 && t.idle(ctx)
	})
	if err := t.resume(ctx, t.asleep); err != nil {
		return err
	}
	t.until(ctx, func() bool { return !t.asleep.lacks(hooked) && t.idle(ctx) })
	return nil
}

// idle asks every receiver whether there is work left.
func (t *telling) idle(ctx context.Context) bool {
	for _, r := range t.world.receivers {
		if status, _, err := t.reader.ask(ctx, r, "/v1/idle"); err != nil || status != http.StatusOK {
			return false
		}
	}
	return true
}

// until waits, but not for long.
func (t *telling) until(ctx context.Context, done func() bool) {
	ctx, cancel := context.WithTimeout(ctx, t.limit)
	defer cancel()
	ticker := time.NewTicker(200 * time.Millisecond)
	defer ticker.Stop()
	for !done() && ctx.Err() == nil {
		select {
		case <-ticker.C:
		case <-ctx.Done():
		}
	}
}

// missing returns which of the wanted ids are not there.
func missing(wanted, there []uuid.UUID) (lacking []uuid.UUID) {
	seen := make(map[uuid.UUID]bool, len(there))
	for _, id := range there {
		seen[id] = true
	}
	for _, id := range wanted {
		if !seen[id] {
			lacking = append(lacking, id)
		}
	}
	return lacking
}

// log returns the whole log.
func (t *telling) log(ctx context.Context) (map[uuid.UUID]place, error) {
	conn, err := t.world.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	rows, err := conn.Query(ctx, "SELECT id, recorded_xid, object_key FROM upcall.upload_events ORDER BY recorded_xid, id")
	if err != nil {
		return nil, fmt.Errorf("read the log: %w", err)
	}
	log := make(map[uuid.UUID]place)
	var id uuid.UUID
	var p place
	var key string
	_, err = pgx.ForEachRow(rows, []any{&id, &p.xid, &key}, func() error {
		p.rank, p.hooked = len(log), strings.HasSuffix(key, t.suffix())
		log[id] = p
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the log: %w", err)
	}
	return log, nil
}

// judge compares. The receivers have ended.
func (t *telling) judge(ctx context.Context) (*toldVerdict, error) {
	log, err := t.log(ctx)
	if err != nil {
		return nil, err
	}
	changes, err := t.changes(ctx)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	v := &toldVerdict{twice: make(map[string]int), killed: t.killed, most: t.uncommited, held: t.held}
	for _, a := range t.applications() {
		t.compare(v, a, log, changes)
	}
	t.compareReader(v, log, changes)
	v.breaker = t.world.messages.count("endpoint is failing; it gets only probes until one succeeds")
	for _, bad := range []string{"endpoint is disabled", "delivery is a dead letter", "events were dropped before"} {
		v.ended += t.world.messages.count(bad)
	}
	return v, nil
}

// changes returns from where the log was read again on each timeline.
func (t *telling) changes(ctx context.Context) (map[int]uint64, error) {
	conn, err := t.world.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	rows, err := conn.Query(ctx, "SELECT timeline, since_xid FROM upcall.feed_timelines WHERE timeline > 1")
	if err != nil {
		return nil, fmt.Errorf("read timelines: %w", err)
	}
	since := make(map[int]uint64)
	var timeline int
	var xid uint64
	if _, err = pgx.ForEachRow(rows, []any{&timeline, &xid}, func() error { since[timeline] = xid; return nil }); err != nil {
		return nil, fmt.Errorf("read timelines: %w", err)
	}
	return since, nil
}

// compare compares what an application was told.
func (t *telling) compare(v *toldVerdict, a *application, log map[uuid.UUID]place, changes map[int]uint64) {
	v.disturbed += a.disturbed()
	a.mu.Lock()
	defer a.mu.Unlock()
	v.bad = append(v.bad, a.bad...)
	if a == t.flaky {
		v.requests = len(a.requests)
		for _, r := range a.requests {
			if !r.delivered {
				v.failed++
			}
		}
	}
	for id, p := range log {
		if !p.hooked {
			continue
		}
		if a == t.flaky {
			v.events++
		}
		if len(a.told[id]) == 0 {
			v.untold++
		}
	}
	for id := range a.attempts {
		if p, there := log[id]; !there || !p.hooked {
			v.invented++
		}
	}
	for id, times := range a.told {
		for i := 1; i < len(times); i++ {
			reason := t.explain(a, id, log[id], times[i-1], times[i], changes)
			if v.twice[reason]++; reason == unexplained {
				v.bad = append(v.bad, fmt.Sprintf("%s was told of %s at %s and at %s", a.name, id,
					times[i-1].Format(time.StampMilli), times[i].Format(time.StampMilli)))
			}
		}
	}
}

const (
	// commitsWithin is within what time a delivery is committed, and noticedWithin how long it
	// takes a receiver at most to notice that its connection brings nothing any more.
	commitsWithin, noticedWithin = time.Second, 6 * time.Second
)

// explain says why an event was delivered a second time. What is known to have been uncommitted,
// or to be read again, comes first.
func (t *telling) explain(a *application, id uuid.UUID, at place, first, second time.Time, changes map[int]uint64) string {
	for _, i := range t.faults {
		since, noted := changes[i.timeline]
		if (i.left[a][id] || noted && at.xid >= since) && first.Before(i.end) && second.After(i.begin) {
			return i.name
		}
	}
	for _, i := range t.faults {
		if i.left == nil && first.After(i.begin.Add(-commitsWithin)) && first.Before(i.end.Add(noticedWithin)) {
			return i.name // the place was not committed because of it
		}
	}
	return unexplained
}

// compareReader compares what the reader of the event API was told.
func (t *telling) compareReader(v *toldVerdict, log map[uuid.UUID]place, changes map[int]uint64) {
	r := t.reader
	r.mu.Lock()
	defer r.mu.Unlock()
	v.pages, v.unheard, v.bad = r.pages, r.failed, append(v.bad, r.bad...)
	since := slices.Sorted(maps.Values(changes))
	seen := make(map[int]bool, len(r.events))
	last := -1
	for _, id := range r.events {
		p, there := log[id]
		if !there {
			v.invented++
			continue
		}
		if p.rank <= last {
			// It goes back only after a failover, and not further than to the change.
			if v.setBacks++; v.setBacks > len(since) || p.xid < since[0] {
				v.misplaced++
			}
		}
		if last = p.rank; seen[p.rank] {
			v.reread++
		}
		seen[p.rank] = true
	}
	v.untold += len(log) - len(seen)
}

func (v *toldVerdict) print(out io.Writer) {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	share := 0.0
	if v.requests > 0 {
		share = 100 * float64(v.failed) / float64(v.requests)
	}
	rows := [][2]any{
		{"events that hooks tell of", v.events},
		{"requests to the endpoint that fails half of the time", v.requests},
		{"of those, answered with a failure", fmt.Sprintf("%d (%.1f %%)", v.failed, share)},
		{"times that a breaker opened", v.breaker},
		{"receivers killed while they delivered", v.killed},
		{"answered and not committed, at most, at one kill", v.most},
	}
	for _, reason := range slices.Sorted(maps.Keys(v.twice)) {
		if reason != unexplained {
			rows = append(rows, [2]any{"delivered twice because of: " + reason, v.twice[reason]})
		}
	}
	rows = append(rows, [][2]any{
		{"delivered twice " + unexplained, v.twice[unexplained]},
		{"never told, by a hook or the event API", v.untold},
		{"told and not recorded", v.invented},
		{"requests begun on a paused endpoint", v.disturbed},
		{"endpoints disabled, dead letters, events dropped untold", v.ended},
		{"pages of the event API", v.pages},
		{"calls of it without an answer", v.unheard},
		{"times that it went back after a failover", v.setBacks},
		{"events read twice therefore", v.reread},
		{"events out of order", v.misplaced},
		{"wrong requests and answers, and what is " + unexplained, len(v.bad)},
	}...)
	if v.held.times > 0 {
		rows = append(rows, [][2]any{
			{"upcall_feed_lag_seconds at the end", fmt.Sprintf("%.1f", v.held.lag)},
			{"told while an older transaction was open", v.held.early},
			{"times that metric or status did not show it", v.held.unseen},
		}...)
	}
	for _, row := range rows {
		fmt.Fprintf(table, "%s\t%v\n", row[0], row[1])
	}
	table.Flush()
	for _, bad := range v.bad[:min(len(v.bad), 5)] {
		fmt.Fprintln(out, "wrong: "+bad)
	}
}
