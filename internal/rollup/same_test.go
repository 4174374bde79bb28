package rollup

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
)

// TestSameUpload: an upload that several sources tell of counts once, whatever comes first and by whatever
// it is known, also if it is among many to its object.
func TestSameUpload(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	worker, run := w.worker(t, time.Minute)
	run()
	upload, other := uuid.New(), uuid.New()
	type tell struct {
		source, request, etag string
		upload                *uuid.UUID
	}
	const far, near = 2 * time.Hour, 2 * time.Minute
	callback := tell{"callback", "R", "ABC", &upload}
	bare := tell{"callback", "R", "ABC", nil} // is given an upload of the ledger, and no key
	for i, tt := range []struct {
		first, second tell
		apart         time.Duration
		lost          string // the source of the event that does not count; "" if both do
	}{
		{callback, tell{"notification", "R", "ABC", &upload}, far, "notification"},
		{tell{"notification", "R", "", nil}, callback, far, "notification"},
		{callback, tell{"reconcile", "", "ABC", &upload}, far, "reconcile"},
		{tell{"reconcile", "", `"abc"`, &upload}, callback, far, "reconcile"},
		{tell{"reconcile", "", "ABC", &upload}, tell{"notification", "R", "ABC", &upload}, far, "reconcile"},
		{tell{"notification", "Q", "ABC", &upload}, callback, far, "notification"},
		{tell{"reconcile", "", "DEF", &upload}, callback, far, ""},
		{tell{"reconcile", "", "ABC", &other}, callback, far, ""},
		{tell{"reconcile", "", "", &upload}, tell{"callback", "R", "", &upload}, far, ""},
		{tell{"reconcile", "", "abc", &other}, callback, near, "reconcile"}, // the listing took it for another upload
		{callback, tell{"reconcile", "", "ABC", &other}, near, "reconcile"},
		{tell{"reconcile", "", "ABC", &other}, tell{"notification", "R", "ABC", &upload}, near, "reconcile"},
		{tell{"reconcile", "", "ABC", &other}, callback, near + time.Microsecond, ""},
		{tell{"reconcile", "", "DEF", &other}, callback, near, ""},
		{tell{"reconcile", "", "", &other}, tell{"callback", "R", "", &upload}, near, ""},
		{tell{"notification", "Q", "ABC", &other}, callback, near, ""},
		{tell{"callback", "Q", "ABC", &upload}, callback, far, ""},      // the same content a second time
		{tell{"reconcile", "", "ABC", &other}, bare, near, "reconcile"}, // and the callback names no key
		{bare, tell{"reconcile", "", "ABC", &other}, near, "reconcile"},
		{bare, tell{"notification", "R", "ABC", &other}, near, "notification"},
		{tell{"reconcile", "", "ABC", &other}, bare, near + time.Microsecond, ""},
		{tell{"reconcile", "", "DEF", &other}, bare, near, ""},
	} {
		for _, among := range []int{0, 12} {
			key, hour := fmt.Sprintf("%d/%d", i, among), time.Now().Truncate(time.Hour)
			add := func(at time.Time, e tell) {
				named := &key
				if e == bare {
					issued := uuid.New()
					w.exec(t, `INSERT INTO upcall.issued_uploads (upload_id, issued_at, expires_at, bucket, object_key)
						VALUES ($1, $2, $2, 'b', $3)`, issued, at, key)
					named, e.upload = nil, &issued
				}
				w.exec(t, `INSERT INTO upcall.upload_events (id, received_at, bucket, object_key, source, request_id, etag, upload_id)
					VALUES (gen_random_uuid(), $1, 'b', $2, $3, nullif($4, ''), nullif($5, ''), $6)`,
					at, named, e.source, e.request, e.etag, e.upload)
			}
			for n := range among {
				add(hour.Add(time.Duration(n)*time.Second), tell{source: "callback", request: fmt.Sprint(n)})
			}
			add(hour.Add(time.Duration(among)*time.Second/2), tt.first)
			w.caughtUp(t, worker)
			add(hour.Add(time.Duration(among)*time.Second/2-tt.apart), tt.second)
			w.caughtUp(t, worker)
			want := among + 2
			if tt.lost != "" {
				want--
			}
			if n := w.number(t, "SELECT uploads FROM upcall.rollup_objects WHERE object_key = $1", key); n != want {
				t.Errorf("%v, then %v, among %d: %d uploads, want %d", tt.first, tt.second, among, n, want)
			}
			lost := w.lines(t, `SELECT e.source FROM upcall.rollup_superseded s JOIN upcall.upload_events e ON e.id = s.event_id
				WHERE object_key = '`+key+`'`)
			if got := fmt.Sprint(lost); got != "["+tt.lost+"]" {
				t.Errorf("%v, then %v, among %d: lost %s", tt.first, tt.second, among, got)
			}
		}
	}
	w.compare(t)
}

// TestSameThroughAnother: a listing tells of the same as a notification, and that of the same as a callback whose
// receiver's clock was wrong. Whatever comes first, at once or not, the upload counts once.
func TestSameThroughAnother(t *testing.T) {
	t.Parallel()
	for _, pause := range []bool{true, false} {
		w := newWorld(t)
		worker, run := w.worker(t, time.Minute)
		if pause {
			run()
		}
		at, upload := time.Now().Add(-time.Hour).Truncate(time.Microsecond), uuid.New()
		orders := []string{"cnl", "cln", "ncl", "nlc", "lcn", "lnc"}
		for _, among := range []int{0, 12} {
			for n := range among {
				for _, order := range orders {
					w.exec(t, `INSERT INTO upcall.upload_events (id, received_at, bucket, object_key, source, request_id)
						VALUES (gen_random_uuid(), $1, 'b', $2, 'callback', $3)`,
						at.Add(time.Duration(n-among/2)*time.Minute/4), fmt.Sprint(order, among), fmt.Sprint(n))
				}
			}
			for step := range 3 {
				for _, order := range orders {
					var source, request, by any
					told := at
					switch order[step] {
					case 'c':
						source, request, by, told = "callback", "R", upload, at.Add(10*time.Minute)
					case 'n':
						source, request, by = "notification", "R", upload
					case 'l':
						source, by = "reconcile", uuid.New()
					}
					w.exec(t, `INSERT INTO upcall.upload_events (id, received_at, bucket, object_key, source, request_id, etag, upload_id)
						VALUES (gen_random_uuid(), $1, 'b', $2, $3, $4, 'E1', $5)`, told, fmt.Sprint(order, among), source, request, by)
				}
				if pause {
					w.caughtUp(t, worker)
				}
			}
		}
		if !pause {
			run()
			w.caughtUp(t, worker)
		}
		for _, among := range []int{0, 12} {
			for _, order := range orders {
				got := w.lines(t, "SELECT source || ' ' || uploads FROM upcall.rollup_objects WHERE object_key = $1",
					fmt.Sprint(order, among))
				if want := fmt.Sprintf("[callback %d]", among+1); fmt.Sprint(got) != want {
					t.Errorf("%s among %d, each counted at once %v: %s, want %s", order, among, pause, got, want)
				}
			}
		}
		w.compare(t)
	}
}
