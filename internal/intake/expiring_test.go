package intake

import (
	"context"
	"errors"
	"testing"
	"time"
)

type expiringKey struct{}

// TestExpiring checks that the context ends as one with a timer does, whether anyone waits or not.
func TestExpiring(t *testing.T) {
	t.Parallel()
	const soon, late = 50 * time.Millisecond, 30 * time.Second
	ended := func(t *testing.T, ctx context.Context, want error) {
		t.Helper()
		select {
		case <-ctx.Done():
		case <-time.After(late):
			t.Fatal("it does not end")
		}
		if err := ctx.Err(); !errors.Is(err, want) {
			t.Errorf("ended with %v, want %v", err, want)
		}
	}
	parent := func(t *testing.T) (context.Context, context.CancelFunc) {
		return context.WithCancel(context.WithValue(t.Context(), expiringKey{}, "value"))
	}
	t.Run("no one waits", func(t *testing.T) {
		t.Parallel()
		above, cancel := parent(t)
		defer cancel()
		until := time.Now().Add(soon)
		ctx := newExpiring(above, until)
		if at, ok := ctx.Deadline(); !ok || !at.Equal(until) {
			t.Errorf("deadline %s, %t", at, ok)
		}
		if ctx.Value(expiringKey{}) != "value" {
			t.Error("it has no values")
		}
		for began := time.Now(); ctx.Err() == nil; time.Sleep(time.Millisecond) {
			if time.Since(began) > late {
				t.Fatal("it does not end")
			}
		}
		if time.Now().Before(until) || !errors.Is(ctx.Err(), context.DeadlineExceeded) ||
			!errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
			t.Errorf("ended with %v", ctx.Err())
		}
		ended(t, ctx, context.DeadlineExceeded)
		ctx.end()
	})
	t.Run("someone waits", func(t *testing.T) {
		t.Parallel()
		above, cancel := parent(t)
		defer cancel()
		ctx := newExpiring(above, time.Now().Add(soon))
		ended(t, ctx, context.DeadlineExceeded)
	})
	t.Run("parent", func(t *testing.T) {
		t.Parallel()
		above, cancel := parent(t)
		ctx := newExpiring(above, time.Now().Add(2*late))
		cancel()
		if !errors.Is(ctx.Err(), context.Canceled) {
			t.Error(ctx.Err())
		}
		ended(t, ctx, context.Canceled)
	})
	t.Run("child", func(t *testing.T) {
		t.Parallel()
		above, cancel := parent(t)
		defer cancel()
		ctx := newExpiring(above, time.Now().Add(soon))
		child, cancelChild := context.WithTimeout(ctx, 2*late)
		defer cancelChild()
		ended(t, child, context.DeadlineExceeded)
		if child.Value(expiringKey{}) != "value" {
			t.Error("it has no values")
		}
	})
	t.Run("end", func(t *testing.T) {
		t.Parallel()
		ctx := newExpiring(context.Background(), time.Now().Add(2*late))
		done := ctx.Done()
		ctx.end()
		select {
		case <-done:
		case <-time.After(late):
			t.Error("its timer is left")
		}
	})
}
