package reconcile

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"upcall/internal/event"
	"upcall/internal/oss"
)

// TestRun has an object of each kind, by its key, and looks what becomes of it.
func TestRun(t *testing.T) {
	t.Parallel()
	w, b := newWorld(t), newBucket()
	// The log tells of these.
	b.put("known/current", "a", old)
	w.tell(t, "known/current", etag("a"), old, nil)
	b.put("known/quoted", "a", old)
	w.tell(t, "known/quoted", `"`+etag("a")+`"`, old, nil)
	b.put("known/first", "a", old)
	w.tell(t, "known/first", etag("a"), old, nil)
	w.tell(t, "known/first", etag("b"), old.Add(time.Minute), nil)
	b.put("known/between", "a", old)
	w.tell(t, "known/between", etag("b"), old.Add(-time.Minute), nil)
	w.tell(t, "known/between", etag("a"), old, nil)
	w.tell(t, "known/between", etag("c"), old.Add(time.Minute), nil)
	b.put("known/without ETag", "a", old)
	w.tell(t, "known/without ETag", "", old, nil)
	b.put("known/old", "a", now.AddDate(0, -3, 0))
	w.tell(t, "known/old", etag("a"), now.AddDate(0, -3, 0), nil)
	// These were issued, and nobody told of them.
	missing := []string{"missing/", "missing/overwritten", "missing/sized", "missing/slow", "missing/ü\t%"}
	for _, key := range missing {
		b.put(key, "a", old)
	}
	w.issue(t, "missing/", old.Add(-time.Minute), nil)
	w.issue(t, "missing/ü\t%", old.Add(-time.Minute), nil)
	w.tell(t, "missing/overwritten", etag("b"), old.Add(-time.Hour), w.issue(t, "missing/overwritten", old.Add(-2*time.Hour), nil))
	w.issue(t, "missing/overwritten", old.Add(-time.Minute), nil)
	w.issue(t, "missing/sized", old.Add(-2*time.Minute), 1)
	w.issue(t, "missing/sized", old.Add(-time.Minute), 2)
	w.issue(t, "missing/slow", old.Add(-20*time.Hour), nil)
	// These were not issued to us, or not so.
	foreign := []string{"foreign/", "foreign/after", "foreign/before", "foreign/long after", "foreign/revoked", "foreign/size"}
	for _, key := range foreign {
		b.put(key, "a", old)
	}
	w.issue(t, "foreign/before", old.Add(2*time.Minute), nil)
	w.issue(t, "foreign/after", old.Add(-26*time.Hour), nil)
	w.tell(t, "foreign/long after", etag("b"), old.Add(-48*time.Hour), w.issue(t, "foreign/long after", old.Add(-49*time.Hour), nil))
	w.exec(t, "INSERT INTO upcall.revoked_uploads VALUES ($1, $2)", w.issue(t, "foreign/revoked", old.Add(-time.Minute), nil), now)
	w.issue(t, "foreign/size", old.Add(-time.Minute), 2)
	// Retention has dropped this, or will.
	b.put("old/", "a", now.AddDate(0, -2, 0))
	w.issue(t, "old/", now.AddDate(0, -2, 0), nil)
	// Their callback may be on its way.
	b.put("young/", "a", now.Add(-9*time.Minute))
	w.issue(t, "young/", now.Add(-10*time.Minute), nil)
	// The log tells of these, and they are not there.
	w.tell(t, "vanished/", etag("a"), old, nil)
	w.tell(t, "vanished/again", etag("a"), old, nil)
	w.exec(t, "INSERT INTO upcall.removals VALUES ('photos', 'vanished/again', $1, 'notification')", old.Add(-time.Minute))
	w.tell(t, "removed/", etag("a"), old, nil)
	w.exec(t, "INSERT INTO upcall.removals VALUES ('photos', 'removed/', $1, 'notification')", old.Add(time.Minute))
	w.exec(t, `INSERT INTO upcall.upload_events (id, received_at, source, bucket, object_key, request_id)
		VALUES (gen_random_uuid(), $1, 'callback', 'photos', 'removed/ahead', $2)`, // by a receiver whose clock is
		old.Add(2*time.Second), fmt.Sprintf("%08X%016X", old.Unix(), 1))
	w.exec(t, "INSERT INTO upcall.removals VALUES ('photos', 'removed/ahead', $1, 'notification')", old.Add(time.Second))
	w.exec(t, `INSERT INTO upcall.upload_events (id, received_at, source, bucket, object_key)
		VALUES (gen_random_uuid(), $1, 'callback', 'others', 'x')`, old)
	w.tell(t, "later/", etag("a"), now.Add(time.Minute), nil)
	w.counted(t)

	want := Counts{Listed: 6 + 5 + 6 + 2, Known: 6, Missing: 5, Recovered: 5, Vanished: 2, Foreign: 6, TooOld: 1}
	dry := w.config(t, b)
	dry.DryRun = true
	got := w.reconcile(t, dry)
	wantDry := want
	wantDry.Recovered = 0
	if diff := cmp.Diff(wantDry, got.Counts); diff != "" {
		t.Errorf("dry run (-want +got):\n%s", diff)
	}
	if n := w.number(t, "SELECT count(*) FROM upcall.upload_events WHERE source <> 'callback'"); n != 0 {
		t.Errorf("a dry run recorded %d events", n)
	}
	if n := w.number(t, "SELECT count(*) FROM upcall.removals"); n != 3 {
		t.Errorf("a dry run noted removals: %d", n)
	}

	got = w.reconcile(t, w.config(t, b))
	if diff := cmp.Diff(want, got.Counts); diff != "" {
		t.Errorf("run (-want +got):\n%s", diff)
	}
	for _, key := range b.heads { // others are known without a request
		if !strings.HasPrefix(key, "missing/") && !strings.HasPrefix(key, "vanished/") {
			t.Errorf("OSS was asked for %s", key)
		}
	}
	if share := 5. / 11; got.LostShare != share {
		t.Errorf("lost share %v, want %v", got.LostShare, share)
	}
	recovered := w.lines(t, `SELECT concat_ws(' ', e.object_key, e.received_at = $1, e.etag = $2, e.size, e.mime_type, e.crc64,
			e.vars->>'key' = e.object_key, e.request_id IS NULL, i.object_key = e.object_key, i.size)
		FROM upcall.upload_events e JOIN upcall.issued_uploads i USING (upload_id)
		WHERE e.source = 'reconcile' ORDER BY e.object_key COLLATE "C"`, old, etag("a"))
	var wantRows []string
	for _, key := range missing {
		size := ""
		if key == "missing/sized" {
			size = " 1"
		}
		wantRows = append(wantRows, key+" t t 1 text/plain 1 t t t"+size)
	}
	if diff := cmp.Diff(wantRows, recovered); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	removed := w.lines(t, `SELECT object_key FROM upcall.removals WHERE source = 'reconcile' AND removed_at = $1
		ORDER BY object_key COLLATE "C"`, now)
	if !slices.Equal(removed, []string{"vanished/", "vanished/again"}) {
		t.Errorf("removals: %q", removed)
	}

	// Once more: what is recorded is known, and what is not ours is counted again.
	w.counted(t)
	again := Counts{Listed: want.Listed, Known: 11, Foreign: 6, TooOld: 1}
	if diff := cmp.Diff(again, w.reconcile(t, w.config(t, b)).Counts); diff != "" {
		t.Errorf("again (-want +got):\n%s", diff)
	}
	if n := w.number(t, "SELECT count(DISTINCT run_id) FROM upcall.reconcile_objects"); n != 1 {
		t.Errorf("objects of %d runs are left", n)
	}
}

