package issueapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"upcall/internal/apikey"
	"upcall/internal/event"
	"upcall/internal/eventstore"
)

// A shelf is a store of keys that counts how often they are listed.
type shelf struct {
	mu    sync.Mutex
	keys  []eventstore.APIKey
	err   error
	lists int
}

func (s *shelf) List(context.Context) ([]eventstore.APIKey, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lists++
	return slices.Clone(s.keys), s.err
}

// add adds a key to the shelf and returns its text.
func (s *shelf) add(t testing.TB, id string) string {
	t.Helper()
	text, hash, err := apikey.New(id)
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys = append(s.keys, eventstore.APIKey{ID: id, Hash: hash[:], Policy: "photos"})
	return text
}

func (s *shelf) change(change func(*shelf)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s)
}

// A clock advances only when it is moved.
type clock struct{ atomic.Int64 }

func (c *clock) now() time.Time       { return noon.Add(time.Duration(c.Load())) }
func (c *clock) move(d time.Duration) { c.Add(int64(d)) }

func header(key string) http.Header { return http.Header{"Authorization": {"Bearer " + key}} }

// kindOf returns the kind of problem, or the zero kind for nil.
func kindOf(err error) kind {
	if err == nil {
		return kind{}
	}
	return asProblem(err).kind
}

// TestRevokedKey checks that a revoked key is accepted for RevokedWithin at most.
func TestRevokedKey(t *testing.T) {
	t.Parallel()
	keys, at := &shelf{}, &clock{}
	text := keys.add(t, "web")
	ring := newKeyring(keys, 1, 1, at.now)
	check := func() kind {
		_, err := ring.check(t.Context(), header(text))
		return kindOf(err)
	}
	if got := check(); got != (kind{}) {
		t.Fatal(got)
	}
	keys.change(func(s *shelf) { s.keys[0].RevokedAt = noon })
	at.move(RevokedWithin - time.Nanosecond)
	if got := check(); got != (kind{}) || keys.lists != 1 {
		t.Errorf("%v after %d lists", got, keys.lists)
	}
	at.move(time.Nanosecond)
	for range 3 {
		if got := check(); got != kindUnauthenticated {
			t.Errorf("a revoked key is accepted: %v", got)
		}
	}
	if keys.lists != 2 {
		t.Errorf("%d lists", keys.lists)
	}
}

// TestNewKey checks that a new key is accepted within a second, however many unknown keys
// came before.
func TestNewKey(t *testing.T) {
	t.Parallel()
	keys, at := &shelf{}, &clock{}
	ring := newKeyring(keys, 1, 1, at.now)
	stranger, _, err := apikey.New("nobody")
	if err != nil {
		t.Fatal(err)
	}
	for range 1000 {
		if _, err := ring.check(t.Context(), header(stranger)); kindOf(err) != kindUnauthenticated {
			t.Fatal(err)
		}
	}
	text := keys.add(t, "web")
	if _, err := ring.check(t.Context(), header(text)); kindOf(err) != kindUnauthenticated || keys.lists != 1 {
		t.Errorf("%v after %d lists", err, keys.lists)
	}
	at.move(newWithin)
	who, err := ring.check(t.Context(), header(text))
	if err != nil || who.id != "web" || who.policy != "photos" || keys.lists != 2 {
		t.Errorf("%+v, %v after %d lists", who, err, keys.lists)
	}
}

// TestStoreFails checks that no key is accepted during an outage, that callers are not blamed
// for it, and that the keys are listed again once a second.
func TestStoreFails(t *testing.T) {
	t.Parallel()
	keys, at := &shelf{}, &clock{}
	text := keys.add(t, "web")
	ring := newKeyring(keys, 1, 1, at.now)
	if _, err := ring.check(t.Context(), header(text)); err != nil {
		t.Fatal(err)
	}
	keys.change(func(s *shelf) { s.err = fmt.Errorf("list: %w", event.ErrUnavailable) })
	at.move(RevokedWithin)
	for range 100 {
		if _, err := ring.check(t.Context(), header(text)); kindOf(err) != kindUnavailable || !errors.Is(err, event.ErrUnavailable) {
			t.Fatal(err)
		}
	}
	if keys.lists != 2 {
		t.Errorf("%d lists", keys.lists)
	}
	keys.change(func(s *shelf) { s.err = nil })
	at.move(newWithin)
	if _, err := ring.check(t.Context(), header(text)); err != nil {
		t.Error(err)
	}
}

