package eventstore

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"upcall/internal/dbtest"
	"upcall/internal/event"
	"upcall/internal/testing/wait"
)

// TestEraseWaitsForRecorders erases while a batch is being recorded that does not know of it.
func TestEraseWaitsForRecorders(t *testing.T) {
	t.Parallel()
	pool := dbtest.Pool(t, Open)
	r := newRecorder(t, Config{Pool: pool})
	e := theirEvent(`"`+theirName+`"`, time.Now())
	record(t, r, newEvent(), false) // the partition
	blocker, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const same = "INSERT INTO upcall.callback_ids (upload_id, id, received_at) VALUES (" + noUpload + ", $1, now())"
	if _, err := blocker.Exec(t.Context(), same, e.ID); err != nil {
		t.Fatal(err)
	}
	recorded := make(chan error, 1)
	go func() {
		_, err := r.Record(context.WithoutCancel(t.Context()), e)
		recorded <- err
	}()
	wait.Until(t, "the recorder waits", func() bool { return number(t, pool, waiting) == 1 })
	erased := make(chan error, 1)
	go func() {
		_, err := eraser(t, pool, nil).Erase(context.WithoutCancel(t.Context()), EraseRequest{Variable: "uid", Value: theirName})
		erased <- err
	}()
	wait.Until(t, "the request is noted, and waits", func() bool {
		return len(erased) > 0 || number(t, pool, "SELECT count(*) FROM upcall.erasures") == 1 && number(t, pool, waiting) == 2
	})
	if err := blocker.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(<-recorded, <-erased); err != nil {
		t.Fatal(err)
	}
	if found := holders(t, pool, theirName); len(found) > 0 {
		t.Errorf("it is still in %v", found)
	}
}

const waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"

// TestEraseWaitsForRollups erases while a batch of roll-ups, of either generation, copies what is to be
// erased. A generation that takes the place of the other locks both, and does not wait for the eraser.
func TestEraseWaitsForRollups(t *testing.T) {
	t.Parallel()
	for generation, consumer := range []string{"rollup", "rollup/next"} {
		t.Run(consumer, func(t *testing.T) {
			t.Parallel()
			pool := dbtest.Pool(t, Open)
			r := newRecorder(t, Config{Pool: pool})
			e := theirEvent(`"`+theirName+`"`, time.Now())
			record(t, r, e, false)
			execute(t, pool, `INSERT INTO upcall.feed_consumers (name, system_identifier, timeline, received_at, id)
				SELECT name, 1, 1, now(), gen_random_uuid() FROM unnest(ARRAY['rollup', 'rollup/next']) AS name`)
			batch, err := pool.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = batch.Rollback(context.Background()) }() // it may be over
			for _, sql := range []string{"UPDATE upcall.feed_consumers SET updated_at = now() WHERE name = '" + consumer + "'",
				"CREATE TEMPORARY TABLE read ON COMMIT DROP AS SELECT * FROM upcall.upload_events"} {
				if _, err := batch.Exec(t.Context(), sql); err != nil {
					t.Fatal(err)
				}
			}
			erased := make(chan error, 1)
			go func() {
				_, err := eraser(t, pool, nil).Erase(context.WithoutCancel(t.Context()), EraseRequest{Variable: "uid", Value: theirName})
				erased <- err
			}()
			wait.Until(t, "the eraser waits", func() bool { return len(erased) > 0 || number(t, pool, waiting) == 1 })
			if consumer == "rollup/next" {
				const lock = "SELECT FROM upcall.feed_consumers WHERE name = 'rollup' FOR UPDATE NOWAIT"
				if _, err := batch.Exec(t.Context(), lock); err != nil {
					t.Fatalf("the eraser holds the other consumer: %v", err)
				}
			}
			_, err = batch.Exec(t.Context(), `INSERT INTO upcall.rollup_objects (generation, bucket, object_key, uploads, sources,
				first_at, first_id, first_mime_type, first_source, received_at, event_id, hourly_mime_type, source, client_ip, vars)
				SELECT $1, bucket, object_key, 1, 1, received_at, id, '', source, received_at, id, '', source, client_ip, vars
				FROM read`, generation)
			if err := errors.Join(err, batch.Commit(t.Context()), <-erased); err != nil {
				t.Fatal(err)
			}
			for _, text := range []string{theirName, theirAddress} {
				if found := holders(t, pool, text); len(found) > 0 {
					t.Errorf("%s is still in %v", text, found)
				}
			}
		})
	}
}

