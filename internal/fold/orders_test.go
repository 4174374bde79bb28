package fold

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"upcall/internal/dbtest"
	"upcall/internal/event"
	"upcall/internal/eventstore"
	"upcall/internal/feed"
	"upcall/internal/rollup"
	"upcall/internal/testing/wait"
)

// A tale is an order in which things tell of one upload.
type tale struct {
	name   string
	steps  []rune // of callback, repeat of it, notification, listing
	upload uuid.NullUUID
	told   map[rune]*event.Event
}

// orders returns all orders of some steps and of their subsets, where no repeat is without its callback.
func orders(steps string) (all []string) {
	var extend func(begun, rest string)
	extend = func(begun, rest string) {
		if begun != "" {
			all = append(all, begun)
		}
		for i, s := range rest {
			if s == 'r' && !strings.ContainsRune(begun, 'c') {
				continue
			}
			extend(begun+string(s), rest[:i]+rest[i+1:])
		}
	}
	extend("", steps)
	return all
}

// TestOrders tells of uploads in every order in which callback, repeat, notification and listing can come, each
// as an upload with a token, and as one whose callback has only a request id. Between two steps passes more than
// the grace, and roll-ups read the log or do not. In the end each upload counts once everywhere, by the
// best that told of it, and a consumer that minds supersedes has one event of each.
func TestOrders(t *testing.T) {
	t.Parallel()
	t.Run("counted at once", func(t *testing.T) { t.Parallel(); allOrders(t, false) })
	t.Run("counted late", func(t *testing.T) { t.Parallel(); allOrders(t, true) })
}

// allOrders has roll-ups read the log after each step, or only at the end.
func allOrders(t *testing.T, late bool) {
	w := newWorld(t, nil)
	w.now = noon.Add(5 * time.Minute)
	counted := w.rollups(t)
	var tales []*tale
	add := func(kind, order string, tell func(key string, of *tale)) {
		key := kind + "/" + order
		of := &tale{name: key, steps: []rune(order), upload: valid(w.issue(t, key, `{"uid": "42"}`)), told: make(map[rune]*event.Event)}
		tell(key, of)
		of.told['r'] = of.told['c']
		tales = append(tales, of)
	}
	with := func(e *event.Event) *event.Event {
		e.Callback.Vars = map[string]json.RawMessage{"uid": json.RawMessage(`"42"`)}
		return e
	}
	for _, order := range orders("crnl") {
		add("token", order, func(key string, of *tale) {
			of.told['c'] = with(callback(of.upload, key, "R"+key, "E1"))
			of.told['n'] = with(notification(of.upload, key, "R"+key, "e1"))
			of.told['l'] = with(listed(of.upload, key, `"E1"`))
		})
		add("token, no xVars", order, func(key string, of *tale) {
			of.told['c'] = with(callback(of.upload, key, "R"+key, "E1"))
			of.told['n'] = notification(uuid.NullUUID{}, key, "R"+key, "E1")
			of.told['l'] = with(listed(of.upload, key, "E1"))
		})
		add("no key", order, func(key string, of *tale) { // a template of the operator's own
			of.told['c'] = with(callback(of.upload, key, "R"+key, "E1"))
			of.told['c'].Callback.Object = ""
			of.told['n'] = with(notification(of.upload, key, "R"+key, "E1"))
			of.told['l'] = with(listed(of.upload, key, "E1"))
		})
	}
	for _, order := range orders("crn") { // a listing has no request id
		add("no token", order, func(key string, of *tale) {
			of.told['c'] = with(callback(uuid.NullUUID{}, key, "R"+key, ""))
			of.told['n'] = notification(uuid.NullUUID{}, key, "R"+key, "E1")
		})
	}
	for step := range 4 {
		for _, of := range tales {
			if step >= len(of.steps) {
				continue
			}
			e := of.told[of.steps[step]]
			if e.Source == event.SourceReconcile {
				if _, err := eventstore.Recover(t.Context(), w.pool, []*event.Event{e}); err != nil {
					t.Fatal(err)
				}
				continue
			}
			again := *e
			again.Acknowledged = e.Source == event.SourceCallback && step > 0 // out of a spool
			w.record(t, &again)
		}
		if !late {
			counted()
		}
		w.now = w.now.Add(3 * time.Minute)
		w.fold(t)
	}
	counted()
	held := w.consume(t)
	for _, of := range tales {
		w.check(t, of, held)
	}
	if lines, compared, err := rollup.Differences(t.Context(), w.pool, 20); err != nil || compared == 0 || len(lines) > 0 {
		t.Errorf("plain queries and what is kept differ: %v\n%s", err, strings.Join(lines, "\n"))
	}
	w.totals(t, tales)

	// Counted anew, when all is there at once.
	if err := rollup.Rebuild(t.Context(), w.pool); err != nil {
		t.Fatal(err)
	}
	counted()
	for _, of := range tales {
		w.check(t, of, held)
	}
	w.totals(t, tales)
}

