package export

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"upcall/internal/eventstore"
	"upcall/internal/testing/logtest"
	"upcall/internal/testing/metrictest"
)

// TestHeldBackIsTold: metrics and log say since when nothing can be handed over, also before anything has expired, and
// then what was handed over.
func TestHeldBackIsTold(t *testing.T) {
	t.Parallel()
	w := handLocal(t)
	aside := w.dir + ".aside"
	now := time.Now()
	logger, logs := logtest.New()
	janitor := &eventstore.Janitor{Pool: w.pool, RetentionDays: keptDays, Keeper: w.keeper(t), Logger: logger,
		Now: func() time.Time { return now }}
	told := func(when string, held, handedOver float64) {
		t.Helper()
		values := metrictest.Values(t, janitor.Collectors()...)
		if got := values["upcall_retention_held_back_seconds"]; got != held {
			t.Errorf("%s: held back for %v s, want %v", when, got, held)
		}
		if got := values["upcall_retention_handed_over_events_total"]; got != handedOver {
			t.Errorf("%s: %v events handed over, want %v", when, got, handedOver)
		}
	}
	once := func() error { return janitor.Once(t.Context()) }

	if err := once(); err != nil {
		t.Fatal(err)
	}
	told("with nothing to do", 0, 0)
	if err := os.Rename(w.dir, aside); err != nil {
		t.Fatal(err)
	}
	if err := once(); !errors.Is(err, eventstore.ErrHeldBack) {
		t.Errorf("without the directory: %v", err)
	}
	now = now.Add(90 * time.Second)
	told("without the directory", 90, 0)
	w.add(t, oldEvents(old())...)
	if err := once(); !errors.Is(err, eventstore.ErrHeldBack) {
		t.Errorf("without the directory, with a month: %v", err)
	}
	told("for as long as before", 90, 0)
	if strings.Contains(logs.String(), "dropped") {
		t.Errorf("logged %s", logs)
	}

	if err := os.Rename(aside, w.dir); err != nil {
		t.Fatal(err)
	}
	if err := once(); err != nil {
		t.Fatal(err)
	}
	told("afterwards", 0, float64(len(w.want)))
	if line := logs.String(); !strings.Contains(line, `"handed_over":`+strconv.Itoa(len(w.want))) ||
		!strings.Contains(line, old().Format("2006_01")) {
		t.Errorf("logged %s", line)
	}
	w.wantAll(t)
	if files, err := filepath.Glob(filepath.Join(w.dir, "day=*")); err != nil || len(files) == 0 {
		t.Errorf("files %v, %v", files, err)
	}
}
