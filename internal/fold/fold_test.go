package fold

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"upcall/internal/event"
	"upcall/internal/eventstore"
)

// TestOutcomes settles one notification of each kind.
func TestOutcomes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) { c.RetentionDays = 31 })
	none := uuid.NullUUID{}
	vars := func(e *event.Event, text string) *event.Event {
		e.Callback.Vars = map[string]json.RawMessage{"uid": json.RawMessage(text)}
		return e
	}
	at := func(e *event.Event, at time.Time) *event.Event { e.ReceivedAt = at; return e }
	issued := func(key string) uuid.NullUUID { return valid(w.issue(t, key, `{"uid": "ledger"}`)) }
	revoked, of := issued("revoked"), issued("with token")
	w.exec(t, "INSERT INTO upcall.revoked_uploads VALUES ($1, now())", revoked)
	issued("from ledger")
	issued("used")
	hot := issued("hot")
	w.exec(t, `INSERT INTO upcall.issued_uploads (upload_id, issued_at, expires_at, bucket, object_key)
		SELECT gen_random_uuid(), $1, $1, 'demo', 'hot' FROM generate_series(1, 101)`, noon.Add(time.Hour))
	known := issued("known")
	w.record(t, callback(known, "known", "R1", "E1"), callback(none, "no token", "R2", "E2"), callback(none, "both unknown", "R3", ""))
	w.exec(t, `INSERT INTO upcall.issued_uploads (upload_id, issued_at, expires_at, bucket, object_key) VALUES
		(gen_random_uuid(), $1, $1, 'demo', 'issued later'), (gen_random_uuid(), '2025-01-01', $1, 'demo', 'old'),
		(gen_random_uuid(), $2, $2, 'demo', 'expired long ago')`, noon.Add(time.Hour), noon.Add(-25*time.Hour))
	removal := notification(none, "removed", "R20", "")
	removal.Callback.Operation = "DeleteObject"
	long := at(notification(none, "old", "R13", "E13"), noon.AddDate(0, -3, 0))
	tests := []struct {
		told *event.Event
		want string
		vars string // of the event that it becomes
	}{
		{notification(known, "known", "R1", "E1"), "known", ""},
		{notification(known, "known", "another", "e1"), "known", ""},
		{notification(none, "no token", "R2", "E2"), "known", ""},
		{notification(none, "both unknown", "R3", "E3"), "known", ""},
		{vars(notification(of, "with token", "R4", "E4"), `"x"`), "recorded", `{"uid": "x"}`},
		{notification(valid(uuid.New()), "no ledger", "R5", "E5"), "recorded", `{}`},
		{notification(hot, "hot", "R15", "E15"), "recorded", `{"uid": "ledger"}`},
		{notification(none, "hot", "R16", "E16"), "recorded", `{"uid": "ledger"}`},
		{notification(none, "from ledger", "R6", "E6"), "recorded", `{"uid": "ledger"}`},
		{notification(none, "from ledger", "R7", "E7"), "recorded", `{"uid": "ledger"}`}, // used twice
		{notification(none, "from ledger", "R8", "E7"), "known", ""},                     // as far as we can tell
		{notification(none, "issued later", "R9", "E9"), "foreign", ""},
		{notification(none, "never issued", "R10", "E10"), "foreign", ""},
		{notification(none, "expired long ago", "R14", "E14"), "foreign", ""},
		{notification(revoked, "revoked", "R11", "E11"), "revoked", ""},
		{notification(none, "revoked", "R12", "E12"), "revoked", ""},
		{long, "too_old", ""},
		{removal, "removal", ""},
	}
	for _, test := range tests {
		test.told.Callback.ClientIP = netip.MustParseAddr("192.0.2.1")
		w.record(t, test.told)
	}
	w.now = w.now.Add(2*time.Minute - time.Second)
	w.fold(t)
	for _, test := range tests {
		if got := w.outcome(t, test.told.ID); got != "" {
			t.Errorf("%s was settled as %s before its time", test.told.Callback.Object, got)
		}
	}
	if behind, err := w.Behind(t.Context()); err != nil || len(behind) != 1 || !strings.HasPrefix(behind[0], "notifications: 18, ") {
		t.Errorf("behind: %v, %v", behind, err)
	}
	w.now = w.now.Add(time.Second)
	w.fold(t)
	want := make(map[string]float64)
	for _, test := range tests {
		e := test.told
		want[test.want]++
		if got := w.outcome(t, e.ID); got != test.want {
			t.Errorf("%s of request %s became %s, want %s", e.Callback.Object, e.Callback.RequestID, got, test.want)
		}
		got := w.lines(t, `SELECT format('%s %s %s', source, vars, received_at = $2) FROM upcall.upload_events WHERE id = $1`,
			e.ID, e.ReceivedAt)
		if test.want == "recorded" && fmt.Sprint(got) != "[notification "+test.vars+" t]" || test.want != "recorded" && len(got) != 0 {
			t.Errorf("%s of request %s is recorded as %s", e.Callback.Object, e.Callback.RequestID, got)
		}
	}
	for outcome, n := range want {
		if got := counted(t, w.Worker, outcome); got != n {
			t.Errorf("%v were counted as %s, want %v", got, outcome, n)
		}
	}
	if got := w.lines(t, "SELECT bucket || ' ' || object_key FROM upcall.removals WHERE removed_at = $1 AND source = 'notification'",
		removal.ReceivedAt); fmt.Sprint(got) != "[demo removed]" {
		t.Errorf("removals: %s", got)
	}
	if behind, err := w.Behind(t.Context()); err != nil || len(behind) != 0 {
		t.Errorf("at the end it is behind: %v, %v", behind, err)
	}
	if got := w.number(t, "SELECT count(*) FROM upcall.notifications WHERE vars <> '{}' OR client_ip IS NOT NULL"); got > 0 {
		t.Errorf("%d settled notifications still have variables or an address", got)
	}
	// The same notifications again, as OSS's message service repeats them.
	for _, test := range tests {
		w.record(t, test.told)
	}
	w.now = w.now.Add(time.Hour)
	w.fold(t)
	if got := w.lines(t, "SELECT count(*)::text FROM upcall.upload_events"); got[0] != "9" {
		t.Errorf("after repeats there are %s events, want 9", got[0])
	}
}

