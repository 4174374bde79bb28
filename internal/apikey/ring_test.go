package apikey

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
)

var errAway = errors.New("away")

// A shelf is a store of keys that counts how often they are listed.
type shelf struct {
	mu    sync.Mutex
	keys  []Holder[string]
	err   error
	lists int
}

func (s *shelf) list(context.Context) ([]Holder[string], error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lists++
	return slices.Clone(s.keys), s.err
}

// add adds a key to the shelf and returns its text.
func (s *shelf) add(t testing.TB, id string) string {
	t.Helper()
	text, hash, err := New(id)
	if err != nil {
		t.Fatal(err)
	}
	s.change(func(s *shelf) { s.keys = append(s.keys, Holder[string]{id, hash, "of " + id}) })
	return text
}

func (s *shelf) change(change func(*shelf)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s)
}

// A clock advances only when it is moved.
type clock struct{ atomic.Int64 }

func (c *clock) now() time.Time       { return time.Unix(1e9, c.Load()) }
func (c *clock) move(d time.Duration) { c.Add(int64(d)) }

func header(key string) http.Header { return http.Header{"Authorization": {"Bearer " + key}} }

// TestRevokedKey checks that a revoked key is accepted for RevokedWithin at most.
func TestRevokedKey(t *testing.T) {
	t.Parallel()
	keys, at := &shelf{}, &clock{}
	text := keys.add(t, "web")
	ring := NewRing(keys.list, at.now)
	check := func() error {
		_, err := ring.Check(t.Context(), header(text))
		return err
	}
	if err := check(); err != nil {
		t.Fatal(err)
	}
	keys.change(func(s *shelf) { s.keys = nil })
	at.move(RevokedWithin - time.Nanosecond)
	if err := check(); err != nil || keys.lists != 1 {
		t.Errorf("%v after %d lists", err, keys.lists)
	}
	at.move(time.Nanosecond)
	for range 3 {
		if err := check(); !errors.Is(err, ErrInvalid) {
			t.Errorf("a revoked key is accepted: %v", err)
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
	ring := NewRing(keys.list, at.now)
	stranger, _, err := New("nobody")
	if err != nil {
		t.Fatal(err)
	}
	for range 1000 {
		if _, err := ring.Check(t.Context(), header(stranger)); !errors.Is(err, ErrInvalid) {
			t.Fatal(err)
		}
	}
	text := keys.add(t, "web")
	if _, err := ring.Check(t.Context(), header(text)); !errors.Is(err, ErrInvalid) || keys.lists != 1 {
		t.Errorf("%v after %d lists", err, keys.lists)
	}
	at.move(newWithin)
	who, err := ring.Check(t.Context(), header(text))
	if err != nil || who.ID != "web" || who.Owns != "of web" || keys.lists != 2 {
		t.Errorf("%+v, %v after %d lists", who, err, keys.lists)
	}
}

// TestStoreFails checks that no key is accepted during an outage, that callers are not blamed
// for it, and that the keys are listed again once a second.
func TestStoreFails(t *testing.T) {
	t.Parallel()
	keys, at := &shelf{}, &clock{}
	text := keys.add(t, "web")
	ring := NewRing(keys.list, at.now)
	if _, err := ring.Check(t.Context(), header(text)); err != nil {
		t.Fatal(err)
	}
	keys.change(func(s *shelf) { s.err = fmt.Errorf("list: %w", errAway) })
	at.move(RevokedWithin)
	for range 100 {
		if _, err := ring.Check(t.Context(), header(text)); !errors.Is(err, errAway) || errors.Is(err, ErrInvalid) {
			t.Fatal(err)
		}
	}
	if keys.lists != 2 {
		t.Errorf("%d lists", keys.lists)
	}
	keys.change(func(s *shelf) { s.err = nil })
	at.move(newWithin)
	if _, err := ring.Check(t.Context(), header(text)); err != nil {
		t.Error(err)
	}
}

// TestSlowFailure checks that requests do not queue for an unreachable database.
func TestSlowFailure(t *testing.T) {
	t.Parallel()
	at, lists := &clock{}, 0
	text, _, err := New("web")
	if err != nil {
		t.Fatal(err)
	}
	ring := NewRing(func(context.Context) ([]Holder[string], error) {
		lists++
		at.move(listTimeout)
		return nil, errAway
	}, at.now)
	for range 10 {
		if _, err := ring.Check(t.Context(), header(text)); !errors.Is(err, errAway) {
			t.Fatal(err)
		}
	}
	if lists != 1 {
		t.Errorf("%d lists", lists)
	}
}

// TestReadOnce checks that requests that arrive while the keys are read wait for that reading,
// or until their own deadline.
func TestReadOnce(t *testing.T) {
	t.Parallel()
	var keys shelf
	text := keys.add(t, "web")
	arrived, proceed := make(chan struct{}, 100), make(chan struct{})
	ring := NewRing(func(ctx context.Context) ([]Holder[string], error) {
		arrived <- struct{}{}
		<-proceed
		return keys.list(ctx)
	}, time.Now)
	var group sync.WaitGroup
	for range 10 {
		group.Go(func() {
			if _, err := ring.Check(t.Context(), header(text)); err != nil {
				t.Error(err)
			}
		})
	}
	<-arrived
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := ring.Check(gone, header(text)); !errors.Is(err, context.Canceled) {
		t.Errorf("a canceled request gets %v", err)
	}
	close(proceed)
	group.Wait()
	if keys.lists != 1 {
		t.Errorf("%d lists", keys.lists)
	}
}

// TestAbandonedRead checks that reading continues for other requests when the one that began
// it ends.
func TestAbandonedRead(t *testing.T) {
	t.Parallel()
	var keys shelf
	text := keys.add(t, "web")
	ring := NewRing(func(ctx context.Context) ([]Holder[string], error) {
		all, _ := keys.list(ctx)
		return all, ctx.Err()
	}, time.Now)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_, _ = ring.Check(gone, header(text)) // whether the keys were read or ctx ended first
	if _, err := ring.Check(t.Context(), header(text)); err != nil {
		t.Error(err)
	}
}

// TestStrangers checks that all that is wrong with a key reads the same, and that no header but
// one is taken.
func TestStrangers(t *testing.T) {
	t.Parallel()
	var keys shelf
	text := keys.add(t, "web")
	other, hash, err := New("web")
	if err != nil {
		t.Fatal(err)
	}
	unknown, _, _ := New("app")
	keys.keys = append(keys.keys, Holder[string]{ID: "zeros"}, Holder[string]{"app-1", hash, ""})
	ring := NewRing(keys.list, time.Now)
	texts := make(map[string]bool)
	for _, key := range []string{other, unknown, "upk_zeros_" + text[len("upk_web_"):]} {
		_, err := ring.Check(t.Context(), header(key))
		if !errors.Is(err, ErrInvalid) {
			t.Fatalf("accepted: %v", err)
		}
		texts[err.Error()] = true
	}
	if len(texts) != 1 {
		t.Errorf("strangers can tell which keys exist: %v", texts)
	}
	for name, h := range map[string]http.Header{
		"none": {}, "two": {"Authorization": {"Bearer " + text, "Bearer " + text}}, "basic": {"Authorization": {"Basic " + text}},
		"no scheme": {"Authorization": {text}}, "two spaces": {"Authorization": {"Bearer  " + text}}, "empty": {"Authorization": {"Bearer "}},
		"more": {"Authorization": {"Bearer " + text + "A"}}, "in a list": {"Authorization": {"Bearer " + text + ", Bearer " + text}},
	} {
		if _, err := ring.Check(t.Context(), h); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := ring.Check(t.Context(), http.Header{"Authorization": {"bearer " + text}}); err != nil {
		t.Errorf("a scheme in lower case: %v", err)
	}
}
