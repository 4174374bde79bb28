package main

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// TestExplain checks what explains a second delivery, and what does not.
func TestExplain(t *testing.T) {
	t.Parallel()
	at := func(seconds int) time.Time { return time.Unix(int64(seconds), 0) }
	a, other := new(application), new(application)
	left, committed := uuid.New(), uuid.New()
	faults := []interruption{
		{name: "kill", begin: at(100), end: at(102), left: map[*application]map[uuid.UUID]bool{a: {left: true}}},
		{name: "outage", begin: at(200), end: at(205)},
		{name: "kill", begin: at(206), end: at(207), left: map[*application]map[uuid.UUID]bool{a: {left: true}}},
		{name: "failover", begin: at(300), end: at(310), timeline: 2},
	}
	for name, tt := range map[string]struct {
		to            *application
		id            uuid.UUID
		xid           uint64
		first, second int
		want          string
	}{
		"not committed at a kill":                     {a, left, 10, 99, 117, "kill"},
		"committed before the kill":                   {a, committed, 10, 99, 117, unexplained},
		"another application":                         {other, left, 10, 99, 117, unexplained},
		"both before the kill":                        {a, left, 10, 90, 99, unexplained},
		"both after the kill":                         {a, left, 10, 103, 117, unexplained},
		"uncommitted at a kill, just after an outage": {a, left, 10, 205, 217, "kill"},
		"during an outage":                            {a, committed, 10, 202, 207, "outage"},
		"just after an outage":                        {a, committed, 10, 210, 220, "outage"},
		"long before an outage":                       {a, committed, 10, 198, 207, unexplained},
		"long after an outage":                        {a, committed, 10, 212, 220, unexplained},
		"read again from the change":                  {a, committed, 50, 250, 320, "failover"},
		"from before the change":                      {a, committed, 49, 250, 320, unexplained},
		"both before the failover":                    {a, committed, 50, 250, 260, unexplained},
		"both long after the failover":                {a, committed, 50, 320, 330, unexplained},
	} {
		for _, timelines := range []map[int]uint64{{2: 50}, {2: 50, 3: 70}} {
			telling := &telling{faults: faults}
			if got := telling.explain(tt.to, tt.id, place{xid: tt.xid}, at(tt.first), at(tt.second), timelines); got != tt.want {
				t.Errorf("%s: got %q, want %q", name, got, tt.want)
			}
		}
	}
}

// TestReader checks what is wrong in the order in which the event API told of events.
func TestReader(t *testing.T) {
	t.Parallel()
	ids, log := make([]uuid.UUID, 4), make(map[uuid.UUID]place)
	for i := range ids {
		ids[i] = uuid.New()
		log[ids[i]] = place{rank: i, xid: uint64(10 * i)}
	}
	all := func(order ...int) (events []uuid.UUID) {
		for _, i := range order {
			events = append(events, ids[i])
		}
		return events
	}
	for name, tt := range map[string]struct {
		events                                       []uuid.UUID
		timelines                                    map[int]uint64
		untold, invented, misplaced, setBacks, again int
	}{
		"in order":             {events: all(0, 1, 2, 3)},
		"one is missing":       {events: all(0, 1, 3), untold: 1},
		"one is not recorded":  {events: append(all(0, 1, 2, 3), uuid.New()), invented: 1},
		"one comes twice":      {events: all(0, 1, 1, 2, 3), misplaced: 1, setBacks: 1, again: 1},
		"one comes late":       {events: all(0, 2, 1, 3), misplaced: 1, setBacks: 1},
		"after a failover":     {events: all(0, 1, 2, 1, 2, 3), timelines: map[int]uint64{2: 10}, setBacks: 1, again: 2},
		"too far back":         {events: all(0, 1, 2, 1, 2, 3), timelines: map[int]uint64{2: 20}, misplaced: 1, setBacks: 1, again: 2},
		"twice for a failover": {events: all(0, 1, 1, 1, 2, 3), timelines: map[int]uint64{2: 10}, misplaced: 1, setBacks: 2, again: 2},
	} {
		v := new(toldVerdict)
		(&telling{reader: &reader{events: tt.events}}).compareReader(v, log, tt.timelines)
		if v.untold != tt.untold || v.invented != tt.invented || v.misplaced != tt.misplaced || v.setBacks != tt.setBacks ||
			v.reread != tt.again {
			t.Errorf("%s: got %+v", name, v)
		}
	}
}

// TestDisturbed checks which requests count as begun during a pause.
func TestDisturbed(t *testing.T) {
	t.Parallel()
	from := time.Unix(1000, 500_000_000)
	for name, tt := range map[string]struct {
		began int64
		at    time.Duration // after the pause began
		want  int
	}{
		"before":                    {999, -time.Second, 0},
		"on its way when it began":  {1000, 50 * time.Millisecond, 0},
		"begun in the next second":  {1001, 600 * time.Millisecond, 1},
		"in the same second, later": {1000, arrival + time.Millisecond, 1},
		"after it ended":            {1010, 10 * time.Second, 0},
	} {
		a := &application{pauses: []pause{{from: from, to: from.Add(9 * time.Second)}},
			requests: []request{{at: from.Add(tt.at), began: tt.began}}}
		if got := a.disturbed(); got != tt.want {
			t.Errorf("%s: got %d, want %d", name, got, tt.want)
		}
	}
	all := &application{pauses: []pause{{from: from}}, requests: []request{{at: from.Add(time.Hour), began: 4600}}}
	if all.disturbed() != 1 {
		t.Error("a pause without an end has none")
	}
}

// TestVerify checks that an application takes only what is signed and names its event.
func TestVerify(t *testing.T) {
	t.Parallel()
	webhook, err := standardwebhooks.NewWebhook("whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=")
	if err != nil {
		t.Fatal(err)
	}
	id := uuid.New()
	good := `{"id":"` + id.String() + `","data":{"event_id":"` + id.String() + `"}}`
	for name, tt := range map[string]struct {
		body, signed string
		ok           bool
	}{
		"signed":        {good, good, true},
		"other body":    {good, good + " ", false},
		"not JSON":      {"{", "{", false},
		"no event":      {"{}", "{}", false},
		"another event": {`{"id":"` + id.String() + `","data":{}}`, `{"id":"` + id.String() + `","data":{}}`, false},
	} {
		now := time.Now()
		signature, err := webhook.Sign(id.String(), now, []byte(tt.signed))
		if err != nil {
			t.Fatal(err)
		}
		h := make(http.Header)
		h.Set(standardwebhooks.HeaderWebhookID, id.String())
		h.Set(standardwebhooks.HeaderWebhookTimestamp, strconv.FormatInt(now.Unix(), 10))
		h.Set(standardwebhooks.HeaderWebhookSignature, signature)
		got, err := (&application{webhook: webhook}).verify(h, []byte(tt.body))
		if (err == nil) != tt.ok || tt.ok && got != id {
			t.Errorf("%s: got %v, %v", name, got, err)
		}
	}
}

// TestPauses checks where an application is paused among other faults.
func TestPauses(t *testing.T) {
	t.Parallel()
	for kills, want := range map[int]string{
		0: "pause resume", 1: "pause kill resume", 3: "kill pause kill resume kill",
		10: "kill kill kill pause kill kill kill kill resume kill kill kill",
	} {
		got := newFaults(&world{}, nil, command{counts: counts{Kills: kills, Pauses: 1}}).order
		if joined := strings.Join(got, " "); joined != want {
			t.Errorf("%d kills: %s, want %s", kills, joined, want)
		}
	}
}
