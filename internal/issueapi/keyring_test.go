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

// TestKeys checks what becomes of a key that is good, revoked, and not to be read.
func TestKeys(t *testing.T) {
	t.Parallel()
	keys, at := &shelf{}, &clock{}
	text := keys.add(t, "web")
	ring := newKeyring(keys, 1, 1, at.now)
	if who, err := ring.check(t.Context(), header(text)); err != nil || who.id != "web" || who.policy != "photos" {
		t.Fatalf("%+v, %v", who, err)
	}
	keys.change(func(s *shelf) { s.err = fmt.Errorf("list: %w", event.ErrUnavailable) })
	at.move(apikey.RevokedWithin)
	if _, err := ring.check(t.Context(), header(text)); kindOf(err) != kindUnavailable || !errors.Is(err, event.ErrUnavailable) {
		t.Errorf("during an outage: %v", err)
	}
	keys.change(func(s *shelf) { s.err, s.keys[0].RevokedAt = nil, noon })
	at.move(apikey.RevokedWithin)
	if _, err := ring.check(t.Context(), header(text)); kindOf(err) != kindUnauthenticated {
		t.Errorf("a revoked key: %v", err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	at.move(apikey.RevokedWithin)
	if _, err := ring.check(gone, header(text)); kindOf(err) != kindUnavailable && kindOf(err) != kindUnauthenticated {
		t.Errorf("a canceled request gets %v", err)
	}
}

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