// TestChanges has objects that arrive, change and go while a run is under way.
func TestChanges(t *testing.T) {
	t.Parallel()
	w, b := newWorld(t), newBucket()
	b.put("changes/known", "a", old) // when it is listed
	b.put("changes/missing", "a", old)
	b.put("changes/young", "a", old)
	b.put("goes", "a", old)
	b.put("is told of", "a", old)
	for _, key := range []string{"changes/known", "changes/missing", "changes/young", "goes", "is told of"} {
		w.issue(t, key, old.Add(-time.Minute), nil)
	}
	w.tell(t, "arrives", etag("a"), old, nil) // in the log, and not listed
	w.tell(t, "goes for good", etag("a"), old, nil)
	w.counted(t)
	b.onHead = func(key string) {
		switch key {
		case "changes/known":
			b.put(key, "b", old.Add(time.Minute))
			w.tell(t, key, etag("b"), old.Add(time.Minute), nil)
			w.counted(t)
		case "changes/missing":
			b.put(key, "b", old.Add(time.Minute))
		case "changes/young":
			b.put(key, "b", now.Add(time.Minute))
		case "goes":
			b.remove(key)
		case "is told of":
			id := w.lines(t, "SELECT upload_id::text FROM upcall.issued_uploads WHERE object_key = $1", key)[0]
			w.tell(t, key, etag("a"), old, id)
		case "arrives":
			b.put(key, "a", old)
		}
	}
	want := Counts{Listed: 5, Known: 2, Missing: 1, Recovered: 1, Vanished: 1}
	if diff := cmp.Diff(want, w.reconcile(t, w.config(t, b)).Counts); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	got := w.lines(t, "SELECT object_key || ' ' || etag FROM upcall.upload_events WHERE source = 'reconcile'")
	if want := []string{"changes/missing " + etag("b")}; !slices.Equal(got, want) {
		t.Errorf("recorded %q, want %q", got, want)
	}
	if got := w.lines(t, "SELECT object_key FROM upcall.removals"); !slices.Equal(got, []string{"goes for good"}) {
		t.Errorf("removals: %q", got)
	}
	slices.Sort(b.heads)
	if want := []string{"arrives", "changes/known", "changes/missing", "changes/young", "goes", "goes for good",
		"is told of"}; !slices.Equal(b.heads, want) {
		t.Errorf("OSS was asked for %q, want %q", b.heads, want)
	}
}