// TestEraseDelaysNoRecording: while another transaction keeps the eraser from beginning, events are recorded.
func TestEraseDelaysNoRecording(t *testing.T) {
	t.Parallel()
	pool := dbtest.Pool(t, Open)
	r := newRecorder(t, Config{Pool: pool})
	record(t, r, newEvent(), false) // the partition
	other, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Rollback(context.Background()) }() // it may be over
	if _, err := other.Exec(t.Context(), "LOCK TABLE upcall.refused_callbacks IN ROW EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	erased := make(chan error, 1)
	go func() {
		_, err := eraser(t, pool, nil).Erase(context.WithoutCancel(t.Context()), EraseRequest{Variable: "uid", Value: theirName})
		erased <- err
	}()
	wait.Until(t, "the eraser waits", func() bool { return number(t, pool, waiting) == 1 })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second) // its tries are of 200 ms; without a limit it would wait for 30 s
	defer cancel()
	e := newEvent()
	e.ID = uuid.New()
	if _, err := r.Record(ctx, e); err != nil {
		t.Errorf("an event meanwhile: %v", err)
	}
	if err := errors.Join(other.Rollback(t.Context()), <-erased); err != nil {
		t.Error(err)
	}
}

// TestEraseOfADroppedMonth: retention drops a month when it is about to be erased.
func TestEraseOfADroppedMonth(t *testing.T) {
	t.Parallel()
	pool := dbtest.Pool(t, Open)
	fill(t, pool, theirNumber)
	gone := month{begins: monthOf(at.AddDate(0, -5, 0))}.expiredName()
	dropped := false
	_, err := eraser(t, pool, func(line string) {
		if strings.Contains(line, gone) {
			execute(t, pool, "DROP TABLE upcall."+gone)
			dropped = true
		}
	}).Erase(t.Context(), EraseRequest{Variable: "uid", Value: theirNumber})
	if err != nil || !dropped {
		t.Errorf("dropped: %t, %v", dropped, err)
	}
	if found := holders(t, pool, theirNumber); len(found) > 0 {
		t.Errorf("it is still in %v", found)
	}
}

// TestEraseGoesOnWithAnUpload interrupts an erasure among the events of one upload whose variables only the
// ledger knows: it is found there again.
func TestEraseGoesOnWithAnUpload(t *testing.T) {
	t.Parallel()
	pool := dbtest.Pool(t, Open)
	upload, refused := smallUpload(), smallUpload() // one of them has no events
	upload.Vars = map[string]string{"uid": theirNumber}
	refused.Vars = upload.Vars
	issue(t, newLedger(t, Config{Pool: pool}), upload, refused)
	executeArgs(t, pool, `INSERT INTO upcall.refused_callbacks (digest, reason, refused_at, source_addr, upload_id)
		VALUES (gen_random_uuid(), 'token_revoked', now(), $1, $2)`, theirAddress, refused.ID)
	record(t, newRecorder(t, Config{Pool: pool}), newEvent(), false) // the partition
	executeArgs(t, pool, `INSERT INTO upcall.upload_events (id, received_at, source, bucket, object_key, upload_id, client_ip)
		SELECT gen_random_uuid(), $1::timestamptz + n * interval '1 s', 'callback', 'demo', 'k', $2, $3 FROM generate_series(1, $4) AS n`,
		at, upload.ID, theirAddress, eraseBatch+100)
	holder, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const last = "SELECT FROM upcall.upload_events WHERE received_at = $1::timestamptz + $2 * interval '1 s' FOR UPDATE"
	if _, err := holder.Exec(t.Context(), last, at, eraseBatch+100); err != nil {
		t.Fatal(err)
	}
	request := EraseRequest{Variable: "uid", Value: theirNumber}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	erased := make(chan error, 1)
	go func() {
		_, err := eraser(t, pool, nil).Erase(ctx, request)
		erased <- err
	}()
	wait.Until(t, "it waits for the last event", func() bool { return number(t, pool, waiting) == 1 })
	cancel()
	if err := <-erased; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if err := holder.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := number(t, pool, "SELECT events FROM upcall.erasures"); n != eraseBatch {
		t.Fatalf("%d events are erased, want %d", n, eraseBatch)
	}
	got, err := eraser(t, pool, nil).Erase(t.Context(), request)
	if want := (Erased{Events: eraseBatch + 100, Issued: 2, Refusals: 1}); err != nil || got != want {
		t.Errorf("erased %+v, %v; want %+v", got, err, want)
	}
	if found := holders(t, pool, theirAddress); len(found) > 0 {
		t.Errorf("it is still in %v", found)
	}
}

