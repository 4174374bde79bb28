package api

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"upcall/internal/testing/proxytest"
	"upcall/internal/testing/toolchain"
	"upcall/internal/testing/wait"
)

// TestProxies checks that long polls and streams work through nginx and Caddy with the
// samples of deploy/proxy, and end at once when the receiver stops. In the long form,
// with UPCALL_TEST_LONG=1, a poll takes 30 seconds and a stream a minute, beyond what proxies
// wait for by default.
func TestProxies(t *testing.T) {
	t.Parallel()
	poll, last := 2*time.Second, 4*time.Second
	if os.Getenv("UPCALL_TEST_LONG") == "1" {
		poll, last = 30*time.Second, time.Minute
	}
	for _, name := range []string{"nginx", "caddy"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			toolchain.Need(t, name)
			w := newWorld(t, func(c *Config) {
				if last < time.Minute {
					c.Ping = time.Second
				}
			})
			base := proxytest.Start(t, name, proxytest.Upstreams{API: w.url}).API
			proxytest.WaitFor(t, base+"/openapi.yaml")
			now := call(t, "GET", base+"/v1/events?after=now", w.viewer, "").body.Next

			polled := make(chan reply, 1)
			go func() {
				polled <- call(t, "GET", fmt.Sprintf("%s/v1/events?after=%s&bucket=other&wait=%v", base, now, poll), w.viewer, "")
			}()
			began := time.Now()
			response, err := get(t, base+"/v1/events/stream?after="+now, w.viewer, "")
			if err != nil {
				t.Fatal(err)
			}
			defer response.Body.Close()
			s := newSSE(response)
			if s.lines.Scan(); s.lines.Text() != ":" || time.Since(began) > 5*time.Second {
				t.Errorf("the first line is %q, after %v", s.lines.Text(), time.Since(began))
			}
			s.lines.Scan()
			var want, got []string
			for n := 0; time.Since(began) < last; n++ {
				want = append(want, w.add(t, "bbb", 1)...)
				written := time.Now()
				_, id := s.next(t)
				got = append(got, id)
				if took := time.Since(written); took > 5*time.Second { // a proxy that keeps events back sends them at the next comment
					t.Errorf("event %d took %v", n, took)
				}
				if n == 1 { // silence but for comments
					for time.Since(began) < last*3/4 && s.lines.Scan() {
					}
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
			if got := <-polled; got.status != 200 || len(got.body.Events) != 0 || got.body.Next == now {
				t.Errorf("the long poll: %d %s", got.status, got.text)
			}
			stopped := time.Now()
			go func() {
				polled <- call(t, "GET", base+"/v1/events?after=now&wait=30s", w.viewer, "")
			}()
			wait.Until(t, "the poll waits", func() bool { return len(w.waiting) == 2 })
			w.Stop()
			for s.lines.Scan() {
			}
			if got := <-polled; got.status != 200 || s.lines.Err() != nil || time.Since(stopped) > 10*time.Second {
				t.Errorf("after the stop: %d %s, %v, after %v", got.status, got.text, s.lines.Err(), time.Since(stopped))
			}
		})
	}
}
