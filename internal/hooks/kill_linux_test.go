package hooks

import (
	"context"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"testing"
	"time"

	"upcall/internal/eventstore"
	"upcall/internal/feed"
	"upcall/internal/testing/wait"
)

// pumpVariable makes the test program a receiver on the database that it names.
const pumpVariable = "UPCALL_TEST_HOOKS_PUMP"

func TestMain(m *testing.M) {
	if url := os.Getenv(pumpVariable); url != "" {
		if err := pumpUntilKilled(url); err != nil {
			slog.Error("pump", slog.String("error", err.Error()))
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// killedLease is short, so that others need not wait long for what a killed one held.
const killedLease = time.Second

func pumpUntilKilled(url string) error {
	ctx := context.Background()
	pool, err := eventstore.Open(ctx, url)
	if err != nil {
		return err
	}
	reader, err := eventstore.OpenFeed(ctx, url)
	if err != nil {
		return err
	}
	logger := slog.New(slog.DiscardHandler)
	log, err := feed.New(feed.Config{Pool: reader, Logger: logger})
	if err != nil {
		return err
	}
	consumers, err := feed.NewConsumers(feed.ConsumersConfig{Pool: reader, Lease: killedLease})
	if err != nil {
		return err
	}
	pump, err := NewPump(PumpConfig{Pool: pool, Log: log, Consumers: consumers, Rules: loopback, Logger: logger,
		Schedule: Schedule{50 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond, 100 * time.Millisecond,
			200 * time.Millisecond, 200 * time.Millisecond, 200 * time.Millisecond, 200 * time.Millisecond, 200 * time.Millisecond}})
	if err != nil {
		return err
	}
	go log.Run(ctx)
	go consumers.Run(ctx)
	pump.Run(ctx)
	return nil
}

// TestKilled: two receivers deliver to an endpoint that fails half of the time, and are killed
// again and again. Every event is delivered at least once; those that are delivered twice are
// at most what was not committed at each kill.
func TestKilled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	tries, good := make(map[string]int), make(map[string]int) // attempts and successes, by event
	a := newApp(t, nil)
	a.mu.Lock()
	a.decide = func(_ int, id string) int {
		if tries[id]++; tries[id]%2 == 1 {
			return 500
		}
		good[id]++
		return 204
	}
	a.mu.Unlock()
	start := func() *exec.Cmd {
		receiver := exec.CommandContext(t.Context(), os.Args[0])
		receiver.Env = append(os.Environ(), pumpVariable+"="+w.url)
		receiver.Stderr = os.Stderr
		receiver.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := receiver.Start(); err != nil {
			t.Fatal(err)
		}
		return receiver
	}
	receivers := []*exec.Cmd{start(), start()}
	w.add(t, "app", a)
	const kills, each = 6, 300
	for i := range kills {
		w.upload(t, "k", each)
		before := a.requests()
		wait.Until(t, "deliveries arrive", func() bool { return a.requests() > before+each/3 })
		victim := receivers[i%2]
		_ = victim.Process.Kill() // it runs
		_ = victim.Wait()         // which says that it was killed
		receivers[i%2] = start()
	}
	var ids []string
	rows, err := w.pool.Query(t.Context(), "SELECT id::text FROM upcall.upload_events")
	if err != nil {
		t.Fatal(err)
	}
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	missing := func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return slices.ContainsFunc(ids, func(id string) bool { return good[id] == 0 })
	}
	wait.Until(t, "every event is delivered", func() bool { return !missing() })
	wait.Until(t, "no retry is left", func() bool { return w.count(t, "hook_retries") == 0 })
	for _, r := range receivers {
		_ = r.Process.Kill()
		_ = r.Wait()
	}
	twice := 0
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, n := range good {
		if n > 1 {
			twice++
		}
	}
	t.Logf("%d events, %d requests, %d delivered twice after %d kills", len(ids), len(a.arrived), twice, kills)
	if twice > kills*windowSize {
		t.Errorf("%d events are delivered twice", twice)
	}
}
