package confirm

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"upcall/internal/event"
	"upcall/internal/feed"
	"upcall/internal/testing/wait"
)

// numbered returns n keys.
func numbered(prefix string, n int) (keys []string) {
	for i := range n {
		keys = append(keys, fmt.Sprintf("%s%03d", prefix, i))
	}
	return keys
}

// refuse answers as OSS does.
func refuse(rw http.ResponseWriter, status int, headers ...string) {
	for i := 0; i < len(headers); i += 2 {
		rw.Header().Set(headers[i], headers[i+1])
	}
	rw.WriteHeader(status)
}

// TestThrottled: while OSS throttles, all wait, as long as it says; nothing is found or put off. All that are in
// flight when it begins to are one refusal, which makes the next pause twice as long.
func TestThrottled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.rollups(t)
	worker, _ := w.receiver(t)
	w.begun(t)
	const groups = 3
	var came, pause atomic.Int64
	together := make([]chan struct{}, groups)
	for i := range together {
		together[i] = make(chan struct{})
	}
	w.gate.Between(func(rw http.ResponseWriter, r *http.Request, serve http.Handler) {
		n := int(came.Add(1)) - 1
		if n >= groups*atOnce {
			worker.pace.mu.Lock()
			pause.CompareAndSwap(0, int64(worker.pace.pause))
			worker.pace.mu.Unlock()
			serve.ServeHTTP(rw, r)
			return
		}
		group := together[n/atOnce]
		if n%atOnce == atOnce-1 {
			close(group) // all are in flight
		}
		<-group
		if n%atOnce == 0 {
			time.Sleep(2 * firstPause) // answered when the pause after the others is over
		}
		refuse(rw, 503, "x-oss-qos-delay-time", "40")
	})
	var events []*event.Event
	for _, key := range numbered("k", 40) {
		events = append(events, w.put(t, key, key))
	}
	release := w.hold(t) // so that they are looked at together
	w.record(t, "upload_events", events...)
	release()
	w.waitFor(t, 40)
	if n := w.count(t, "confirmations WHERE outcome = 'confirmed'"); n != 40 || w.count(t, "findings") > 0 {
		t.Errorf("%d are confirmed, want 40", n)
	}
	if n := w.count(t, "confirm_retries"); n > 0 {
		t.Errorf("%d were put off", n)
	}
	if got := time.Duration(pause.Load()); got != firstPause<<(groups-1) {
		t.Errorf("the last pause is %v, want %v", got, firstPause<<(groups-1))
	}
}

