package export

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"upcall/internal/dbtest"
	"upcall/internal/event"
	"upcall/internal/eventstore"
	"upcall/internal/fault"
	"upcall/internal/oss"
	"upcall/internal/testing/ossclient"
	"upcall/internal/testing/ossfake"
)

// threeDays are events of three days in two months, with one day between without any.
func threeDays() []*event.Event {
	return []*event.Event{keyed(day, "a"), keyed(day.Add(time.Hour), "b"), keyed(day.AddDate(0, 0, 1), "c"),
		keyed(day.AddDate(0, 0, 3), "d")}
}

var dailyFiles = []string{"day=2026-10-31/part-0.jsonl", "day=2026-11-01/part-0.jsonl", "day=2026-11-03/part-0.jsonl"}

// TestInterrupted continues a run that was interrupted, and does not continue one that ended.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	pool := database(t, threeDays()...)
	source, dir := pages(t, pool), t.TempDir()
	stop := errors.New("stop")
	var read []string // the days of which pages were read
	cut := "2026-11-03"
	cfg := Config{Format: formatNamed(t, "jsonl"), Target: Local(dir), Now: now, Source: hooked{source, func(s eventstore.Span) error {
		read = append(read, s.Since.Format(time.DateOnly))
		if read[len(read)-1] == cut {
			return stop
		}
		return nil
	}}}
	if _, err := Run(t.Context(), cfg); !errors.Is(err, stop) {
		t.Fatalf("got %v", err)
	}
	if diff := cmp.Diff(dailyFiles[:2], files(t, dir)); diff != "" {
		t.Errorf("files after the interruption, which must be whole:\n%s", diff)
	}
	read, cut = nil, ""
	later := keyed(day.Add(2*time.Hour), "late") // of a day that is done
	record(t, pool, later)
	if got := runAll(t, cfg); !got.Continue || got.Rows != 1 {
		t.Errorf("continued: %+v", got)
	}
	for _, d := range read {
		if d != "2026-11-03" {
			t.Errorf("%s was read again", d)
		}
	}
	if diff := cmp.Diff(dailyFiles, files(t, dir)); diff != "" {
		t.Errorf("files at the end:\n%s", diff)
	}
	if got := runAll(t, cfg); got.Continue || got.Rows != 5 {
		t.Errorf("a run after one that ended: %+v", got)
	}
	// Another span is another run, whether the last one ended or not.
	cut = "2026-11-01"
	if _, err := Run(t.Context(), cfg); !errors.Is(err, stop) {
		t.Fatalf("got %v", err)
	}
	cfg.Until, cut = day.AddDate(0, 0, 2), ""
	if got := runAll(t, cfg); got.Continue || got.Rows != 4 {
		t.Errorf("another span: %+v", got)
	}
}

// TestOtherBucket refuses to mix buckets in a directory.
func TestOtherBucket(t *testing.T) {
	t.Parallel()
	e := full(day)
	cfg := Config{Format: formatNamed(t, "csv"), Target: Local(t.TempDir()), Now: now, Source: pages(t, database(t, e, bare(day))), Bucket: "demo"}
	if got := runAll(t, cfg); got.Rows != 1 {
		t.Errorf("of the bucket: %+v", got)
	}
	for _, bucket := range []string{"", "other"} {
		cfg.Bucket = bucket
		if _, err := Run(t.Context(), cfg); !errors.Is(err, ErrOther) {
			t.Errorf("bucket %q: %v", bucket, err)
		}
	}
}

// TestPages holds that every event is exported once, whatever the size of pages, also of those
// that were received at the same time.
func TestPages(t *testing.T) {
	t.Parallel()
	pool := database(t)
	dbtest.Execute(t, pool.Config().ConnString(), `INSERT INTO upcall.upload_events (id, received_at, source, vars)
		SELECT gen_random_uuid(), '2026-11-01T00:00:00Z'::timestamptz + i / 1000 * interval '1 microsecond', 'callback',
			jsonb_build_object('i', i, 'text', repeat('x', CASE WHEN i % 100 = 0 THEN 100000 ELSE 0 END)) FROM generate_series(1, 10000) AS i`)
	path := filepath.Join(t.TempDir(), "events.jsonl")
	runAll(t, Config{Format: formatNamed(t, "jsonl"), Target: Local(path), Now: now, Source: pages(t, pool)})
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	for line := range strings.Lines(string(text)) {
		_, i, _ := strings.Cut(line, `"i":`)
		i, _, _ = strings.Cut(i, ",")
		seen[i] = true
	}
	if lines := strings.Count(string(text), "\n"); lines != 10000 || len(seen) != 10000 {
		t.Errorf("%d lines of %d events", lines, len(seen))
	}
}

// TestDropped has retention take a month away while it is read: the export fails, and leaves no
// file of it.
func TestDropped(t *testing.T) {
	t.Parallel()
	pool := database(t, threeDays()...)
	source, dir, pagesRead := pages(t, pool), t.TempDir(), 0
	cfg := Config{Format: formatNamed(t, "jsonl"), Target: Local(dir), Now: now, Source: hooked{source, func(eventstore.Span) error {
		if pagesRead++; pagesRead == 2 { // after the first page of the first day
			_, err := eventstore.DropExpired(t.Context(), pool, time.Now().AddDate(1, 0, 0), eventstore.MinRetention)
			if err == nil {
				dbtest.Execute(t, pool.Config().ConnString(), "ALTER TABLE upcall.upload_events DETACH PARTITION upcall.upload_events_2026_10")
			}
			return err
		}
		return nil
	}}}
	if _, err := Run(t.Context(), cfg); !errors.Is(err, ErrDropped) {
		t.Errorf("got %v", err)
	}
	if got := files(t, dir); len(got) != 0 {
		t.Errorf("files: %v", got)
	}
}