// TestLimits runs on a part of the bucket.
func TestLimits(t *testing.T) {
	t.Parallel()
	w, b := newWorld(t), newBucket()
	for _, key := range []string{"a/x", "b", "b/1", "b/2", "b0", "c"} {
		b.put(key, "a", old)
		w.issue(t, key, old.Add(-time.Minute), nil)
		w.tell(t, "gone "+key, etag("a"), old, nil)
		w.tell(t, key+" gone", etag("a"), old, nil)
	}
	b.put("b/old", "a", old.Add(-time.Hour))
	w.issue(t, "b/old", old.Add(-2*time.Hour), nil)
	w.tell(t, "b/old gone", etag("a"), old.Add(-time.Hour), nil)
	w.counted(t)
	cfg := w.config(t, b)
	cfg.DryRun = true
	for name, tt := range map[string]struct {
		prefix string
		since  time.Time
		want   Counts
	}{
		"all":              {"", time.Time{}, Counts{Listed: 7, Missing: 7, Vanished: 13}},
		"prefix":           {"b/", time.Time{}, Counts{Listed: 3, Missing: 3, Vanished: 3}},
		"prefix and since": {"b/", old.Add(-time.Minute), Counts{Listed: 3, Missing: 2, Vanished: 2}},
		"since":            {"", old.Add(-time.Minute), Counts{Listed: 7, Missing: 6, Vanished: 12}},
		"since now":        {"", now, Counts{Listed: 7}},
		"no such prefix":   {"z", time.Time{}, Counts{}},
	} {
		cfg.Prefix, cfg.Since = tt.prefix, tt.since
		if diff := cmp.Diff(tt.want, w.reconcile(t, cfg).Counts); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// TestIdentity holds that the event of an upload is the same, however often it is found.
func TestIdentity(t *testing.T) {
	t.Parallel()
	w, b := newWorld(t), newBucket()
	b.put("a", "a", old)
	w.issue(t, "a", old.Add(-time.Minute), nil)
	w.counted(t)
	w.reconcile(t, w.config(t, b))
	want := event.RecoveredID(event.SourceReconcile, "photos", "a", "", etag("a"), old)
	if got := w.lines(t, "SELECT id::text FROM upcall.upload_events"); !slices.Equal(got, []string{want.String()}) {
		t.Errorf("ids %q, want %s", got, want)
	}
	// As if the roll-up had lost it: the log tells of it by its upload.
	w.counted(t)
	w.exec(t, "DELETE FROM upcall.rollup_objects")
	b.heads = nil
	if got := w.reconcile(t, w.config(t, b)).Counts; got != (Counts{Listed: 1, Known: 1}) || len(b.heads) > 0 {
		t.Errorf("%+v, OSS was asked for %q", got, b.heads)
	}
}

// TestOddKeys has keys that no row can hold.
func TestOddKeys(t *testing.T) {
	t.Parallel()
	w, b := newWorld(t), newBucket()
	for _, key := range []string{"nul \x00", "not text \xff", "a"} {
		b.put(key, "a", old)
	}
	w.counted(t)
	if got := w.reconcile(t, w.config(t, b)).Counts; got != (Counts{Listed: 3, Foreign: 3}) {
		t.Errorf("%+v", got)
	}
}

// TestManyObjects lists more than one page of everything, with keys of several shapes.
func TestManyObjects(t *testing.T) {
	t.Parallel()
	w, b := newWorld(t), newBucket()
	w.exec(t, `INSERT INTO upcall.upload_events (id, received_at, source, bucket, object_key, etag)
		SELECT gen_random_uuid(), $1, 'callback', 'photos', CASE n % 3 WHEN 0 THEN 'flat' || md5(n::text)
			WHEN 1 THEN 'day/' || n % 31 || '/' || n ELSE 'user/' || n || '/ü/x' END, $2
		FROM generate_series(1, 30000) n WHERE n % 1000 <> 7`, old, etag("a"))
	for _, key := range w.lines(t, "SELECT object_key FROM upcall.upload_events") {
		b.objects[key] = oss.Head{Size: 1, ETag: etag("a"), LastModified: old}
		b.keys = append(b.keys, key)
	}
	for i := range 1500 {
		key := fmt.Sprintf("missing/%d", i)
		b.objects[key] = oss.Head{Size: 1, ETag: etag("a"), LastModified: old}
		b.keys = append(b.keys, key)
	}
	slices.Sort(b.keys)
	w.exec(t, `INSERT INTO upcall.issued_uploads (upload_id, issued_at, expires_at, bucket, object_key, vars)
		SELECT gen_random_uuid(), $1, $1, 'photos', 'missing/' || n, '{}' FROM generate_series(0, 1499) n`, old.Add(-time.Minute))
	gone := b.keys[100:1300]
	for _, key := range gone {
		delete(b.objects, key)
	}
	b.keys = slices.Delete(b.keys, 100, 1300)
	w.counted(t)
	want := Counts{Listed: int64(len(b.keys)), Known: int64(len(b.keys)) - 1500, Missing: 1500, Recovered: 1500, Vanished: 1200}
	if diff := cmp.Diff(want, w.reconcile(t, w.config(t, b)).Counts); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if pages := len(b.keys)/oss.MaxPage + 1; b.lists > 2*pages {
		t.Errorf("%d requests for %d pages", b.lists, pages)
	}
	t.Logf("%d requests for %d objects", b.lists, len(b.keys))
}

// TestUnrecordable has objects that cannot become events, because of what their uploaders or the operator chose,
// among others of the same page.
func TestUnrecordable(t *testing.T) {
	t.Parallel()
	for name, dead := range map[string][]string{
		"no row holds it":       {"b"},
		"PostgreSQL refuses it": {"c"},
		"both":                  {"b", "c"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, b := newWorld(t), newBucket()
			for _, key := range []string{"a", "b", "c", "d", "goes"} {
				b.put(key, "a", old)
				w.issue(t, key, old.Add(-time.Minute), nil)
			}
			if slices.Contains(dead, "b") {
				head := b.objects["b"]
				head.ContentType = "text/\xff"
				b.objects["b"] = head
			}
			if slices.Contains(dead, "c") {
				w.exec(t, "ALTER TABLE upcall.upload_events ADD CONSTRAINT ours CHECK (object_key <> 'c')")
			}
			b.onHead = func(key string) {
				if key == "goes" {
					b.remove(key)
				}
			}
			w.counted(t)
			bad := int64(len(dead))
			want := Counts{Listed: 5, Missing: 4, Recovered: 4 - bad}
			if diff := cmp.Diff(want, w.reconcile(t, w.config(t, b)).Counts); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			got := w.lines(t, "SELECT object_key FROM upcall.reconcile_objects WHERE state = 'missing' ORDER BY 1")
			if !slices.Equal(got, dead) {
				t.Errorf("missing are %q, want %q", got, dead)
			}
			w.counted(t)
			want = Counts{Listed: 4, Known: 4 - bad, Missing: bad}
			if diff := cmp.Diff(want, w.reconcile(t, w.config(t, b)).Counts); diff != "" {
				t.Errorf("again (-want +got):\n%s", diff)
			}
		})
	}
}