// want returns the source by which an upload is to be counted.
func (of *tale) want() event.Source {
	switch {
	case slices.Contains(of.steps, 'c'):
		return event.SourceCallback
	case slices.Contains(of.steps, 'n') && slices.Contains(of.steps, 'l'):
		return of.told[of.steps[slices.IndexFunc(of.steps, func(s rune) bool { return s != 'r' })]].Source // the first
	case slices.Contains(of.steps, 'n'):
		return event.SourceNotification
	}
	return event.SourceReconcile
}

// check looks for one upload in all views.
func (w *world) check(t *testing.T, of *tale, held map[string][]string) {
	t.Helper()
	key, request, source := of.name, "R"+of.name, string(of.want())
	log := w.lines(t, `SELECT source || ' ' || vars::text FROM upcall.upload_log WHERE object_key = $1 OR request_id = $2`, key, request)
	if want := []string{source + ` {"uid": "42"}`}; !slices.Equal(log, want) {
		t.Errorf("%s: upload_log has %q, want %q", key, log, want)
	}
	if got, want := held[key], []string{source}; !slices.Equal(got, want) {
		t.Errorf("%s: a consumer holds %q, want %q", key, got, want)
	}
	objects := w.lines(t, `SELECT format('%s %s %s', source, uploads, removed_at) FROM upcall.uploads WHERE object_key = $1`, key)
	if want := []string{source + " 1 "}; !slices.Equal(objects, want) {
		t.Errorf("%s: uploads has %q, want %q", key, objects, want)
	}
	id := of.upload
	if strings.Contains(of.name, "no token") && of.want() == event.SourceCallback {
		return // it belongs to none
	}
	status := w.lines(t, `SELECT format('%s %s %s', status, events, overwritten) FROM upcall.upload_status WHERE upload_id = $1`, id)
	if want := []string{"uploaded 1 f"}; !slices.Equal(status, want) {
		t.Errorf("%s: upload_status has %q, want %q", key, status, want)
	}
}

