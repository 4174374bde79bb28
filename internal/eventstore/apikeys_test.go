package eventstore

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"upcall/internal/dbtest"
	"upcall/internal/event"
)

func TestAPIKeys(t *testing.T) {
	t.Parallel()
	keys := NewAPIKeys(dbtest.Pool(t, Open))
	web := APIKey{ID: "web", Hash: []byte{0, 1, 2, 255}, Policy: "photos", CreatedAt: at.Add(time.Second)}
	app := APIKey{ID: "app", Hash: []byte{3}, Policy: "videos", CreatedAt: at}
	if got, err := keys.List(t.Context()); err != nil || len(got) != 0 {
		t.Errorf("got %v, %v; want none", got, err)
	}
	for _, key := range []APIKey{web, app} {
		if err := keys.Add(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	same := cmp.Comparer(func(a, b time.Time) bool { return a.Equal(b) })
	if got, err := keys.List(t.Context()); err != nil || !cmp.Equal([]APIKey{app, web}, got, same) {
		t.Errorf("got %v, %v; want the oldest first", got, err)
	}
	if err := keys.Revoke(t.Context(), "web"); err != nil {
		t.Fatal(err)
	}
	first := findKey(t, keys, "web")
	if first.RevokedAt.IsZero() || first.Policy != "photos" {
		t.Errorf("got %v; want its RevokedAt", first)
	}
	if err := keys.Revoke(t.Context(), "web"); err != nil {
		t.Fatal(err)
	}
	if again := findKey(t, keys, "web"); !again.RevokedAt.Equal(first.RevokedAt) {
		t.Errorf("revoked at %v and again at %v; want the first", first.RevokedAt, again.RevokedAt)
	}
	// Its id cannot be used again, and the attempt does not restore the key.
	if err := keys.Add(t.Context(), web); !errors.Is(err, ErrExists) {
		t.Errorf("add a revoked key: got %v, want ErrExists", err)
	}
	if again := findKey(t, keys, "web"); again.RevokedAt.IsZero() {
		t.Errorf("got %v; want it still revoked", again)
	}
}

func findKey(t *testing.T, keys *APIKeys, id string) APIKey {
	t.Helper()
	all, err := keys.List(t.Context())
	i := slices.IndexFunc(all, func(key APIKey) bool { return key.ID == id })
	if err != nil || i < 0 {
		t.Fatalf("no key %s among %v: %v", id, all, err)
	}
	return all[i]
}

func TestAPIKeysAreRefused(t *testing.T) {
	t.Parallel()
	keys := NewAPIKeys(dbtest.Pool(t, Open))
	for name, test := range map[string]struct{ got, want error }{
		"revoke unknown":     {keys.Revoke(t.Context(), "web"), ErrNotFound},
		"revoke nothing":     {keys.Revoke(t.Context(), ""), ErrNotFound},
		"revoke NUL":         {keys.Revoke(t.Context(), "a\x00"), ErrNotFound},
		"revoke bad UTF-8":   {keys.Revoke(t.Context(), "\xff"), ErrNotFound},
		"revoke SQL":         {keys.Revoke(t.Context(), "' OR true --"), ErrNotFound},
		"add NUL":            {keys.Add(t.Context(), APIKey{ID: "\x00", Hash: []byte{1}, CreatedAt: at}), event.ErrUnstorable},
		"add bad UTF-8":      {keys.Add(t.Context(), APIKey{ID: "a", Hash: []byte{1}, Policy: "\xff", CreatedAt: at}), event.ErrUnstorable},
		"add without a hash": {keys.Add(t.Context(), APIKey{ID: "a", CreatedAt: at}), event.ErrUnstorable},
	} {
		if !errors.Is(test.got, test.want) || errors.Is(test.got, event.ErrUnavailable) {
			t.Errorf("%s: got %v, want %v", name, test.got, test.want)
		}
	}
}

func TestAPIKeyIsAddedOnce(t *testing.T) {
	t.Parallel()
	keys := NewAPIKeys(dbtest.Pool(t, Open))
	var added atomic.Int32
	var group sync.WaitGroup
	for i := range 20 {
		group.Go(func() {
			switch err := keys.Add(t.Context(), APIKey{ID: "web", Hash: []byte{byte(i)}, Policy: "photos", CreatedAt: at}); {
			case err == nil:
				added.Add(1)
			case !errors.Is(err, ErrExists):
				t.Error(err)
			}
		})
	}
	group.Wait()
	if n := added.Load(); n != 1 {
		t.Errorf("added %d times", n)
	}
}