// TestEraseGoesOn interrupts an erasure before each of its steps.
func TestEraseGoesOn(t *testing.T) {
	t.Parallel()
	pool := dbtest.Pool(t, Open)
	fill(t, pool, theirNumber)
	request := EraseRequest{Variable: "uid", Value: theirNumber}
	var reports int
	for stop := 1; ; stop++ {
		ctx, cancel := context.WithCancel(t.Context())
		reports = 0
		got, err := eraser(t, pool, func(line string) {
			if reports++; reports == stop {
				cancel()
			}
		}).Erase(ctx, request)
		cancel()
		if err == nil {
			want := Erased{Events: 7, Objects: 10, Issued: 1, Attempts: 3, Refusals: 1}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("in %d parts: %s", stop, diff)
			}
			break
		}
		if !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	if reports < 3 {
		t.Errorf("it was interrupted only %d times", reports)
	}
	if found := holders(t, pool, theirNumber); len(found) > 0 {
		t.Errorf("it is still in %v", found)
	}
	if got := lines(t, pool, "SELECT id || ' ' || (finished_at IS NOT NULL) FROM upcall.erasures"); len(got) != 1 {
		t.Errorf("the requests are %v", got)
	}
}

// TestEraseGoesOnWithTheSame: another request that was interrupted is not taken for this one, and what was
// received since this one was interrupted is erased, too.
func TestEraseGoesOnWithTheSame(t *testing.T) {
	t.Parallel()
	pool := dbtest.Pool(t, Open)
	upload := uuid.NullUUID{UUID: uuid.New(), Valid: true}
	requests := []EraseRequest{
		{Variable: "uid", Value: theirName}, {Variable: "uid", Value: theirNumber}, {Variable: "album", Value: theirName},
		{Upload: upload}, {Upload: uuid.NullUUID{UUID: uuid.New(), Valid: true}},
	}
	for _, request := range requests {
		ctx, cancel := context.WithCancel(t.Context())
		_, err := eraser(t, pool, func(string) { cancel() }).Erase(ctx, request)
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("%+v: %v", request, err)
		}
	}
	const noted = "SELECT id || ' ' || (finished_at IS NOT NULL) FROM upcall.erasures ORDER BY id"
	if diff := cmp.Diff([]string{"1 false", "2 false", "3 false", "4 false", "5 false"}, lines(t, pool, noted)); diff != "" {
		t.Fatal(diff)
	}
	execute(t, pool, "UPDATE upcall.erasures SET asked_at = now() - interval '2 hours'")
	for _, n := range []int{1, 3} {
		if _, err := eraser(t, pool, nil).Erase(t.Context(), requests[n]); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]string{"1 false", "2 true", "3 false", "4 true", "5 false"}, lines(t, pool, noted)); diff != "" {
		t.Error(diff)
	}
	e := theirEvent(theirNumber, time.Now().Add(-time.Hour))
	e.Callback.Vars = map[string]json.RawMessage{"uid": json.RawMessage(theirNumber)}
	record(t, newRecorder(t, Config{Pool: pool}), e, false)
	if found := holders(t, pool, theirNumber); len(found) > 0 {
		t.Errorf("what was received since is in %v", found)
	}
}

// TestEraseAnswersOfFindings: what applications answered when they were told of a finding is erased, too.
func TestEraseAnswersOfFindings(t *testing.T) {
	t.Parallel()
	pool := dbtest.Pool(t, Open)
	e := theirEvent(`"`+theirName+`"`, at)
	record(t, newRecorder(t, Config{Pool: pool}), e, false)
	for _, id := range []uuid.UUID{e.ID, event.FindingID(e.ID, event.Disputed), event.FindingID(e.ID, event.Gone), uuid.New()} {
		executeArgs(t, pool, `INSERT INTO upcall.hook_attempts (endpoint_id, event_id, reason, attempt, at, delivered, took, answer)
			VALUES (gen_random_uuid(), $1, 'first', 1, now(), true, '1s', 'thanks')`, id)
	}
	erased, err := eraser(t, pool, nil).Erase(t.Context(), EraseRequest{Variable: "uid", Value: theirName})
	if err != nil || erased.Attempts != 3 {
		t.Errorf("erased %+v, %v; want 3 answers", erased, err)
	}
	wantRow(t, pool, 1, "SELECT count(*)::int FROM upcall.hook_attempts WHERE answer <> ''")
}