// TestPace: requests are limited to the rate, and pauses are at least what OSS asks for, and grow.
func TestPace(t *testing.T) {
	t.Parallel()
	p := newPacer(1000)
	began := time.Now()
	for range atOnce + 100 {
		if _, err := p.wait(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(began); took < 90*time.Millisecond {
		t.Errorf("%d requests were sent in %v, at 1000 a second", atOnce+100, took)
	}
	var pauses []time.Duration
	for range 12 {
		sent := time.Now()
		p.slow(sent, 0)
		p.slow(sent, 0) // one that was in flight, too
		p.until = time.Now()
		p.slow(sent, 0) // and some that are answered when the pause is over
		p.fine(sent, 0)
		pauses = append(pauses, p.pause)
	}
	if !slices.IsSorted(pauses) || pauses[0] != firstPause || pauses[1] != 2*firstPause || pauses[11] != slowest {
		t.Errorf("pauses are %v", pauses)
	}
	p.fine(time.Now(), 0)
	if p.pause != 0 {
		t.Errorf("the pause is %v after all is well", p.pause)
	}
	p.slow(time.Now(), 10*time.Second)
	if left := time.Until(p.until); left < 9*time.Second {
		t.Errorf("the pause is %v, OSS asked for 10 s", left)
	}
	p.fine(time.Now(), 5*time.Second)
	if left := time.Until(p.until); left < 4*time.Second {
		t.Errorf("the pause is %v though OSS held a request back", left)
	}
	if sent, err := p.wait(canceled(t)); err == nil {
		t.Errorf("a request was sent at %v, in a pause", sent)
	}
}

// canceled returns a context that ends in a moment.
func canceled(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}

// TestOSSCannotSay: no answer but that there is no object is ever a finding. What is wrong with one object
// holds up no other; it is tried again, and is a dead letter in the end.
func TestOSSCannotSay(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]func(rw http.ResponseWriter){
		"forbidden": func(rw http.ResponseWriter) { refuse(rw, 403) },
		"not OSS":   func(rw http.ResponseWriter) { refuse(rw, 404) },
		"error":     func(rw http.ResponseWriter) { refuse(rw, 500) },
		"moved":     func(rw http.ResponseWriter) { refuse(rw, 301, "Location", "http://127.0.0.1:1/") },
		"cut": func(rw http.ResponseWriter) {
			conn, _, err := rw.(http.Hijacker).Hijack()
			if err == nil {
				conn.Close()
			}
		},
		"not a number": func(rw http.ResponseWriter) { refuse(rw, 200, "x-oss-hash-crc64ecma", "many") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.rollups(t)
			worker, _ := w.receiver(t)
			w.begun(t)
			var works atomic.Bool
			w.gate.Between(func(rw http.ResponseWriter, r *http.Request, serve http.Handler) {
				if strings.Contains(r.URL.Path, "bad") && !works.Load() {
					answer(rw)
					return
				}
				serve.ServeHTTP(rw, r)
			})
			w.upload(t, "bad", "good")
			w.delete(t, "bad")
			if diff := cmp.Diff([]string{"good confirmed object"}, w.waitFor(t, 1)); diff != "" {
				t.Error(diff)
			}
			for n, step := range schedule {
				wait.Until(t, fmt.Sprintf("attempt %d has failed", n+1), func() bool {
					return w.count(t, "confirm_retries WHERE attempts = $1 AND due_at IS NOT NULL AND NOT differs", n+1) == 1
				})
				behind, err := worker.Behind(t.Context())
				if err != nil || len(behind) != 1 || !strings.Contains(behind[0], "1 to be looked at again") {
					t.Fatalf("behind: %q, %v", behind, err)
				}
				if name == "forbidden" && n == 2 { // the right was granted
					works.Store(true)
				}
				w.clock.forward(step)
				if works.Load() {
					if diff := cmp.Diff([]string{"bad gone object", "good confirmed object"}, w.waitFor(t, 2)); diff != "" {
						t.Error(diff)
					}
					return
				}
			}
			wait.Until(t, "it is a dead letter", func() bool {
				return w.count(t, "confirm_retries WHERE due_at IS NULL AND problem <> ''") == 1
			})
			if n := w.count(t, "findings"); n > 0 || !strings.Contains(w.logs.String(), "upload cannot be confirmed") {
				t.Errorf("%d findings, and the log says %s", n, w.logs)
			}
			if behind, err := worker.Behind(t.Context()); err != nil || len(behind) > 0 {
				t.Errorf("a dead letter is waited for: %q, %v", behind, err)
			}
		})
	}
}

// TestPoison: an event that cannot be read or asked for is a dead letter, and the others are confirmed.
func TestPoison(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.rollups(t)
	w.receiver(t)
	w.begun(t)
	unreadable, unthinkable, elsewhere := w.put(t, "unreadable", "x"), w.put(t, "unthinkable", "x"), w.put(t, "elsewhere", "x")
	unthinkable.Callback.Object = strings.Repeat("k", 1500)
	elsewhere.Callback.Bucket = "No Bucket"
	release := w.hold(t) // until one cannot be read
	w.record(t, "upload_events", unreadable, unthinkable, elsewhere)
	w.exec(t, "UPDATE upcall.upload_events SET crc64 = -5 WHERE id = $1", unreadable.ID)
	release()
	w.upload(t, numbered("k", 40)...)
	for _, line := range w.waitFor(t, 40) {
		if line[0] != 'k' || !strings.HasSuffix(line, "confirmed object") {
			t.Error(line)
		}
	}
	wait.Until(t, "the others are dead letters", func() bool { return w.count(t, "confirm_retries WHERE due_at IS NULL") == 3 })
}

