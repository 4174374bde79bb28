package uploader_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"upcall/internal/uploader"
)

// TestRate uploads two files at once, and one again after a reset. All bytes count.
func TestRate(t *testing.T) {
	t.Parallel()
	const rate = 400_000
	w := newWorld(t)
	var requests atomic.Int32
	w.gate.Between(func(rw http.ResponseWriter, r *http.Request, serve http.Handler) {
		if requests.Add(1) == 1 {
			io.CopyN(io.Discard, r.Body, 100_000)
			cut(t, rw)
			return
		}
		serve.ServeHTTP(rw, r)
	})
	up := newUploader(t, func(c *uploader.Config) { c.Rate = rate })
	began := time.Now()
	var files sync.WaitGroup
	for range 2 {
		content := someBytes(300_000)
		_, source := fileOf(t, content)
		files.Go(func() {
			if _, err := up.Upload(t.Context(), uploader.Task{Source: source, Manifest: w.put(), Watcher: new(log)}); err != nil {
				t.Error(err)
			}
		})
	}
	files.Wait()
	// The first burst is not waited for.
	if took, least := time.Since(began), time.Duration(700_000-rate/8)*time.Second/rate; took < least {
		t.Errorf("took %s, want at least %s", took, least)
	}
	w.wantStored(someBytes(300_000))
}

// TestRateInterrupted ends an upload that waits for its turn.
func TestRateInterrupted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	up := newUploader(t, func(c *uploader.Config) { c.Rate = uploader.MinRate })
	_, source := fileOf(t, someBytes(10_000_000))
	ctx, cancel := context.WithCancel(t.Context())
	w.gate.Between(func(rw http.ResponseWriter, r *http.Request, serve http.Handler) {
		io.ReadFull(r.Body, make([]byte, 1))
		cancel()
		io.Copy(io.Discard, r.Body) // until the connection ends
	})
	_, err := up.Upload(ctx, uploader.Task{Source: source, Manifest: w.put(), Watcher: new(log)})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func TestRateTooLow(t *testing.T) {
	t.Parallel()
	for _, rate := range []int64{-1, 1, uploader.MinRate - 1} {
		_, err := uploader.New(uploader.Config{Parallel: 1, Attempts: 1, Rate: rate})
		if err == nil || !strings.Contains(err.Error(), "limit-rate: ") {
			t.Errorf("%d: %v", rate, err)
		}
	}
}
