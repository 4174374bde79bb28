package capture

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"upcall/internal/doctor"
	"upcall/internal/testing/logtest"
)

// examiner returns a directory that keeps so many, and an examiner of it that does not run yet.
func examiner(t *testing.T, most int) (*Dir, *Examiner) {
	t.Helper()
	logger, _ := logtest.New()
	d, err := Open(Config{Dir: t.TempDir(), MaxFiles: most, Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	e, err := NewExaminer(d, doctor.Config{})
	if err != nil {
		t.Fatal(err)
	}
	return d, e
}

// TestReportsForgotten: asking for reports only, and never for a list, leaves no reports about captures that are
// no longer kept.
func TestReportsForgotten(t *testing.T) {
	t.Parallel()
	d, e := examiner(t, 1)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { e.Run(ctx); close(done) }()
	defer func() { cancel(); <-done }()
	for n := range 5 {
		if err := d.write(request(n, "signature_missing", 1)); err != nil {
			t.Fatal(err)
		}
		kept, err := e.Kept()
		if err != nil || len(kept) != 1 {
			t.Fatalf("%v, %v", kept, err)
		}
		if _, err := e.Report(t.Context(), kept[0].Name); err != nil {
			t.Fatal(err)
		}
		e.mu.Lock()
		reports := len(e.reports)
		e.mu.Unlock()
		if reports != 1 {
			t.Fatalf("%d reports about 1 capture", reports)
		}
	}
}

// TestListExaminesFew: a list has the latest examined, and another when its report is asked for, before them.
func TestListExaminesFew(t *testing.T) {
	t.Parallel()
	const all = examinedOfList + 5
	d, e := examiner(t, all)
	for n := range all {
		if err := d.write(request(n, "signature_missing", 1)); err != nil {
			t.Fatal(err)
		}
	}
	kept, err := e.Kept()
	if err != nil {
		t.Fatal(err)
	}
	if list, err := e.List(t.Context(), "", all); err != nil || len(list) != all {
		t.Fatalf("%d are listed, %v", len(list), err)
	}
	want := kept[:examinedOfList]
	if diff := cmp.Diff(want, e.wanted); diff != "" {
		t.Errorf("to be examined: %s", diff)
	}
	last := kept[all-1]
	ended, end := context.WithCancel(t.Context())
	end()
	if _, err := e.Report(ended, last.Name); !errors.Is(err, context.Canceled) {
		t.Errorf("a report that nothing made: %v", err)
	}
	if diff := cmp.Diff(append([]Entry{last}, want...), e.wanted); diff != "" {
		t.Errorf("to be examined: %s", diff)
	}
	e.reports[last.Name] = &Report{Verdict: doctor.Refused, Summary: "known"}
	list, err := e.List(t.Context(), "", all)
	if err != nil || list[0].Verdict != nil || list[all-1].Summary == nil || *list[all-1].Summary != "known" {
		t.Errorf("what is known is not in the list: %+v, %v", list, err)
	}
}
