package hooks

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"upcall/internal/event"
	"upcall/internal/testing/wait"
	"upcall/internal/webhook"
)

// TestAddHolds: while uploads come in, an endpoint is added. Each that is committed after Add
// has returned is delivered, the first within a second. One that was answered before Add was
// called is not.
func TestAddHolds(t *testing.T) {
	w, a := newWorld(t), newApp(t, nil) // not parallel, because a second is short
	w.receiver(t)
	before := w.upload(t, "before", 10)
	stop := w.uploading(t)
	w.add(t, "app", a)
	stop()
	var took time.Duration
	for range 3 { // beside the tests of other packages, one may take longer
		began := time.Now()
		ids := w.upload(t, "after", 10)
		a.waitFor(t, ids)
		a.mu.Lock()
		first := slices.IndexFunc(a.arrived, func(one arrival) bool { return one.id == ids[0].String() })
		took = a.arrived[first].at.Sub(began)
		a.mu.Unlock()
		if took <= time.Second {
			break
		}
	}
	if took > time.Second {
		t.Errorf("delivered after %v", took)
	}
	for _, id := range before {
		if slices.Contains(a.ids(), id.String()) {
			t.Errorf("%s came before the endpoint, and is delivered", id)
		}
	}
}

// TestAddWaitsForAnswers: an event may be committed before an endpoint is added, and its callback
// answered later, up to four seconds after it came. If that is after Add has returned, it is
// delivered.
func TestAddWaitsForAnswers(t *testing.T) {
	t.Parallel()
	w, a := newWorld(t), newApp(t, nil)
	w.receiver(t)
	received := time.Now()
	ids := w.upload(t, "k", 1)
	w.add(t, "app", a)
	if returned := time.Now(); returned.Before(received.Add(4 * time.Second)) {
		a.waitFor(t, ids)
	}
	a.waitFor(t, w.upload(t, "k", 1))
}

// TestAddOn: an endpoint is told of what happened only if it asked for that.
func TestAddOn(t *testing.T) {
	t.Parallel()
	w, a := newWorld(t), newApp(t, nil)
	for _, tt := range []struct {
		name     string
		on, want []webhook.Kind
	}{
		{"default", nil, []webhook.Kind{webhook.Recorded}},
		{"disputed", []webhook.Kind{webhook.Disputed}, []webhook.Kind{webhook.Disputed}},
		{"gone", []webhook.Kind{webhook.Gone}, []webhook.Kind{webhook.Gone}},
		{"trouble", []webhook.Kind{webhook.Disputed, webhook.Gone}, []webhook.Kind{webhook.Disputed, webhook.Gone}},
		{"all", []webhook.Kind{webhook.Gone, webhook.Recorded, webhook.Disputed}, []webhook.Kind{webhook.Gone, webhook.Recorded, webhook.Disputed}},
	} {
		w.add(t, tt.name, a, func(s *Settings) { s.URL, s.On = a.URL+"/"+tt.name, tt.on })
		if e, err := w.Get(t.Context(), tt.name); err != nil || !slices.Equal(e.On, tt.want) {
			t.Errorf("%s: %v, told of %v", tt.name, err, e.On)
		}
	}
	var mu sync.Mutex
	var told []string
	a.answers(func(_ int, r *http.Request) int {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, r.URL.Path)
		return 204
	})
	w.upload(t, "k", 1)
	w.receiver(t)
	wait.Until(t, "nothing is to come", func() bool {
		behind, err := w.Behind(t.Context())
		return err == nil && len(behind) == 0
	})
	mu.Lock()
	defer mu.Unlock()
	slices.Sort(told)
	if !slices.Equal(told, []string{"/all", "/default"}) {
		t.Errorf("told of what was recorded: %v", told)
	}
}

// TestAddIsQuick when nothing comes in, and when it can tell a mistake at once.
func TestAddIsQuick(t *testing.T) {
	t.Parallel()
	w, a := newWorld(t), newApp(t, nil)
	began := time.Now()
	w.add(t, "app", a)
	if took := time.Since(began); took > answerTime {
		t.Errorf("it took %v", took)
	}
	w.upload(t, "k", 1)
	ctx, cancel := context.WithTimeout(t.Context(), answerTime-time.Second)
	defer cancel()
	if _, _, err := w.Add(ctx, Settings{Name: "app", URL: a.URL}, a.secret, Start{}); !errors.Is(err, ErrExists) {
		t.Errorf("a name that is taken: %v", err)
	}
	if _, _, err := w.Add(ctx, Settings{Name: "all", URL: a.URL}, a.secret, Start{Oldest: true}); err != nil {
		t.Errorf("from the oldest event: %v", err)
	}
	// One that is interrupted while it waits has its secret all the same.
	interrupted, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	problem := make(chan error, 1)
	go func() {
		_, secret, err := w.Add(interrupted, Settings{Name: "new", URL: a.URL}, webhook.Secret{}, Start{})
		if err == nil && secret.IsZero() {
			err = errors.New("there is no secret")
		}
		problem <- err
	}()
	wait.Until(t, "the endpoint is there", func() bool { return w.count(t, "hook_endpoints") == 3 })
	interrupt()
	if err := <-problem; err != nil && !errors.Is(err, event.ErrUnavailable) { // the answer to its commit may be lost
		t.Errorf("interrupted: %v", err)
	}
}
