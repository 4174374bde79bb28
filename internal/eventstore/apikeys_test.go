package eventstore

import (
	"errors"
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
	if got, err := keys.Find(t.Context(), "web"); err != nil || !cmp.Equal(web, got, same) {
		t.Errorf("got %v, %v; want %v", got, err, web)
	}

	if err := keys.Revoke(t.Context(), "web"); err != nil {
		t.Fatal(err)
	}
	first, err := keys.Find(t.Context(), "web")
	if err != nil || first.RevokedAt.IsZero() || first.Policy != "photos" {
		t.Errorf("got %v, %v; want it with the time when it was revoked", first, err)
	}
	if err := keys.Revoke(t.Context(), "web"); err != nil {
		t.Fatal(err)
	}
	if again, err := keys.Find(t.Context(), "web"); err != nil || !again.RevokedAt.Equal(first.RevokedAt) {
		t.Errorf("revoked at %v and again at %v, %v; want the first", first.RevokedAt, again.RevokedAt, err)
	}
	// Its id is not free again, and whoever tries does not bring it back to life.
	if err := keys.Add(t.Context(), web); !errors.Is(err, ErrExists) {
		t.Errorf("add a revoked key: got %v, want ErrExists", err)
	}
	if again, err := keys.Find(t.Context(), "web"); err != nil || again.RevokedAt.IsZero() {
		t.Errorf("got %v, %v; want it revoked still", again, err)
	}
}

func TestAPIKeysAreRefused(t *testing.T) {
	t.Parallel()
	keys := NewAPIKeys(dbtest.Pool(t, Open))
	find := func(id string) error { _, err := keys.Find(t.Context(), id); return err }
	for name, test := range map[string]struct{ got, want error }{
		"find unknown":       {find("web"), ErrNotFound},
		"find nothing":       {find(""), ErrNotFound},
		"find NUL":           {find("a\x00"), ErrNotFound},
		"find bad UTF-8":     {find("\xff"), ErrNotFound},
		"find SQL":           {find("' OR true --"), ErrNotFound},
		"revoke unknown":     {keys.Revoke(t.Context(), "web"), ErrNotFound},
		"revoke NUL":         {keys.Revoke(t.Context(), "\x00"), ErrNotFound},
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
		t.Errorf("%d were added", n)
	}
}