// TestTaken holds that two exports do not write the same file.
func TestTaken(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "events.csv")
	f, err := createFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := createFile(path); !errors.Is(err, ErrTaken) {
		t.Errorf("a second one: %v", err)
	}
	if err := errors.Join(f.commit(t.Context()), f.discard(t.Context())); err != nil {
		t.Fatal(err)
	}
	again, err := createFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.discard(t.Context()); err != nil {
		t.Error(err)
	}
	if got := files(t, filepath.Dir(path)); !cmp.Equal(got, []string{"events.csv"}) {
		t.Errorf("files: %v", got)
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		cfg  Config
		want []string // fields
	}{
		"none":                     {Config{Target: Local("x")}, nil},
		"days":                     {Config{Target: Local("x"), Since: day, Until: day.AddDate(0, 0, 1)}, nil},
		"empty":                    {Config{Target: Local("x.csv"), Since: day, Until: day}, []string{"until"}},
		"backwards":                {Config{Target: Local("x.csv"), Since: day, Until: day.Add(-1)}, []string{"until"}},
		"hours to a file":          {Config{Target: Local("x.csv"), Since: day.Add(1), Until: day.Add(2)}, nil},
		"hours to a directory":     {Config{Target: Local("x"), Since: day.Add(1), Until: day.Add(time.Hour)}, []string{"since", "until"}},
		"days of another zone":     {Config{Target: Local("x"), Since: day.Add(-8 * time.Hour)}, []string{"since"}},
		"hours to a prefix in OSS": {Config{Target: Bucket(nil, "demo", "x"), Until: day.Add(1)}, []string{"until"}},
	} {
		var fields []string
		for _, f := range fault.Of(tt.cfg.Check()) {
			fields = append(fields, f.Field)
		}
		if diff := cmp.Diff(tt.want, fields); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
	}
}

// TestBucket writes to an emulator: small objects, one of several parts, and none of a run that
// fails.
func TestBucket(t *testing.T) {
	t.Parallel()
	endpoint := ossfake.Start(t)
	client, err := oss.New(oss.Config{Region: ossfake.Region, Endpoint: endpoint, PathStyle: true,
		AccessKeyID: ossfake.AccessKeyID, AccessKeySecret: ossfake.AccessKeySecret})
	if err != nil {
		t.Fatal(err)
	}
	official := ossclient.New(endpoint, ossfake.Region, ossfake.AccessKeyID, ossfake.AccessKeySecret)
	pool := database(t, threeDays()...)
	dbtest.Execute(t, pool.Config().ConnString(), `INSERT INTO upcall.upload_events (id, received_at, source, vars)
		SELECT gen_random_uuid(), '2026-11-01T00:00:00Z', 'callback', jsonb_build_object('text', repeat('x', 100000)) FROM generate_series(1, 200)`)
	source, dir := pages(t, pool), t.TempDir()
	cfg := Config{Format: formatNamed(t, "jsonl"), Now: now, Source: source, Target: Local(dir)}
	runAll(t, cfg)
	stop, read := errors.New("stop"), 0
	cfg.Target = Bucket(client, ossfake.Bucket, "exports/all/")
	cfg.Source = hooked{source, func(s eventstore.Span) error {
		if read++; s.Since.Equal(day.AddDate(0, 0, 1)) && read > 6 { // with a part on its way
			return stop
		}
		return nil
	}}
	if _, err := Run(t.Context(), cfg); !errors.Is(err, stop) {
		t.Fatalf("got %v", err)
	}
	if open := ossclient.OpenUploads(t, official, ossfake.Bucket); len(open) != 0 {
		t.Errorf("%d uploads were not aborted", len(open))
	}
	cfg.Source = source
	if got := runAll(t, cfg); !got.Continue || got.Rows != 202 {
		t.Errorf("continued: %+v", got)
	}
	for _, name := range dailyFiles {
		want, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		got, content := ossclient.Get(t, official, ossfake.Bucket, "exports/all/"+name)
		if string(content) != string(want) || *got.ContentType != cfg.Format.contentType {
			t.Errorf("%s: %d bytes of %s, want %d", name, len(content), *got.ContentType, len(want))
		}
	}
	cfg.Target = Bucket(client, ossfake.Bucket, "one.jsonl")
	runAll(t, cfg)
	if _, content := ossclient.Get(t, official, ossfake.Bucket, "one.jsonl"); strings.Count(string(content), "\n") != 204 {
		t.Error("the single object has not all events")
	}
}

// TestCanceled leaves nothing behind.
func TestCanceled(t *testing.T) {
	t.Parallel()
	source, dir := pages(t, database(t, threeDays()...)), t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	cfg := Config{Format: formatNamed(t, "parquet"), Now: now, Target: Local(filepath.Join(dir, "x.parquet")),
		Source: hooked{source, func(eventstore.Span) error { cancel(); return nil }}}
	if _, err := Run(ctx, cfg); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if got := files(t, dir); len(got) != 0 {
		t.Errorf("files: %v", got)
	}
}
