package hooks

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"upcall/internal/event"
	"upcall/internal/testing/wait"
	"upcall/internal/webhook"
)

// find records findings about events, and returns their ids.
func (w *world) find(t *testing.T, kind event.Kind, events ...uuid.UUID) (ids []uuid.UUID) {
	t.Helper()
	for _, id := range events {
		ids = append(ids, event.FindingID(id, kind))
		w.exec(t, `INSERT INTO upcall.findings (id, event_received_at, event_id, kind, found, found_at)
			SELECT $1, received_at, id, $3, '{"etag": "AB12"}', '2027-01-02 03:04:05.678Z' FROM upcall.upload_events WHERE id = $2`,
			ids[len(ids)-1], id, string(kind))
	}
	return ids
}

func on(kinds ...webhook.Kind) func(*Settings) { return func(s *Settings) { s.On = kinds } }

// told returns what has arrived, each message once, as its type's word and key.
func (a *app) told() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var told []string
	for _, one := range a.arrived {
		told = append(told, strings.TrimSuffix(strings.TrimPrefix(one.kind, "upcall.upload."), ".v1")+" "+one.key)
	}
	slices.Sort(told)
	return slices.Compact(told)
}

func (a *app) waitToTell(t *testing.T, want ...string) {
	t.Helper()
	wait.Until(t, fmt.Sprintf("%q arrive", want), func() bool { return len(a.told()) >= len(want) })
	if diff := cmp.Diff(want, a.told()); diff != "" {
		t.Error(diff)
	}
}

// TestFindingsAreDelivered: endpoints are told of what they ask for, by kind and by all else.
func TestFindingsAreDelivered(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.receiver(t)
	plain, both, every, elsewhere := newApp(t, nil), newApp(t, nil), newApp(t, nil), newApp(t, nil)
	w.add(t, "plain", plain)
	w.add(t, "both", both, on(webhook.Disputed, webhook.Gone), func(s *Settings) { s.KeyPrefixes = []string{"b"} })
	w.add(t, "all", every, on(webhook.Recorded, webhook.Disputed, webhook.Gone))
	w.add(t, "elsewhere", elsewhere, on(webhook.Disputed, webhook.Gone), func(s *Settings) { s.Buckets = []string{"elsewhere"} })
	a, b := w.upload(t, "a", 1)[0], w.upload(t, "b", 1)[0]
	gone := w.find(t, webhook.Gone, b)[0]
	w.find(t, webhook.Disputed, a, b)
	last := w.upload(t, "c", 1)
	every.waitToTell(t, "disputed a1", "disputed b1", "gone b1", "recorded a1", "recorded b1", "recorded c1")
	both.waitToTell(t, "disputed b1", "gone b1")
	plain.waitFor(t, last)
	plain.waitToTell(t, "recorded a1", "recorded b1", "recorded c1")
	if n := elsewhere.requests(); n > 0 {
		t.Errorf("%d requests about another bucket", n)
	}

	both.mu.Lock()
	defer both.mu.Unlock()
	i := slices.IndexFunc(both.arrived, func(one arrival) bool { return one.id == gone.String() })
	if i < 0 {
		t.Fatalf("the finding %s is not among %+v", gone, both.arrived)
	}
	var message struct {
		Time time.Time
		Data struct {
			EventID   uuid.UUID `json:"event_id"`
			ObjectKey string    `json:"object_key"`
			Found     map[string]any
		}
	}
	if err := json.Unmarshal([]byte(both.arrived[i].body), &message); err != nil {
		t.Fatal(err)
	}
	if message.Data.EventID != b || message.Data.ObjectKey != "b1" || message.Data.Found["etag"] != "AB12" ||
		!message.Time.Equal(time.Date(2027, 1, 2, 3, 4, 5, 678e6, time.UTC)) {
		t.Errorf("got %s", both.arrived[i].body)
	}
}