// TestKilled: a receiver that is stopped anywhere, again and again, finds everything once in the end.
func TestKilled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.rollups(t)
	_, stop := w.receiver(t)
	w.begun(t)
	slow := func(rw http.ResponseWriter, r *http.Request, serve http.Handler) {
		time.Sleep(2 * time.Millisecond)
		serve.ServeHTTP(rw, r)
	}
	w.gate.Between(slow)
	const n = 300
	var events []*event.Event
	for i, key := range numbered("k", n) {
		if events = append(events, w.put(t, key, key)); i%10 == 0 {
			w.delete(t, key)
		}
	}
	w.record(t, "upload_events", events...)
	for kill := range 10 {
		wait.Until(t, "some are settled", func() bool { return w.count(t, "confirmations") >= kill*20 })
		stop()
		_, stop = w.receiver(t)
	}
	w.waitFor(t, n)
	confirmed, gone := w.count(t, "confirmations WHERE outcome = 'confirmed'"), w.count(t, "findings WHERE kind = 'gone'")
	if confirmed != n-n/10 || gone != n/10 {
		t.Errorf("%d are confirmed and %d gone, want %d and %d", confirmed, gone, n-n/10, n/10)
	}
	if asked := w.gate.Count(http.MethodHead); asked > n+10*2*chunk {
		t.Errorf("%d objects were asked for, %d times", n, asked)
	}
}

// TestTwoReceivers: one works, and the other when that one has stopped; with a sample, they agree.
func TestTwoReceivers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.rollups(t)
	half := func(c *Config) { c.Mode = Mode{0.5} }
	_, stop := w.receiver(t, half)
	w.begun(t)
	other, _ := w.receiver(t, half)
	w.gate.Open()
	events := w.upload(t, numbered("a", 60)...)
	settled := func() {
		t.Helper()
		wait.Until(t, "all that are in the sample have an outcome", func() bool {
			behind, err := other.Behind(t.Context())
			return err == nil && len(behind) == 0
		})
	}
	settled()
	stop()
	events = append(events, w.upload(t, numbered("b", 60)...)...)
	settled()
	sample := 0
	for _, e := range events {
		if (Mode{0.5}).includes(e.ID) {
			sample++
		}
	}
	if n := len(w.waitFor(t, sample)); n != sample || w.gate.Count(http.MethodHead) != sample {
		t.Errorf("%d events of a sample of %d were confirmed with %d requests", n, sample, w.gate.Count(http.MethodHead))
	}
}

// TestReplay: a cursor that is set back finds nothing again.
func TestReplay(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.rollups(t)
	worker, _ := w.receiver(t)
	w.begun(t)
	start, err := worker.config.Log.Now(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var events []*event.Event
	for _, key := range numbered("k", 10) {
		events = append(events, w.put(t, key, key))
	}
	w.delete(t, events[3].Callback.Object)
	w.put(t, events[4].Callback.Object, "another")
	w.record(t, "upload_events", events...)
	w.waitFor(t, 9)
	wait.Until(t, "one waits", func() bool { return w.count(t, "confirm_retries") == 1 })
	var again atomic.Int32
	w.gate.Between(func(rw http.ResponseWriter, r *http.Request, serve http.Handler) {
		if !strings.HasSuffix(r.URL.Path, "/last") {
			again.Add(1)
		}
		serve.ServeHTTP(rw, r)
	})
	err = pgx.BeginFunc(t.Context(), w.pool, func(tx pgx.Tx) error { return feed.MoveConsumer(t.Context(), tx, Consumer, start) })
	if err != nil {
		t.Fatal(err)
	}
	w.upload(t, "last")
	w.waitFor(t, 10)
	if n := again.Load(); n > 0 {
		t.Errorf("%d objects were asked for again", n)
	}
	if n := w.count(t, "findings"); n != 1 {
		t.Errorf("%d findings, want 1", n)
	}
}

// TestNoBucket: a bucket that is not there says nothing about its objects.
func TestNoBucket(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.rollups(t)
	w.receiver(t)
	w.begun(t)
	e := w.put(t, "k", "x")
	e.Callback.Bucket = "no-such-bucket"
	w.record(t, "upload_events", e)
	wait.Until(t, "it is settled, or waits", func() bool { return w.count(t, "confirmations")+w.count(t, "confirm_retries") == 1 })
	if n := w.count(t, "findings"); n > 0 {
		t.Errorf("%d findings", n)
	}
}