// totals compares sums with what was told.
func (w *world) totals(t *testing.T, tales []*tale) {
	t.Helper()
	bySource, uploaded, unissued := make(map[string]int), 0, 0
	for _, of := range tales {
		bySource[string(of.want())]++
		if strings.Contains(of.name, "no token") && of.want() == event.SourceCallback {
			unissued++
		} else {
			uploaded++
		}
	}
	want := fmt.Sprintf("callback:%d:%d notification:%d:%d reconcile:%d:%d", bySource["callback"], 5*bySource["callback"],
		bySource["notification"], 5*bySource["notification"], bySource["reconcile"], 5*bySource["reconcile"])
	for _, view := range []string{"upload_hourly", "upload_daily"} {
		got := strings.Join(w.lines(t, `SELECT format('%s:%s:%s', source, sum(uploads), sum(bytes))
			FROM upcall.`+view+` GROUP BY source ORDER BY source`), " ")
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", view, diff)
		}
	}
	loss := w.lines(t, `SELECT format('%s %s %s %s %s %s', day, bucket, received, by_notification, by_reconcile,
			round(lost_share::numeric, 6))
		FROM upcall.upload_loss`)
	lost := bySource["notification"] + bySource["reconcile"]
	if diff := cmp.Diff([]string{fmt.Sprintf("2026-11-22 demo %d %d %d %.6f", bySource["callback"], bySource["notification"],
		bySource["reconcile"], float64(lost)/float64(len(tales)))}, loss); diff != "" {
		t.Errorf("upload_loss (-want +got):\n%s", diff)
	}
	funnel := w.lines(t, `SELECT format('%s %s %s %s %s', issued, uploaded, revoked, overwritten, unissued)
		FROM upcall.upload_funnel WHERE day = '2026-11-22'`)
	if diff := cmp.Diff([]string{fmt.Sprintf("%d %d 0 0 %d", len(tales), uploaded, unissued)}, funnel); diff != "" {
		t.Errorf("upload_funnel (-want +got):\n%s", diff)
	}
}

// consume reads the log as an application does that minds supersedes, and returns the sources of the events that it
// holds in the end, by key.
func (w *world) consume(t *testing.T) map[string][]string {
	t.Helper()
	log := w.log(t)
	after, err := log.Oldest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	n := w.number(t, "SELECT count(*) FROM upcall.upload_events")
	events, supersede := make(map[uuid.UUID]*event.Event), 0
	for read := 0; read < n; {
		page, err := log.Next(t.Context(), after, 100)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page.Entries {
			if s := e.Event.Supersedes; s.Valid {
				if supersede++; events[s.UUID] == nil {
					t.Errorf("%s supersedes %s, which it does not have", e.Event.Callback.RequestID, s.UUID)
				}
				delete(events, s.UUID)
			}
			events[e.Event.ID] = e.Event
		}
		read, after = read+len(page.Entries), page.Next
	}
	if supersede == 0 {
		t.Error("no event supersedes another")
	}
	held := make(map[string][]string)
	for _, e := range events {
		key := e.Callback.Object
		if key == "" {
			key = strings.TrimPrefix(e.Callback.RequestID, "R")
		}
		held[key] = append(held[key], string(e.Source))
	}
	return held
}

func (w *world) number(t testing.TB, sql string, args ...any) (n int) {
	t.Helper()
	if err := w.pool.QueryRow(t.Context(), sql, args...).Scan(&n); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return n
}

// log returns a running log.
func (w *world) log(t *testing.T) *feed.Log {
	t.Helper()
	log, err := feed.New(feed.Config{Pool: dbtest.Open(t, w.url, eventstore.OpenFeed), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { log.Run(ctx); close(done) }()
	t.Cleanup(func() { stop(); <-done })
	return log
}

// rollups starts what counts, and returns a function that has it count until all is.
func (w *world) rollups(t *testing.T) (counted func()) {
	t.Helper()
	pool := dbtest.Open(t, w.url, eventstore.OpenFeed)
	consumers, err := feed.NewConsumers(feed.ConsumersConfig{Pool: pool})
	if err != nil {
		t.Fatal(err)
	}
	log := w.log(t)
	return func() {
		worker, err := rollup.New(rollup.Config{Pool: pool, Log: log, Consumers: consumers,
			Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { worker.Run(ctx); close(done) }()
		wait.Until(t, "all is counted", func() bool {
			if w.number(t, "SELECT count(*) FROM upcall.feed_consumers WHERE name = 'rollup'") == 0 {
				return false
			}
			behind, err := worker.Behind(context.Background())
			if err != nil {
				t.Error(err)
			}
			p, err := worker.Progress(context.Background())
			if err != nil {
				t.Error(err)
			}
			return len(behind) == 0 && p.Done
		})
		stop()
		<-done
	}
}