// TestFindingsSince: an endpoint that begins at a time is told of what is found later, about older
// events, too.
func TestFindingsSince(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.receiver(t)
	app := newApp(t, nil)
	old := w.upload(t, "old", 2)
	w.find(t, webhook.Disputed, old[0])
	w.exec(t, "UPDATE upcall.findings SET found_at = now() - interval '1 hour'")
	both := Filter{On: []webhook.Kind{webhook.Recorded, webhook.Disputed}}
	settings := Settings{Name: "since", URL: app.URL, Filter: both}
	_, _, err := w.Add(t.Context(), settings, app.secret, Start{Since: time.Now().Add(-time.Minute)})
	if err != nil {
		t.Fatal(err)
	}
	w.exec(t, "UPDATE upcall.hook_endpoints SET received_since = now(), version = version + 1")
	w.exec(t, "UPDATE upcall.hook_changes SET version = version + 1")
	found := w.find(t, webhook.Disputed, old[1])
	app.waitFor(t, found)
	for _, told := range app.told() {
		if told == "disputed old1" {
			t.Error("it is told of what was found before")
		}
	}
}

// TestFindingsAreRetried: what is tried again, by itself or on request, is still a finding with what was
// found, and so is what is kept of it.
func TestFindingsAreRetried(t *testing.T) {
	t.Parallel()
	w, down := newWorld(t), newApp(t, status(500))
	w.receiver(t, func(c *PumpConfig) { c.Schedule = Schedule{time.Millisecond} })
	down.decide = func(n int, id string) int { return 500 }
	endpoint := w.add(t, "down", down, on(webhook.Recorded, webhook.Disputed, webhook.Gone))
	ids := w.upload(t, "k", 1)
	finding := w.find(t, webhook.Disputed, ids...)[0]
	wait.Until(t, "both are dead letters", func() bool { return w.count(t, "hook_retries WHERE due_at IS NULL") == 2 })
	kinds := func() (all []string) {
		dead, err := w.Failed(t.Context(), "down", true, 10)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range dead {
			all = append(all, fmt.Sprint(d.Kind, d.EventID))
		}
		slices.Sort(all)
		return all
	}
	want := []string{"disputed" + finding.String(), "recorded" + ids[0].String()}
	if diff := cmp.Diff(want, kinds()); diff != "" {
		t.Error(diff)
	}
	wait.Until(t, "attempts are kept", func() bool {
		attempts, err := w.AttemptsOf(t.Context(), ids[0])
		if err != nil {
			t.Fatal(err)
		}
		n := make(map[string]int)
		for _, a := range attempts {
			n[fmt.Sprint(a.Kind, a.EventID)]++
		}
		return cmp.Equal(n, map[string]int{want[0]: 2, want[1]: 2})
	})

	down.mu.Lock()
	down.decide = nil
	down.mu.Unlock()
	down.answers(nil)
	deliver := func(what string, r Redelivery, messages ...uuid.UUID) {
		t.Helper()
		down.mu.Lock()
		before := len(down.arrived)
		down.mu.Unlock()
		if n, err := w.Redeliver(t.Context(), r); n != len(messages) || err != nil {
			t.Errorf("%s: %d messages, %v; want %d", what, n, err, len(messages))
		}
		wait.Until(t, what+" is delivered", func() bool { return w.count(t, "hook_retries WHERE due_at IS NOT NULL") == 0 })
		down.mu.Lock()
		defer down.mu.Unlock()
		var got, wanted []string
		for _, one := range down.arrived[before:] {
			got = append(got, one.id)
			if found := strings.Contains(one.body, `"found":{"etag"`); found != (one.id == finding.String()) {
				t.Errorf("%s: got %s", what, one.body)
			}
		}
		for _, id := range messages {
			wanted = append(wanted, id.String())
		}
		slices.Sort(got)
		slices.Sort(wanted)
		if diff := cmp.Diff(wanted, got); diff != "" {
			t.Errorf("%s: %s", what, diff)
		}
	}
	deliver("all dead letters", Redelivery{Endpoint: "down"}, ids[0], finding)
	deliver("the finding", Redelivery{Event: finding}, finding)
	deliver("the event", Redelivery{Event: ids[0]}, ids[0], finding)
	deliver("a time", Redelivery{Since: time.Now().Add(-time.Hour)}, ids[0], finding)

	down.answers(status(500))
	if n, err := w.Redeliver(t.Context(), Redelivery{Event: finding}); n != 1 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	wait.Until(t, "it is a dead letter again", func() bool { return len(kinds()) == 1 })
	w.exec(t, "DELETE FROM upcall.findings")
	if n, err := w.Redeliver(t.Context(), Redelivery{Endpoint: endpoint.ID.String()}); n != 1 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	wait.Until(t, "it cannot be sent any more", func() bool {
		return w.count(t, "hook_retries WHERE due_at IS NULL AND problem LIKE '%dropped%'") == 1
	})
}