// TestSlowFailure checks that requests do not queue for an unreachable database.
func TestSlowFailure(t *testing.T) {
	t.Parallel()
	at := &clock{}
	keys := &hangingKeys{clock: at}
	text, _, err := apikey.New("web")
	if err != nil {
		t.Fatal(err)
	}
	ring := newKeyring(keys, 1, 1, at.now)
	for range 10 {
		if _, err := ring.check(t.Context(), header(text)); kindOf(err) != kindUnavailable {
			t.Fatal(err)
		}
	}
	if n := keys.lists.Load(); n != 1 {
		t.Errorf("%d lists", n)
	}
}

// hangingKeys time out.
type hangingKeys struct {
	clock *clock
	lists atomic.Int64
}

func (k *hangingKeys) List(context.Context) ([]eventstore.APIKey, error) {
	k.lists.Add(1)
	k.clock.move(listTimeout)
	return nil, event.ErrUnavailable
}

// TestReadOnce checks that requests that arrive while the keys are read wait for that reading,
// or until their own deadline.
func TestReadOnce(t *testing.T) {
	t.Parallel()
	slow := &slowKeys{arrived: make(chan struct{}), proceed: make(chan struct{})}
	text, hash, err := apikey.New("web")
	if err != nil {
		t.Fatal(err)
	}
	slow.keys = []eventstore.APIKey{{ID: "web", Hash: hash[:]}}
	ring := newKeyring(slow, 1, 1, time.Now)
	var group sync.WaitGroup
	for range 10 {
		group.Go(func() {
			if _, err := ring.check(t.Context(), header(text)); err != nil {
				t.Error(err)
			}
		})
	}
	<-slow.arrived
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := ring.check(gone, header(text)); kindOf(err) != kindUnavailable {
		t.Errorf("a canceled request gets %v", err)
	}
	close(slow.proceed)
	group.Wait()
	if n := slow.lists.Load(); n != 1 {
		t.Errorf("%d lists", n)
	}
}

type slowKeys struct {
	keys             []eventstore.APIKey
	lists            atomic.Int64
	arrived, proceed chan struct{}
}

func (k *slowKeys) List(context.Context) ([]eventstore.APIKey, error) {
	if k.lists.Add(1) == 1 {
		close(k.arrived)
	}
	<-k.proceed
	return k.keys, nil
}

// TestAbandonedRead checks that reading continues for other requests when the one that began
// it ends.
func TestAbandonedRead(t *testing.T) {
	t.Parallel()
	text, hash, err := apikey.New("web")
	if err != nil {
		t.Fatal(err)
	}
	ring := newKeyring(contextKeys{{ID: "web", Hash: hash[:]}}, 1, 1, time.Now)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_, _ = ring.check(gone, header(text)) // whether the keys were read or ctx ended first
	if _, err := ring.check(t.Context(), header(text)); err != nil {
		t.Error(err)
	}
}

// contextKeys fail if the context has ended.
type contextKeys []eventstore.APIKey

func (k contextKeys) List(ctx context.Context) ([]eventstore.APIKey, error) { return k, ctx.Err() }

// TestBadRows checks that a row that no secret can match counts as unknown.
func TestBadRows(t *testing.T) {
	t.Parallel()
	text, hash, err := apikey.New("web")
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]eventstore.APIKey{
		"short hash": {ID: "web", Hash: hash[:31]}, "long hash": {ID: "web", Hash: append(hash[:], 0)}, "no hash": {ID: "web"},
		"hash of zeros": {ID: "web", Hash: make([]byte, 32)}, "revoked": {ID: "web", Hash: hash[:], RevokedAt: noon},
		"another id": {ID: "app", Hash: hash[:]},
	} {
		ring := newKeyring(fixedKeys{key}, 1, 1, time.Now)
		if _, err := ring.check(t.Context(), header(text)); kindOf(err) != kindUnauthenticated {
			t.Errorf("%s: %v", name, err)
		}
	}
}
