package reconcile

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"upcall/internal/oss"
)

// answers is a bucket that answers requests with errors, one after the other, and then without.
type answers struct {
	mu    sync.Mutex
	errs  []error
	delay time.Duration
	at    []time.Duration
	began time.Time
}

func (a *answers) next() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.at = append(a.at, time.Since(a.began))
	if len(a.errs) == 0 {
		return nil
	}
	err := a.errs[0]
	a.errs = a.errs[1:]
	return err
}

func (a *answers) List(context.Context, oss.Listing) (oss.Page, error) {
	return oss.Page{Delay: a.delay}, a.next()
}

func (a *answers) Head(context.Context, string, string) (oss.Head, error) {
	return oss.Head{Delay: a.delay}, a.next()
}

func service(status int, code string, delay time.Duration) error {
	err := error(&oss.ServiceError{Operation: "list", Status: status, Code: code, Delay: delay})
	if status == 503 {
		err = fmt.Errorf("%w: %w", oss.ErrThrottled, err)
	}
	return err
}

func TestRate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := &answers{began: time.Now()}
		c := newCaller(a, 20, NewMetrics(), time.Now)
		var senders sync.WaitGroup
		for i := range 100 {
			senders.Go(func() {
				var err error
				if i%2 == 0 {
					_, err = c.list(t.Context(), oss.Listing{})
				} else {
					_, _, err = c.head(t.Context(), "", "")
				}
				if err != nil {
					t.Error(err)
				}
			})
		}
		senders.Wait()
		if took := time.Since(a.began); took < 99*50*time.Millisecond || took > 5*time.Second {
			t.Errorf("100 requests in %s", took)
		}
		for i, at := range a.at { // no burst
			if want := time.Duration(i) * 50 * time.Millisecond; at < want-time.Millisecond {
				t.Errorf("request %d after %s", i, at)
			}
		}
	})
}

func TestThrottled(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		errs        []error
		delay       time.Duration // of answers
		least, most time.Duration // until the request that succeeds
		requests    int
		fails       bool
	}{
		"once":           {[]error{service(503, "TotalQpsLimitExceeded", 0)}, 0, 250 * time.Millisecond, time.Second, 2, false},
		"with a delay":   {[]error{service(503, "TotalQpsLimitExceeded", 7*time.Second)}, 0, 7 * time.Second, 8 * time.Second, 2, false},
		"ten times":      {slices.Repeat([]error{service(503, "TotalQpsLimitExceeded", 0)}, 10), 0, 60 * time.Second, 6 * time.Minute, 11, false},
		"for too long":   {slices.Repeat([]error{service(503, "TotalQpsLimitExceeded", 0)}, 99), 0, 3 * time.Minute, 20 * time.Minute, 20, true},
		"a broken line":  {slices.Repeat([]error{errors.New("connection reset")}, 5), 0, 3 * time.Second, 25 * time.Second, 6, false},
		"a broken OSS":   {slices.Repeat([]error{service(500, "InternalError", 0)}, 6), 0, 3 * time.Second, 25 * time.Second, 6, true},
		"forbidden":      {[]error{service(403, "AccessDenied", 0)}, 0, 0, 0, 1, true},
		"no such bucket": {[]error{service(404, "NoSuchBucket", 0)}, 0, 0, 0, 1, true},
		"no such object": {[]error{fmt.Errorf("%w: %w", oss.ErrNoObject, service(404, "NoSuchKey", 0))}, 0, 0, 0, 1, true},
		"held back":      {nil, 3 * time.Second, 0, 0, 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				a := &answers{errs: tt.errs, delay: tt.delay, began: time.Now()}
				c := newCaller(a, 1000, NewMetrics(), time.Now)
				_, err := c.list(t.Context(), oss.Listing{})
				if took := time.Since(a.began); (err != nil) != tt.fails || took < tt.least || took > tt.most {
					t.Errorf("%v after %s", err, took)
				}
				if len(a.at) != tt.requests {
					t.Errorf("%d requests, want %d", len(a.at), tt.requests)
				}
				if tt.delay > 0 { // all that this process sends waits
					if _, _, err := c.head(t.Context(), "", ""); err != nil || time.Since(a.began) < tt.delay {
						t.Errorf("the next request after %s, %v", time.Since(a.began), err)
					}
				}
			})
		})
	}
}

// TestThrottledTogether holds that no other request is sent while OSS asks to wait.
func TestThrottledTogether(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := &answers{errs: []error{service(503, "TotalQpsLimitExceeded", 10*time.Second)}, began: time.Now()}
		c := newCaller(a, 1000, NewMetrics(), time.Now)
		var senders sync.WaitGroup
		for range 8 {
			senders.Go(func() { _, _, _ = c.head(t.Context(), "", ""); time.Sleep(time.Second) })
			synctest.Wait()
		}
		senders.Wait()
		for i, at := range a.at[1:] {
			if at < 10*time.Second {
				t.Errorf("request %d after %s", i+1, at)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		c.holdFor(time.Hour)
		if _, _, err := c.head(ctx, "", ""); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
	})
}

// TestSplitKey splits and lists sets of keys as workers do, and compares the parts with the whole.
func TestSplitKey(t *testing.T) {
	t.Parallel()
	sets := map[string][]string{"one": {"a"}, "flat": nil, "days": nil, "users": nil, "odd": oddNames()}
	for i := range 3000 {
		sets["flat"] = append(sets["flat"], fmt.Sprintf("img/%x.jpg", uint32(i)*2654435761))
		sets["days"] = append(sets["days"], fmt.Sprintf("2026/%02d/%02d/%d", 1+i%12, 1+i%28, i))
		sets["users"] = append(sets["users"], fmt.Sprintf("user-%d/ü/%d", i, i%3))
	}
	for name, keys := range sets {
		slices.Sort(keys)
		for _, prefix := range []string{"", "img/", "2026/0", "user-1"} {
			var within []string
			for _, k := range keys {
				if strings.HasPrefix(k, prefix) {
					within = append(within, k)
				}
			}
			looks, found := 0, 0
			for i := 0; i < len(within); i += 1 + len(within)/50 {
				after, until, wide := within[i], "", false
				for {
					at, ok := splitKey(prefix, after, until, wide)
					if !ok {
						break
					}
					if looks++; at <= after || until != "" && at >= until {
						t.Fatalf("%s: %q is not between %q and %q", name, at, after, until)
					}
					j, _ := slices.BinarySearch(within, at+"\x00")
					if j < len(within) && (until == "" || within[j] <= until) {
						found++
						if wide = !wide; wide {
							continue // the lower half is split further
						}
					}
					until = at
				}
			}
			if len(within) > 1000 && found == 0 {
				t.Errorf("%s: there was no place in %d keys", name, len(within))
			}
		}
	}
}

func oddNames() []string {
	return []string{"\x01", "a", "a/", "a//", "a/\U0010ffff", "a/\U0010ffff/b", "\ud7ff"[:3], "\ue000", "😀/😀", "上/海", "~"}
}

func TestPrefixEnd(t *testing.T) {
	t.Parallel()
	for prefix, want := range map[string]string{"a": "b", "a/": "a0", "ü": "ý", "\ud7ff": "\ue000", "a\U0010ffff": "b",
		"": strings.Repeat("\U0010ffff", 256), "\U0010ffff": strings.Repeat("\U0010ffff", 256)} {
		if got := prefixEnd(prefix); got != want {
			t.Errorf("%q: %q, want %q", prefix, got, want)
		}
	}
}