// TestNoGrace settles notifications at once.
func TestNoGrace(t *testing.T) {
	t.Parallel()
	known := make(map[uuid.UUID]time.Time)
	woken := 0
	w := newWorld(t, func(c *Config) {
		c.Grace, c.Wake = 0, func() { woken++ }
		c.Known = func(e *event.Event, at time.Time) { known[e.ID] = at }
	})
	e := notification(valid(uuid.New()), "k", "R1", "E1")
	w.record(t, e)
	w.fold(t)
	if got := w.outcome(t, e.ID); got != "recorded" {
		t.Errorf("it became %q", got)
	}
	if len(known) != 1 || !known[e.ID].Equal(w.now) || woken != 1 {
		t.Errorf("known: %v, woken %d times", known, woken)
	}
}

// TestManyReceivers has several settle the same notifications at once.
func TestManyReceivers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) { c.Grace = 0 })
	const n = 600
	for i := range n {
		upload := valid(uuid.New())
		if i%3 > 0 {
			w.record(t, callback(upload, fmt.Sprint(i), fmt.Sprint("R", i), "E"))
		}
		w.record(t, notification(upload, fmt.Sprint(i), fmt.Sprint("R", i), "E"))
	}
	workers := []*Worker{w.Worker}
	for range 2 {
		other, err := New(w.config)
		if err != nil {
			t.Fatal(err)
		}
		workers = append(workers, other)
	}
	var group sync.WaitGroup
	for _, worker := range workers {
		group.Go(func() {
			for {
				if n, err := worker.Once(t.Context()); err != nil || n == 0 {
					if err != nil {
						t.Error(err)
					}
					return
				}
			}
		})
	}
	group.Wait()
	w.fold(t)
	var recorded, known float64
	for _, worker := range workers {
		recorded += counted(t, worker, "recorded")
		known += counted(t, worker, "known")
	}
	if recorded+known != n {
		t.Errorf("%v were counted as recorded and %v as known, of %d", recorded, known, n)
	}
	if got := w.lines(t, "SELECT count(*)::text FROM upcall.upload_events WHERE source = 'notification'"); got[0] != fmt.Sprint(n/3) {
		t.Errorf("%s were recorded, want %d", got[0], n/3)
	}
}

