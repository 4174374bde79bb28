package ossemu

import (
	"encoding/base64"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"upcall/internal/callbackspec"
	"upcall/internal/testing/wait"
)

// TestNotificationFaults: what is set when an object is stored holds for its notification,
// though that is sent when the faults are gone.
func TestNotificationFaults(t *testing.T) {
	t.Parallel()
	calls, sub := receive(t, nil), subscriber(t, 204)
	gate := make(chan time.Time)
	var mu sync.Mutex
	waited := make(map[time.Duration]int)
	_, base := start(t, notifying(sub, func(c *Config) {
		c.NotifyDelay = time.Second
		c.After = func(d time.Duration) <-chan time.Time {
			mu.Lock()
			defer mu.Unlock()
			waited[d]++
			return gate
		}
	}))
	put := func(key, faults string) reply {
		setFaults(t, base, faults)
		w := newWire("PUT", base, key)
		w.body = strings.NewReader("x")
		w.header.Set("x-oss-callback", encode(t, callbackspec.Parameter{URLs: []string{calls.url}, Body: "a=b"}))
		w.header.Set("x-oss-callback-var", base64.StdEncoding.EncodeToString([]byte(`{"x:uid":"7"}`)))
		return send(t, w.presigned(t))
	}
	status := func(r reply) bool { return r.header.Get("x-oss-event-status") != "" }
	if got := put("both", `{"drop":true,"drop_notification":true}`); got.status != 203 || status(got) {
		t.Errorf("both: %d %v", got.status, got.header)
	}
	if got := put("callback", `{"drop":true}`); got.status != 203 || !status(got) {
		t.Errorf("callback: %d %v", got.status, got.header)
	}
	if got := put("notification", `{"drop_notification":true,"count":1}`); got.status != 200 || status(got) {
		t.Errorf("notification: %d %v", got.status, got.header)
	}
	put("vars", `{"drop_x_vars":true}`)
	put("late", `{"delay_notification":"1h"}`)
	put("often", `{"duplicate_notification":2}`)
	put("plain", `{}`)
	wait.Until(t, "five wait", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return waited[time.Second] == 4 && waited[time.Hour+time.Second] == 1
	})
	if got := fetch(t, base+"/_ossemu/notifications"); strings.Count(got.body, "sent_at") != 2 || len(sub.requests()) != 0 {
		t.Errorf("before the time %d were pushed: %s", len(sub.requests()), got.body)
	}
	close(gate)
	for key, n := range map[string]int{"both": 1, "callback": 1, "notification": 1, "vars": 1, "late": 1, "often": 3, "plain": 1} {
		for _, d := range pushed(t, base, key, n) {
			dropped, vars := key == "both" || key == "notification", strings.Contains(string(d.Message), `"xVars":{"x:uid":"7"}`)
			if (d.Error == "dropped by fault, not sent") != dropped || (d.Status == 204) == dropped || vars == (key == "vars") {
				t.Errorf("%s: %+v", key, d)
			}
		}
	}
	if n := len(sub.requests()); n != 7 {
		t.Errorf("%d pushes arrived", n)
	}
}

// TestNotificationFaultOfRemoval: a removal's notification is dropped, too, and counts for nothing.
func TestNotificationFaultOfRemoval(t *testing.T) {
	t.Parallel()
	sub := subscriber(t, 204)
	_, base := start(t, notifying(sub))
	put := func(key string) {
		w := newWire("PUT", base, key)
		w.body = strings.NewReader("x")
		send(t, w.presigned(t))
	}
	put("a")
	pushed(t, base, "a", 1)
	setFaults(t, base, `{"drop_notification":true,"count":1}`)
	send(t, newWire("DELETE", base, "a").presigned(t))
	put("b")
	put("c")
	list := append(pushed(t, base, "a", 2)[1:], append(pushed(t, base, "b", 1), pushed(t, base, "c", 1)...)...)
	if list[0].Error == "" || list[1].Error == "" || list[2].Error != "" {
		t.Errorf("%+v", list)
	}
}

// TestResetWithNotificationsUnderWay holds that what waits is not pushed into the next test.
func TestResetWithNotificationsUnderWay(t *testing.T) {
	t.Parallel()
	sub := subscriber(t, 500)
	begun := make(chan time.Duration, 2)
	_, base := start(t, notifying(sub, func(c *Config) {
		c.After = func(d time.Duration) <-chan time.Time { begun <- d; return make(chan time.Time) }
	}))
	put := func(key string) {
		w := newWire("PUT", base, key)
		w.body = strings.NewReader("x")
		send(t, w.presigned(t))
	}
	put("again")
	<-begun // the first push was not taken
	setFaults(t, base, `{"delay_notification":"1h"}`)
	put("later")
	<-begun
	reset(t, base, `{"callbacks":0,"multipart_uploads":0,"objects":2,"notifications":1}`)
	put("next")
	<-begun
	if list := pushed(t, base, "", 1); list[0].Object != "next" || len(sub.requests()) != 2 {
		t.Errorf("%d pushes arrived; listed %+v", len(sub.requests()), list)
	}
	r, err := http.NewRequestWithContext(t.Context(), "DELETE", base+"/_ossemu/notifications", nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := send(t, r); got.status != 204 || len(pushed(t, base, "", 0)) != 0 {
		t.Errorf("forget: %d", got.status)
	}
}

// TestCloseWithNotificationsUnderWay: what waits for its delay is pushed, once.
func TestCloseWithNotificationsUnderWay(t *testing.T) {
	t.Parallel()
	sub := subscriber(t, 500)
	s, base := start(t, notifying(sub, func(c *Config) { c.NotifyDelay = time.Hour }))
	w := newWire("PUT", base, "k")
	w.body = strings.NewReader("x")
	send(t, w.presigned(t))
	s.Close()
	pushed(t, base, "k", 1)
}