// TestRefused settles a notification that PostgreSQL does not accept as an event, and those beside it.
func TestRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) { c.Grace = 0 })
	w.exec(t, "ALTER TABLE upcall.upload_events ADD CONSTRAINT theirs CHECK (object_key <> 'bad')")
	bad, good := notification(valid(uuid.New()), "bad", "R1", "E1"), notification(valid(uuid.New()), "good", "R2", "E2")
	w.record(t, bad, good)
	w.fold(t)
	if got := w.outcome(t, bad.ID); got != "unrecorded" {
		t.Errorf("it became %q, want unrecorded", got)
	}
	if got := w.outcome(t, good.ID); got != "recorded" {
		t.Errorf("the one beside it became %q, want recorded", got)
	}
}

// TestKept deletes what was settled long ago, and nothing else.
func TestKept(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) { c.Grace = 0 })
	known := valid(uuid.New())
	w.record(t, callback(known, "a", "R1", "E1"))
	told := []*event.Event{notification(known, "a", "R1", "E1"), notification(valid(uuid.New()), "b", "R2", "E2"),
		notification(uuid.NullUUID{}, "c", "R3", "E3")}
	w.record(t, told...)
	w.fold(t)
	w.now = noon.Add(time.Hour)
	waiting := notification(valid(uuid.New()), "d", "R4", "E4")
	w.record(t, waiting)
	for _, test := range []struct {
		after time.Duration
		want  string
	}{
		{2 * 24 * time.Hour, "[a b c d]/1"},
		{2*24*time.Hour + time.Second, "[b d]/1"},
		{35 * 24 * time.Hour, "[b d]/1"},
		{35*24*time.Hour + time.Second, "[d]/1"},
	} {
		if _, more, err := eventstore.KeepNotifications(t.Context(), w.pool, noon.Add(test.after)); err != nil || more {
			t.Fatalf("more: %t, %v", more, err)
		}
		got := fmt.Sprint(w.lines(t, "SELECT object_key FROM upcall.notifications ORDER BY object_key")) + "/" +
			w.lines(t, "SELECT count(*)::text FROM upcall.recovered_uploads")[0]
		if got != test.want {
			t.Errorf("after %s there are %s, want %s", test.after, got, test.want)
		}
	}
}

// TestKeepingDoesNotBlockFolding: however much need not be kept, what is due is settled between the steps that delete it.
func TestKeepingDoesNotBlockFolding(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) { c.Grace = 0 })
	const step, old = 1000, 2001
	w.exec(t, `INSERT INTO upcall.notifications (id, received_at, source, noticed_at, settled_at, outcome, vars)
		SELECT gen_random_uuid(), $1, 'notification', $1, $1, 'known', '{}' FROM generate_series(1, $2)`, noon.AddDate(0, -1, 0), old)
	turn := func(left int) {
		t.Helper()
		due := notification(valid(uuid.New()), uuid.NewString(), uuid.NewString(), "E1")
		w.record(t, due)
		if _, err := w.turn(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := w.outcome(t, due.ID); got != "recorded" {
			t.Errorf("what was due became %q", got)
		}
		if n := w.number(t, "SELECT count(*) FROM upcall.notifications WHERE outcome = 'known'"); n != left {
			t.Errorf("%d that need not be kept are there, want %d", n, left)
		}
	}
	turn(old - step)
	turn(old - 2*step)
	turn(0)
	w.exec(t, "UPDATE upcall.notifications SET settled_at = $1, outcome = 'known'", noon.AddDate(0, -1, 0))
	turn(3) // all was deleted just before
	w.now = w.now.Add(keepEvery)
	turn(0)
}
